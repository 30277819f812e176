"""Whether a challenger that is better on the whole is worse for some: a value of a categorical feature.

A slice is worse where even the upper bound of its improvement is below the loss that the spec allows. The point alone
would not do: of a hundred slices of a hundred rows, several lie below the limit by chance. For slices that the spec
names each bound holds by itself; the searched ones share the error (Bonferroni), because the worst of many is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.training import compare

# The values of a feature with the most rows; a feature of ten thousand values has no slices that can be judged.
MOST_VALUES = 50
RESAMPLES = 4000
MISSING = "(missing)"

Column: TypeAlias = "pa.Array | pa.ChunkedArray"


@dataclass(frozen=True)
class Slice:
    """A slice and its improvement; `point` is None where the metric is not defined, `high` where it was not needed
    (no worse than allowed) or cannot be told. `worse`: beyond doubt worse than allowed."""

    name: str
    rows: int
    point: float | None
    high: float | None
    worse: bool


@dataclass(frozen=True)
class Slices:
    """`named` by what the spec names (empty: absent; a feature without a value: no value has enough rows); `worst` of `searched` found ones; None: none was large enough."""

    named: Mapping[str, tuple[Slice, ...]]
    worst: Slice | None
    searched: int


def slices(
    metric: str,
    columns: Mapping[str, Column],
    times: np.ndarray,
    y: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    named: tuple[str, ...],
    search: bool,
    max_worse: float,
    min_rows: int,
    confidence: float,
    seed: int,
) -> Slices:
    """Judge the named slices, and the worst of all that are large enough.

    Args:
        metric: of the gate.
        columns: the categorical features of the judged rows, by name.
        times: event times of the rows.
        y: their labels.
        challenger: its predictions.
        champion: likewise.
        named: `feature` (each of its values that is large enough) or `feature=value`.
        search: whether all values of all columns are looked through.
        max_worse: the largest loss that is allowed, as a share.
        min_rows: smaller slices are not searched; a named one tells its rows.
        confidence: of the bounds.
        seed: of the resampling.
    """
    codes = {name: _codes(column) for name, column in columns.items()}
    large = {name: [v for v in sizes if sizes[v] >= min_rows] for name, (_, _, sizes) in codes.items()}

    def judge(feature: str, value: str, level: float) -> Slice:
        of_row, values, sizes = codes[feature]
        rows = of_row == values[value]
        some = (y[rows], challenger[rows], champion[rows])
        point, high = compare.point(metric, *some), None
        if point is not None and point < -max_worse:
            high = compare.improvement(
                metric, times[rows], *some, confidence=level, seed=seed, resamples=RESAMPLES
            ).high
        return Slice(f"{feature}={value}", sizes[value], point, high, high is not None and high < -max_worse)

    found: dict[str, tuple[Slice, ...]] = {}
    for name in named:
        feature, asked, value = name.partition("=")
        known = codes[feature][2] if feature in codes else {}
        filled = [v for v in large.get(feature, []) if v != MISSING]
        chosen = ([value] if value in known else []) if asked else filled
        found[name] = tuple(judge(feature, v, confidence) for v in chosen)
    candidates = [(f, v) for f in large for v in large[f][:MOST_VALUES]] if search else []
    level = 1.0 - (1.0 - confidence) / max(1, len(candidates))
    looked = [judge(f, v, level) for f, v in candidates]
    defined = [s for s in looked if s.point is not None]
    worst = min(defined, key=lambda s: (not s.worse, s.point), default=None)
    return Slices(found, worst, len(candidates))


def _codes(column: Column) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """The code of each row, the code of each value, and each value's rows, most first; null is a value too."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.fill_null(whole.cast(pa.string()), MISSING).dictionary_encode()
    of_row = encoded.indices.to_numpy(zero_copy_only=False)
    values = encoded.dictionary.to_pylist()
    counts = np.bincount(of_row, minlength=len(values))
    order = np.argsort(-counts, kind="stable")
    return of_row, {values[i]: int(i) for i in order}, {values[i]: int(counts[i]) for i in order}
