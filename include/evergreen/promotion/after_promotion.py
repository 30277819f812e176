"""The watch after a promotion: is the new champion worse than the one before it, on rows that both have not learnt?

The previous champion goes on predicting in the shadow (`scoring.shadow`). Rows since the champion's last label that
both have predicted, and whose label is mature, are compared as the gate compares: paired, by blocks of time. A new
champion that is surely worse by more than `watch.margin` is rolled back, at once and by itself.

The monitor runs often, and who looks often enough sees everything once. So there are LOOKS looks at most in a period,
each with its share of the doubt that `watch.confidence` leaves (Bonferroni): the period until the last labels are
mature is cut into equal parts, and in each the first run that finds enough rows looks; one more look comes at the end.
Each look is a row of the ledger, so a second run of the same part does not look again.

With each look that compares, and with the end of the watch, the champion may answer for more keys online: see `canary`.

The same steps look live (`live_watch`) and in a replay: what they read and write is behind a `WatchStore`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from evergreen.errors import TerminalError
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.evidence import Blocked, Look, RollbackEvidence, SettledEvidence, WatchEvidence
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.metrics import metric_values, paired_bootstrap
from evergreen.metrics.paired_bootstrap import Improvement
from evergreen.promotion import canary, superseded_watches
from evergreen.registry import Champion
from evergreen.registry.under_watch import WatchedChampion, champion_under_watch
from evergreen.spec import ModelSpec, metric_name

LOOKS = 7
# A shadow that stopped early has seen only the first days; what it did not see may be where the new champion fails.
LEAST_COVERAGE = 0.5
# Those with the smallest hashes of their keys, where there are more; 16 MB of numbers.
MOST_ROWS = 500_000
SCHEMA = pa.schema([
    ("_time", pa.timestamp("us", "UTC")), ("_label", pa.float64()), ("_new", pa.float64()), ("_old", pa.float64()),
])  # fmt: skip


@dataclass(frozen=True)
class WatchLook:
    """One look: the metric of both champions on the same rows, and how sure the difference is.

    `problem` says why nothing can be told; empty where it can. `comparable` is False where one of the two is missing.
    """

    rows: int
    new: float | None = None
    previous: float | None = None
    improvement: Improvement | None = None
    problem: str = ""
    comparable: bool = True


class WatchStore(Protocol):
    """What the watch reads and writes, live or replayed, as of the run's time."""

    def changes(self) -> list[Decision]:
        """Every change of champion, newest first."""

    def ended(self) -> set[int | None]:
        """Ids of the promotions whose watch has its last row."""

    def taken(self, key: str) -> Decision | None:
        """The decision of a key; None where there is none yet."""

    def champion(self) -> Champion:
        """The champion."""

    def look(self, champion: Champion, found: WatchedChampion) -> tuple[WatchLook, float]:
        """What is seen of both champions, and the share of the rows that the champion scored which the one before predicted too."""

    def takeover(self, promotion: Decision) -> list[Decision]:
        """The rows `canary`, `watched` and `watch_ended` of the model, in no order; none where the promotion is not the newest of now."""

    def append(self, decision: Decision) -> Decision:
        """Keep a decision; returns it with its id."""

    def roll_back(
        self, champion: Champion, found: WatchedChampion, key: str, evidence: RollbackEvidence
    ) -> Decision | None:
        """Return to the champion before; None where the champion is another one by now."""

    def again(self, done: Decision) -> Decision | None:
        """What a rollback of the watch means to a run that finds it done; None: nothing."""


