"""Settles a training: the ledger says whether its challenger is champion, then MLflow's alias follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evergreen import ledger, registry
from evergreen.alerting.outbox import raise_incident
from evergreen.errors import Reason, TerminalError
from evergreen.ledger import Decision, Kind
from evergreen.registry.client import client, guarded
from evergreen.spec import ModelSpec, Specs
from evergreen.training.outcome import Outcome
from evergreen.training.record import KEY_TAG, run_key
from evergreen.warehouse.connection import connect

CHAMPION_CHANGED = "champion_changed_meanwhile"
BLOCKED = "blocked_after_rollback"


def settle(
    specs: Specs,
    model: ModelSpec,
    outcome: Outcome | Mapping[str, Any],
    run_id: str,
    *,
    because: str = "",
) -> Decision:
    """Promote or reject the challenger of a training, once, and owe the e-mail in the same transaction.

    Under the model's lock the champion must still be the one that the gate compared with; if it is not, the
    challenger is rejected (champion_changed_meanwhile) and its retrain requests stay open for the next training,
    because nothing has answered them. A challenger that the watch after its promotion took back, or one that was made
    of the same rows by the same spec, is rejected (blocked_after_rollback) whatever the gate says. Called again it returns the decision that stands and moves the alias if an
    earlier call could not. The decision is as of the outcome's own time: a run that is cleared as a whole may have
    planned a newer one, and its training still returns what it had come to.

    Args:
        specs: all specs.
        model: the model.
        outcome: of `train`, as object or as its dictionary.
        run_id: the DAG run that settles.
        because: what the person said who started the training; part of the evidence.

    Returns:
        The ledger's row: PROMOTED or REJECTED.

    Raises:
        TerminalError: MLflow has no such version, or it is another training's (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer. If the decision was already written, it stands.
        ValueError: the outcome of a dry run or of another model.
    """
    found = outcome if isinstance(outcome, Outcome) else Outcome.from_dict(dict(outcome))
    if found.dry_run or found.version is None:
        raise ValueError(f"{model.name}: a dry run decides nothing; settle is not called for it")
    if found.model != model.name:
        raise ValueError(f"the outcome is of {found.model}, asked was {model.name}")
    _check_version(model, found)
    with connect() as conn:
        ledger.lock(conn, model.name)
        key = f"settle:{model.name}:{found.version}"
        standing = ledger.find(conn, dedupe_key=key)
        decision = standing[0] if standing else _decide(conn, model, found, run_id, key, because)
    if decision.kind is Kind.PROMOTED:
        with connect() as conn:
            registry.champion(conn, model.name)
    return decision


def _decide(conn: Any, model: ModelSpec, found: Outcome, run_id: str, key: str, because: str) -> Decision:
    ruling = registry.champion(conn, model.name, repair=False)
    changed = (ruling.decision_id if ruling else None) != found.champion_decision
    blocking = None if changed else _blocking(conn, model, found)
    promoted = found.passed and not changed and blocking is None
    message = found.sentence()
    if blocking is not None:
        message = (
            f"the watch took back {_version(blocking.evidence['blocked'].get('version'))}, made of the same rows by the same "
            f"spec (decision {blocking.id}); a training on newer rows may be promoted. By hand: rollback__{model.name} with "
            "To version"
        )
    if changed:
        message = (
            f"the gate compared with {_version(found.champion_version)}, champion is now "
            f"{_version(ruling.version if ruling else None)}; the next training compares again"
        )
    decision = ledger.append(
        conn,
        Decision(
            as_of=found.as_of,
            subject=ledger.model_subject(model.name),
            kind=Kind.PROMOTED if promoted else Kind.REJECTED,
            reason=CHAMPION_CHANGED if changed else BLOCKED if blocking else found.verdict.reason.value,
            run_id=run_id,
            dedupe_key=key,
            version=found.version,
            answers=() if changed else found.requests,
            evidence={
                "message": message,
                "trigger": found.trigger,
                **({"asked_because": because} if because else {}),
                "metric": found.metric,
                "metrics": found.metrics,
                "holdout": found.holdout,
                "checks": found.verdict.to_dict()["checks"],
                "rows": found.rows,
                "previous_version": ruling.version if ruling else None,
                "compared_with": found.champion_version,
                "requests": list(found.requests),
                "mlflow_run": found.mlflow_run,
                "training_run": found.run_id,
                "trained_until": found.trained_until.isoformat(),
                "refitted": found.refitted,
                "fingerprint": found.fingerprint,
                "spec_hash": found.spec_hash,
                "training_hash": found.training_hash,
            },
        ),
    )
    raise_incident(
        conn,
        _incident(model, found, decision, ruling),
        decision.subject,
        "champion_changed" if promoted else "challenger_rejected",
        decision.id,
        {"previous_version": ruling.version if ruling else None},
    )
    return decision


def _blocking(conn: Any, model: ModelSpec, found: Outcome) -> Decision | None:
    taken_back = ledger.find(conn, ledger.model_subject(model.name), (Kind.ROLLED_BACK,))
    return blocking_of(taken_back, found.version, found.fingerprint, found.spec_hash)


def blocking_of(
    rollbacks: Sequence[Decision], version: str | None, fingerprint: str, spec_hash: str
) -> Decision | None:
    """The rollback that took back the same challenger, or one of the same rows and the same spec.

    Only the watch blocks. A person who rolled back may have had a reason that lies outside of the model.
    """
    for decision in rollbacks:
        blocked = decision.evidence.get("blocked") or {}
        same_rows = (blocked.get("fingerprint"), blocked.get("spec_hash")) == (fingerprint, spec_hash)
        if blocked and (same_rows or blocked.get("version") == version):
            return decision
    return None


def _incident(model: ModelSpec, found: Outcome, decision: Decision, ruling: registry.Champion | None) -> str:
    """A promotion is news each time; a rejection only if champion, reason or what it answers is another.

    Otherwise a model that is good enough would be told as rejected every night.
    """
    if decision.kind is Kind.PROMOTED:
        return f"promoted:{model.name}:{found.version}"
    against = ruling.decision_id if ruling else "none"
    return f"rejected:{model.name}:{against}:{decision.reason}:{'+'.join(map(str, found.requests)) or 'none'}"


def _check_version(model: ModelSpec, found: Outcome) -> None:
    with guarded(f"find version {found.version} of {model.name}"):
        registered = client().get_model_version(model.name, str(found.version))
    if registered.run_id != found.mlflow_run or registered.tags.get(KEY_TAG) != run_key(found.run_id):
        raise TerminalError(
            f"{model.name}: version {found.version} in MLflow is of run {registered.run_id}, the training's run is "
            f"{found.mlflow_run}; another MLflow server, or a restored one? Train again",
            Reason.REGISTRY_MISMATCH,
        )


def _version(version: str | None) -> str:
    return f"version {version}" if version else "none"
