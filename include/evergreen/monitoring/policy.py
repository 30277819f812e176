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
from evergreen.monitoring import episode, incidents, judgement
from evergreen.monitoring.effects import REASONS, causes, effects
from evergreen.monitoring.judgement import Judgement, Status, What
from evergreen.monitoring.reign import reign_of
from evergreen.spec import ModelSpec, format_duration
from evergreen.warehouse.connection import connect

__all__ = [
    "Action",
    "Hold",
    "Quiet",
    "Verdict",
    "apply",
    "decide",
    "effects",
]

MOST_WINDOWS = 1000
LONGEST_SIGNATURE = 200
MOST_REQUESTS = 2
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
        covered_by: the earlier decision that was about the same drift; its e-mail has told of this one too.
        since: start of the first window of the unbroken episode of drift; None for none.
        gave_up: the answered requests of a drift that retraining did not help; empty otherwise.
    """

    action: Action
    reason: TriggerReason | Hold | Quiet
    evidence: dict[str, Any] = field(default_factory=dict)
    signature: str = ""
    hits: tuple[Judgement, ...] = ()
    covered_by: Decision | None = None
    since: datetime | None = None
    gave_up: tuple[Decision, ...] = ()


def decide(
    model: ModelSpec, judgements: Sequence[Judgement], requests: Sequence[Decision], as_of: datetime
) -> Verdict:
    """Decide on a retraining.

    Held back are, in this order: a drift while a request is open (`already_open`); a drift that trainings have
    answered (`already_answered`); a drift within `trigger.cooldown` of the last request (`cooldown`).

    A drift is a set of causes, kind and column, and a request was about it when every cause of the newest window was
    among the request's, for this champion version, in the same unbroken episode. A cause more makes it a new drift.
    Fewer causes do not: part of a drift is no news. A window judged `ok` between the request's newest window and the
    first one of now makes it a new drift. A promotion makes a new version, for which everything counts afresh.

    A request is answered when a training was promoted for it (and later taken back), or rejected by a gate that could
    tell: it was not better than the champion, or worse than the baseline. A rejection for another reason closes the
    request, but the drift may be asked for again after the cool-down. So may a drift that was answered once, when
    windows newer than the request's are in violation: they may hold enough of the new world, of which the first
    challenger had seen little. Answered twice it stays suppressed, and a person is told once (`gave_up`).

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        requests: retrain requests, suppressions, promotions, rejections and rollbacks of the model, in any order;
            those with a later as-of time than `as_of` do not count.
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
    now = causes(model, any_effect[-1:]) | causes(model, error[-1:], (What.PERFORMANCE,))
    known = [d for d in requests if d.as_of <= as_of]
    return _held(model, judgements, found, now, known, as_of)


