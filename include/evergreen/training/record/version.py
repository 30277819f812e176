"""What is registered: the final model and the files that stay with its version.

The reference that the watch compares with gets the final model's predictions for the rows before the holdout, and
for the holdout those of the judged challenger, which had not seen them: what is told about the model's error must
come from rows it did not learn. Rows without a label between them are predicted likewise: windows will hold such rows, too. The probe keeps the final model's own predictions: what a rollback must see again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
import yaml

from evergreen.errors import ErrorReason, TerminalError
from evergreen.microseconds import moment
from evergreen.reference import error_limit, reference
from evergreen.registry.encoding import Encoding, encode, survey
from evergreen.registry.models import ENCODING_FILE, PROBE_FILE, SPEC_FILE, predict
from evergreen.spec import ModelSpec
from evergreen.training.data.matrix import write
from evergreen.training.data.rows import Rows
from evergreen.training.data.split import unlabelled
from evergreen.training.fitting.fit import Refitting, gain_shares, gains, refit
from evergreen.training.fitting.local import Labelled
from evergreen.training.gate.checks import prediction_limit
from evergreen.training.gate.evaluate import EvaluatedChallenger
from evergreen.training.record.unseen_predictions import outside
from evergreen.training.search import leaderboard
from evergreen.warehouse.features.snapshot import Snapshot

PROBE_ROWS = 200
REFERENCE = "reference"  # folder


@dataclass(frozen=True)
class Final:
    """The model that is registered, and its predictions for every row of the snapshot.

    `trained_until`: it has learnt labels of event times before this (UTC). `outside`: predictions by models that had not
    learnt the row, see there.
    """

    booster: xgb.Booster
    encoding: Encoding
    refitted: bool
    trained_until: datetime
    prediction: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True)
class Predicted:
    """A snapshot's rows with a prediction each, as `reference.build` reads them.

    `outside` are predictions of models that had not learnt the row, NaN where there is none.
    """

    rows: Rows
    prediction: np.ndarray
    outside: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [*self.rows.names, *self._own]

    @property
    def _own(self) -> dict[str, np.ndarray]:
        own = {"_prediction": self.prediction}
        return own if self.outside is None else own | {"_outside": self.outside}

    @property
    def times(self) -> np.ndarray:
        """Event times, microseconds since 1970 (UTC), ascending."""
        return self.rows.times

    @property
    def hashes(self) -> np.ndarray:
        """What the keys are sampled by."""
        return self.rows.hashes

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        own = self._own
        return pa.chunked_array([pa.array(own[name])]) if name in own else self.rows.column(name)

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""
        own = self._own
        found = self.rows.take(positions, [n for n in columns if n not in own])
        for name in (n for n in columns if n in own):
            found = found.append_column(name, pa.array(own[name][positions], from_pandas=True))
        return found.select(columns)


@dataclass(frozen=True)
class Together:
    """Rows of two frames as one, by event time; raises and answers as they do.

    Attributes:
        frames: the two.
        order: where in the two, one after the other, each row is.
    """

    frames: tuple[Predicted, Predicted]
    order: np.ndarray

    @classmethod
    def of(cls, one: Predicted, other: Predicted) -> Together:
        """Those of two frames; of rows of one moment the first frame's come first."""
        return cls((one, other), np.argsort(np.concatenate([one.times, other.times]), kind="stable"))

    @property
    def names(self) -> list[str]:
        """The columns."""
        return self.frames[0].names

    @property
    def times(self) -> np.ndarray:
        """Event times, microseconds since 1970 (UTC), ascending."""
        return np.concatenate([f.times for f in self.frames]).take(self.order)

    @property
    def hashes(self) -> np.ndarray:
        """What the keys are sampled by."""
        return np.concatenate([f.hashes for f in self.frames]).take(self.order)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        chunks = [chunk for frame in self.frames for chunk in frame.column(name).chunks]
        return pa.chunked_array(chunks).take(pa.array(self.order))

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""
        places, count = self.order[positions], len(self.frames[0])
        first = places < count
        found = [
            frame.take(places[here] - begin, columns)
            for frame, here, begin in zip(self.frames, (first, ~first), (0, count), strict=True)
        ]
        back = np.empty(len(places), dtype=np.int64)
        back[np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])] = np.arange(len(places))
        return pa.concat_tables(found).take(pa.array(back))


def finalise(model: ModelSpec, judged: EvaluatedChallenger, refitting: Refitting = refit) -> Final:
    """Fit on all rows if the gate passed and the spec says so; else the judged model is the final one.

    Args:
        model: the spec.
        judged: what the gate was asked about.
        refitting: fits as `fit.refit` does.

    Raises:
        TerminalError: its predictions are not finite, or the fit on all rows is beyond a limit of range or size that the judged
            one kept (BAD_METRIC).
    """
    parts = judged.split
    again = judged.verdict.passed and model.training.refit
    learnt = parts.rows if again else parts.training
    encoding, matrix, booster = judged.encoding, judged.matrix, judged.fitted.booster
    known = judged.fitted.learnt
    if again:
        rest = parts.rows.part(len(parts.training))
        encoding = encoding.with_more(survey(model, rest.batches(model.features.all)).encoding)
        if encoding != judged.encoding:
            matrix, _ = write(encoding, [parts.rows], matrix.path.with_name("final.f32"))
        data = Labelled(matrix, parts.rows.labels)
        last = refitting(judged.choice.model, encoding, data, judged.fitted.rounds, judged.machine)
        booster, known = last.booster, last.learnt
    first = np.empty(0) if known is None else known
    predicted = np.concatenate([first, matrix.part(len(first)).predict(booster)])
    if bad := int((~np.isfinite(predicted)).sum()):
        raise TerminalError(
            f"{model.name}: {bad} of {len(predicted)} predictions of the final model are not finite; look at "
            "training.params (learning_rate, max_delta_step) and at the label's range",
            ErrorReason.BAD_METRIC,
        )
    if again:
        _check_again(model, judged, booster, predicted)
    return Final(
        booster, encoding, again, moment(int(learnt.times[-1]) + 1), predicted, outside(model, judged)
    )


