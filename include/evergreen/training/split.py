"""Splits a snapshot by time: what a challenger learns from, and the newest part on which it is judged.

The holdout is the newest `training.holdout` of the mature rows, counted back from the newest of them and not from
as-of: a label that matures after two weeks would otherwise leave a holdout of one week empty. Freshness is the
watch's business, not the split's. The training part ends `label.delay` before the holdout begins, because at that
moment the later labels were not known: the challenger is judged as a model of that day would have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen.errors import Reason, TerminalError
from evergreen.spec import ModelSpec, format_duration
from evergreen.warehouse.snapshot import Snapshot

# XGBoost squares gradients in float32; larger labels overflow there without an error.
HUGE = 1e15


@dataclass(frozen=True)
class Split:
    """The rows of a snapshot by their part; `boundary` is the first event time of the holdout (UTC).

    `purged` rows lie between the parts: their labels were not mature at the boundary. `constant` features have one
    value in the training part; they teach nothing, which is noted and stops nobody.
    """

    rows: pa.Table
    training: pa.Table
    holdout: pa.Table
    boundary: datetime
    purged: int
    constant: tuple[str, ...]


def read(model: ModelSpec, snapshot: Snapshot) -> pa.Table:
    """The rows of a snapshot, ordered by event time and key, with usable labels.

    Raises:
        TerminalError: the file is gone or holds other rows than the snapshot says (NO_ROWS), a key occurs twice
            (BAD_QUERY), a label is unusable (BAD_LABEL).
    """
    if not Path(snapshot.path).is_file():
        raise TerminalError(
            f"{model.name}: the snapshot {snapshot.path} is gone; run the training from its first task again",
            Reason.NO_ROWS,
        )
    rows = pq.read_table(snapshot.path)
    if rows.num_rows != snapshot.rows:
        raise TerminalError(
            f"{model.name}: {snapshot.path} holds {rows.num_rows} rows, {snapshot.rows} were written; take it again",
            Reason.NO_ROWS,
        )
    counts = rows.select(["_key"]).group_by("_key").aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))["_key"]
    if len(twice):
        raise TerminalError(
            f"{model.name}: the feature query returns the key {pc.min(twice).as_py()} more than once; a key names one row. Mend the "
            f"SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
            Reason.BAD_QUERY,
        )
    _check_labels(model, rows)
    return rows


def split(model: ModelSpec, rows: pa.Table) -> Split:
    """Split rows by time.

    Args:
        model: its `training.holdout`, `label.delay` and least numbers of rows count.
        rows: what `read` gave.

    Raises:
        TerminalError: a part is too small (TOO_FEW_ROWS), or has one class only (ONE_CLASS).
    """
    spec = model.training
    times = micros(rows)
    begin = int(np.searchsorted(times, int(times[-1]) - in_micros(spec.holdout), "right"))
    boundary = int(times[begin])
    end = min(begin, int(np.searchsorted(times, boundary - in_micros(model.label.delay), "right")))
    training, holdout = rows.slice(0, end), rows.slice(begin)
    for part, found, least, name in (
        ("training part", training.num_rows, spec.min_rows, "min_rows"),
        ("holdout", holdout.num_rows, spec.min_holdout_rows, "min_holdout_rows"),
    ):
        if found < least:
            raise TerminalError(
                f"{model.name}: the {part} has {found} rows, training.{name} is {least} (holdout "
                f"{format_duration(spec.holdout)}, {rows.num_rows} mature rows in all); land more history, make "
                "training.window longer, or lower the limit",
                Reason.TOO_FEW_ROWS,
            )
    if model.task == "binary":
        for part, table in (("training part", training), ("holdout", holdout)):
            classes = pc.unique(table["_label"]).to_pylist()
            if len(classes) < 2:
                raise TerminalError(
                    f"{model.name}: every label of the {part} ({table.num_rows} rows) is {classes[0]:g}, two classes "
                    "are needed; look at the label in the SQL, or make training.holdout longer",
                    Reason.ONE_CLASS,
                )
    constant = tuple(n for n in model.features.all if _constant(training[n]))
    return Split(rows, training, holdout, moment(boundary), begin - end, constant)


def micros(rows: pa.Table) -> np.ndarray:
    """Event times as microseconds since 1970 (UTC)."""
    return rows["_time"].cast(pa.int64()).to_numpy()


def labels(rows: pa.Table) -> np.ndarray:
    """Labels as float64."""
    return rows["_label"].to_numpy()


def in_micros(length: timedelta) -> int:
    """A duration in microseconds."""
    return length // timedelta(microseconds=1)


def moment(micro: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=micro)


def _constant(column: pa.ChunkedArray) -> bool:
    found = pc.min_max(column).as_py()
    return column.null_count == len(column) or (column.null_count == 0 and found["min"] == found["max"])


def _check_labels(model: ModelSpec, rows: pa.Table) -> None:
    y = rows["_label"].to_numpy()
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
            f"{rows['_key'][first].as_py()}. Mend the label in the data or the SQL, or label.min and label.max in the spec",
            Reason.BAD_LABEL,
        )
