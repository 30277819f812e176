"""Settles a training: the ledger says whether its challenger is champion or waits, then MLflow's alias follows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import NEEDS_A_PERSON
from evergreen.promotion import approval
from evergreen.promotion.ruling import Waited, check_version, follow, rule, settled, write
from evergreen.spec import ModelSpec, Specs
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.connection import Connection, connect


def settle(
    specs: Specs,
    model: ModelSpec,
    outcome: TrainingOutcome | Mapping[str, Any],
    run_id: str,
    *,
    because: str = "",
) -> Decision:
    """Promote or reject the challenger of a training, once, and owe the e-mail in the same transaction.

    Under the model's lock the champion must still be the one that the gate compared with; if it is not, the
    challenger is rejected (champion_changed_meanwhile) and its retrain requests stay open for the next training,
    because nothing has answered them. A challenger that the watch after its promotion took back, or one that was made
    of the same rows by a spec that makes the same model, is rejected (blocked_after_rollback) whatever the gate says.
    Called again it returns the decision that stands and moves the alias if an earlier call could not. The decision is as of the outcome's own time: a run that is cleared as a whole may have
    planned a newer one, and its training still returns what it had come to.

    With `gate.approval: manual` a challenger that passed is not promoted: it waits, see `approval`. Its retrain requests
    stay open until the person has decided. So does, whatever the spec says, one that the gate could not hold against the
    champion (champion_cannot_be_evaluated).

    Args:
        specs: all specs.
        model: the model.
        outcome: of `train`, as object or as its dictionary.
        run_id: the DAG run that settles.
        because: what the person said who started the training; part of the evidence.

    Returns:
        The ledger's row: PROMOTED, REJECTED or AWAITING_APPROVAL.

    Raises:
        TerminalError: MLflow has no such version, or it is another training's (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer. If the decision was already written, it stands.
        ValueError: the outcome of a dry run or of another model.
    """
    found = outcome if isinstance(outcome, TrainingOutcome) else TrainingOutcome.from_dict(dict(outcome))
    if found.dry_run or found.version is None:
        raise ValueError(f"{model.name}: a dry run decides nothing; settle is not called for it")
    if found.model != model.name:
        raise ValueError(f"the outcome is of {found.model}, asked was {model.name}")
    registered = check_version(model, found)
    with connect() as conn:
        ledger.lock(conn, model.name)
        standing = settled(conn, model, found) or approval.waiting_for(conn, model, found)
        decision = standing or _decide(conn, model, found, registered, run_id, because)
    return follow(model, decision)


def _decide(
    conn: Connection,
    model: ModelSpec,
    found: TrainingOutcome,
    registered: datetime,
    run_id: str,
    because: str,
) -> Decision:
    ruling = rule(conn, model, found)
    more = SettledEvidence(asked_because=because)
    if ruling.passed:
        newer = approval.newer_than(conn, model, found)
        if newer is not None:
            return write(conn, model, found, approval.superseded(ruling, newer.version), run_id, more=more)
        found = approval.supersede(conn, model, found, run_id)
        if model.gate.approval == "manual" or found.verdict.reason in NEEDS_A_PERSON:
            return approval.wait(conn, model, found, ruling, run_id, because=because)
    return write(conn, model, found, ruling, run_id, more=more, waited=Waited(None, registered))
