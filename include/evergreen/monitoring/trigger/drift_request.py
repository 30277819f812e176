"""What is done about a drift: a request, or a suppression where an earlier one, its answers, the time or the rows hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evergreen.ledger import Decision
from evergreen.ledger.evidence import AskedAgain, AskingWindow, Effect, RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, Hold, TriggerReason
from evergreen.monitoring.trigger import episode, given_up, reopen_rule
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.holds import SuppressedRequest, named, open_message, too_few_rows, too_often
from evergreen.monitoring.trigger.verdict import Action, TriggerVerdict
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows.effects import REASONS, causes, effects
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.spec import ModelSpec

LONGEST_SIGNATURE = 200
MOST_REQUESTS = 2
PRECEDENCE = (
    TriggerReason.PERFORMANCE, TriggerReason.ESTIMATED_PERFORMANCE, TriggerReason.DATA_DRIFT,
    TriggerReason.PREDICTION_DRIFT,
)  # fmt: skip
RATE = (Hold.COOLDOWN.value, Hold.BUDGET_SPENT.value)


@dataclass(frozen=True)
class Drift:
    """Windows that fulfil the rule: `hits`, oldest first, and the causes of the newest one.

    `gap` is None where the drift was there all the time; where it comes and goes, how long it may be away and be the same one.
    """

    hits: tuple[Judgement, ...]
    causes: set[str]
    gap: timedelta | None


@dataclass(frozen=True)
class _Case:
    """A drift and what the ledger has about it.

    Attributes:
        drift: which.
        reason: of the request, if one is made.
        since: start of the first window of the unbroken episode.
        asked: the earlier requests.
        chain: earlier requests and suppressions of a drift that comes and goes, newest first.
        came_back: those of the chain that a training answered, oldest first.
        opens: when a drift that was answered is asked for again; None where no training answered it.
        reopened: why it may be asked for again now; empty where it may not.
        evidence: of the windows.
        signature: reason and columns.
    """

    drift: Drift
    reason: TriggerReason
    since: datetime
    asked: episode.EarlierRequests
    chain: Sequence[Decision]
    came_back: Sequence[Decision]
    opens: reopen_rule.Again | None
    reopened: str
    evidence: RetrainEvidence
    signature: str

    @property
    def version(self) -> str:
        """The champion."""
        return self.drift.hits[-1].version

    @property
    def before(self) -> Decision | None:
        """What was decided last about the same drift; None where it is a new one."""
        return self.asked.episode[-1] if self.asked.episode else next(iter(self.chain), None)


def answer(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    drift: Drift,
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> TriggerVerdict:
    """Request a training for a drift, or say what holds the request: see `decide.decide` for the order."""
    case = _case(model, judgements, drift, decisions, as_of, facts)
    return (
        _already_open(case)
        or _already_answered(model, case, decisions, as_of)
        or _too_soon(model, case, decisions, as_of, facts)
        or _request(case)
    )


def _case(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    drift: Drift,
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> _Case:
    trigger, hits, now = model.monitoring.trigger, drift.hits, drift.causes
    reasons = [r for r in PRECEDENCE if any(REASONS[v.kind] is r for j in hits for v in effects(model, j))]
    since = episode.since(model, judgements, hits[0], now)
    asked = episode.earlier_requests(decisions, judgements, hits[-1].version, now, since)
    chain = episode.chain(decisions, now, hits[0].window_start, drift.gap) if drift.gap is not None else []
    came_back = episode.answered(chain, decisions)
    answered = list({d.id: d for d in (*came_back, *asked.settled)}.values())
    opens = reopen_rule.of(model, answered, decisions, facts.trained_rows) if answered else None
    signature = _signature(reasons[0], now)
    evidence = RetrainEvidence(
        since=since,
        reasons=tuple(r.value for r in reasons),
        causes=tuple(sorted(now)),
        drifted=tuple(sorted(causes(model, hits))),
        rule=f"{len(hits)} windows in violation, {trigger.m} of the last {trigger.n} and the newest are needed",
        judgements=tuple(j.id for j in hits if j.id is not None),
        windows=tuple(asking_window(model, j) for j in hits),
        signature=signature,
        alternates=drift.gap is not None,
    )
    reopened = opens.because(as_of, facts.rows_since_answer) if opens else ""
    return _Case(drift, reasons[0], since, asked, chain, came_back, opens, reopened, evidence, signature)


def _already_open(case: _Case) -> TriggerVerdict | None:
    """A request waits for its training, whatever asked for that."""
    asked = case.asked
    if not asked.open:
        return None
    same = next((d for d in reversed(asked.open) if d in asked.same), None)
    request = same or asked.open[-1]
    covering = same or next((d for d in asked.open if d in case.chain), None)
    return _suppress(case, SuppressedRequest(Hold.ALREADY_OPEN, open_message(request), request), covering)


def _already_answered(
    model: ModelSpec, case: _Case, decisions: Sequence[Decision], as_of: datetime
) -> TriggerVerdict | None:
    """Trainings were promoted or rejected for this drift, and nothing has reopened it."""
    settled, came_back = case.asked.settled, case.came_back
    stayed = f"for the same drift, and version {case.version} stayed champion"
    if len(settled) >= MOST_REQUESTS and not case.reopened:
        message = f"trainings answered requests {_last(settled)} {stayed}"
        return _give_up(model, case, settled, message, decisions, as_of)
    if len(came_back) >= MOST_REQUESTS and not case.reopened:
        message = (
            f"the drift comes and goes: trainings answered requests {_last(came_back)} for it, and it is back"
        )
        return _give_up(model, case, came_back, message, decisions, as_of)
    if not settled or any(j.window_end > episode.reach(settled[-1]) for j in case.drift.hits):
        return None
    message = (
        f"a training answered request {named(settled[-1])} {stayed}; it is asked for once more when newer windows are in "
        "violation"
    )
    return _suppress(case, SuppressedRequest(Hold.ALREADY_ANSWERED, message, settled[-1]), settled[-1])


def _give_up(
    model: ModelSpec,
    case: _Case,
    answered: Sequence[Decision],
    message: str,
    decisions: Sequence[Decision],
    as_of: datetime,
) -> TriggerVerdict:
    """Retraining did not help as often as it is tried: a person must look."""
    opens = case.opens
    assert opens is not None, "trainings answered it"
    endings = episode.endings(answered[-MOST_REQUESTS:], decisions)
    told = (
        f"{message}: retraining did not help {given_up.times(len(answered))}, a person must look; "
        f"{given_up.because(endings)}; {opens.sentence()}"
    )
    evidence = RetrainEvidence(endings=endings, again=opens.evidence())
    held = SuppressedRequest(Hold.ALREADY_ANSWERED, told, answered[-1], evidence)
    waits = opens if too_often(model, case.asked.requests, as_of) is None else None
    return replace(_suppress(case, held, None), gave_up=tuple(answered), again=waits)


def _too_soon(
    model: ModelSpec, case: _Case, decisions: Sequence[Decision], as_of: datetime, facts: ChampionFacts
) -> TriggerVerdict | None:
    """The cool-down, the budget, or too few new rows."""
    held = too_often(model, case.asked.requests, as_of) or too_few_rows(model, facts)
    if held is None:
        return None
    return _suppress(case, held, case.before or _earlier_suppression(decisions, case, held))


def _suppress(case: _Case, held: SuppressedRequest, covering: Decision | None) -> TriggerVerdict:
    told = RetrainEvidence(message=held.message, request=held.request.id if held.request else None)
    return TriggerVerdict(
        Action.SUPPRESS,
        held.hold,
        case.evidence.joined(held.evidence).joined(told),
        case.signature,
        case.drift.hits,
        covering,
        case.since,
    )


def _request(case: _Case) -> TriggerVerdict:
    evidence, asked = case.evidence, case.asked
    told_twice = next((d for d in (asked.settled, case.came_back) if len(d) >= MOST_REQUESTS), None)
    if told_twice and case.opens:
        # People know that this drift needs a person: another rejection for the same reason is told with this request's.
        again = AskedAgain(
            at=case.opens.at,
            rows=case.opens.rows,
            answer=case.opens.answer.id,
            because=case.reopened,
            told_with=told_twice[MOST_REQUESTS - 1].id,
        )
        evidence = evidence.joined(RetrainEvidence(again=again))
    if case.before is not None:
        earlier = asked.episode or [
            d for d in reversed(case.chain) if d.kind is DecisionKind.RETRAIN_REQUESTED
        ]
        asked_before = tuple(d.id for d in earlier if d.id is not None)
        evidence = evidence.joined(RetrainEvidence(asked_before=asked_before))
    return TriggerVerdict(
        Action.REQUEST, case.reason, evidence, case.signature, case.drift.hits, case.before, case.since
    )


def _earlier_suppression(
    decisions: Sequence[Decision], case: _Case, held: SuppressedRequest
) -> Decision | None:
    """The suppression of this waiting that told of the same causes: a drift that comes and goes is one mail.

    A waiting is one for the same earlier request, by the cool-down or the budget; or one for new rows, of the same
    champion. Suppressions that an earlier request's mail covered told nothing of a later episode.
    """
    covered = {RetrainEvidence.of(d).incident for d in case.asked.same}
    holds = RATE if held.hold.value in RATE else (held.hold.value,)
    earlier = [
        (d, RetrainEvidence.of(d))
        for d in decisions
        if d.kind is DecisionKind.RETRAIN_SUPPRESSED
        and d.reason in holds
        and (held.request is not None or d.version == case.version)
    ]
    found = [
        d
        for d, told in earlier
        if told.request == (held.request.id if held.request else None)
        and case.drift.causes <= set(told.drifted)
        and told.incident not in covered
    ]
    return max(found, key=lambda d: (d.as_of, d.id or 0), default=None)


def _last(requests: Sequence[Decision]) -> str:
    return " and ".join(map(named, requests[-MOST_REQUESTS:]))


def _signature(reason: TriggerReason, now: set[str]) -> str:
    columns = "+".join(sorted({c.partition(":")[2] for c in now}))
    signature = f"{reason.value}:{columns}"
    if len(signature) > LONGEST_SIGNATURE:
        return f"{reason.value}:{hashlib.sha256(columns.encode()).hexdigest()[:32]}"
    return signature


def asking_window(model: ModelSpec, judged: Judgement) -> AskingWindow:
    """A window in violation as the ledger keeps it."""
    return AskingWindow(
        start=judged.window_start,
        end=judged.window_end,
        revision=judged.revision,
        rows=judged.rows,
        error=error_text.error(judged),
        effects=tuple(
            Effect(
                kind=v.kind.value,
                column=v.column,
                statistic=v.statistic,
                value=v.value,
                limit=v.limit,
            )
            for v in effects(model, judged)
        ),
        report=judged.report,
        mlflow_run=judged.mlflow_run,
    )
