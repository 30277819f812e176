"""A training's snapshot as MLflow's own kind of data set: named, with its fingerprint, its columns and its rows."""

from __future__ import annotations

import json
from datetime import datetime

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types import ColSpec, DataType, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from evergreen.spec import ModelSpec
from evergreen.warehouse.features.snapshot import Snapshot

# MLflow keeps 36 characters; so many name the snapshot's file, too.
DIGEST = 16


def dataset_of(model: ModelSpec, snapshot: Snapshot, as_of: datetime, commit: str) -> Dataset:
    """The rows of a training as MLflow shows them.

    The source is the feature query: the file of a snapshot is gone when the training has ended, and the query gives the same
    rows as of the same time.

    Args:
        model: the spec.
        snapshot: the rows.
        as_of: of the training.
        commit: of the specs.
    """
    columns = [
        ColSpec(DataType.datetime, model.event_time, required=True),
        *(ColSpec(DataType.double, name, required=False) for name in model.features.numeric),
        *(ColSpec(DataType.string, name, required=False) for name in model.features.categorical),
        ColSpec(DataType.double, model.label.column, required=True),
    ]
    source = {
        "mlflow.source.name": f"models/{model.name}.sql of {', '.join(model.datasets)}",
        "as_of": as_of.isoformat(),
        "git_commit": commit,
    }
    profile = {
        "num_rows": snapshot.rows,
        "num_elements": snapshot.rows * len(columns),
        "unlabelled_rows": snapshot.unlabelled,
        "first_event_time": snapshot.start,
        "last_event_time": snapshot.end,
    }
    origin = CodeDatasetSource(source)
    return Dataset(
        name=f"{model.name} snapshot",
        digest=snapshot.fingerprint[:DIGEST],
        source_type=origin._get_source_type(),
        source=origin.to_json(),
        schema=json.dumps({"mlflow_colspec": Schema([*columns]).to_dict()}),
        profile=json.dumps(profile),
    )


def training_input(dataset: Dataset) -> DatasetInput:
    """The data set as what a run learnt from."""
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])
