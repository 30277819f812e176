"""Whether a challenger that is better on the whole is worse for some: a value of a categorical feature.

A slice is worse where even the upper bound of its improvement is below the loss that the spec allows. The point alone
would not do: of a hundred slices of a hundred rows, several lie below the limit by chance. For slices that the spec
names each bound holds by itself; the searched ones share the error (Bonferroni), because the worst of many is looked at.

A slice can have too few moments, or too few rows of one class, for an interval. What cannot be told is not taken for good:

- One that the spec names is judged by its point alone: it was asked for, and to name larger slices is the remedy.
- A searched one is judged as if each of its rows were a moment of its own. Such an interval is too narrow, which errs
  against the challenger, but it keeps the noise of the rows out. (Simulated: seven weekdays of two days each, errors that
  each day's rows share, a challenger that knows a month more than the champion. The worst point rejects 30 % of such
  challengers, this interval 5 %.) Where even that is unknown, because hardly a row is of one class, the slice is counted
  as one that could not be told; it says as little as those that are too small to be searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.metrics import paired_bootstrap
from evergreen.metrics.paired_bootstrap import Paired

# The values of a feature with the most rows; a feature of ten thousand values has no slices that can be judged.
MOST_VALUES = 50
RESAMPLES = 4000
MISSING = "(missing)"

Column: TypeAlias = "pa.Array | pa.ChunkedArray"
# The interval by resampling moments, the one that takes each row for a moment, or the point without an interval.
ToldBy: TypeAlias = Literal["moments", "rows", "point"]


@dataclass(frozen=True)
class Slice:
    """A slice and its improvement; `point` is None where the metric is not defined, `high` where it was not needed
    (no worse than allowed) or cannot be told. `worse`: worse than allowed, by what `told_by` says."""

    name: str
    rows: int
    point: float | None
    high: float | None
    worse: bool
    told_by: ToldBy = "point"


@dataclass(frozen=True)
class Slices:
    """What was found.

    Attributes:
        named: by what the spec names; empty: absent, or a feature of which no value has enough rows.
        worst: of those that were searched and can be told; None where there is none.
        searched: how many were.
        untold: how many of these cannot be told: too few rows of one class.
        left_out: by named feature, how many of its values have too few rows to be judged, and their rows together.
    """

    named: Mapping[str, tuple[Slice, ...]]
    worst: Slice | None
    searched: int
    untold: int = 0
    left_out: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceRule:
    """Which slices are judged, and how.

    Attributes:
        named: `feature` (each of its values that is large enough) or `feature=value`.
        search: whether all values of all columns are looked through.
        max_worse: the largest loss that is allowed, as a share.
        min_rows: smaller slices are not searched, and left out of a named feature; a named value tells its rows.
        confidence: of the bounds.
        seed: of the resampling.
    """

    named: tuple[str, ...]
    search: bool
    max_worse: float
    min_rows: int
    confidence: float
    seed: int


def slices(paired: Paired, columns: Mapping[str, Column], rule: SliceRule) -> Slices:
    """Judge the named slices, and the worst of all that are large enough.

    Args:
        paired: the judged rows, with the predictions of challenger and champion.
        columns: the categorical features of the rows, by name.
        rule: which slices, and how.
    """
    min_rows, max_worse, confidence = rule.min_rows, rule.max_worse, rule.confidence
    codes = {name: _codes(column) for name, column in columns.items()}
    large = {name: [v for v in sizes if sizes[v] >= min_rows] for name, (_, _, sizes) in codes.items()}

    def judge(feature: str, value: str, level: float, *, asked: bool) -> Slice:
        of_row, values, sizes = codes[feature]
        rows = of_row == values[value]
        some = paired.at(rows)
        name = f"{feature}={value}"
        point = paired_bootstrap.point(some.metric, some.y, some.challenger, some.champion, some.cut)
        if point is None or point >= -max_worse:
            return Slice(name, sizes[value], point, None, worse=False)
        ways: list[tuple[ToldBy, np.ndarray]] = [("moments", some.times)]
        if not asked:
            ways.append(("rows", np.arange(sizes[value])))
        for told_by, moments in ways:
            high = paired_bootstrap.improvement(
                replace(some, times=moments), confidence=level, seed=rule.seed, resamples=RESAMPLES
            ).high
            if high is not None:
                return Slice(name, sizes[value], point, high, high < -max_worse, told_by)
        return Slice(name, sizes[value], point, None, worse=asked)

    found: dict[str, tuple[Slice, ...]] = {}
    left_out: dict[str, tuple[int, int]] = {}
    for name in rule.named:
        feature, valued, value = name.partition("=")
        sizes = codes[feature][2] if feature in codes else {}
        if valued:
            chosen = [value] if value in sizes else []
        else:
            filled = {v: rows for v, rows in sizes.items() if v != MISSING}
            chosen = [v for v, rows in filled.items() if rows >= min_rows]
            small = [rows for rows in filled.values() if rows < min_rows]
            left_out[name] = (len(small), sum(small))
        found[name] = tuple(judge(feature, v, confidence, asked=True) for v in chosen)
    candidates = [(f, v) for f in large for v in large[f][:MOST_VALUES]] if rule.search else []
    level = 1.0 - (1.0 - confidence) / max(1, len(candidates))
    looked = [judge(f, v, level, asked=False) for f, v in candidates]
    # Without an interval only a point that is good enough tells something.
    told = [s for s in looked if s.point is not None and (s.high is not None or s.point >= -max_worse)]
    worst = min(told, key=lambda s: (not s.worse, s.point), default=None)
    return Slices(found, worst, len(looked), len(looked) - len(told), left_out)


def _codes(column: Column) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """The code of each row, the code of each value, and each value's rows, most first; null is a value too."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.fill_null(whole.cast(pa.string()), MISSING).dictionary_encode()
    of_row = encoded.indices.to_numpy(zero_copy_only=False)
    values = encoded.dictionary.to_pylist()
    counts = np.bincount(of_row, minlength=len(values))
    order = np.argsort(-counts, kind="stable")
    return of_row, {values[i]: int(i) for i in order}, {values[i]: int(counts[i]) for i in order}
