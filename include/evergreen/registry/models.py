"""Versions of a model out of MLflow, ready to predict; a version that is not what was registered is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
import yaml

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry import identity
from evergreen.registry.artifacts import fetched, local_copy
from evergreen.registry.client import WAY_ON, client, guarded
from evergreen.registry.encoding import Encoded, Encoding, encode
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import connect

log = logging.getLogger(__name__)

MODEL_FILE = "model.ubj"
ENCODING_FILE = "features.json"
PROBE_FILE = "probe.parquet"
SPEC_FILE = "spec.yaml"  # of the run
EXTRA = "extra_files"  # MLflow's folder for what travels with a model
DIGEST_TAG = "evergreen.model_sha256"  # of the booster's file alone, as earlier releases kept it
TOLERANCE = 1e-5


@dataclass(frozen=True)
class LoadedModel:
    """A version in memory: the booster and the encoding it was trained with."""

    version: str
    run_id: str
    booster: xgb.Booster
    encoding: Encoding
    folder: Path

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """The categories that the version knows, by feature."""
        return self.encoding.categorical

    def seen_by(self, model: ModelSpec) -> ModelSpec:
        """The spec with the features that this version was trained on, which are what it needs to predict."""
        return model.seeing(self.encoding.numeric, self.encoding.categorical)

    def encode(self, table: pa.Table) -> Encoded:
        """Turn feature rows into the model's input; says how many values it does not know."""
        return encode(self.encoding, table)

    def predict_encoded(self, encoded: Encoded) -> np.ndarray:
        """Predictions (float64, one a row) of encoded rows: the label's unit, or the probability of class 1."""
        return predict(self.booster, encoded.matrix)

    def predict(self, table: pa.Table) -> np.ndarray:
        """Predictions (float64, one a row) of feature rows, which may hold further columns.

        Raises:
            TerminalError: a feature of the model is missing (REGISTRY_MISMATCH).
        """
        return self.predict_encoded(self.encode(table))


def predict(booster: xgb.Booster, matrix: np.ndarray) -> np.ndarray:
    """Predict with every tree of a booster on encoded rows (float32, a column a feature)."""
    if not len(matrix):
        return np.empty(0)
    # A booster that was fitted on a GPU would warn about numbers that lie elsewhere.
    booster.set_param({"nthread": settings.THREADS.number(), "device": "cpu"})
    return np.asarray(booster.inplace_predict(matrix, validate_features=False), dtype=np.float64)


def load(model: ModelSpec, version: str) -> LoadedModel:
    """Load a registered version, after it was seen to be the one that the ledger decided on, unchanged.

    MLflow is asked for the version each time, so that one which was deleted is not served from this
    machine's cache; the files are fetched once. Its run must be the one that the ledger knows for that number, and every
    file that is loaded must have the sum that was registered, see `identity`. Of a version that an earlier release
    registered the booster's sum alone is known; its encoding must then give the predictions that were kept with it.

    Args:
        model: its spec (the name is what counts).
        version: the number, as text.

    Raises:
        TerminalError: MLflow has no such version, it is another one than the ledger's, or its files are not those that
            were registered (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer.
    """
    what = f"{model.name} version {version}"
    with guarded(f"load version {version} of {model.name}"):
        found = client().get_model_version(model.name, version)
    with connect() as conn:
        ledgers = identity.known(conn, model.name, version)
    identity.require_run(model.name, version, str(found.run_id), ledgers)
    with guarded(f"load version {version} of {model.name}"):
        folder = fetched(f"models/{model.name}-{version}-{found.run_id}", f"models:/{model.name}/{version}")
    places = {
        MODEL_FILE: folder / MODEL_FILE,
        **{name: folder / EXTRA / name for name in (ENCODING_FILE, PROBE_FILE)},
    }
    sums = identity.expected(what, found.tags, ledgers)
    # Every version has this one, of whichever release.
    identity.verify(
        what, folder, {MODEL_FILE: places[MODEL_FILE]}, {MODEL_FILE: found.tags.get(DIGEST_TAG, "")}
    )
    if sums is not None:
        identity.verify(what, folder, places, sums)
    booster = xgb.Booster()
    booster.load_model(places[MODEL_FILE])
    loaded = LoadedModel(version, str(found.run_id), booster, _encoding(what, places[ENCODING_FILE]), folder)
    if sums is None:
        log.warning(
            "%s was registered by an earlier release, which kept the sum of %s alone; its encoding was held against its probe",
            what, MODEL_FILE,
        )  # fmt: skip
        if places[PROBE_FILE].is_file():
            probe(loaded)
    return loaded


def trained_as(model: ModelSpec, run_id: str) -> dict[str, Any]:
    """The spec from which the version of an MLflow run was trained, as its YAML says it, datasets left out.

    Raises:
        TerminalError: it is not there, or not as it was registered (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer.
    """
    path = local_copy(model.name, run_id, SPEC_FILE)
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise TerminalError(
            f"{model.name}: {SPEC_FILE} of MLflow run {run_id} cannot be read ({type(error).__name__}); it is damaged. "
            f"{WAY_ON}",
            ErrorReason.REGISTRY_MISMATCH,
        ) from error


def _encoding(what: str, path: Path) -> Encoding:
    try:
        return Encoding.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TerminalError(
            f"{what}: {ENCODING_FILE} cannot be read ({type(error).__name__}: {error}); it is damaged. Delete {path.parent.parent} "
            f"in case only the copy on this machine is. {WAY_ON}",
            ErrorReason.REGISTRY_MISMATCH,
        ) from error


def probe(loaded: LoadedModel) -> dict[str, float]:
    """Score the rows that were kept with a version and compare with what it predicted when it was trained.

    Returns:
        The number of rows and the largest difference, relative to the largest prediction.

    Raises:
        TerminalError: predictions that are not finite or differ by more than 1e-5 (PROBE_FAILED), or no rows
            (REGISTRY_MISMATCH).
    """
    path = loaded.folder / EXTRA / PROBE_FILE
    if not path.is_file():
        raise TerminalError(
            f"version {loaded.version} has no {PROBE_FILE} in MLflow, so it cannot be tried; choose another version",
            ErrorReason.REGISTRY_MISMATCH,
        )
    rows = pq.read_table(path)
    expected, found = rows["_prediction"].to_numpy(), loaded.predict(rows)
    if not rows.num_rows or not np.isfinite(found).all():
        raise TerminalError(
            f"version {loaded.version} gives {int((~np.isfinite(found)).sum())} predictions that are not finite for "
            f"{rows.num_rows} probe rows; choose another version",
            ErrorReason.PROBE_FAILED,
        )
    difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not difference <= TOLERANCE:
        raise TerminalError(
            f"version {loaded.version} predicts otherwise than when it was trained: largest relative difference "
            f"{difference:.2g}, limit {TOLERANCE:g}; another version of XGBoost? Choose another version or train again",
            ErrorReason.PROBE_FAILED,
        )
    return {"rows": rows.num_rows, "largest_difference": difference}
