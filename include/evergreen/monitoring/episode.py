"""What was asked before about a drift, what trainings answered, and whether it is still the same drift.

An episode of drift is unbroken: it ends with a window that was judged `ok`, whether or not its labels were in.
Windows that could not be judged do not end it, since "could not tell" is never healthy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import Decision, Kind
from evergreen.monitoring.effects import effects
from evergreen.monitoring.judgement import Judgement, Status
from evergreen.spec import ModelSpec
from evergreen.training import gate

# Every other reason says that the gate could not compare: the champion did not load, a metric was missing, ...
COULD_TELL = tuple(reason.value for reason in gate.COULD_TELL)


@dataclass(frozen=True)
class Asked:
    """Earlier retrain requests, oldest first; each is a part of the one before it, but `open`.

    Attributes:
        requests: all of the model.
        open: those that no decision answers.
        same: those for this champion whose causes hold all of this drift's.
        episode: those of them that were about the same unbroken episode.
        settled: those of them that a training answered whose gate could tell.
    """

    requests: tuple[Decision, ...]
    open: tuple[Decision, ...]
    same: tuple[Decision, ...]
    episode: tuple[Decision, ...]
    settled: tuple[Decision, ...]


def since(model: ModelSpec, judgements: Sequence[Judgement], first: Judgement) -> datetime:
    """Start of the first window of the unbroken episode to which a window belongs.

    Args:
        model: its `min_rows`.
        judgements: the windows of the champion, oldest first.
        first: the oldest window of the present findings.
    """
    start = first.window_start
    for judged in reversed([j for j in judgements if j.window_start < first.window_start]):
        if judged.status is Status.OK:
            break
        if effects(model, judged):
            start = judged.window_start
    return start


def asked(
    decisions: Sequence[Decision],
    judgements: Sequence[Judgement],
    version: str,
    causes: set[str],
    start: datetime,
) -> Asked:
    """Sort the earlier decisions by what they say about a drift.

    Args:
        decisions: requests, promotions and rejections of the model, in any order.
        judgements: the windows of the champion, oldest first.
        version: the champion.
        causes: of the drift, as `kind:column`.
        start: of its episode.
    """
    requests = sorted(
        (d for d in decisions if d.kind is Kind.RETRAIN_REQUESTED), key=lambda d: (d.as_of, d.id or 0)
    )
    answered = {i for d in decisions for i in d.answers}
    told = {i for d in decisions if _could_tell(d) for i in d.answers}
    same = [d for d in requests if d.version == version and causes <= set(d.evidence.get("drifted", ()))]
    healthy = [j for j in judgements if j.status is Status.OK and j.window_start < start]
    episode = [d for d in same if not any(j.window_end > reach(d) for j in healthy)]
    return Asked(
        requests=tuple(requests),
        open=tuple(d for d in requests if d.id not in answered),
        same=tuple(same),
        episode=tuple(episode),
        settled=tuple(d for d in episode if d.id in told),
    )


def reach(request: Decision) -> datetime:
    """End of the newest window that a request was about; its as-of time where it names none."""
    ends = [datetime.fromisoformat(w["end"]) for w in request.evidence.get("windows", ())]
    return max(ends, default=request.as_of)


def _could_tell(answer: Decision) -> bool:
    return answer.kind is Kind.PROMOTED or (answer.kind is Kind.REJECTED and answer.reason in COULD_TELL)
