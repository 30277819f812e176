"""When a training is asked for though nothing surely drifted: another spec, enough new data, a champion that decays, an old one.

Each is asked for once. It is answered by the next training that comes to an answer, whatever asked for that one, and
may ask again when as much has changed since then: another spec, as many new rows, as much time; a decay when there is another
champion. A training whose challenger could not be judged answers nothing; then the same is asked for again after the cool-down.

An alarm tells people, so it waits until chance is nearly excluded, and where windows move much by themselves that is late. A
training costs some CPU and the gate stands behind it, so decay asks from the smallest worsening on that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from evergreen.ledger import Decision
from evergreen.ledger.evidence import AskingWindow, RetrainEvidence, SettledEvidence
from evergreen.ledger.reasons import DecisionKind, Hold, TriggerReason
from evergreen.monitoring.trigger.champion_facts import ChampionFacts, settled
from evergreen.monitoring.trigger.holds import open_message, too_few_rows, too_often
from evergreen.monitoring.trigger.verdict import Action, TriggerVerdict
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status
from evergreen.spec import LARGER_IS_BETTER, ModelSpec, format_duration, metric_name
from evergreen.spec.monitoring import AGING

SHOWN = 12


@dataclass(frozen=True)
class Occasion:
    """Why a training is asked for.

    Attributes:
        reason: the code.
        basis: what it is measured from; the same basis is asked for once.
        message: the reason in a sentence, with numbers and limits.
        evidence: the same as numbers.
    """

    reason: TriggerReason
    basis: str
    message: str
    evidence: RetrainEvidence = field(default_factory=RetrainEvidence)


def upkeep(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> TriggerVerdict | None:
    """Decide on a retraining that no drift asks for; None where nothing does. See `decide.decide`.

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        decisions: of the model as of this time or earlier.
        as_of: the time for which the decision is taken.
        facts: about the champion.
    """
    if facts.trained_as_of is None:
        return None
    since = settled(decisions, facts.trained_as_of)
    found = (
        _changed(model, since, facts)
        or _grown(model, since, facts.trained_as_of, facts)
        or _decayed(model, judgements, since, facts.trained_as_of)
        or _old(model, since, facts.trained_as_of, as_of)
    )
    if found is None:
        return None
    requests = sorted(
        (d for d in decisions if d.kind is DecisionKind.RETRAIN_REQUESTED), key=lambda d: (d.as_of, d.id or 0)
    )
    closed = {i for d in decisions for i in d.answers}
    waiting = [d for d in requests if d.id not in closed]
    signature = f"{found.reason.value}:{found.basis}"
    asked = found.evidence.joined(RetrainEvidence(basis=found.basis))
    if waiting:
        same = next((d for d in waiting if RetrainEvidence.of(d).basis == found.basis), None)
        request = same or waiting[-1]
        told = asked.joined(
            RetrainEvidence(message=open_message(request), asks=found.reason.value, request=request.id)
        )
        return TriggerVerdict(Action.SUPPRESS, Hold.ALREADY_OPEN, told, signature, covered_by=same)
    held = too_often(model, requests, as_of)
    if held is None and found.reason in (TriggerReason.DECAY, TriggerReason.STALENESS):
        held = too_few_rows(model, facts)
    if held:
        told = asked.joined(held.evidence).joined(
            RetrainEvidence(
                message=f"{found.message}; held back: {held.message}",
                asks=found.reason.value,
                request=held.request.id if held.request else None,
            )
        )
        return TriggerVerdict(Action.SUPPRESS, held.hold, told, signature)
    told = asked.joined(RetrainEvidence(message=found.message))
    return TriggerVerdict(Action.REQUEST, found.reason, told, signature)


def asks_for_changes(model: ModelSpec) -> bool:
    """`trigger.on_change`; where it is null: whether there is no schedule whose next run would take the change up."""
    wanted = model.monitoring.trigger.on_change
    return model.schedule is None if wanted is None else wanted


def _changed(model: ModelSpec, since: Sequence[Decision], facts: ChampionFacts) -> Occasion | None:
    """The spec of now is not the one that made the champion, and no training of it came to an answer since."""
    made, now = facts.trained_hash, facts.spec_hash
    if not asks_for_changes(model) or made is None or now is None or made == now:
        return None
    if any(SettledEvidence.of(d).training_hash == now for d in since):
        return None
    return Occasion(
        TriggerReason.CODE_CHANGE,
        now,
        f"features, label, query, columns or training of the spec changed since the champion was made "
        f"({made[:SHOWN]} to {now[:SHOWN]}), and no training of the new spec came to an answer yet",
        RetrainEvidence(training_hash=now, champion_training_hash=made),
    )


def _grown(
    model: ModelSpec, since: Sequence[Decision], trained_as_of: datetime, facts: ChampionFacts
) -> Occasion | None:
    share, new = model.monitoring.trigger.new_rows, facts.rows_since_training
    if share is None or new is None or not facts.trained_rows or new < share * facts.trained_rows:
        return None
    base = _newest(since, trained_as_of)
    return Occasion(
        TriggerReason.NEW_DATA,
        base.isoformat(),
        f"at least {new} rows with a mature label have come since the training as of {base:%Y-%m-%d %H:%M} UTC; "
        f"monitoring.trigger.new_rows asks at {share:.0%} of the {facts.trained_rows} that the champion's training knew",
        RetrainEvidence(new_rows=new, trained_rows=facts.trained_rows, limit=share),
    )


def _decayed(
    model: ModelSpec, judgements: Sequence[Judgement], since: Sequence[Decision], trained_as_of: datetime
) -> Occasion | None:
    """The served error is `max_worse` worse than the holdout's, by the rule of a drift, and no training has come to an answer since.

    As for a drift, nothing is asked for while the newest window is stale or has too few rows: its data may be broken.
    """
    trigger, metric = model.monitoring.trigger, model.performance_metric
    if not trigger.decay or since or not judgements:
        return None
    if judgements[-1].status not in (Status.OK, Status.VIOLATION):
        return None
    found = [(j, m) for j in judgements if (m := j.metrics.get(metric)) is not None and m.state == "judged"]
    last = found[-trigger.n :]
    hits = [pair for pair in last if _worse(metric, pair[1])]
    if len(hits) < trigger.m or hits[-1] is not last[-1]:
        return None
    told = ", ".join(f"{m.value:.4g}" for _, m in hits)
    _, newest = hits[-1]
    return Occasion(
        TriggerReason.DECAY,
        trained_as_of.isoformat(),
        f"{metric_name(metric)} was {told} in {len(hits)} of the last {len(last)} windows that could be judged, {newest.reference:.4g} on the "
        f"holdout: worse by more than monitoring.performance.max_worse ({model.monitoring.performance.max_worse:.0%}). Nobody is alarmed: "
        f"the limit for that is {newest.limit:.4g}",
        RetrainEvidence(
            metric=metric,
            windows=tuple(
                AskingWindow(start=j.window_start, value=m.value, decayed=m.decayed, limit=m.limit) for j, m in hits
            ),
            holdout=newest.reference,
        ),
    )  # fmt: skip


def _worse(metric: str, found: MetricResult) -> bool:
    if found.value is None or found.decayed is None:
        return False
    return found.value < found.decayed if metric in LARGER_IS_BETTER else found.value > found.decayed


def _old(
    model: ModelSpec, since: Sequence[Decision], trained_as_of: datetime, as_of: datetime
) -> Occasion | None:
    longest = model.monitoring.max_age
    base = _newest(since, trained_as_of)
    if longest is None or as_of - base < longest:
        return None
    return Occasion(
        TriggerReason.STALENESS,
        base.isoformat(),
        f"the newest training was as of {base:%Y-%m-%d %H:%M} UTC, {(as_of - base).days} days before; "
        f"monitoring.trigger.max_age is {format_duration(longest)}{_source_of_age(model)}",
        RetrainEvidence(trained_as_of=base, limit=format_duration(longest)),
    )


def _source_of_age(model: ModelSpec) -> str:
    """Where the age comes from that the spec does not name."""
    auto = model.monitoring.trigger.max_age == "auto"
    return f" ({AGING} windows, as the spec names none)" if auto else ""


def _newest(since: Sequence[Decision], trained_as_of: datetime) -> datetime:
    """The cut-off of the newest training that came to an answer."""
    return max([trained_as_of, *(d.as_of for d in since)])
