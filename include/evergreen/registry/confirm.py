"""Holds the alias `champion` in MLflow against the ledger, and puts it right with a row and a mail.

The ledger is the truth: it alone knows what passed the gate or a person. An alias that was moved or removed by hand serves
nothing here, but whoever reads MLflow takes the wrong version for the champion. So the monitor looks in every run.
"""

from __future__ import annotations

import logging
from datetime import datetime

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.evidence import AliasEvidence
from evergreen.ledger.reasons import AliasReason, DecisionKind
from evergreen.ledger.succession import succession
from evergreen.registry.aliases import aliases, move_alias
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)

ALIAS = "champion"
# A promotion moves the alias a moment after its row is there; a run of the monitor may come between.
LAG_S = 300


def confirm_alias(model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Put the alias right where it does not name the champion of now.

    Args:
        model: whose alias.
        as_of: of the run; it is written into the row. The champion is that of now, as the alias is.
        run_id: `dag_id/run_id`.

    Returns:
        The row of the repair; None where the alias is right, or only lagged behind a change of a moment ago.

    Raises:
        TerminalError: MLflow does not have the champion's version (REGISTRY_MISMATCH); nothing is written.
        TransientError: warehouse or MLflow do not answer.
    """
    with connect() as conn:
        ledger.lock(conn, model.name)
        changes = ledger.champions(conn, model.name)
        if not changes:
            return None
        right, found = str(changes[0].version), aliases(model.name).get(ALIAS)
        if found == right:
            return None
        lags = _lags(conn, changes, found)
        decision = None if lags else _record_repair(conn, model, changes[0], found, as_of, run_id)
        move_alias(model.name, ALIAS, right)
    log.warning(
        "%s: the alias %s named version %s, the ledger %s; put right", model.name, ALIAS, found, right
    )
    return decision


def _lags(conn: Connection, changes: list[Decision], found: str | None) -> bool:
    """Whether the alias names the champion before a change that was written a moment ago."""
    line = succession(changes[1:])
    if found != (line[-1] if line else None):
        return False
    age = fetch(
        conn, "SELECT extract(epoch FROM clock_timestamp() - %s)::float8 AS s", (changes[0].decided_at,)
    )
    return bool(age[0]["s"] < LAG_S)


def _record_repair(
    conn: Connection, model: ModelSpec, change: Decision, found: str | None, as_of: datetime, run_id: str
) -> Decision:
    was = f"named version {found}" if found else "was gone"
    decision = ledger.append(
        conn,
        Decision(
            as_of=as_of,
            subject=ledger.model_subject(model.name),
            kind=DecisionKind.ALIAS_REPAIRED,
            reason=(AliasReason.MOVED if found else AliasReason.REMOVED).value,
            run_id=run_id,
            dedupe_key=f"alias:{model.name}:{change.id}:{found}:{run_id}",
            version=change.version,
            evidence=AliasEvidence(
                message=f"the alias {ALIAS} in MLflow {was}, but decision {change.id} of the ledger made version "
                f"{change.version} champion; it names that one again. Nothing was scored by the alias. To make another version "
                f"champion start rollback__{model.name}, or train",
                alias=ALIAS,
                found_version=found,
                champion_decision=change.id,
            ),
        ),
    )
    # Once for each wrong version: who moves it every night is told once.
    raise_incident(
        conn,
        f"alias:{model.name}:{change.id}:{found}",
        decision.subject,
        AlertKind.ALIAS_REPAIRED,
        decision.id,
        {},
    )
    return decision