def _check_again(
    model: ModelSpec, judged: EvaluatedChallenger, booster: xgb.Booster, predicted: np.ndarray
) -> None:
    """What the gate asked of the judged fit without comparing it with another model, asked of the fit that will serve."""
    labels = judged.split.rows.labels
    learnt = float(labels.min()), float(labels.max())
    for name, side, value in (
        ("smallest", -1, float(predicted.min())),
        ("largest", 1, float(predicted.max())),
    ):
        limit, source = prediction_limit(model, side, learnt)
        if side * value > side * limit:
            raise TerminalError(
                f"{model.name}: the judged model passed, but the {name} prediction of the one that was fitted again on all rows is "
                f"{value:.4g}, the limit is {limit:.4g}: {source}. Look at the newest labels, or at gate.range_slack",
                ErrorReason.BAD_METRIC,
            )
    size, most = len(booster.save_raw("ubj")) / 1e6, model.gate.max_size_mb
    if most is not None and size > most:
        raise TerminalError(
            f"{model.name}: the judged model passed, but the file of the one that was fitted again on all rows has {size:.4g} MB, "
            f"gate.max_size_mb is {most:.4g}; make training.max_rounds or max_depth smaller, or raise the limit",
            ErrorReason.BAD_METRIC,
        )


def write_run_files(
    model: ModelSpec,
    snapshot: Snapshot,
    judged: EvaluatedChallenger,
    final: Final,
    document: dict[str, Any],
    folder: Path,
) -> str:
    """Write what the MLflow run keeps: spec, verdict with its evidence, leaderboard, notes, importance, encoding, `reference/`.

    Returns:
        A sentence where the watch on the version's served error can hardly alarm, see `performance.about_usual_windows`.
    """
    _json(folder / "gate.json", judged.verdict.to_dict())
    _json(folder / "evidence.json", judged.evidence.to_dict())
    if judged.choice.board is not None:
        leaderboard.write(judged.choice.board, folder)
    _json(folder / "notes.json", judged.notes)
    _json(folder / "importance.json", gains(final.booster, final.encoding))
    _json(folder / ENCODING_FILE, final.encoding.to_dict())
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (folder / SPEC_FILE).write_text(text, encoding="utf-8")
    found = reference_of(model, snapshot, judged, final)
    found.write(folder / REFERENCE)
    return error_limit.about_usual_windows(model, found, _honest(judged, final))


def _honest(judged: EvaluatedChallenger, final: Final) -> Predicted:
    """The rows with predictions of which those of the holdout come from a model that had not learnt it."""
    honest = final.prediction.copy()
    honest[len(honest) - len(judged.prediction) :] = judged.prediction
    return Predicted(judged.split.rows, honest, final.outside)


def reference_of(
    model: ModelSpec, snapshot: Snapshot, judged: EvaluatedChallenger, final: Final
) -> reference.Reference:
    """What the version will be watched against.

    Args:
        model: the spec.
        snapshot: that was trained on, for its rows without a label.
        judged: the challenger.
        final: the version.

    Raises:
        TerminalError: the file of those rows is gone or holds others (NO_ROWS); see `reference.build`.
    """
    shares = gain_shares(final.booster, final.encoding)
    labelled = _honest(judged, final)
    rest = unlabelled(model, snapshot, judged.split.rows)
    if not len(rest):
        return reference.build(model, labelled, judged.holdout, shares, judged.naive)
    held = int(np.searchsorted(rest.times, judged.split.holdout.times[0]))
    guessed = np.concatenate([
        _predicted(final.encoding, final.booster, rest.part(0, held)),
        _predicted(judged.encoding, judged.fitted.booster, rest.part(held)),
    ])  # fmt: skip
    every = Together.of(labelled, Predicted(rest, guessed, np.full(len(rest), np.nan)))
    return reference.build(model, every, judged.holdout, shares, judged.naive, labelled)


def _predicted(encoding: Encoding, booster: xgb.Booster, rows: Rows) -> np.ndarray:
    found = [
        predict(booster, encode(encoding, pa.Table.from_batches([batch])).matrix)
        for batch in rows.batches(encoding.features)
    ]
    return np.concatenate([np.empty(0), *found])


def write_model_files(judged: EvaluatedChallenger, final: Final, folder: Path) -> list[Path]:
    """Write what travels with the model itself: its encoding, and rows to probe it with, spread over the snapshot."""
    rows = judged.split.rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(PROBE_ROWS, len(rows))).astype(np.int64))
    found = Predicted(rows, final.prediction)
    pq.write_table(found.take(chosen, found.names), folder / PROBE_FILE)
    _json(folder / ENCODING_FILE, final.encoding.to_dict())
    return [folder / ENCODING_FILE, folder / PROBE_FILE]


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
