"""What is kept of a judged window, so that its pages can be drawn later: its sample, compressed.

Nobody opens the pages of a quiet window, so they are not drawn; a file of at most about 100 kB is kept with the champion's
MLflow run instead. A sample that fits is kept as it was measured, row by row. A larger one is kept column by column, each
sorted by itself, as drift is measured and drawn; label and prediction stay pairs. Numbers of many values are rounded then to a
thousandth of the reference's standard deviation, which moves a drift value by less than that, in the mean by far less.
Of rows that are in the sample for their label alone (`reads.sample`) label and prediction are kept then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows.measure import frame, sampled
from evergreen.monitoring.windows.reads import BEYOND
from evergreen.reference.profile import as_numbers
from evergreen.reference.reference import Reference

FILE = "window.parquet"
MOST_BYTES = 100_000
STEPS = 1000
# More are not tried as they are: they would not fit.
MOST_VALUES = 150_000
# A column of few different numbers is small as it is.
FEW_VALUES = 1000
PAIR = ("_label", "_prediction")
META = b"evergreen"


@dataclass(frozen=True)
class KeptSample:
    """The sample of a judged window.

    Attributes:
        rows: as `measure.frame` gives them.
        rounded: whether the columns are sorted, each by itself, and their numbers rounded.
    """

    rows: pd.DataFrame
    rounded: bool

    @property
    def slack(self) -> float:
        """By how much a drift value of it may differ from the judged one."""
        return 1 / STEPS if self.rounded else 0.0


def write(rows: pd.DataFrame, reference: Reference, file: Path) -> None:
    """Keep the sample of a window (`measure.frame`)."""
    rows = rows.drop(columns=["_key", "_hash", "_baseline"], errors="ignore")
    if rows.size <= MOST_VALUES:
        pq.write_table(_table(pa.Table.from_pandas(rows, preserve_index=False), {}), file, compression="zstd")
        if file.stat().st_size <= MOST_BYTES:
            return
    beyond = rows[rows[BEYOND]] if BEYOND in rows else rows.head(0)
    rows = sampled(rows)
    steps: dict[str, float] = {}
    columns: dict[str, pa.Array] = {}
    pair = [n for n in PAIR if n in rows]
    order = np.lexsort([rows[n].to_numpy(dtype=float) for n in pair]) if pair else None
    for name in rows.columns.drop(["_time"], errors="ignore"):
        values = rows[name].to_numpy()
        number = values.dtype.kind == "f"
        if name in pair:
            values = values[order]
        elif number:
            values = np.sort(values)
        step = _step(values, name, reference) if number else 0.0
        if step:
            steps[name] = step
            columns[name] = _stepped(values, step)
        elif number:
            columns[name] = pa.array(values, from_pandas=True)
        else:
            columns[name] = _sorted(pa.array(rows[name], from_pandas=True))
    if len(beyond):
        columns = _lengthened(columns, beyond, pair, steps)
    pq.write_table(
        _table(pa.table(columns), steps),
        file,
        compression="zstd",
        use_dictionary=[n for n in columns if n not in steps and n != BEYOND],
        column_encoding=dict.fromkeys(steps, "DELTA_BINARY_PACKED"),
        write_statistics=False,
    )


def read(file: Path) -> KeptSample:
    """Read what `write` wrote.

    Raises:
        TerminalError: the file is damaged.
    """
    try:
        table = pq.read_table(file)
        told = json.loads((table.schema.metadata or {})[META])
        rows = frame(table)
        for name, step in told["steps"].items():
            rows[name] = rows[name].astype("float64") * step
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise TerminalError(
            f"the kept sample {file.name} cannot be read: {type(error).__name__}: {str(error)[:200]}; restore it from the "
            "backup of MLflow's artifacts",
            ErrorReason.REGISTRY_MISMATCH,
        ) from error
    return KeptSample(rows, bool(told["steps"]) or "_time" not in rows)


def _stepped(values: np.ndarray, step: float) -> pa.Array:
    missing = np.isnan(values)
    return pa.array(np.round(np.where(missing, 0.0, values) / step).astype(np.int64), mask=missing)


def _lengthened(
    columns: dict[str, pa.Array], beyond: pd.DataFrame, pair: list[str], steps: dict[str, float]
) -> dict[str, pa.Array]:
    """The columns with those rows below that are there for their label alone."""
    beyond = beyond.sort_values(pair)
    count = len(next(iter(columns.values())))
    found = {}
    for name, above in columns.items():
        below = pa.nulls(len(beyond), above.type)
        if name in pair:
            values = beyond[name].to_numpy(dtype=float)
            below = _stepped(values, steps[name]) if name in steps else pa.array(values, from_pandas=True)
        found[name] = pa.concat_arrays([above, below])
    return found | {BEYOND: pa.array(np.arange(count + len(beyond)) >= count)}


def _table(table: pa.Table, steps: dict[str, float]) -> pa.Table:
    return table.replace_schema_metadata({META: json.dumps({"steps": steps}).encode()})


def _sorted(values: pa.Array) -> pa.Array:
    """Ascending, missing values last; categories are few, so they are sorted and not their rows."""
    if not pa.types.is_string(values.type):
        return pc.take(values, pc.sort_indices(values))
    counted = pc.value_counts(values)
    names, counts = counted.field("values"), counted.field("counts")
    order = pc.sort_indices(names)
    return pc.take(names, np.repeat(order.to_numpy(), pc.take(counts, order).to_numpy()))


def _step(values: np.ndarray, name: str, reference: Reference) -> float:
    """To what a column of numbers is rounded; 0: it is kept as it is."""
    if name not in reference.sample.column_names or _distinct(values) <= FEW_VALUES:
        return 0.0
    try:
        known = as_numbers(reference.sample[name])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return 0.0
    known = known[np.isfinite(known)]
    step = float(known.std()) / STEPS if len(known) else 0.0
    # A probability far from a half is told by its first digits, and an error of its logarithm by them, too.
    if name == "_prediction" and len(known) and known.min() >= 0 and known.max() <= 1:
        step = min(step, 1e-6)
    return step if step > 0 and float(np.nanmax(np.abs(values))) / step < 2**53 else 0.0


def _distinct(values: np.ndarray) -> int:
    """How many different values there are; every missing one is the same."""
    ordered = np.sort(values)
    return int((ordered[1:] > ordered[:-1]).sum()) + 1 + int(np.isnan(ordered[-1:]).sum())
