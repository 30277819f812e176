"""What decides on a challenger beside the gate, and how the decision is written: the same for a training that
settles at once and for one that waited for a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from evergreen import ledger, registry
from evergreen.alert_kinds import AlertKind
from evergreen.errors import ErrorReason, TerminalError
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import GateCheck, RetrainEvidence, RollbackEvidence, SettledEvidence
from evergreen.ledger.reasons import ChallengerReason, DecisionKind, RulingReason
from evergreen.promotion import canary
from evergreen.registry import identity, version_tags
from evergreen.registry.client import client, guarded
from evergreen.spec import ModelSpec
from evergreen.training.gate.checks import BOTH_BEATEN
from evergreen.training.record.outcome import TrainingOutcome, worse_than_naive
from evergreen.training.record.tracking import KEY_TAG, run_key
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)

FINGERPRINT_TAG = "evergreen.fingerprint"
# What is promoted so soon after it was registered is in force as of its training.
AT_ONCE = timedelta(hours=1)


@dataclass(frozen=True)
class Ruling:
    """Whether a challenger may become champion now, why, and in a sentence.

    `champion` is the one of now. `answers`: whether a decision by this ruling answers the training's retrain requests;
    it does not where the challenger was not judged against the champion of now, or another one takes its place.
    """

    passed: bool
    reason: ChallengerReason
    message: str
    champion: registry.Champion | None
    answers: bool = True


@dataclass(frozen=True)
class Waited:
    """What a decision on a challenger comes after.

    Attributes:
        asked: the row by which the challenger waited for a person; the decision settles it. None where it did not wait.
        registered: when its version was, see `check_version`; a promotion is in force later by as long as it waited.
    """

    asked: Decision | None = None
    registered: datetime | None = None


def settled(conn: Connection, model: ModelSpec, found: TrainingOutcome) -> Decision | None:
    """The decision that stands for the challenger of a training; None while there is none.

    It is found by the MLflow run. A decision of an earlier release is named by the number of the version, which another
    MLflow server may have given to another model: it counts where its run is the same.
    """
    for key in (_key(found), f"settle:{model.name}:{found.version}"):
        for standing in ledger.find(conn, dedupe_key=key):
            if SettledEvidence.of(standing).mlflow_run == found.mlflow_run:
                return standing
    return None


def rule(conn: Connection, model: ModelSpec, found: TrainingOutcome) -> Ruling:
    """Hold the gate's verdict against what happened since: another champion, or a rollback that blocks the challenger.

    Args:
        conn: holds the model's lock, so that no champion changes before the decision is written.
        model: whose challenger.
        found: of its training.
    """
    return ruled(found, registry.champion(conn, model.name, repair=False), rollbacks(conn, model))


def ruled(
    found: TrainingOutcome, champion: registry.Champion | None, taken_back: Sequence[Decision]
) -> Ruling:
    """The rule itself, a pure function: of the live loop and of a replay.

    Args:
        found: of the training.
        champion: of now.
        taken_back: the rollbacks of the model.

    Raises:
        TerminalError: the row of a rollback is damaged, so that nobody knows what it blocks.
    """
    if (champion.decision_id if champion else None) != found.champion_decision:
        message = (
            f"the gate compared with {named(found.champion_version)}, champion is now "
            f"{named(champion.version if champion else None)}; the next training compares again"
        )
        return Ruling(False, RulingReason.CHAMPION_CHANGED_MEANWHILE, message, champion, answers=False)
    blocking = blocking_of(taken_back, found)
    blocked = RollbackEvidence.of(blocking).blocked if blocking is not None else None
    if blocking is not None and blocked is not None:
        message = (
            f"the watch took back {named(blocked.version)}, made of the same rows by a spec "
            f"that makes the same model (decision {blocking.id}); a training on newer rows may be promoted. By hand: "
            f"rollback__{found.model} with To version"
        )
        return Ruling(False, RulingReason.BLOCKED_AFTER_ROLLBACK, message, champion)
    return Ruling(found.passed, found.verdict.reason, found.sentence(), champion)


def write(
    conn: Connection,
    model: ModelSpec,
    found: TrainingOutcome,
    ruling: Ruling,
    run_id: str,
    *,
    more: SettledEvidence,
    waited: Waited | None = None,
) -> Decision:
    """Append the decision on a challenger, begin its canary or shadow, and owe its e-mail in the same transaction.

    Args:
        conn: the transaction.
        model: whose challenger.
        found: of its training.
        ruling: promotes where it passed, rejects otherwise.
        run_id: `dag_id/run_id` that decides.
        more: further evidence.
        waited: since when it is registered, and for whose answer it waited.
    """
    asked, registered = (waited.asked, waited.registered) if waited else (None, None)
    effective = in_force(conn, found, registered) if ruling.passed and registered else None
    decision = ledger.append(
        conn, decided(found, ruling, run_id, evidence(found, ruling, effective).joined(more), asked)
    )
    if ruling.passed:
        canary.begin(conn, model, decision)
    if ruling.reason is RulingReason.SUPERSEDED:
        return decision  # the mail about the one that takes its place tells it
    raise_incident(
        conn,
        _incident(model, found, decision, ruling, asked, told_with(conn, found.requests)),
        decision.subject,
        AlertKind.CHAMPION_CHANGED if ruling.passed else AlertKind.CHALLENGER_REJECTED,
        decision.id,
        {"previous_version": ruling.champion.version if ruling.champion else None},
    )
    return decision


def decided(
    found: TrainingOutcome,
    ruling: Ruling,
    run_id: str,
    evidence: SettledEvidence,
    asked: Decision | None = None,
) -> Decision:
    """The ledger's row of a challenger that is ruled on, not appended yet.

    Args:
        found: of its training.
        ruling: promotes where it passed, rejects otherwise.
        run_id: `dag_id/run_id` that decides.
        evidence: of the row.
        asked: the row by which the challenger waited for a person; it is answered, too.
    """
    waits = (asked.id,) if asked and asked.id else ()
    return Decision(
        as_of=found.as_of,
        subject=ledger.model_subject(found.model),
        kind=DecisionKind.PROMOTED if ruling.passed else DecisionKind.REJECTED,
        reason=ruling.reason.value,
        run_id=run_id,
        dedupe_key=_key(found),
        version=found.version,
        answers=(*(found.requests if ruling.answers else ()), *waits),
        evidence=evidence,
    )


def evidence(found: TrainingOutcome, ruling: Ruling, effective_from: datetime | None) -> SettledEvidence:
    """What the ledger keeps of a training that was ruled on; `effective_from` as `in_force` gives it."""
    return SettledEvidence(
        message=ruling.message,
        trigger=found.trigger,
        metric=found.metric,
        metrics=dict(found.metrics),
        holdout=dict(found.holdout),
        checks=tuple(GateCheck(**vars(check)) for check in found.verdict.checks),
        rows=found.rows,
        previous_version=ruling.champion.version if ruling.champion else None,
        compared_with=found.champion_version,
        requests=found.requests,
        mlflow_run=found.mlflow_run,
        digest=found.digest,
        training_run=found.run_id,
        trained_until=found.trained_until,
        refitted=found.refitted,
        fingerprint=found.fingerprint,
        spec_hash=found.spec_hash,
        training_hash=found.training_hash,
        choice=found.choice or None,
        note=found.note,
        error_limit=found.error_limit,
        champion_below_baseline=_both_beaten(found)
        if ruling.passed
        else below_baseline(found.metric, found.metrics, found.champion_version),
        effective_from=effective_from,
    )


def _both_beaten(found: TrainingOutcome) -> str:
    """What is said of a challenger that is promoted although the naive baseline beats it; empty where it does not."""
    return next((c.sentence for c in found.verdict.checks if c.check == BOTH_BEATEN), "")


def below_baseline(metric: str, metrics: Mapping[str, Mapping[str, float]], champion: str | None) -> str:
    """What is said of a champion that stays and that the naive baseline beats on the judged rows; empty where it does not."""
    return worse_than_naive(metric, metrics, champion).removeprefix("; ")


def in_force(conn: Connection, found: TrainingOutcome, registered: datetime) -> datetime | None:
    """From when on a promotion of now is in force, where that is later than its training; else None.

    As-of time went on while it waited, for a person or for a failed task to be cleared, as long as the clock did.
    """
    waited = fetch(conn, "SELECT clock_timestamp() AS now")[0]["now"] - registered
    return found.as_of + waited if waited >= AT_ONCE else None


def check_version(model: ModelSpec, found: TrainingOutcome) -> datetime:
    """See that MLflow's version is this training's, made of the snapshot that the gate judged on.

    Returns:
        When it was registered (UTC).

    Raises:
        TerminalError: MLflow has no such version, or it is another training's (REGISTRY_MISMATCH).
        TransientError: MLflow does not answer.
    """
    with guarded(f"find version {found.version} of {model.name}"):
        registered = client().get_model_version(model.name, str(found.version))
    if registered.run_id != found.mlflow_run or registered.tags.get(KEY_TAG) != run_key(found.run_id):
        raise TerminalError(
            f"{model.name}: version {found.version} in MLflow is of run {registered.run_id}, the training's run is "
            f"{found.mlflow_run}; another MLflow server, or a restored one? Train again",
            ErrorReason.REGISTRY_MISMATCH,
        )
    tagged = registered.tags.get(identity.IDENTITY_TAG, "")
    if tagged != found.digest:
        raise TerminalError(
            f"{model.name}: version {found.version} in MLflow has the digest {tagged[:16] or 'none'}, the training's files have "
            f"{found.digest[:16] or 'none'}; its tags were changed since, and nothing is promoted. Train again",
            ErrorReason.REGISTRY_MISMATCH,
        )
    with guarded(f"read run {found.mlflow_run} of {model.name}"):
        logged = client().get_run(found.mlflow_run).data.tags.get(FINGERPRINT_TAG)
    if {logged, registered.tags.get(FINGERPRINT_TAG)} != {found.fingerprint}:
        raise TerminalError(
            f"{model.name}: version {found.version} was judged on snapshot {found.fingerprint[:16]}, its run in MLflow says "
            f"{str(logged)[:16]}, the version {str(registered.tags.get(FINGERPRINT_TAG))[:16]}; nothing is promoted. Train "
            "again",
            ErrorReason.REGISTRY_MISMATCH,
        )
    return datetime.fromtimestamp(registered.creation_timestamp / 1000, UTC)


def rollbacks(conn: Connection, model: ModelSpec) -> list[Decision]:
    """Every rollback of a model, newest first."""
    return ledger.find(conn, ledger.model_subject(model.name), (DecisionKind.ROLLED_BACK,))


def blocking_of(rollbacks: Sequence[Decision], found: TrainingOutcome) -> Decision | None:
    """The rollback that took back the same challenger, or one of the same rows and of a spec that makes the same model.

    What is from before there was a `training_hash` is compared by `spec_hash`. Only the watch blocks. A person who rolled
    back may have had a reason that lies outside of the model.

    Raises:
        TerminalError: the row of a rollback is damaged, so that nobody knows what it blocks.
    """
    for decision in rollbacks:
        blocked = RollbackEvidence.of(decision).blocked
        if blocked is None:
            continue
        known = blocked.training_hash
        same_spec = (
            known == found.training_hash
            if known and found.training_hash
            else blocked.spec_hash == found.spec_hash
        )
        if (blocked.fingerprint == found.fingerprint and same_spec) or blocked.version == found.version:
            return decision
    return None


def named(version: str | None) -> str:
    """A version in a sentence."""
    return f"version {version}" if version else "none"


def _key(found: TrainingOutcome) -> str:
    return f"settle:{found.model}:run:{found.mlflow_run}"


def told_with(conn: Connection, requests: Sequence[int]) -> str:
    """What names the requests of a training in the mail of its rejection.

    A drift of which people know that retraining did not help is asked for again from time to time: as long as nothing
    else comes of it, that is no news. Such a request has the name of the last one before they were told.
    """
    found = ledger.find(conn, ids=requests) if requests else []
    again = {d.id: RetrainEvidence.of(d).again for d in found}
    before = {number: known.told_with for number, known in again.items() if known}
    return "+".join(dict.fromkeys(str(before.get(number) or number) for number in requests)) or "none"


def _incident(
    model: ModelSpec,
    found: TrainingOutcome,
    decision: Decision,
    ruling: Ruling,
    waited: Decision | None,
    requests: str,
) -> str:
    """A promotion is news each time; a rejection only if champion, reason or what it answers is another.

    Otherwise a model that is good enough would be told as rejected every night. How the wait for a person ended is told
    each time.
    """
    if ruling.passed:
        return f"promoted:{model.name}:{found.version}"
    against = ruling.champion.decision_id if ruling.champion else "none"
    about = f"version {found.version}" if waited else requests
    return f"rejected:{model.name}:{against}:{decision.reason}:{about}"


def told(decision: Decision) -> str:
    """A decision on a challenger in one line, such as `version 4 promoted: it beat the champion on the same rows: …`."""
    what = decision.kind.value.replace("_", " ")
    why = words.sentence(decision.kind.value, decision.reason, decision.evidence)
    return f"version {decision.version} {what}: {why}"


def follow(model: ModelSpec, decision: Decision) -> Decision:
    """Say a decision on a challenger in the log, and let MLflow's alias and tags follow it; returns the decision.

    Raises:
        TransientError: warehouse or MLflow do not answer. The decision stands, and the next call lets them follow.
    """
    log.info("%s: %s", model.name, told(decision))
    if decision.kind is DecisionKind.PROMOTED:
        with connect() as conn:
            registry.champion(conn, model.name)
    version_tags.follow(model.name)
    return decision
