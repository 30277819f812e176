"""The trigger policy: reads what it decides on, decides, and writes that, by the same steps live (`live_trigger`) and in a replay.

The rule is `decide.decide`, a pure function: `drift_rule` says when a drift asks for a training, `drift_request` what is done about it,
`upkeep_rule` when something else asks, `holds` what suppresses both. Nothing is remembered but in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.alarms import raised
from evergreen.monitoring.trigger import champion_facts as facts_of
from evergreen.monitoring.trigger.decide import decide
from evergreen.monitoring.trigger.holds import least_rows
from evergreen.monitoring.trigger.verdict import Action, TriggerVerdict
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.registry import Champion
from evergreen.spec import ModelSpec, Specs

READ = (
    DecisionKind.RETRAIN_REQUESTED,
    DecisionKind.RETRAIN_SUPPRESSED,
    DecisionKind.PROMOTED,
    DecisionKind.REJECTED,
    DecisionKind.ROLLED_BACK,
)


class TriggerStore(Protocol):
    """What the policy reads and writes, live or replayed."""

    def champion(self) -> Champion | None:
        """The champion as of the run's time; None before the first one."""

    def judgements(self, champion: Champion) -> list[Judgement]:
        """The newest revision of each window that the champion answers for, oldest first."""

    def earlier(self) -> list[Decision]:
        """Earlier decisions of the kinds of `READ`, newest first."""

    def append(self, decision: Decision) -> Decision:
        """Keep a decision; returns it with its id."""

    def tell_windows(
        self, champion: Champion, judgements: Sequence[Judgement], hits: Sequence[Judgement]
    ) -> None:
        """Let people know of windows that could not be judged, and of what has ended; `hits` are windows of a drift."""

    def tell_drift(
        self, decision: Decision, verdict: TriggerVerdict, judgements: Sequence[Judgement]
    ) -> None:
        """Let people know of a drift that asks for a training, or would."""


def ask_if_due(
    store: TriggerStore, model: ModelSpec, as_of: datetime, run_id: str, specs: Specs | None = None
) -> Decision | None:
    """Decide whether windows, time or data ask for a training, and keep what is decided.

    Args:
        store: of the model, as of that time.
        model: whose champion was judged.
        as_of: the as-of time of the run; judgements and decisions of a later one do not count.
        run_id: `dag_id/run_id`.
        specs: all specs, for what must be known besides windows and ledger; without them only drifts ask, and new rows
            are not counted.

    Returns:
        The request or the suppression, as it stands in the ledger; None if nothing asks for a training.

    Raises:
        TerminalError: new rows must be counted, and the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    champion = store.champion()
    if champion is None:
        return None
    version, judgements, earlier = champion.version, store.judgements(champion), store.earlier()
    verdict = decided(model, version, judgements, earlier, as_of, specs)
    store.tell_windows(champion, judgements, verdict.hits)
    proposed = proposal(model, version, verdict, judgements, earlier, as_of, run_id)
    if proposed is None or proposed.id is not None:
        return proposed
    decision = store.append(proposed)
    if verdict.hits:
        store.tell_drift(decision, verdict, judgements)
    return decision


def decided(
    model: ModelSpec,
    version: str,
    judgements: Sequence[Judgement],
    earlier: Sequence[Decision],
    as_of: datetime,
    specs: Specs | None,
) -> TriggerVerdict:
    """The verdict; new rows are counted only where the answer depends on them, and only as many as decide it."""
    if specs is None:
        return decide(model, judgements, earlier, as_of)
    then = [d for d in earlier if d.as_of <= as_of]
    known = facts_of.known(specs, model, version, then)
    verdict = decide(model, judgements, earlier, as_of, known)
    if verdict.again is not None and verdict.again.rows is not None:
        last, most = verdict.again.answer, verdict.again.rows
        known = facts_of.since_answer(specs, model, known, last, as_of, most)
        verdict = decide(model, judgements, earlier, as_of, known)
    if verdict.action is not Action.REQUEST and model.monitoring.trigger.new_rows is None:
        return verdict
    least = least_rows(model, known)
    known = facts_of.counted(specs, model, known, version, then, as_of, least=least)
    return decide(model, judgements, earlier, as_of, known)


def proposal(
    model: ModelSpec,
    version: str,
    verdict: TriggerVerdict,
    judgements: Sequence[Judgement],
    earlier: Sequence[Decision],
    as_of: datetime,
    run_id: str,
) -> Decision | None:
    """The decision that a verdict comes to; a pure function.

    Args:
        model: whose champion was judged.
        version: the champion.
        verdict: what `decide` said.
        judgements, earlier: what it was given.
        as_of, run_id: of the run.

    Returns:
        None if nothing asks for a training; the decision of the ledger (with its id) where an earlier run has decided on
        the same basis; else a new one, still without an id.
    """
    if verdict.action is Action.NONE:
        return None
    if not verdict.hits:
        return _without_drift(model, version, verdict, earlier, as_of, run_id)
    # The judgement that was written last is the news; with late labels it need not be of the newest window.
    news = max(judgements, key=lambda j: j.id or 0)
    key = f"policy:{model.name}:{version}:{news.window_start.isoformat()}:{news.revision}"
    requested = verdict.action is Action.REQUEST
    asked = _earlier_requests(earlier, key)
    if asked and not (requested and verdict.covered_by == asked[0]):
        return asked[0]
    if asked:
        key = f"{key}:again:{asked[0].id}"
    evidence = verdict.evidence.joined(RetrainEvidence(incident=_incident(model, version, verdict)))
    return _decision(model, version, verdict, evidence, key, as_of, run_id)


def _without_drift(
    model: ModelSpec,
    version: str,
    verdict: TriggerVerdict,
    earlier: Sequence[Decision],
    as_of: datetime,
    run_id: str,
) -> Decision:
    if verdict.covered_by is not None:
        return verdict.covered_by
    key = f"policy:{model.name}:{version}:{verdict.signature}"
    # What was asked for before on the same basis was closed by a training that came to no answer.
    if asked := _earlier_requests(earlier, key):
        key = f"{key}:again:{asked[0].id}"
    return _decision(model, version, verdict, verdict.evidence, key, as_of, run_id)


def _earlier_requests(earlier: Sequence[Decision], key: str) -> list[Decision]:
    """Earlier requests of a key, newest first."""
    found = [d for d in earlier if d.kind is DecisionKind.RETRAIN_REQUESTED]
    return [d for d in found if d.dedupe_key == key or d.dedupe_key.startswith(f"{key}:again:")]


def _decision(
    model: ModelSpec,
    version: str,
    verdict: TriggerVerdict,
    evidence: RetrainEvidence,
    key: str,
    as_of: datetime,
    run_id: str,
) -> Decision:
    requested = verdict.action is Action.REQUEST
    return Decision(
        as_of=as_of,
        subject=ledger.model_subject(model.name),
        kind=DecisionKind.RETRAIN_REQUESTED if requested else DecisionKind.RETRAIN_SUPPRESSED,
        reason=verdict.reason.value,
        run_id=run_id,
        dedupe_key=key if requested else f"{key}:{verdict.reason.value}",
        evidence=evidence,
        version=version,
    )


def _incident(model: ModelSpec, version: str, verdict: TriggerVerdict) -> str:
    if verdict.gave_up:
        return raised.gave_up(model, version, verdict.signature, verdict.gave_up[0])
    told = RetrainEvidence.of(verdict.covered_by).incident if verdict.covered_by else None
    begin = verdict.since or verdict.hits[0].window_start
    return told or raised.drift(model, version, verdict.signature, begin)
