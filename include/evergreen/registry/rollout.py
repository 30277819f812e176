"""Which versions answer online, and for which share of the keys the champion does: read from the ledger.

Who is champion says the ledger, at once and for every batch. Online a new champion may take over by and by: with
`serving.canary` it answers for a share of the keys that grows, with `serving.shadow` for none until its time is over. The
rows of the kind `canary` say which share, see `promotion.canary` for when they are written. The spec says nothing here: what
was begun goes on as it was begun, and a promotion without such a row has the champion answer for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import CanaryEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Rollout:
    """Who answers online.

    Attributes:
        champion: its version.
        former: the version that answers for the rest of the keys; None: the champion answers for all.
        share: of the keys, that the champion answers for; 0: for none yet.
        since: when this share came into force, in as-of terms (aware); None: the promotion is not in force yet.
        until: when `for` is over, in as-of terms (aware); None where the champion answers for all. It is not over by itself
            then: a row ends it.
    """

    champion: str
    former: str | None
    share: float
    since: datetime | None
    until: datetime | None


def rollout(conn: Connection, model: ModelSpec, as_of: datetime) -> Rollout | None:
    """Who answers online as of a time; None before the first promotion.

    Args:
        conn: the warehouse.
        model: its name.
        as_of: decisions as of a later time do not count; aware.

    Raises:
        TerminalError: a row is damaged, so that nobody knows the share (DAMAGED_LEDGER). Who serves goes on as before.
    """
    changes = ledger.champions(conn, model.name, as_of)
    return shared(changes, canary_rows(conn, model.name, as_of), as_of)


def canary_rows(conn: Connection, model: str, as_of: datetime) -> list[Decision]:
    """The rows of the kind `canary` of a model as of a time, in no order."""
    return ledger.find(conn, ledger.model_subject(model), (DecisionKind.CANARY,), as_of=as_of)


def shared(changes: Sequence[Decision], rows: Sequence[Decision], as_of: datetime) -> Rollout | None:
    """The same from what is known; a pure function.

    Args:
        changes: `ledger.champions` as of the time, newest first.
        rows: of the kind `canary` as of the time, in any order; those of other promotions do not count.
        as_of: the time.

    Raises:
        TerminalError: a row is damaged (DAMAGED_LEDGER).
    """
    if not changes or changes[0].version is None:
        return None
    newest, champion = changes[0], changes[0].version
    begun = newest.effective_from
    last = newest_row(newest, rows)
    if last is None:
        return Rollout(champion, None, 1.0, begun, None)
    told = CanaryEvidence.of(last)
    if told.former is None or told.share is None or told.until is None:
        raise TerminalError(
            f"decision {last.id} of the ledger ({last.kind.value}) does not say which share of the keys version {champion} "
            "answers for, so nothing is changed. The row was changed by hand; restore it from a backup of the warehouse",
            ErrorReason.DAMAGED_LEDGER,
        )
    if told.share >= 1:
        return Rollout(champion, None, 1.0, last.as_of, None)
    if as_of < begun:
        return Rollout(champion, told.former, 0.0, None, told.until)
    return Rollout(champion, told.former, told.share, max(begun, last.as_of), told.until)


def newest_row(promotion: Decision, rows: Sequence[Decision]) -> Decision | None:
    """The row that says the share of a promotion's version: the one as of the latest time; None where it never shared.

    By the as-of time and not by the order of writing, as a run as of the past may write later.

    Raises:
        TerminalError: a row is damaged (DAMAGED_LEDGER).
    """
    own = [
        row
        for row in rows
        if (row.id or 0) > (promotion.id or 0) and CanaryEvidence.of(row).promotion == promotion.id
    ]
    return max(own, key=lambda row: (row.as_of, row.id or 0), default=None)
