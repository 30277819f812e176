"""When violations ask for a training, and when such a request is held back: the rule of a drift.

The rule: m of the last n windows in violation, and the newest. It is asked twice, since labels come late:

- of the last n windows that could be judged at all, by any effect (input drift, missing values, unknown
  categories, prediction drift, served error);
- of the last n windows whose served error could be judged, by the served error alone. Without this a drift of the
  concept would never count where labels take longer than a window: the newest window never has them.

A newest window in violation without enough others is written to the ledger (`too_few_violations`) and not mailed.

m violations suffice where there are fewer than n windows yet: waiting for the n-th could not undo them. Only
values beyond a limit count, in windows with at least `monitoring.min_rows` rows. A column that could not be read has
no value and opens no request; neither does a window that is stale or insufficient. Those are data problems,
not drift: training again on broken data does not help, a person is told. They are not taken for healthy
either: they do not stand among the n windows, and while the newest window is one of them nothing is requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import Decision
from evergreen.ledger.evidence import AskedAgain, AskingWindow, Effect, RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, Hold, TriggerReason
from evergreen.monitoring.trigger import episode, given_up, reopen_rule
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.holds import named, open_message, too_few_rows, too_often
from evergreen.monitoring.trigger.verdict import Action, Quiet, TriggerVerdict
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows.effects import REASONS, causes, effects, m_of_n
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.spec import ModelSpec

LONGEST_SIGNATURE = 200
MOST_REQUESTS = 2
SHORTEST = 3
PRECEDENCE = (
    TriggerReason.PERFORMANCE, TriggerReason.ESTIMATED_PERFORMANCE, TriggerReason.DATA_DRIFT,
    TriggerReason.PREDICTION_DRIFT,
)  # fmt: skip
RATE = (Hold.COOLDOWN.value, Hold.BUDGET_SPENT.value)


@dataclass(frozen=True)
class Found:
    """Windows that fulfil the rule, oldest first; the causes of the newest; whether the drift was away between them."""

    hits: tuple[Judgement, ...]
    causes: set[str]
    alternates: bool


def drift(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> TriggerVerdict:
    """Decide on a retraining because of a drift; see `policy.decide`.

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        decisions: of the model as of this time or earlier.
        as_of: the time for which the decision is taken.
        facts: the new rows.
    """
    if not judgements:
        return TriggerVerdict(Action.NONE, Quiet.NO_WINDOWS)
    if judgements[-1].status in (Status.STALE, Status.INSUFFICIENT):
        return TriggerVerdict(Action.NONE, Quiet.NEWEST_NOT_JUDGED)
    n = model.monitoring.trigger.n
    judged = [j for j in judgements if j.status in (Status.OK, Status.VIOLATION)]
    with_labels = [j for j in judgements if episode.error_judged(j)]
    any_effect = _fulfilled(model, judged, tuple(REASONS))
    error = _fulfilled(model, with_labels, (What.PERFORMANCE,))
    hits = {j.window_start: j for j in (*any_effect, *error)}
    if not hits:
        return (
            _too_few(model, judged[-n:], tuple(REASONS))
            or _too_few(model, with_labels[-n:], (What.PERFORMANCE,))
            or TriggerVerdict(Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT)
        )
    found = Found(
        tuple(hits[start] for start in sorted(hits)),
        causes(model, any_effect[-1:]) | causes(model, error[-1:], (What.PERFORMANCE,)),
        bool(any_effect and _alternates(model, judged, tuple(REASONS)))
        or bool(error and _alternates(model, with_labels, (What.PERFORMANCE,))),
    )
    return _held(model, judgements, found, decisions, as_of, facts)


def _fulfilled(model: ModelSpec, judged: Sequence[Judgement], kinds: Sequence[What]) -> list[Judgement]:
    return m_of_n(model, judged, lambda one: effects(model, one, kinds))


def _too_few(model: ModelSpec, last: Sequence[Judgement], kinds: Sequence[What]) -> TriggerVerdict | None:
    """That the newest window is in violation, and too few of the last n are; None if it is not.

    No hits: nobody is mailed, and the windows are no part of a drift that is told, answered or ended.
    """
    if not last or not effects(model, last[-1], kinds):
        return None
    trigger, newest = model.monitoring.trigger, last[-1]
    seen = [j for j in last if effects(model, j, kinds)]
    found = causes(model, seen[-1:], kinds)
    return TriggerVerdict(
        Action.SUPPRESS,
        Hold.TOO_FEW_VIOLATIONS,
        RetrainEvidence(
            message=f"{', '.join(sorted(found))}: {len(seen)} of the last {len(last)} windows in violation, "
            f"{trigger.m} of {trigger.n} are needed; one window alone may be chance",
            causes=tuple(sorted(found)),
            judgements=tuple(j.id for j in seen if j.id is not None),
            window=_window(model, newest),
        ),
        f"{Hold.TOO_FEW_VIOLATIONS.value}:{newest.window_start.isoformat()}:{newest.revision}",
    )


def _alternates(model: ModelSpec, judged: Sequence[Judgement], kinds: Sequence[What]) -> bool:
    """Whether a healthy window lies between those in violation, of the last n or the last three."""
    last = judged[-_together(model) :]
    first = next(i for i, j in enumerate(last) if effects(model, j, kinds))
    return any(j.status is Status.OK for j in last[first:])


def _together(model: ModelSpec) -> int:
    """How many windows may lie between two that belong to a drift that comes and goes; less than three show none."""
    return max(model.monitoring.trigger.n, SHORTEST)


def _held(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    found: Found,
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> TriggerVerdict:
    trigger, hits, now = model.monitoring.trigger, found.hits, found.causes
    version = hits[-1].version
    reasons = [r for r in PRECEDENCE if any(REASONS[v.kind] is r for j in hits for v in effects(model, j))]
    since = episode.since(model, judgements, hits[0], now)
    asked = episode.earlier_requests(decisions, judgements, version, now, since)
    chain = (
        episode.chain(decisions, now, hits[0].window_start, _together(model) * model.monitoring.window)
        if found.alternates
        else []
    )
    before = asked.episode[-1] if asked.episode else next(iter(chain), None)
    came_back = episode.answered(chain, decisions)
    answered = list({d.id: d for d in (*came_back, *asked.settled)}.values())
    opens = reopen_rule.of(model, answered, decisions, facts.trained_rows) if answered else None
    reopened = opens.because(as_of, facts.rows_since_answer) if opens else ""
    signature = _signature(reasons[0], now)
    evidence = RetrainEvidence(
        since=since,
        reasons=tuple(r.value for r in reasons),
        causes=tuple(sorted(now)),
        drifted=tuple(sorted(causes(model, hits))),
        rule=f"{len(hits)} windows in violation, {trigger.m} of the last {trigger.n} and the newest are needed",
        judgements=tuple(j.id for j in hits if j.id is not None),
        windows=tuple(_window(model, j) for j in hits),
        signature=signature,
        alternates=found.alternates,
    )

    def suppress(
        hold: Hold,
        message: str,
        request: Decision | None,
        covering: Decision | None,
        gave_up: Sequence[Decision] = (),
    ) -> TriggerVerdict:
        told = evidence.joined(RetrainEvidence(message=message, request=request.id if request else None))
        waits = None
        if gave_up and opens:
            waits = opens if too_often(model, asked.requests, as_of) is None else None
            endings = episode.endings(gave_up[-MOST_REQUESTS:], decisions)
            message = (
                f"{message}: retraining did not help {given_up.times(len(gave_up))}, a person must look; "
                f"{given_up.because(endings)}; {opens.sentence()}"
            )
            told = told.joined(RetrainEvidence(message=message, endings=endings, again=opens.evidence()))
        return TriggerVerdict(
            Action.SUPPRESS, hold, told, signature, hits, covering, since, tuple(gave_up), waits
        )

    if asked.open:
        same = next((d for d in reversed(asked.open) if d in asked.same), None)
        request = same or asked.open[-1]
        covering = same or next((d for d in asked.open if d in chain), None)
        return suppress(Hold.ALREADY_OPEN, open_message(request), request, covering)
    if len(asked.settled) >= MOST_REQUESTS and not reopened:
        message = f"trainings answered requests {_last(asked.settled)} for the same drift, and version {version} stayed champion"
        return suppress(Hold.ALREADY_ANSWERED, message, asked.settled[-1], None, asked.settled)
    if len(came_back) >= MOST_REQUESTS and not reopened:
        message = (
            f"the drift comes and goes: trainings answered requests {_last(came_back)} for it, and it is back"
        )
        return suppress(Hold.ALREADY_ANSWERED, message, came_back[-1], None, came_back)
    if asked.settled and not any(j.window_end > episode.reach(asked.settled[-1]) for j in hits):
        request = asked.settled[-1]
        message = (
            f"a training answered request {named(request)} for the same drift, and version {version} stayed "
            "champion; it is asked for once more when newer windows are in violation"
        )
        return suppress(Hold.ALREADY_ANSWERED, message, request, request)
    held = too_often(model, asked.requests, as_of) or too_few_rows(model, facts)
    if held:
        evidence = evidence.joined(held.evidence)
        covering = before or _earlier_suppression(decisions, asked, now, version, held.hold, held.request)
        return suppress(held.hold, held.message, held.request, covering)
    told_twice = next((d for d in (asked.settled, came_back) if len(d) >= MOST_REQUESTS), None)
    if told_twice and opens:
        # People know that this drift needs a person: another rejection for the same reason is told with this request's.
        again = AskedAgain(
            at=opens.at,
            rows=opens.rows,
            answer=opens.answer.id,
            because=reopened,
            told_with=told_twice[MOST_REQUESTS - 1].id,
        )
        evidence = evidence.joined(RetrainEvidence(again=again))
    if before is not None:
        earlier = asked.episode or [d for d in reversed(chain) if d.kind is DecisionKind.RETRAIN_REQUESTED]
        asked_before = tuple(d.id for d in earlier if d.id is not None)
        evidence = evidence.joined(RetrainEvidence(asked_before=asked_before))
    return TriggerVerdict(Action.REQUEST, reasons[0], evidence, signature, hits, before, since)


def _earlier_suppression(
    decisions: Sequence[Decision],
    asked: episode.EarlierRequests,
    now: set[str],
    version: str,
    hold: Hold,
    request: Decision | None,
) -> Decision | None:
    """The suppression of this waiting that told of the same causes: a drift that comes and goes is one mail.

    A waiting is one for the same earlier request, by the cool-down or the budget; or one for new rows, of the same
    champion. Suppressions that an earlier request's mail covered told nothing of a later episode.
    """
    covered = {RetrainEvidence.of(d).incident for d in asked.same}
    holds = RATE if hold.value in RATE else (hold.value,)
    held = [
        (d, RetrainEvidence.of(d))
        for d in decisions
        if d.kind is DecisionKind.RETRAIN_SUPPRESSED
        and d.reason in holds
        and (request is not None or d.version == version)
    ]
    found = [
        d
        for d, told in held
        if told.request == (request.id if request else None)
        and now <= set(told.drifted)
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


def _window(model: ModelSpec, judged: Judgement) -> AskingWindow:
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
