"""How a new champion takes over online: with a share of the keys that grows, or beside the one before it for a while.

Batch scoring uses a champion at once. Online, where the spec asks for it, the one before goes on answering: for the rest of the
keys (`serving.canary`), or for all (`serving.shadow`). The promotion says so in its own transaction by a row `canary_started`,
which keeps share and end: a spec that is changed later changes nothing of it. From there each run of the watch goes one step
at most, and each step is a row, named by the promotion and the look, so that a run that is killed and run again takes it once:

- `canary_grown`: a look compared both and did not find the new one worse (`watch_continues`), so its share doubles. A shadow
  stays at 0.
- `canary_ended`: the time is over and a look has compared both, or the watch has ended: the new one answers for all. Without
  any comparison it goes on at its share until then.

A rollback ends it without a row, as the champion is another one. What is not known never makes the share larger: a run that
could not look, or found the new one worse and could not roll it back, leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evergreen import ledger
from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import CanaryEvidence, WatchEvidence
from evergreen.ledger.reasons import CanaryReason, DecisionKind, WatchReason
from evergreen.registry.rollout import newest_row, shared
from evergreen.registry.under_watch import WatchedChampion, champion_under_watch
from evergreen.spec import ModelSpec, format_duration
from evergreen.warehouse.connection import Connection


def begin(conn: Connection, model: ModelSpec, promotion: Decision) -> Decision | None:
    """Write how the version of a promotion begins online, in the promotion's transaction; None: it answers for all at once.

    Args:
        conn: the transaction, in which the promotion is the newest change of champion.
        model: its `serving` and `watch` sections.
        promotion: the row.
    """
    found = champion_under_watch(model, ledger.champions(conn, model.name))
    if found is None or found.promotion.id != promotion.id:
        return None
    row = first_row(model, found)
    return ledger.append(conn, row) if row is not None else None


def first_row(model: ModelSpec, found: WatchedChampion) -> Decision | None:
    """The row `canary_started` of a promotion; None where its version answers for all at once. A pure function.

    It does where the spec asks for neither, nothing is asked online, or no champion before it may predict, see
    `WatchedChampion.previous`.
    """
    serving, promotion = model.serving, found.promotion
    lasts = serving.canary.for_ if serving.canary else serving.shadow
    if lasts is None or not serving.online or found.previous is None:
        return None
    share, until = serving.canary.share if serving.canary else 0.0, promotion.effective_from + lasts
    new, old = f"version {promotion.version}", f"version {found.previous}"
    message = (
        f"{new} answers for {words.percent(share)} of the keys online, {old} for the rest. With each look of the watch that compares the two "
        f"and does not find it worse the share doubles, and after {words.when(until)} it answers for all if one has compared them"
        if share
        else f"{old} goes on answering online and {new} predicts beside it, until {words.when(until)} and a look of the watch has "
        "compared the two"
    )
    evidence = CanaryEvidence(
        message=message, promotion=promotion.id, version=promotion.version, former=found.previous, share=share,
        for_=format_duration(lasts), until=until,
    )  # fmt: skip
    return _row(promotion, CanaryReason.STARTED, "started", promotion.as_of, promotion.run_id, evidence)


def next_row(
    promotion: Decision, known: Sequence[Decision], as_of: datetime, run_id: str, *, watched: bool
) -> Decision | None:
    """The next step of the share, as of a time; None: it stays. A pure function.

    Args:
        promotion: the newest change of champion as of the time.
        known: the model's rows `canary`, `watched` and `watch_ended` as of the time, in any order.
        as_of: of the run.
        run_id: `dag_id/run_id`.
        watched: the spec still asks for a watch. Where it does not any more, no look will ever compare, and the time alone ends
            the canary: who switched the watch off said that nothing is to be waited for.

    Raises:
        TerminalError: a row is damaged, so that nobody knows the share or what a look found (DAMAGED_LEDGER).
    """
    rows = [row for row in known if row.kind is DecisionKind.CANARY]
    now, last = shared([promotion], rows, as_of), newest_row(promotion, rows)
    if now is None or now.former is None or now.until is None or last is None:
        return None
    looks = [row for row in known if row.kind is not DecisionKind.CANARY and _of(row) == promotion.id]
    compared = [row for row in looks if row.reason == WatchReason.CONTINUES.value]
    over = next((row for row in looks if row.kind is DecisionKind.WATCH_ENDED), None)
    newest = max(compared, key=_number, default=None)
    step = CanaryEvidence(
        promotion=promotion.id, version=now.champion, former=now.former, before=now.share, until=now.until,
        for_=CanaryEvidence.of(last).for_,
    )  # fmt: skip
    if as_of >= now.until and (over or newest or not watched):
        ending = over or newest
        told = f"version {now.champion} answers for all keys online, before for {words.percent(now.share)}: {_why(over, newest)}"
        ended = CanaryEvidence(message=told, share=1.0, seen=ending.id if ending else None)
        return _row(promotion, CanaryReason.ENDED, "ended", as_of, run_id, step.joined(ended))
    if newest is None or now.share <= 0 or _number(newest) <= _grown(promotion, rows):
        return None
    share, look = min(1.0, 2 * now.share), _number(newest)
    told = (
        f"look {look} of the watch did not find version {now.champion} worse than version {now.former}: it answers for "
        f"{words.percent(share)} of the keys online, before for {words.percent(now.share)}"
    )
    grown = CanaryEvidence(message=told, share=share, look=look, seen=newest.id)
    return _row(promotion, CanaryReason.GROWN, str(look), as_of, run_id, step.joined(grown))


def _why(over: Decision | None, newest: Decision | None) -> str:
    if over is not None:
        told = words.message(over.reason, over.evidence)
        return f"the watch has ended, {words.reason(over.reason)}{f' ({told})' if told else ''}"
    if newest is not None:
        return f"its time is over, and look {_number(newest)} of the watch did not find it worse"
    return "its time is over, and the watch was switched off"


def _of(look: Decision) -> int | None:
    """The promotion that a row of the watch is about."""
    watch = WatchEvidence.of(look).watch
    return watch.promotion if watch else None


def _number(look: Decision) -> int:
    """Which look a row of the watch is, counted from 1; 0: it does not say."""
    watch = WatchEvidence.of(look).watch
    return (watch.look or 0) if watch else 0


def _grown(promotion: Decision, rows: Sequence[Decision]) -> int:
    """The newest look by which the share has grown; 0: none."""
    own = (CanaryEvidence.of(row) for row in rows)
    return max((told.look or 0 for told in own if told.promotion == promotion.id), default=0)


def _row(
    promotion: Decision,
    reason: CanaryReason,
    step: str,
    as_of: datetime,
    run_id: str,
    evidence: CanaryEvidence,
) -> Decision:
    return Decision(
        as_of=as_of,
        subject=promotion.subject,
        kind=DecisionKind.CANARY,
        reason=reason.value,
        run_id=run_id,
        dedupe_key=f"canary:{promotion.subject.partition('/')[2]}:{promotion.id}:{step}",
        version=promotion.version,
        evidence=evidence,
    )
