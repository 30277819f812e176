"""Writes into MLflow what the ledger says became of versions: decided how, champion since and until when, succeeded by which.

These tags are for people who look at MLflow. Nothing here reads them to decide, and a server that does not answer costs a line in
the log: the next decision on the model writes what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from evergreen import ledger
from evergreen.errors import EvergreenError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import TrainedEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.registry.client import client, guarded
from evergreen.warehouse.connection import connect

log = logging.getLogger(__name__)

DECISION, SINCE, UNTIL, SUCCESSOR = "decision", "champion_since", "champion_until", "succeeded_by"
TAGS = (DECISION, SINCE, UNTIL, SUCCESSOR)
KINDS = (
    DecisionKind.PROMOTED,
    DecisionKind.REJECTED,
    DecisionKind.AWAITING_APPROVAL,
    DecisionKind.ROLLED_BACK,
)
MOST_DECISIONS, MOST_VERSIONS = 500, 100


def follow(model_name: str) -> None:
    """Bring the tags of a model's newest versions and of their runs up to date; again, it changes nothing. Never fails."""
    try:
        with connect() as conn:
            decisions = ledger.find(conn, ledger.model_subject(model_name), KINDS, limit=MOST_DECISIONS)
        wanted, runs = tags_of(decisions), _runs(decisions)
        with guarded(f"write into MLflow what became of the versions of {model_name}"):
            every = client().search_model_versions(
                f"name = '{model_name}'", max_results=MOST_VERSIONS, order_by=["version_number DESC"]
            )
            for version in every:
                number = str(version.version)
                # A number that another MLflow gave out is another model's.
                if number in wanted and runs.get(number, version.run_id) == version.run_id:
                    _write(client(), version, wanted[number])
    except EvergreenError as error:
        log.warning("%s: the tags of its versions in MLflow are not up to date: %s", model_name, error)


def tags_of(decisions: Sequence[Decision]) -> dict[str, dict[str, str]]:
    """The tags of each version by its number; a pure function.

    Args:
        decisions: of `KINDS` on one model, newest first.
    """
    found: dict[str, dict[str, str]] = {}
    for decision in reversed(decisions):
        if decision.kind is not DecisionKind.ROLLED_BACK and decision.version:
            found.setdefault(decision.version, {})[DECISION] = _decided(decision)
    changes = [
        d
        for d in reversed(decisions)
        if d.kind in (DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK) and d.version
    ]
    for change in changes:
        tags = found.setdefault(str(change.version), {})
        tags[SINCE] = _time(change)
        for ended in (UNTIL, SUCCESSOR):  # of an earlier time in office
            tags.pop(ended, None)
        _end(found, changes, change)
    return found


def _end(found: dict[str, dict[str, str]], changes: Sequence[Decision], change: Decision) -> None:
    """Say of the champion before a change that its time is over."""
    before = next((one for one, other in pairwise(changes) if other is change), None)
    if before is None or before.version == change.version:
        return
    how = "promoted" if change.kind is DecisionKind.PROMOTED else "rolled back"
    found[str(before.version)] |= {UNTIL: _time(change), SUCCESSOR: f"version {change.version}, {how}"}


def _decided(decision: Decision) -> str:
    said = "waits for approval" if decision.kind is DecisionKind.AWAITING_APPROVAL else decision.kind.value
    return f"{said}: {decision.reason.replace('_', ' ')}"


def _time(change: Decision) -> str:
    return f"{change.effective_shown:%Y-%m-%d %H:%M} UTC"


def _runs(decisions: Sequence[Decision]) -> dict[str, str]:
    """The MLflow run that the newest decision on each version names."""
    found = {}
    for decision in reversed(decisions):
        known = decision.evidence
        if isinstance(known, TrainedEvidence) and decision.version and known.mlflow_run:
            found[decision.version] = known.mlflow_run
    return found


def _write(mlflow_client: MlflowClient, version: ModelVersion, wanted: dict[str, str]) -> None:
    """The run first: what is missing is seen by the version's tags."""
    run = str(version.run_id)
    for name in TAGS:
        value, now = wanted.get(name), version.tags.get(name)
        if value is not None and value != now:
            mlflow_client.set_tag(run, name, value)
            mlflow_client.set_model_version_tag(version.name, str(version.version), name, value)
        elif value is None and now is not None:
            if name in mlflow_client.get_run(run).data.tags:
                mlflow_client.delete_tag(run, name)
            mlflow_client.delete_model_version_tag(version.name, str(version.version), name)
