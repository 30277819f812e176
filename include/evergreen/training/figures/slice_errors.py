"""The deciding metric by parts of the judged rows: values of categories, quarters of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.metrics import resampled
from evergreen.spec import ModelSpec
from evergreen.training.figures.judged_sample import JudgedSample

# Of smaller parts a metric is mostly noise.
LEAST_ROWS = 20
MOST_FEATURES = 4
MOST_VALUES = 6
QUARTERS = (0.25, 0.5, 0.75)

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SliceError:
    """One part of the rows: a feature, which of its values, how many rows, and the metric by who predicted them."""

    feature: str
    value: str
    rows: int
    values: Mapping[str, float]


def features_shown(model: ModelSpec, gains: Mapping[str, float]) -> tuple[str, ...]:
    """The features by which the rows are cut: those that `gate.slices` names, then the most important ones.

    Args:
        model: the spec.
        gains: importance by feature.
    """
    named = [name.partition("=")[0] for name in model.gate.slices]
    important = sorted((n for n in gains if gains[n] > 0), key=lambda n: (-gains[n], n))
    return tuple(dict.fromkeys([*named, *important]))[: max(MOST_FEATURES, len(set(named)))]


def slice_errors(model: ModelSpec, sample: JudgedSample) -> tuple[SliceError, ...]:
    """The metric by part, for each of the sample's features; parts of fewer than `LEAST_ROWS` rows are left out."""
    found = []
    for name, column in sample.features.items():
        parts = _numbers(column) if name in model.features.numeric else _categories(column)
        for value, rows in parts:
            if int(rows.sum()) < LEAST_ROWS:
                continue
            values = {
                who: resampled.value(model.gate_metric, sample.y[rows], p[rows], model.cut)
                for who, p in sample.by.items()
            }
            known = {who: v for who, v in values.items() if math.isfinite(v)}
            if "challenger" in known:
                found.append(SliceError(name, value, int(rows.sum()), known))
    return tuple(found)


def _categories(column: pa.ChunkedArray) -> Iterator[tuple[str, Flags]]:
    text = pc.fill_null(column.cast(pa.string()), "(missing)")
    counts = sorted(
        pc.value_counts(text).to_pylist(), key=lambda item: (-int(item["counts"]), str(item["values"]))
    )
    for item in counts[:MOST_VALUES]:
        yield str(item["values"]), pc.equal(text, item["values"]).to_numpy(zero_copy_only=False)


def _numbers(column: pa.ChunkedArray) -> Iterator[tuple[str, Flags]]:
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    known = np.isfinite(values)
    different = np.unique(values[known])
    if 0 < len(different) <= MOST_VALUES:
        yield from ((f"{v:.4g}", values == v) for v in different)
    elif len(different):
        edges = np.unique(np.quantile(values[known], QUARTERS, method="higher"))
        # Some values lie in each part: an edge is the smallest value of the part above it.
        place = np.where(known, np.searchsorted(edges, np.where(known, values, 0.0), "right"), -1)
        for part in range(len(edges) + 1):
            rows = place == part
            if rows.any():
                yield _range(values[rows]), rows
    if not known.all():
        yield "(missing)", ~known


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def worst(metric_values: Sequence[SliceError], sign: int) -> SliceError | None:
    """The part where the challenger is worst; `sign` is 1 for an error and -1 for a score."""
    return max(metric_values, key=lambda s: sign * s.values["challenger"], default=None)
