"""Closes the watches that another change of champion ended, so that each watch has a last row that says how it ended.

A promotion or a rollback by hand may come while the champion before it is still watched. There is nothing left to
compare then: the next run of the monitor writes that the watch was superseded, and by what. A rollback by the watch
itself is such a row already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import pairwise

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.evidence import Look, WatchEvidence
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.registry.under_watch import champion_under_watch
from evergreen.spec import ModelSpec

SUPERSEDED = WatchReason.SUPERSEDED.value


def ended(ends: Sequence[Decision]) -> set[int | None]:
    """Ids of the promotions to whose watch rows of the ledger put an end."""
    looks = (WatchEvidence.of(row).watch for row in ends)
    return {look.promotion if look else None for look in looks}


def closing_rows(
    model: ModelSpec,
    changes: Sequence[Decision],
    ended: Collection[int | None],
    run_id: str,
) -> list[Decision]:
    """The `watch_ended` row of each watch that a later change of champion ended, newest first; a pure function.

    It goes back to the newest promotion whose watch has its last row: what lies before was closed by an earlier run. A
    watch whose period was over before the change ended by time, and is none of these; nor is that of a champion which had
    none before it, as nothing was compared.

    Args:
        model: its `watch` section and the label's delay say how long a watch lasts.
        changes: `ledger.champions` as of a time, newest first.
        ended: ids of the promotions whose watch has its last row.
        run_id: `dag_id/run_id`.
    """
    found_rows = []
    for number, (by, promotion) in enumerate(pairwise(changes)):
        if promotion.id in ended:
            break
        found = champion_under_watch(model, changes[number + 1 :])
        if (
            found is None
            or found.previous is None
            or by.reason == WatchReason.WORSE.value
            or by.effective_from > found.judged_until
        ):
            continue
        found_rows.append(_row(model, promotion, by, found.judged_until, run_id))
    return found_rows


def _row(model: ModelSpec, promotion: Decision, by: Decision, until: datetime, run_id: str) -> Decision:
    how = "was promoted" if by.kind is DecisionKind.PROMOTED else "was brought back by hand"
    return Decision(
        as_of=by.as_of,
        subject=ledger.model_subject(model.name),
        kind=DecisionKind.WATCH_ENDED,
        reason=SUPERSEDED,
        run_id=run_id,
        dedupe_key=f"watch:{model.name}:{promotion.id}:{SUPERSEDED}",
        version=promotion.version,
        evidence=WatchEvidence(
            message=f"version {by.version} {how} (decision {by.id}) as of {by.as_of:%Y-%m-%d %H:%M} UTC, before the watch of "
            f"version {promotion.version} had come to its end at {until:%Y-%m-%d %H:%M}",
            watch=Look(
                version=promotion.version,
                promotion=promotion.id,
                until=until,
                by=by.id,
                by_version=by.version,
            ),
        ),
    )
