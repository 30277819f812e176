"""When violations become a retrain request, and when they are held back.

`decide` is the rule, a pure function of judged windows and earlier decisions. `apply` reads both as of a time,
decides, and writes the answer to the ledger together with the e-mail it owes. Nothing is remembered elsewhere.

The rule: m of the last n windows in violation, and the newest. It is asked twice, since labels come late:

- of the last n windows that could be judged at all, by any effect (input drift, missing values, unknown
  categories, prediction drift, served error);
- of the last n windows whose served error could be judged, by the served error alone. Without this a drift of the
  concept would never count where labels take longer than a window: the newest window never has them.

m violations suffice where there are fewer than n windows yet: waiting for the n-th could not undo them. Only
values beyond a limit count, in windows with at least `monitoring.min_rows` rows. A column that could not be read has
no value and opens no request; neither does a window that is stale or insufficient. Those are data problems,
not drift: training again on broken data does not help, a person is told. They are not taken for healthy
either: they do not stand among the n windows, and while the newest window is one of them nothing is requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from evergreen import ledger, registry
from evergreen.ledger import Decision, Kind, TriggerReason
from evergreen.monitoring import incidents, judgement
from evergreen.monitoring.judgement import Judgement, Status, Violation, What
from evergreen.monitoring.reign import reign_of
from evergreen.spec import LARGER_IS_BETTER, ModelSpec, format_duration
from evergreen.warehouse.connection import connect

MOST_WINDOWS = 1000
LONGEST_SIGNATURE = 200
REASONS = {
    What.PERFORMANCE: TriggerReason.PERFORMANCE,
    What.DATA_DRIFT: TriggerReason.DATA_DRIFT,
    What.MISSING: TriggerReason.DATA_DRIFT,
    What.NEW_CATEGORY: TriggerReason.DATA_DRIFT,
    What.PREDICTION_DRIFT: TriggerReason.PREDICTION_DRIFT,
}
PRECEDENCE = (TriggerReason.PERFORMANCE, TriggerReason.DATA_DRIFT, TriggerReason.PREDICTION_DRIFT)
READ = (Kind.RETRAIN_REQUESTED, Kind.RETRAIN_SUPPRESSED, Kind.PROMOTED, Kind.REJECTED, Kind.ROLLED_BACK)


class Action(str, Enum):
    """What the policy does."""

    REQUEST = "request"
    SUPPRESS = "suppress"
    NONE = "none"


class Hold(str, Enum):
    """Why a drift that fulfils the rule opens no request."""

    ALREADY_OPEN = "already_open"
    ALREADY_ANSWERED = "already_answered"
    COOLDOWN = "cooldown"


class Quiet(str, Enum):
    """Why the rule is not fulfilled."""

    NO_WINDOWS = "no_windows"
    NEWEST_NOT_JUDGED = "newest_not_judged"
    NEWEST_WITHOUT_EFFECT = "newest_without_effect"
    TOO_FEW_VIOLATIONS = "too_few_violations"


@dataclass(frozen=True)
class Verdict:
    """What the policy says.

    Attributes:
        action: request, suppress or none.
        reason: a `TriggerReason` for a request, a `Hold` for a suppression, a `Quiet` for none.
        evidence: numbers and limits, as the ledger keeps them.
        signature: reason and columns of the drift; empty for none.
        hits: the judgements in violation that fulfil the rule, oldest first.
        covered_by: the earlier request that was about the same drift.
    """

    action: Action
    reason: TriggerReason | Hold | Quiet
    evidence: dict[str, Any] = field(default_factory=dict)
    signature: str = ""
    hits: tuple[Judgement, ...] = ()
    covered_by: Decision | None = None


def decide(
    model: ModelSpec, judgements: Sequence[Judgement], requests: Sequence[Decision], as_of: datetime
) -> Verdict:
    """Decide on a retraining.

    Held back are, in this order: a drift while a request is open (`already_open`); a drift that a training has
    answered (`already_answered`); a drift within `trigger.cooldown` of the last request (`cooldown`).

    A drift is a set of causes, kind and column, and has been answered when every cause of the newest window
    was among those of one earlier request for this champion version to which a promotion or rejection
    answered. A cause more makes it a new drift. Fewer causes do not: part of a drift is no news. A promotion
    makes a new version, for which everything counts afresh.

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        requests: retrain requests, promotions, rejections and rollbacks of the model, in any order.
        as_of: the time for which the decision is taken; the cool-down is measured between as-of times.
    """
    if not judgements:
        return Verdict(Action.NONE, Quiet.NO_WINDOWS)
    if judgements[-1].status in (Status.STALE, Status.INSUFFICIENT):
        return Verdict(Action.NONE, Quiet.NEWEST_NOT_JUDGED)
    n = model.monitoring.trigger.n
    judged = [j for j in judgements if j.status in (Status.OK, Status.VIOLATION)][-n:]
    with_labels = [j for j in judgements if _performance_judged(j)][-n:]
    any_effect = _fulfilled(model, judged, tuple(REASONS))
    error = _fulfilled(model, with_labels, (What.PERFORMANCE,))
    hits = {j.window_start: j for j in (*any_effect, *error)}
    if not hits:
        newest = bool(effects(model, judged[-1])) if judged else False
        return Verdict(Action.NONE, Quiet.TOO_FEW_VIOLATIONS if newest else Quiet.NEWEST_WITHOUT_EFFECT)
    found = tuple(hits[start] for start in sorted(hits))
    now = _causes(model, any_effect[-1:], tuple(REASONS)) | _causes(model, error[-1:], (What.PERFORMANCE,))
    return _held(model, found, now, requests, as_of)


def effects(model: ModelSpec, judged: Judgement, kinds: Sequence[What] = tuple(REASONS)) -> list[Violation]:
    """The violations of a window that a retraining could answer: a value beyond its limit, on enough rows."""
    if judged.status is not Status.VIOLATION or judged.rows < model.monitoring.min_rows:
        return []
    unreadable = {v.column for v in judged.violations if v.kind is What.UNREADABLE}
    return [v for v in judged.violations if v.kind in kinds and v.column not in unreadable and _beyond(v)]


def apply(model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Decide on the newest windows and write the decision with the e-mails it owes, in one transaction.

    Applying again on the same judgements changes nothing. Windows that could not be judged, and columns that
    could not be read, are told whether or not there is a drift.

    Args:
        model: whose champion was judged.
        as_of: the as-of time of the run; later judgements do not count.
        run_id: `dag_id/run_id`.

    Returns:
        The request or the suppression, as it stands in the ledger; None if the rule is not fulfilled.

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        ledger.lock(conn, model.name)
        champion = registry.champion(conn, model.name, repair=False)
        if champion is None:
            return None
        judgements = judgement.newest(
            conn,
            model.name,
            champion.version,
            ends_after=reign_of(conn, model, champion),
            as_of=as_of,
            limit=MOST_WINDOWS,
        )
        incidents.tell_data_problems(conn, model, judgements, as_of, run_id)
        verdict = decide(model, judgements, ledger.find(conn, ledger.model_subject(model.name), READ), as_of)
        if verdict.action is Action.NONE:
            return None
        # The judgement that was written last is the news; with late labels it need not be of the newest window.
        news = max(judgements, key=lambda j: j.id or 0)
        key = f"policy:{model.name}:{champion.version}:{news.window_start.isoformat()}:{news.revision}"
        asked = ledger.find(conn, dedupe_key=key)
        if asked:
            return asked[0]
        requested = verdict.action is Action.REQUEST
        covering = verdict.covered_by.evidence.get("incident") if verdict.covered_by else None
        incident = covering or incidents.drift(model, champion.version, verdict.signature)
        decision = ledger.append(
            conn,
            Decision(
                as_of=as_of,
                subject=ledger.model_subject(model.name),
                kind=Kind.RETRAIN_REQUESTED if requested else Kind.RETRAIN_SUPPRESSED,
                reason=verdict.reason.value,
                run_id=run_id,
                dedupe_key=key if requested else f"{key}:{verdict.reason.value}",
                evidence={**verdict.evidence, "incident": incident},
                version=champion.version,
            ),
        )
        incidents.tell_drift(conn, model, decision, incident, verdict.hits)
        return decision


def _fulfilled(model: ModelSpec, last: Sequence[Judgement], kinds: Sequence[What]) -> list[Judgement]:
    """The windows in violation among the last n, if they are m or more and the newest is one of them."""
    hits = [j for j in last if effects(model, j, kinds)]
    enough = len(hits) >= model.monitoring.trigger.m
    return hits if enough and hits[-1] is last[-1] else []


def _held(
    model: ModelSpec,
    hits: tuple[Judgement, ...],
    now: set[str],
    requests: Sequence[Decision],
    as_of: datetime,
) -> Verdict:
    trigger, version = model.monitoring.trigger, hits[-1].version
    reasons = [r for r in PRECEDENCE if any(REASONS[v.kind] is r for j in hits for v in effects(model, j))]
    answered = {i for d in requests for i in d.answers}
    asked = sorted(
        (d for d in requests if d.kind is Kind.RETRAIN_REQUESTED), key=lambda d: (d.as_of, d.id or 0)
    )
    same = [d for d in asked if d.version == version and now <= set(d.evidence.get("drifted", ()))]
    open_ones = [d for d in asked if d.id not in answered]
    settled = [d for d in same if d.id in answered]
    recent = [d for d in asked if d.as_of <= as_of and as_of - d.as_of < trigger.cooldown]
    evidence: dict[str, Any] = {
        "since": hits[0].window_start.isoformat(),
        "reasons": [r.value for r in reasons],
        "causes": sorted(now),
        "drifted": sorted(_causes(model, hits, tuple(REASONS))),
        "rule": f"{len(hits)} windows in violation, {trigger.m} of the last {trigger.n} and the newest are needed",
        "judgements": [j.id for j in hits if j.id is not None],
        "windows": [_window(model, j) for j in hits],
    }
    columns = "+".join(sorted({c.partition(":")[2] for c in now}))
    signature = f"{reasons[0].value}:{columns}"
    if len(signature) > LONGEST_SIGNATURE:
        signature = f"{reasons[0].value}:{hashlib.sha256(columns.encode()).hexdigest()[:32]}"
    evidence["signature"] = signature
    if open_ones:
        covering = next((d for d in reversed(open_ones) if d in same), None)
        hold, request = Hold.ALREADY_OPEN, covering or open_ones[-1]
        message = f"request {request.id} of {request.as_of:%Y-%m-%d %H:%M} UTC is still open, its training answers this too"
    elif settled:
        hold, request = Hold.ALREADY_ANSWERED, settled[-1]
        covering = request
        message = (
            f"a training answered request {request.id} of {request.as_of:%Y-%m-%d %H:%M} UTC for the same drift, "
            f"and version {version} stayed champion"
        )
    elif recent:
        hold, request, covering = Hold.COOLDOWN, recent[-1], None
        message = (
            f"the last request, {request.id}, was {format_duration(as_of - request.as_of)} before; "
            f"the cool-down is {format_duration(trigger.cooldown)}, until {request.as_of + trigger.cooldown:%Y-%m-%d %H:%M} UTC"
        )
    else:
        return Verdict(Action.REQUEST, reasons[0], evidence, signature, hits)
    evidence |= {"message": message, "request": request.id}
    return Verdict(Action.SUPPRESS, hold, evidence, signature, hits, covering)


def _causes(model: ModelSpec, judgements: Sequence[Judgement], kinds: Sequence[What]) -> set[str]:
    return {f"{v.kind.value}:{v.column}" for j in judgements for v in effects(model, j, kinds)}


def _beyond(violation: Violation) -> bool:
    value, limit = violation.value, violation.limit
    if value is None or limit is None:
        return False
    if violation.kind is What.PERFORMANCE:
        return value < limit if violation.statistic in LARGER_IS_BETTER else value > limit
    return value >= limit


def _performance_judged(judged: Judgement) -> bool:
    return any(m.state == "judged" for m in judged.metrics.values())


def _window(model: ModelSpec, judged: Judgement) -> dict[str, Any]:
    return {
        "start": judged.window_start.isoformat(),
        "end": judged.window_end.isoformat(),
        "revision": judged.revision,
        "rows": judged.rows,
        "effects": [
            {
                "kind": v.kind.value,
                "column": v.column,
                "statistic": v.statistic,
                "value": v.value,
                "limit": v.limit,
            }
            for v in effects(model, judged)
        ],
        "report": judged.report,
        "mlflow_run": judged.mlflow_run,
    }
