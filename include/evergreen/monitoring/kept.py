"""What is kept of a judged window, so that its pages can be drawn later: its sample, compressed.

Nobody opens the pages of a quiet window, so they are not drawn; a file of at most about 100 kB is kept with the champion's
MLflow run instead. A sample that fits is kept as it was measured, row by row. A larger one is kept column by column, each
sorted by itself, as drift is measured and drawn; label and prediction stay pairs. Numbers of many values are rounded then to a
thousandth of the reference's standard deviation, which moves a drift value by less than that, in the mean by far less.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.errors import Reason, TerminalError
from evergreen.monitoring.measure import frame
from evergreen.monitoring.reference import Reference

FILE = "window.parquet"
MOST_BYTES = 100_000
STEPS = 1000
# A column of few different numbers is small as it is.
FEW_VALUES = 1000
PAIR = ("_label", "_prediction")
META = b"evergreen"


@dataclass(frozen=True)
class Kept:
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
    rows = rows.drop(columns=["_key", "_hash"], errors="ignore")
    pq.write_table(_table(rows, {}), file, compression="zstd", compression_level=3)
    if file.stat().st_size <= MOST_BYTES:
        return
    steps: dict[str, float] = {}
    columns: dict[str, np.ndarray] = {}
    pair = [n for n in PAIR if n in rows]
    order = rows.sort_values([*reversed(pair)], kind="stable").index if pair else rows.index
    for name in rows.columns.drop(["_time"], errors="ignore"):
        values = rows.loc[order, name] if name in pair else rows[name].sort_values(kind="stable")
        step = _step(values, name, reference)
        if step:
            steps[name] = step
            values = (values / step).round().astype("Int64")
        columns[name] = values.array
    encoded = {name: "DELTA_BINARY_PACKED" for name in steps}
    pq.write_table(
        _table(pd.DataFrame(columns), steps),
        file,
        compression="zstd",
        compression_level=9,
        use_dictionary=[n for n in columns if n not in steps],
        column_encoding=encoded,
        write_statistics=False,
    )


def read(file: Path) -> Kept:
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
            Reason.REGISTRY_MISMATCH,
        ) from error
    return Kept(rows, bool(told["steps"]) or "_time" not in rows)


def _table(rows: pd.DataFrame, steps: dict[str, float]) -> pa.Table:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    return table.replace_schema_metadata({META: json.dumps({"steps": steps}).encode()})


def _step(values: pd.Series, name: str, reference: Reference) -> float:
    """To what a column is rounded; 0: it is kept as it is."""
    if not pd.api.types.is_float_dtype(values) or values.nunique() <= FEW_VALUES:
        return 0.0
    if name not in reference.sample.column_names:
        return 0.0
    known = np.asarray(pd.to_numeric(reference.sample[name].to_pandas(), errors="coerce"), dtype=float)
    known = known[np.isfinite(known)]
    step = float(known.std()) / STEPS if len(known) else 0.0
    # A probability far from a half is told by its first digits, and an error of its logarithm by them, too.
    if name == "_prediction" and len(known) and known.min() >= 0 and known.max() <= 1:
        step = min(step, 1e-6)
    largest = float(values.abs().max())
    return step if step > 0 and largest / step < 2**53 else 0.0
