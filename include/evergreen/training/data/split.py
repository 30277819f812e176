"""Splits a snapshot by time: what a challenger learns from, and the newest part on which it is judged.

The holdout is the newest `training.holdout` of the mature rows, counted back from the newest of them and not from
as-of: a label that matures after two weeks would otherwise leave a holdout of one week empty. Freshness is the
watch's business, not the split's. The training part ends `label.delay` before the holdout begins, because at that
moment the later labels were not known: the challenger is judged as a model of that day would have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen.errors import ErrorReason, TerminalError
from evergreen.microseconds import in_micros, moment
from evergreen.spec import ModelSpec, format_duration
from evergreen.training.data.rows import Rows, opened
from evergreen.warehouse.features.snapshot import Snapshot

# XGBoost squares gradients in float32; larger labels overflow there without an error.
HUGE = 1e15


@dataclass(frozen=True)
class Split:
    """The rows of a snapshot by their part; `boundary` is the first event time of the holdout (UTC).

    `purged` rows lie between the parts: their labels were not mature at the boundary.
    """

    rows: Rows
    training: Rows
    holdout: Rows
    boundary: datetime

    @property
    def between(self) -> Rows:
        """The purged rows."""
        return self.rows.part(len(self.training), len(self.rows) - len(self.holdout))

    @property
    def purged(self) -> int:
        """How many rows are purged."""
        return len(self.between)

    def since(self, first: int) -> Split:
        """The same split without the rows before one of the training part."""
        return Split(self.rows.part(first), self.training.part(first), self.holdout, self.boundary)


def read(model: ModelSpec, snapshot: Snapshot) -> Rows:
    """The rows of a snapshot, ordered by event time and key, with usable labels.

    Raises:
        TerminalError: the file is gone or holds other rows than the snapshot says (NO_ROWS), a key occurs twice
            (BAD_QUERY), a label is unusable (BAD_LABEL).
    """
    rows = _whole(model, Path(snapshot.path), snapshot.rows)
    _check_keys(model, rows)
    _check_labels(model, rows)
    return rows


def unlabelled(model: ModelSpec, snapshot: Snapshot, rows: Rows) -> Rows:
    """The mature rows without a label in the time of some rows of a snapshot: no fit sees them, windows will have such rows.

    Raises:
        TerminalError: their file is gone or holds other rows than the snapshot says (NO_ROWS).
    """
    if not snapshot.unlabelled:
        return rows.part(0, 0)
    found = _whole(model, snapshot.beside, snapshot.unlabelled)
    begin = int(np.searchsorted(found.times, rows.times[0], "left"))
    return found.part(begin, int(np.searchsorted(found.times, rows.times[-1], "right")))


def _whole(model: ModelSpec, path: Path, rows: int) -> Rows:
    if not path.is_file():
        raise TerminalError(
            f"{model.name}: the snapshot {path} is gone; run the training from its first task again",
            ErrorReason.NO_ROWS,
        )
    count = pq.read_metadata(path).num_rows
    if count != rows:
        raise TerminalError(
            f"{model.name}: {path} holds {count} rows, {rows} were written; take it again",
            ErrorReason.NO_ROWS,
        )
    return opened(path)


def split(model: ModelSpec, rows: Rows) -> Split:
    """Split rows by time.

    Args:
        model: its `training.holdout`, `label.delay` and least numbers of rows count.
        rows: what `read` gave.

    Raises:
        TerminalError: a part is too small (TOO_FEW_ROWS), or has one class only (ONE_CLASS).
    """
    spec = model.training
    times = rows.times
    begin = int(np.searchsorted(times, int(times[-1]) - in_micros(spec.holdout), "right"))
    boundary = int(times[begin])
    end = min(begin, int(np.searchsorted(times, boundary - in_micros(model.label.delay), "right")))
    training, holdout = rows.part(0, end), rows.part(begin)
    for part, found, least, name in (
        ("training part", len(training), spec.min_rows, "min_rows"),
        ("holdout", len(holdout), spec.min_holdout_rows, "min_holdout_rows"),
    ):
        if found < least:
            raise TerminalError(
                f"{model.name}: the {part} has {found} rows, training.{name} is {least} (holdout "
                f"{format_duration(spec.holdout)}, {len(rows)} mature rows in all); land more history, make "
                "training.window longer, or lower the limit",
                ErrorReason.TOO_FEW_ROWS,
            )
    if model.task == "binary":
        for part, rows_of in (("training part", training), ("holdout", holdout)):
            classes = np.unique(rows_of.labels)
            if len(classes) < 2:
                raise TerminalError(
                    f"{model.name}: every label of the {part} ({len(rows_of)} rows) is {classes[0]:g}, two classes "
                    "are needed; look at the label in the SQL, or make training.holdout longer",
                    ErrorReason.ONE_CLASS,
                )
    return Split(rows, training, holdout, moment(boundary))


def _check_keys(model: ModelSpec, rows: Rows) -> None:
    ordered = np.sort(rows.hashes)
    suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(suspects):
        return
    keys = rows.take(np.flatnonzero(np.isin(rows.hashes, suspects)), ["_key"])["_key"]
    counts = pc.value_counts(keys.combine_chunks())
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(twice):
        raise TerminalError(
            f"{model.name}: the feature query returns the key {pc.min(twice).as_py()} more than once; a key names one row. Mend the "
            f"SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
            ErrorReason.BAD_QUERY,
        )


def _check_labels(model: ModelSpec, rows: Rows) -> None:
    y = rows.labels
    low, high = model.label.min, model.label.max
    wrong = ~np.isfinite(y) | (np.abs(y) > HUGE)
    wanted = f"finite and at most {HUGE:g}"
    if model.task == "binary":
        wrong |= ~np.isin(y, (0.0, 1.0))
        wanted = "0 or 1"
    if low is not None:
        wrong |= y < low
        wanted += f", at least {low:g}"
    if high is not None:
        wrong |= y > high
        wanted += f", at most {high:g}"
    if count := int(wrong.sum()):
        first = int(np.argmax(wrong))
        raise TerminalError(
            f"{model.name}: {count} of {len(y)} labels are not {wanted}; the first is {y[first]:g} at key "
            f"{rows.take(np.array([first]), ['_key'])['_key'][0].as_py()}. Mend the label in the data or the SQL, or label.min and label.max in the spec",
            ErrorReason.BAD_LABEL,
        )