def apply(model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Decide on the newest windows and write the decision with the e-mails it owes, in one transaction.

    Applying again on the same judgements changes nothing, unless a training answered their request without being
    able to tell and the cool-down has passed: then they are asked for again. Windows that could not be judged, and columns that
    could not be read, are told whether or not there is a drift.

    Args:
        model: whose champion was judged.
        as_of: the as-of time of the run; judgements and decisions of a later one do not count.
        run_id: `dag_id/run_id`.

    Returns:
        The request or the suppression, as it stands in the ledger; None if the rule is not fulfilled.

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        ledger.lock(conn, model.name)
        champion = registry.champion(conn, model.name, repair=False, as_of=as_of)
        if champion is None:
            return None
        judgements = judgement.newest(
            conn,
            model.name,
            champion.version,
            ends_after=reign_of(conn, model, champion, as_of),
            as_of=as_of,
            limit=MOST_WINDOWS,
        )
        incidents.tell_data_problems(conn, model, judgements, as_of, run_id)
        earlier = ledger.find(conn, ledger.model_subject(model.name), READ)
        verdict = decide(model, judgements, earlier, as_of)
        if verdict.action is Action.NONE:
            return None
        # The judgement that was written last is the news; with late labels it need not be of the newest window.
        news = max(judgements, key=lambda j: j.id or 0)
        key = f"policy:{model.name}:{champion.version}:{news.window_start.isoformat()}:{news.revision}"
        requested = verdict.action is Action.REQUEST
        asked = [d for d in earlier if d.dedupe_key == key or d.dedupe_key.startswith(f"{key}:again:")]
        if asked and not (requested and verdict.covered_by == asked[0]):
            return asked[0]
        if asked:
            key = f"{key}:again:{asked[0].id}"
        incident = _incident(model, champion.version, verdict)
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
        more = {"gave_up": True} if verdict.gave_up else {}
        incidents.tell_drift(conn, model, decision, incident, verdict.hits, more)
        return decision


def _fulfilled(model: ModelSpec, last: Sequence[Judgement], kinds: Sequence[What]) -> list[Judgement]:
    """The windows in violation among the last n, if they are m or more and the newest is one of them."""
    hits = [j for j in last if effects(model, j, kinds)]
    enough = len(hits) >= model.monitoring.trigger.m
    return hits if enough and hits[-1] is last[-1] else []


def _held(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    hits: tuple[Judgement, ...],
    now: set[str],
    decisions: Sequence[Decision],
    as_of: datetime,
) -> Verdict:
    trigger, version = model.monitoring.trigger, hits[-1].version
    reasons = [r for r in PRECEDENCE if any(REASONS[v.kind] is r for j in hits for v in effects(model, j))]
    since = episode.since(model, judgements, hits[0])
    asked = episode.asked(decisions, judgements, version, now, since)
    recent = [d for d in asked.requests if as_of - d.as_of < trigger.cooldown]
    before = asked.episode[-1] if asked.episode else None
    signature = _signature(reasons[0], now)
    evidence: dict[str, Any] = {
        "since": since.isoformat(),
        "reasons": [r.value for r in reasons],
        "causes": sorted(now),
        "drifted": sorted(causes(model, hits)),
        "rule": f"{len(hits)} windows in violation, {trigger.m} of the last {trigger.n} and the newest are needed",
        "judgements": [j.id for j in hits if j.id is not None],
        "windows": [_window(model, j) for j in hits],
        "signature": signature,
    }

    def suppress(
        hold: Hold,
        request: Decision,
        covering: Decision | None,
        message: str,
        gave_up: Sequence[Decision] = (),
    ) -> Verdict:
        told = {**evidence, "message": message, "request": request.id}
        return Verdict(Action.SUPPRESS, hold, told, signature, hits, covering, since, tuple(gave_up))

    if asked.open:
        covering = next((d for d in reversed(asked.open) if d in asked.same), None)
        request = covering or asked.open[-1]
        message = f"request {_named(request)} is still open, its training answers this too"
        return suppress(Hold.ALREADY_OPEN, request, covering, message)
    if len(asked.settled) >= MOST_REQUESTS:
        message = (
            f"trainings answered requests {' and '.join(map(_named, asked.settled[-MOST_REQUESTS:]))} for the same "
            f"drift, and version {version} stayed champion: retraining on more of the same data did not help twice, "
            "a person must look at what changed"
        )
        return suppress(Hold.ALREADY_ANSWERED, asked.settled[-1], None, message, asked.settled)
    if asked.settled and not any(j.window_end > episode.reach(asked.settled[-1]) for j in hits):
        request = asked.settled[-1]
        message = (
            f"a training answered request {_named(request)} for the same drift, and version {version} stayed "
            "champion; it is asked for once more when newer windows are in violation"
        )
        return suppress(Hold.ALREADY_ANSWERED, request, request, message)
    if recent:
        request = recent[-1]
        message = (
            f"the last request, {request.id}, was {format_duration(as_of - request.as_of)} before; "
            f"the cool-down is {format_duration(trigger.cooldown)}, until {request.as_of + trigger.cooldown:%Y-%m-%d %H:%M} UTC"
        )
        return suppress(Hold.COOLDOWN, request, before or _told(decisions, asked, now, request), message)
    if asked.episode:
        evidence["asked_before"] = [d.id for d in asked.episode]
    return Verdict(Action.REQUEST, reasons[0], evidence, signature, hits, before, since)


def _told(
    decisions: Sequence[Decision], asked: episode.Asked, now: set[str], request: Decision
) -> Decision | None:
    """The suppression of this cool-down that told of the same causes: a drift that comes and goes is one mail.

    Suppressions that an earlier request's mail covered told nothing of a later episode.
    """
    covered = {d.evidence.get("incident") for d in asked.same}
    found = [
        d
        for d in decisions
        if (d.kind, d.reason) == (Kind.RETRAIN_SUPPRESSED, Hold.COOLDOWN.value)
        and d.evidence.get("request") == request.id
        and now <= set(d.evidence.get("drifted", ()))
        and d.evidence.get("incident") not in covered
    ]
    return max(found, key=lambda d: (d.as_of, d.id or 0), default=None)


def _incident(model: ModelSpec, version: str, verdict: Verdict) -> str:
    if verdict.gave_up:
        return incidents.gave_up(model, version, verdict.gave_up[0])
    told = verdict.covered_by.evidence.get("incident") if verdict.covered_by else None
    begin = verdict.since or verdict.hits[0].window_start
    return told or incidents.drift(model, version, verdict.signature, begin)


def _signature(reason: TriggerReason, now: set[str]) -> str:
    columns = "+".join(sorted({c.partition(":")[2] for c in now}))
    signature = f"{reason.value}:{columns}"
    if len(signature) > LONGEST_SIGNATURE:
        return f"{reason.value}:{hashlib.sha256(columns.encode()).hexdigest()[:32]}"
    return signature


def _named(request: Decision) -> str:
    return f"{request.id} of {request.as_of:%Y-%m-%d %H:%M} UTC"


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
