"""Since when a champion answers for what is watched."""

from __future__ import annotations

from datetime import datetime

from evergreen import ledger
from evergreen.registry import Champion
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection


def reign_of(conn: Connection, model: ModelSpec, champion: Champion, as_of: datetime) -> datetime:
    """The later of the champion's training cut-off and the as-of time of the decision that put it into office.

    After a rollback the second counts: the windows in between were served by the version that was taken back.
    Decisions as of a time after `as_of` do not count; `champion` is the one of that time.
    """
    return max(champion.as_of, ledger.champions(conn, model.name, as_of)[0].as_of)
