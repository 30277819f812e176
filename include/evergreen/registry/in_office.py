"""Since when a champion answers for what is watched."""

from __future__ import annotations

from datetime import datetime

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.registry import Champion
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection


def in_office_since(conn: Connection, model: ModelSpec, champion: Champion, as_of: datetime) -> datetime:
    """When its reign began, see `begun`; decisions as of a time after `as_of` do not count, `champion` is of that time."""
    return begun(champion, ledger.champions(conn, model.name, as_of)[0])


def begun(champion: Champion, change: Decision) -> datetime:
    """The later of the champion's training cut-off and the time from which the change that put it into office is in force.

    After a rollback, or a promotion that waited, the second counts: the windows in between were served by another
    version.
    """
    return max(champion.as_of, change.effective_from)
