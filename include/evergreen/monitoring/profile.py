"""What the rows that a champion learnt from look like, and from where on a window counts as different."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.monitoring import statistics
from evergreen.monitoring.past import PastWindows, Rows
from evergreen.spec import Drift

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ColumnProfile:
    """One column of the reference.

    The past is kept, not the limits: those follow from the spec as it is when a window is judged. Each is the
    larger of the spec's floor and `monitoring.drift.factor` times the largest value that the statistic took
    between a past window and the rest of the reference. Shares are of rows, 0 to 1.

    Attributes:
        name: the column; `_prediction` and `_label` besides the features.
        role: feature, prediction or label.
        statistic: Evidently's name of the drift statistic, `wasserstein` or `jensenshannon`.
        largest_past: of the drift statistic; None where the column is unreadable.
        missing, largest_missing_rise: share of missing values, and its largest rise in a past window.
        categories: every category that the champion learnt; None for numbers.
        largest_unseen: share of a past window's rows with a category that is nowhere else.
        least_distinct: the smallest number of different values in a past window's sample.
        unreadable: why nothing can be measured; empty if all is well.
    """

    name: str
    role: str
    statistic: str
    largest_past: float | None
    missing: float
    largest_missing_rise: float
    categories: tuple[str, ...] | None = None
    largest_unseen: float = 0.0
    least_distinct: int = 0
    unreadable: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ColumnProfile:
        """The reverse of `to_dict`."""
        categories = values.get("categories")
        return cls(**{**values, "categories": None if categories is None else tuple(categories)})

    def drift_limit(self, drift: Drift, widen: float = 1.0) -> float:
        """From where on the drift statistic counts.

        Args:
            drift: the spec's floors and factor.
            widen: by how much more the statistic varies by chance than in the past windows (`widening`).
        """
        floor = drift.numeric if self.numeric else drift.categorical
        return max(floor, drift.factor * widen * (self.largest_past or 0.0))

    def missing_limit(self, drift: Drift) -> float:
        """From where on a rise of the share of missing values counts."""
        return max(drift.missing, drift.factor * self.largest_missing_rise)

    def unseen_limit(self, drift: Drift) -> float:
        """From where on the share of rows with an unknown category counts; to a model they are as good as missing."""
        return max(drift.missing, drift.factor * self.largest_unseen)

    @property
    def numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.statistic == statistics.NUMERIC


def widening(usual_rows: float, rows: int) -> float:
    """How much more a distance varies by chance in a window with fewer rows than usual: with the root of their ratio.

    Both statistics shrink with the root of the sample size where nothing has changed, and the limits were learnt on
    windows of the usual size. Never below 1.
    """
    return math.sqrt(max(1.0, usual_rows / max(rows, 1)))


def describe(
    column: pa.ChunkedArray,
    name: str,
    role: str,
    numeric: bool,
    sample: Flags,
    past: PastWindows,
    windows: tuple[Rows, ...],
) -> ColumnProfile:
    """Profile one column.

    Args:
        column: the values of every row that the champion learnt from.
        name, role: see `ColumnProfile`.
        numeric: whether the column is to be read as numbers.
        sample: the rows of the reference's sample.
        past: the past windows, whole: for categories that occur nowhere else.
        windows: the samples of those windows, as judged windows are sampled.
    """
    statistic = statistics.NUMERIC if numeric else statistics.CATEGORICAL
    try:
        values = as_numbers(column) if numeric else None
        codes, categories = (None, None) if numeric else as_codes(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = (
            f"type {column.type} is not readable as {'numbers' if numeric else 'text'}: {str(error)[:120]}"
        )
        return ColumnProfile(name, role, statistic, None, 1.0, 0.0, unreadable=reason)
    if values is not None:
        missing = ~np.isfinite(values)
        distances = statistics.numeric(values, sample, windows)
        distinct = [len(np.unique(values[rows][~missing[rows]])) for rows in windows]
        unseen = 0.0
    else:
        assert codes is not None
        assert categories is not None
        missing = codes < 0
        distances = statistics.categorical(codes, len(categories), sample, windows)
        distinct = [len(np.unique(codes[rows][~missing[rows]])) for rows in windows]
        unseen = float(statistics.unseen(codes, len(categories), past.rows).max(initial=0.0))
    rise = float(statistics.missing_rise(missing, sample, windows).max(initial=0.0))
    known = distances[np.isfinite(distances)]
    largest = float(known.max()) if len(known) else None
    readable = largest is not None and bool((~missing[sample]).any())
    return ColumnProfile(
        name=name,
        role=role,
        statistic=statistic,
        largest_past=largest,
        missing=float(missing.mean()),
        largest_missing_rise=rise,
        categories=None if categories is None else tuple(categories),
        largest_unseen=unseen,
        least_distinct=min(distinct, default=0),
        unreadable="" if readable else "no value in the rows that the champion learnt from",
    )


def as_numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column as float64; missing values become NaN.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: it does not hold numbers.
    """
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def as_codes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A column as numbers of its categories (-1: missing), and the categories in sorted order.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: it does not hold text.
    """
    text = pc.cast(column, pa.string())
    categories = sorted(v for v in pc.unique(text).to_pylist() if v is not None)
    codes = pc.index_in(text, value_set=pa.array(categories, pa.string()))
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), dtype=np.int64), categories
