"""Who is champion, who was, and who comes back on a rollback: read from the ledger, never from MLflow.

The alias `champion` in MLflow is for people and other tools; it follows the ledger and is put right here when
a run died between the ledger's commit and the move of the alias.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mlflow.exceptions import MlflowException

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.registry.aliases import move_alias
from evergreen.registry.client import MISSING, client, guarded
from evergreen.warehouse.connection import Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A version that is or was champion.

    `as_of` is its training cut-off, `trained_until` the event time before which it saw labelled rows (UTC);
    `holdout` holds its metrics on the holdout of its training. `decision_id`, `decided_at`, `kind` and `reason` belong to the decision that made it champion.
    """

    version: str
    run_id: str
    as_of: datetime
    trained_until: datetime
    decision_id: int
    decided_at: datetime
    kind: DecisionKind
    reason: str
    holdout: Mapping[str, float] = field(default_factory=dict)


def champion(
    conn: Connection, model_name: str, *, repair: bool = True, as_of: datetime | None = None
) -> Champion | None:
    """The champion of now, or as of a time; None before the first promotion.

    Args:
        conn: the warehouse.
        model_name: name of the model.
        repair: put the alias in MLflow right if it names another version; needs MLflow. Without it MLflow is
            not asked at all.
        as_of: changes of champion decided as of a later time do not count. The alias names the champion of now
            and is left alone then, whatever `repair` says.

    Raises:
        TerminalError: MLflow has no such version (REGISTRY_MISMATCH).
        TransientError: MLflow does not answer.
    """
    changes = ledger.champions(conn, model_name, as_of)
    if not changes:
        return None
    found = champion_of(model_name, changes[0], changes)
    if repair and as_of is None:
        move_alias(model_name, "champion", found.version)
    return found


def history(conn: Connection, model_name: str) -> list[Champion]:
    """Every change of champion, newest first: a promotion or a rollback each, with when and why."""
    changes = ledger.champions(conn, model_name)
    return [champion_of(model_name, change, changes) for change in changes]


def champion_of(model_name: str, change: Decision, changes: list[Decision]) -> Champion:
    """The version that a change of champion put into office; MLflow is asked only for promotions without its run.

    Args:
        model_name: name of the model.
        change: one of the changes.
        changes: the ledger's promotions and rollbacks.

    Raises:
        TerminalError: no decision ever promoted that version, or its row is damaged.
    """
    made = next((c for c in changes if c.version == change.version and c.kind is DecisionKind.PROMOTED), None)
    if change.version is None or made is None or change.id is None or change.decided_at is None:
        raise TerminalError(
            f"{model_name}: decision {change.id} of the ledger makes version {change.version} champion, but no decision "
            "ever promoted that version; look at the ledger, then roll back to a version by its number",
            ErrorReason.REGISTRY_MISMATCH,
        )
    training = SettledEvidence.of(made)
    return Champion(
        version=change.version,
        run_id=training.mlflow_run or _run_of(model_name, change.version),
        as_of=made.as_of,
        trained_until=training.trained_until or made.as_of,
        decision_id=change.id,
        decided_at=change.decided_at,
        kind=change.kind,
        reason=change.reason,
        holdout=training.holdout,
    )


def _run_of(model_name: str, version: str) -> str:
    """The MLflow run of a version whose promotion an earlier release wrote; empty where MLflow has lost the version."""
    with guarded(f"find version {version} of {model_name}"):
        try:
            return str(client().get_model_version(model_name, version).run_id)
        except MlflowException as error:
            if error.error_code not in MISSING:
                raise
    log.warning("%s: MLflow does not have version %s, the champion, any more", model_name, version)
    return ""