def look_if_due(store: WatchStore, model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Look at the newest promotion as of a time, once for each part of its watch period, and act on it.

    The ledger gets a row for each look: `watched` where the watch goes on, `rolled_back`, or at the end `watch_ended`,
    which says whether it passed, too little was known, or nothing could be compared. With fewer rows than
    `watch.min_rows` there is no look and no row before the end. A watch that another change of champion ended gets its
    last row too, `superseded`. Then the champion's share of the keys online follows the looks; a rollback that fails leaves it.

    Args:
        store: of the model, as of that time.
        model: whose champion is watched.
        as_of: of the run: rows, labels, predictions and decisions of a later time do not count.
        run_id: `dag_id/run_id`.

    Returns:
        The row of this look, by whichever run it was taken; None where no look is due or possible, or the look of this
        part was taken as of a later time.
    """
    changes = store.changes()
    row = _look(store, model, changes, as_of, run_id)
    if changes and changes[0].kind is DecisionKind.PROMOTED:
        known = store.takeover(changes[0])
        share = canary.next_row(changes[0], known, as_of, run_id, watched=model.watch.period is not None)
        if share is not None:
            store.append(share)
    return row


def _look(
    store: WatchStore, model: ModelSpec, changes: list[Decision], as_of: datetime, run_id: str
) -> Decision | None:
    for row in superseded_watches.closing_rows(model, changes, store.ended(), run_id):
        store.append(row)
    if changes and changes[0].reason == WatchReason.WORSE.value:
        return store.again(changes[0])
    found = champion_under_watch(model, changes)
    if found is None:
        return None
    champion, ended = store.champion(), as_of > found.judged_until
    look = LOOKS if ended else part(found, as_of)
    key = f"watch:{model.name}:{found.promotion.id}:{look}"
    if taken := store.taken(key):
        return taken if taken.as_of <= as_of else None
    if found.previous is None:
        seen, coverage = WatchLook(0, problem=found.alone, comparable=False), 0.0
    else:
        seen, coverage = store.look(champion, found)
    reason, seen = concluded(model, found, champion, seen, coverage, ended)
    if reason is None:
        return None
    evidence = _evidence(model, found, champion, seen, coverage, look, as_of)
    if reason is WatchReason.WORSE:
        told = RollbackEvidence(
            message=evidence.message, watch=evidence.watch, blocked=blocked(champion.version, found.promotion)
        )
        return store.roll_back(champion, found, key, told)
    return store.append(
        Decision(
            as_of=as_of,
            subject=model_subject(model.name),
            kind=DecisionKind.WATCH_ENDED if ended else DecisionKind.WATCHED,
            reason=reason.value,
            run_id=run_id,
            dedupe_key=key,
            version=champion.version,
            evidence=evidence,
        )
    )


def blocked(version: str, promotion: Decision) -> Blocked:
    """The challenger that is not promoted again after a rollback by the watch, from the row of its promotion."""
    made = SettledEvidence.of(promotion)
    return Blocked(
        version=version,
        fingerprint=made.fingerprint,
        training_hash=made.training_hash,
        spec_hash=made.spec_hash,
    )


def part(found: WatchedChampion, as_of: datetime) -> int:
    """In which of the equal parts of the period a time lies, counted from 1; an earlier time counts to the first."""
    began = found.promotion.effective_from
    number = 1 + (as_of - began) * (LOOKS - 1) // (found.judged_until - began)
    return max(1, min(number, LOOKS - 1))


def compared(model: ModelSpec, rows: pa.Table) -> WatchLook:
    """Compare both champions on the same rows (`SCHEMA`), with the doubt of one look; a pure function."""
    if rows.num_rows < model.watch.min_rows:
        return WatchLook(
            rows.num_rows,
            problem=f"{rows.num_rows} rows have both predictions and a mature label, {model.watch.min_rows} are needed",
        )
    times = rows["_time"].cast(pa.int64()).to_numpy()
    y, new, old = (rows[name].to_numpy() for name in ("_label", "_new", "_old"))
    metric = model.gate_metric
    try:
        mine, before = (metric_values.compute(model.task, y, p, model.cut).get(metric) for p in (new, old))
    except TerminalError as error:
        return WatchLook(len(y), problem=str(error))
    share = (1.0 - model.watch.confidence) / LOOKS
    how = paired_bootstrap.improvement(
        paired_bootstrap.Paired(metric, times, y, new, old, model.cut),
        confidence=1.0 - share,
        seed=model.training.seed,
    )
    problem = "" if how.high is not None else "too few moments, or one class only: the rows give no interval"
    return WatchLook(len(y), mine, before, how, problem)


def unseen(found: WatchedChampion, why: str = "") -> WatchLook:
    """The look where the champion before has predicted nothing in the shadow."""
    problem = f"version {found.previous}, the champion before, has predicted no row in the shadow{why}"
    return WatchLook(0, problem=problem, comparable=False)


def concluded(
    model: ModelSpec,
    found: WatchedChampion,
    champion: Champion,
    seen: WatchLook,
    coverage: float,
    ended: bool,
) -> tuple[WatchReason | None, WatchLook]:
    """What a look says (None: nothing yet); a shadow of too few rows cannot let a champion pass. A pure function."""
    reason = _reason(model, seen, ended)
    if reason is not WatchReason.PASSED or coverage >= LEAST_COVERAGE:
        return reason, seen
    problem = (
        f"version {found.previous} has predicted {coverage:.0%} of the rows that version {champion.version} scored in the "
        f"watch period, {LEAST_COVERAGE:.0%} are needed; the log of score__{model.name} says why it stopped"
    )
    return WatchReason.INCONCLUSIVE, replace(seen, problem=problem)


def _reason(model: ModelSpec, seen: WatchLook, ended: bool) -> WatchReason | None:
    """What a look says; None where it says nothing yet.

    What seems worse by more than the margin, but not surely, goes on to be watched and has not passed at the end.
    """
    how = seen.improvement
    if how is None or how.high is None or how.point is None:
        if not ended:
            return None
        return WatchReason.INCONCLUSIVE if seen.comparable else WatchReason.CANNOT_COMPARE
    if how.high < -model.watch.margin:
        return WatchReason.WORSE
    if not ended:
        return WatchReason.CONTINUES
    return WatchReason.PASSED if how.point >= -model.watch.margin else WatchReason.INCONCLUSIVE


def _evidence(
    model: ModelSpec,
    found: WatchedChampion,
    champion: Champion,
    seen: WatchLook,
    coverage: float,
    look: int,
    as_of: datetime,
) -> WatchEvidence:
    how, watching = seen.improvement, model.watch
    return WatchEvidence(
        message=_message(model, found, champion, seen),
        watch=Look(
            metric=model.gate_metric,
            version=champion.version,
            value=seen.new,
            previous=found.previous,
            previous_value=seen.previous,
            improvement=how.point if how else None,
            at_least=how.low if how else None,
            at_most=how.high if how else None,
            margin=watching.margin,
            confidence=watching.confidence,
            rows=seen.rows,
            coverage=coverage,
            blocks=how.blocks if how else 0,
            look=look,
            looks=LOOKS,
            since=champion.trained_until,
            as_of=as_of,
            until=found.judged_until,
            promotion=found.promotion.id,
        ),
    )


def _message(model: ModelSpec, found: WatchedChampion, champion: Champion, seen: WatchLook) -> str:
    how, watching = seen.improvement, model.watch
    if seen.problem or how is None or how.high is None or how.point is None:
        return seen.problem
    surely = (
        f"worse by {-how.point:.1%}, with {watching.confidence:.0%} confidence over {LOOKS} looks by more than {-how.high:.1%}; "
        f"allowed are {watching.margin:.1%}"
        if how.high < -watching.margin
        else f"the improvement is {how.point:.1%}, at most {how.high:.1%}"
    )
    return (
        f"{metric_name(model.gate_metric)} of version {champion.version} is {_number(seen.new)}, of version {found.previous} "
        f"{_number(seen.previous)}, on {seen.rows} rows since {champion.trained_until:%Y-%m-%d %H:%M} UTC: {surely}"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
