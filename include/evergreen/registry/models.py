"""Versions of a model out of MLflow, ready to predict; a version that is not what was registered is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xgboost as xgb

from evergreen import settings
from evergreen.errors import Reason, TerminalError
from evergreen.registry.artifacts import fetched
from evergreen.registry.client import client, guarded
from evergreen.spec import ModelSpec
from evergreen.training.encode import Encoded, Encoding, encode

MODEL_FILE = "model.ubj"
ENCODING_FILE = "features.json"
PROBE_FILE = "probe.parquet"
DIGEST_TAG = "evergreen.model_sha256"


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
    booster.set_param({"nthread": int(settings.THREADS.read()), "device": "cpu"})
    return np.asarray(booster.inplace_predict(matrix, validate_features=False), dtype=np.float64)


def load(model: ModelSpec, version: str) -> LoadedModel:
    """Load a registered version.

    MLflow is asked for the version each time, so that one which was deleted is not served from this
    machine's cache; the files are fetched once.

    Args:
        model: its spec (the name is what counts).
        version: the number, as text.

    Raises:
        TerminalError: MLflow has no such version, or its files are not those that were registered
            (REGISTRY_MISMATCH).
        TransientError: MLflow does not answer.
    """
    with guarded(f"load version {version} of {model.name}"):
        found = client().get_model_version(model.name, version)
        folder = fetched(f"models/{model.name}-{version}-{found.run_id}", f"models:/{model.name}/{version}")
    path = folder / MODEL_FILE
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if digest != found.tags.get(DIGEST_TAG):
        raise TerminalError(
            f"{model.name} version {version}: {MODEL_FILE} has SHA-256 {digest[:16]}, registered was "
            f"{str(found.tags.get(DIGEST_TAG))[:16]}; the file was changed after training. Delete {folder} in case the "
            "copy on this machine is damaged, else roll back",
            Reason.REGISTRY_MISMATCH,
        )
    booster = xgb.Booster()
    booster.load_model(path)
    encoding = Encoding.from_dict(
        json.loads((folder / "extra_files" / ENCODING_FILE).read_text(encoding="utf-8"))
    )
    return LoadedModel(version, str(found.run_id), booster, encoding, folder)
