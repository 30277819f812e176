"""A training's record in MLflow: one run for each training of Airflow, however often it is tried.

A run carries `evergreen.run_key`. A try that finds a finished run takes its outcome; one that finds an unfinished
run discards it, with the version it may have registered, and begins again: a version of an unfinished run was
never settled, since settling needs the outcome that is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import mlflow.xgboost
import xgboost as xgb
from mlflow import MlflowClient
from mlflow.entities import Dataset, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from evergreen.registry import identity
from evergreen.registry.client import client, guarded
from evergreen.registry.encoding import Encoding
from evergreen.registry.models import ENCODING_FILE
from evergreen.spec import ModelSpec
from evergreen.training.record import description
from evergreen.training.record.dataset_input import training_input
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.training.record.provenance import requirements

log = logging.getLogger(__name__)

KEY_TAG = "evergreen.run_key"
TRIGGER_TAG, DRY_RUN_TAG, VERDICT_TAG = "trigger", "dry_run", "verdict"  # for people
DONE_TAG = "evergreen.complete"
TABLES_TAG = "mlflow.loggedArtifacts"
OUTCOME_FILE = "outcome.json"


def run_key(run_id: str) -> str:
    """A run id as MLflow can search for it: it may hold quotes."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:32]


def experiment(model: ModelSpec) -> str:
    """Id of the model's experiment, made or brought back if need be."""
    with guarded(f"open the experiment {model.name}"):
        found = client().get_experiment_by_name(model.name)
        if found is None:
            try:
                return client().create_experiment(model.name)
            except MlflowException:
                found = client().get_experiment_by_name(model.name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client().restore_experiment(found.experiment_id)
        return found.experiment_id


def earlier(model: ModelSpec, run_id: str) -> TrainingOutcome | None:
    """The outcome of an earlier try of the same training; what an unfinished try left is discarded.

    Raises:
        TransientError: MLflow does not answer.
    """
    place = experiment(model)
    with guarded(f"look for an earlier try of {run_id}"):
        for run in client().search_runs([place], f"tags.`{KEY_TAG}` = '{run_key(run_id)}'"):
            if run.data.tags.get(DONE_TAG) == "true":
                with tempfile.TemporaryDirectory() as folder:
                    path = client().download_artifacts(run.info.run_id, OUTCOME_FILE, folder)
                    found = TrainingOutcome.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
                if run.info.status == "RUNNING":  # it was killed after its outcome was written
                    client().set_terminated(run.info.run_id, "FINISHED")
                return found
            _discard(client(), run)
    return None


def sweep(model: ModelSpec, run_id: str, at_work: Callable[[str, str], bool]) -> None:
    """Close the MLflow runs that killed trainings of a model left open, and delete the versions that they registered.

    Such a version was never settled, as settling needs the outcome that is written last. A training that Airflow tries again
    finds its run closed and discards it, see `earlier`; one that had its outcome written is only closed.

    Args:
        model: whose.
        run_id: the training that begins; its own runs are left to `earlier`.
        at_work: tells by the model's name and a run id whether a try of that training is at work.

    Raises:
        TransientError: MLflow or the warehouse do not answer.
    """
    place = experiment(model)
    with guarded(f"look for trainings of {model.name} that were killed"):
        for run in client().search_runs([place], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            theirs = tags.get("evergreen.run_id", "")
            if not theirs or tags[KEY_TAG] == run_key(run_id) or at_work(model.name, theirs):
                continue
            if tags.get(DONE_TAG) == "true":
                client().set_terminated(run.info.run_id, "FINISHED")
                continue
            log.warning(
                "%s: closing the MLflow run of %s, whose process ended without a word", model.name, theirs
            )
            _delete_versions(client(), run)
            client().set_tag(
                run.info.run_id,
                "evergreen.error",
                "its process ended without a word: killed, or its machine was",
            )
            client().set_terminated(run.info.run_id, "KILLED")


def begin(model: ModelSpec, run_id: str, as_of: datetime, tags: dict[str, str]) -> str:
    """Open the MLflow run of a training and return its id."""
    place = experiment(model)
    with guarded(f"open an MLflow run for {model.name}"):
        run = client().create_run(
            place,
            run_name=description.run_name(
                model.name, f"{as_of:%Y-%m-%d %H:%M}", tags[TRIGGER_TAG], DRY_RUN_TAG in tags
            ),
            tags={**tags, **_identity(as_of, run_id)},
        )
        return str(run.info.run_id)


def parameters(mlflow_run: str, params: dict[str, Any]) -> None:
    """Write parameters; the model that is logged after them has them too."""
    with guarded(f"write into MLflow run {mlflow_run}"):
        client().log_batch(mlflow_run, params=[Param(name, str(v)[:5000]) for name, v in params.items()])


def learnt_from(mlflow_run: str, dataset: Dataset) -> None:
    """Write down the data set of a run, as MLflow shows it beside the run."""
    with guarded(f"write into MLflow run {mlflow_run}"):
        client().log_inputs(mlflow_run, [training_input(dataset)])


def measured(
    mlflow_run: str,
    model_id: str,
    dataset: Dataset,
    metrics: Mapping[str, float],
    curves: Mapping[str, Mapping[int, float]],
) -> None:
    """Write metrics, of the run and of its model, and curves of the run.

    After the model: of metrics that are there before it MLflow asks for the history of each, one by one.

    Args:
        mlflow_run: the run.
        model_id: of its model.
        dataset: from which the metrics come.
        metrics: by name.
        curves: values by step, by name; at most some 100 steps each, as MLflow takes 1,000 values at once.
    """
    of_the_model = {"model_id": model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest}
    with guarded(f"write into MLflow run {mlflow_run}"):
        client().log_batch(
            mlflow_run,
            metrics=[
                *(
                    Metric(name, value, 0, 0, **of_the_model, run_id=mlflow_run)
                    for name, value in metrics.items()
                ),
                *(
                    Metric(name, value, 0, step)
                    for name, steps in curves.items()
                    for step, value in steps.items()
                ),
            ],
        )


def describe(mlflow_run: str, outcome: TrainingOutcome, text: str) -> None:
    """Write what people see of a run first: its description, and the verdict as a tag."""
    with guarded(f"write into MLflow run {mlflow_run}"):
        tags = {MLFLOW_RUN_NOTE: text, VERDICT_TAG: description.verdict(outcome)}
        client().log_batch(mlflow_run, tags=[RunTag(name, value) for name, value in tags.items()])


def show_table(mlflow_run: str, path: str) -> None:
    """Have MLflow's page of the run show an artifact as a table, as `mlflow.log_table` does."""
    with guarded(f"write into MLflow run {mlflow_run}"):
        client().set_tag(mlflow_run, TABLES_TAG, json.dumps([{"path": path, "type": "table"}]))


def model_files(mlflow_run: str, booster: xgb.Booster, encoding: Encoding, extra: list[Path]) -> str:
    """Log the model in XGBoost's own format with its signature and pinned requirements; returns MLflow's model id.

    The signature names the encoded columns: numbers, and for a categorical feature the position of its value in
    `features.json`, which travels with the model.
    """
    inputs = Schema([ColSpec("double", name, required=False) for name in encoding.features])
    signature = ModelSignature(inputs, Schema([ColSpec("double")]))
    with guarded(f"write the model into MLflow run {mlflow_run}"):
        mlflow.start_run(run_id=mlflow_run, log_system_metrics=False)
        try:
            logged = mlflow.xgboost.log_model(
                booster,
                name="model",
                model_format="ubj",
                signature=signature,
                pip_requirements=requirements(),
                extra_files=[str(path) for path in extra],
                metadata={"evergreen_encoding": ENCODING_FILE},
            )
        finally:
            # Leaving the run by `with` would call it finished, and a training that is killed after that would look whole.
            mlflow.end_run("RUNNING")
        return str(logged.model_id)


def tag_files(mlflow_run: str, sums: dict[str, str]) -> dict[str, str]:
    """Keep the sums of a version's files and their digest with the run; returns the same tags for the version."""
    tags = {identity.FILES_TAG: json.dumps(sums), identity.IDENTITY_TAG: identity.digest_of(sums)}
    with guarded(f"write into MLflow run {mlflow_run}"):
        client().log_batch(mlflow_run, tags=[RunTag(name, value) for name, value in tags.items()])
    return tags


def register(
    model: ModelSpec, outcome: TrainingOutcome, model_id: str, tags: dict[str, str], beyond: int, text: str
) -> str:
    """Register the run's model as a version with the alias `challenger`, described by a text; returns the version.

    Its number is larger than `beyond`, the largest that the ledger has seen: MLflow counts from 1 again after the registered
    model was deleted, and goes back with a database that was restored. The numbers between are taken and deleted, and so used
    up; a call that dies among them leaves versions of its own run, which the next try discards.
    """
    tags = {
        VERDICT_TAG: description.verdict(outcome),
        TRIGGER_TAG: outcome.trigger,
        **tags,
        **_identity(outcome.as_of, outcome.run_id),
    }
    with guarded(f"register a version of {model.name}"):
        try:
            client().create_registered_model(model.name, description=model.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        while True:
            made = client().create_model_version(
                model.name,
                f"models:/{model_id}",
                run_id=outcome.mlflow_run,
                tags=tags,
                model_id=model_id,
                description=text,
            )
            if int(made.version) > beyond:
                break
            log.warning(
                "%s: MLflow gave the number %s, the ledger knows numbers up to %d; it is used up",
                model.name,
                made.version,
                beyond,
            )
            client().delete_model_version(model.name, str(made.version))
        client().set_registered_model_alias(model.name, "challenger", str(made.version))
        return str(made.version)


def finish(mlflow_run: str, outcome: TrainingOutcome) -> None:
    """Write the outcome, then mark the run complete: from here on a retry takes it as it is."""
    with guarded(f"finish MLflow run {mlflow_run}"):
        client().log_dict(mlflow_run, outcome.to_dict(), OUTCOME_FILE)
        client().set_tag(mlflow_run, DONE_TAG, "true")
        client().set_terminated(mlflow_run, "FINISHED")


def fail(mlflow_run: str, message: str) -> None:
    """Close the run of a training that failed, with the reason in a tag."""
    with guarded(f"close MLflow run {mlflow_run}"):
        client().set_tag(mlflow_run, "evergreen.error", message[:4000])
        client().set_terminated(mlflow_run, "FAILED")


def _identity(as_of: datetime, run_id: str) -> dict[str, str]:
    return {KEY_TAG: run_key(run_id), "evergreen.run_id": run_id[:4000], "evergreen.as_of": as_of.isoformat()}


def _delete_versions(mlflow_client: MlflowClient, run: Run) -> None:
    for version in mlflow_client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        mlflow_client.delete_model_version(version.name, str(version.version))


def _discard(mlflow_client: MlflowClient, run: Run) -> None:
    _delete_versions(mlflow_client, run)
    for output in run.outputs.model_outputs if run.outputs else ():
        mlflow_client.delete_logged_model(output.model_id)
    mlflow_client.delete_run(run.info.run_id)
