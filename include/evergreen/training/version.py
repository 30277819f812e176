"""What is registered: the final model and the files that stay with its version.

The reference that the watch compares with gets the final model's predictions for the rows before the holdout, and
for the holdout those of the judged challenger, which had not seen them: what is told about the model's error must
come from rows it did not learn. The probe keeps the final model's own predictions: what a rollback must see again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
import yaml

from evergreen.errors import Reason, TerminalError
from evergreen.monitoring import reference
from evergreen.registry.models import ENCODING_FILE, PROBE_FILE, predict
from evergreen.spec import ModelSpec
from evergreen.training.encode import Encoding, encode, learn
from evergreen.training.evaluate import Judged
from evergreen.training.fit import gains, refit
from evergreen.training.split import labels, micros, moment

PROBE_ROWS = 200


@dataclass(frozen=True)
class Final:
    """The model that is registered, and its predictions for every row of the snapshot.

    `trained_until`: it has learnt labels of event times before this (UTC).
    """

    booster: xgb.Booster
    encoding: Encoding
    refitted: bool
    trained_until: datetime
    prediction: np.ndarray


def finalise(model: ModelSpec, judged: Judged) -> Final:
    """Fit on all rows if the gate passed and the spec says so; else the judged model is the final one.

    Raises:
        TerminalError: its predictions are not finite (BAD_METRIC).
    """
    parts = judged.split
    again = judged.verdict.passed and model.training.refit
    learnt = parts.rows if again else parts.training
    encoding = learn(model, learnt) if again else judged.encoding
    matrix = encode(encoding, parts.rows).matrix
    booster = judged.fitted.booster
    if again:
        booster = refit(model, encoding, matrix, labels(parts.rows), judged.fitted.rounds)
    predicted = predict(booster, matrix)
    if bad := int((~np.isfinite(predicted)).sum()):
        raise TerminalError(
            f"{model.name}: {bad} of {len(predicted)} predictions of the final model are not finite; look at "
            "training.params (learning_rate, max_delta_step) and at the label's range",
            Reason.BAD_METRIC,
        )
    return Final(booster, encoding, again, moment(int(micros(learnt)[-1]) + 1), predicted)


def write_run_files(
    model: ModelSpec, judged: Judged, final: Final, document: dict[str, Any], folder: Path
) -> None:
    """Write what the MLflow run keeps: spec, verdict, notes, importance, encoding and `reference/`."""
    _json(folder / "gate.json", judged.verdict.to_dict())
    _json(folder / "notes.json", judged.notes)
    _json(folder / "importance.json", gains(final.booster, final.encoding))
    _json(folder / ENCODING_FILE, final.encoding.to_dict())
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (folder / "spec.yaml").write_text(text, encoding="utf-8")
    honest = final.prediction.copy()
    honest[len(honest) - len(judged.prediction) :] = judged.prediction
    frame = judged.split.rows.append_column("_prediction", pa.array(honest))
    reference.build(model, frame, judged.holdout).write(folder / "reference")


def write_model_files(judged: Judged, final: Final, folder: Path) -> list[Path]:
    """Write what travels with the model itself: its encoding, and rows to probe it with, spread over the snapshot."""
    rows = judged.split.rows
    chosen = np.unique(np.linspace(0, rows.num_rows - 1, min(PROBE_ROWS, rows.num_rows)).astype(np.int64))
    probe = rows.take(pa.array(chosen)).append_column("_prediction", pa.array(final.prediction[chosen]))
    pq.write_table(probe, folder / PROBE_FILE)
    _json(folder / ENCODING_FILE, final.encoding.to_dict())
    return [folder / ENCODING_FILE, folder / PROBE_FILE]


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
