"""What was asked before about a drift, what trainings answered, and whether it is still the same drift.

An episode of drift is unbroken: it ends with a window that shows that the drift was away, one that was judged `ok`. Where
the served error alone tells of the drift, the window's error must have been judged: one without its labels says nothing.
Windows that could not be judged do not end it either, since "could not tell" is never healthy.

A drift that comes and goes has healthy windows between those in violation, so that it is a new episode each time. It
is one chain nonetheless, across champions too, until it has been away for n windows: see `chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.ledger import Decision
from evergreen.ledger.answers import conclusive
from evergreen.ledger.evidence import RetrainEvidence, TrainingEnding
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.effects import effects, first_of_run
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.spec import ModelSpec


@dataclass(frozen=True)
class EarlierRequests:
    """Earlier retrain requests, oldest first; each is a part of the one before it, but `open`.

    Attributes:
        requests: all of the model.
        open: those that no decision answers.
        same: those for this champion whose causes hold all of this drift's.
        episode: those of them that were about the same unbroken episode.
        settled: those of them that a training answered, see `conclusive`.
    """

    requests: tuple[Decision, ...]
    open: tuple[Decision, ...]
    same: tuple[Decision, ...]
    episode: tuple[Decision, ...]
    settled: tuple[Decision, ...]


def error_judged(judged: Judgement) -> bool:
    """Whether enough labels were in for a window's served error."""
    return any(m.state == "judged" for m in judged.metrics.values())


def away(causes: set[str], judged: Judgement) -> bool:
    """Whether a window shows that a drift of these causes (`kind:column`) was away."""
    if judged.status is not Status.OK:
        return False
    by_error = bool(causes) and all(c.partition(":")[0] == What.PERFORMANCE.value for c in causes)
    return error_judged(judged) or not by_error


def since(model: ModelSpec, judgements: Sequence[Judgement], first: Judgement, causes: set[str]) -> datetime:
    """Start of the first window of the unbroken episode to which a window belongs.

    Args:
        model: its `min_rows`.
        judgements: the windows of the champion, oldest first.
        first: the oldest window of the present findings.
        causes: of the drift, as `kind:column`.
    """
    return first_of_run(
        judgements, first, lambda j: effects(model, j), lambda j: away(causes, j)
    ).window_start


def earlier_requests(
    decisions: Sequence[Decision],
    judgements: Sequence[Judgement],
    version: str,
    causes: set[str],
    start: datetime,
) -> EarlierRequests:
    """Sort the earlier decisions by what they say about a drift.

    Args:
        decisions: requests, promotions and rejections of the model, in any order.
        judgements: the windows of the champion, oldest first.
        version: the champion.
        causes: of the drift, as `kind:column`.
        start: of its episode.
    """
    requests = sorted(
        (d for d in decisions if d.kind is DecisionKind.RETRAIN_REQUESTED), key=lambda d: (d.as_of, d.id or 0)
    )
    closed = {i for d in decisions for i in d.answers}
    same = [d for d in requests if d.version == version and causes <= set(RetrainEvidence.of(d).drifted)]
    healthy = [j for j in judgements if away(causes, j) and j.window_start < start]
    episode = [d for d in same if not any(j.window_end > reach(d) for j in healthy)]
    return EarlierRequests(
        requests=tuple(requests),
        open=tuple(d for d in requests if d.id not in closed),
        same=tuple(same),
        episode=tuple(episode),
        settled=tuple(answered(episode, decisions)),
    )


def chain(
    decisions: Sequence[Decision], causes: set[str], start: datetime, longest_gap: timedelta
) -> list[Decision]:
    """The requests and suppressions of a drift that comes and goes, newest first, back to its first one.

    Each was about windows between which the drift was away (`alternates` in its evidence), had all of this drift's
    causes, and lies no further before the next one than `longest_gap`. Only the first one may be a request for a drift
    that had not gone yet. Of which champion does not matter: a promotion that the drift outlives does not end it.

    Args:
        decisions: of the policy, in any order.
        causes: of the drift, as `kind:column`.
        start: of the first of its present windows.
        longest_gap: from the end of one's windows to the start of the next one's.
    """
    links: list[Decision] = []
    for decision in sorted(decisions, key=lambda d: (d.as_of, d.id or 0), reverse=True):
        if not isinstance(decision.evidence, RetrainEvidence):
            continue
        told = RetrainEvidence.of(decision)
        if not causes <= set(told.drifted):
            continue
        goes_on = told.alternates
        if not goes_on and decision.kind is not DecisionKind.RETRAIN_REQUESTED:
            continue
        if start - reach(decision) > longest_gap:
            break
        links.append(decision)
        if not goes_on:
            break
        start = min([start, *(w.start for w in told.windows)])
    return links


def answered(requests: Sequence[Decision], decisions: Sequence[Decision]) -> list[Decision]:
    """Those of some requests that a training answered, see `conclusive`; oldest first."""
    told = {i for d in decisions if conclusive(d) for i in d.answers}
    found = (d for d in requests if d.kind is DecisionKind.RETRAIN_REQUESTED and d.id in told)
    return sorted(found, key=lambda d: (d.as_of, d.id or 0))


def reach(request: Decision) -> datetime:
    """End of the newest window that a request was about; its as-of time where it names none."""
    ends = [w.end for w in RetrainEvidence.of(request).windows if w.end is not None]
    return max(ends, default=request.as_of)


def endings(requests: Sequence[Decision], decisions: Sequence[Decision]) -> tuple[TrainingEnding, ...]:
    """How the training of each answered request ended, as the ledger keeps it, in the order of the requests."""
    by_request = {
        i: d for d in sorted(decisions, key=lambda d: d.id or 0) if conclusive(d) for i in d.answers
    }
    found = ((request.id, by_request[request.id]) for request in requests if request.id in by_request)
    return tuple(
        TrainingEnding(request=request, kind=d.kind.value, reason=d.reason, version=d.version)
        for request, d in found
    )
