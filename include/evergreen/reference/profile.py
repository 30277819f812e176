"""What the rows that a champion learnt from look like: a profile of each column, and how its statistics move where nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.reference import drift_statistics
from evergreen.reference.noise import Resamples
from evergreen.reference.past_windows import PastWindows, Rows

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


DRIFT, MISSING, UNSEEN = "drift", "missing", "unseen"


@dataclass(frozen=True)
class Learnt:
    """How a statistic of a column moves where nothing has changed.

    Attributes:
        past: its value in each past window against the rest of the reference, in time order; None where it has none.
        mean, spread: of its transformed value in resamples, for each of the reference's sizes.
    """

    past: tuple[float | None, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True)
class ColumnProfile:
    """One column of the reference.

    What was learnt is kept, not the limits: those follow from the spec as it is when a window is judged (`limits.py`).
    Shares are of rows, 0 to 1.

    Attributes:
        name: the column; `_prediction` and `_label` besides the features.
        role: feature, prediction or label.
        statistic: Evidently's name of the drift statistic, `wasserstein` or `jensenshannon`.
        missing: share of missing values.
        learnt: by kind of statistic: `drift`; for features also `missing` (rise of the share of missing values), for
            categories `unseen` (share of rows with a category that is nowhere else). Empty where unreadable.
        gain: the feature's share of the champion's gain; None where it is not known.
        categories: every category that the champion learnt; None for numbers.
        least_distinct: the smallest number of different values in a past window's sample.
        unreadable: why nothing can be measured; empty if all is well.
    """

    name: str
    role: str
    statistic: str
    missing: float
    learnt: Mapping[str, Learnt] = field(default_factory=dict)
    gain: float | None = None
    categories: tuple[str, ...] | None = None
    least_distinct: int = 0
    unreadable: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ColumnProfile:
        """The reverse of `to_dict`."""
        categories = values.get("categories")
        learnt = {
            kind: Learnt(**{name: tuple(found) for name, found in told.items()})
            for kind, told in values["learnt"].items()
        }
        return cls(
            **{**values, "learnt": learnt, "categories": None if categories is None else tuple(categories)}
        )

    @property
    def numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.statistic == drift_statistics.NUMERIC

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of statistic that are measured of it."""
        if self.role != "feature":
            return (DRIFT,)
        return (DRIFT, MISSING) if self.numeric else (DRIFT, MISSING, UNSEEN)


def transformed(kind: str, values: Floats, missing: float) -> Floats:
    """A statistic on the scale on which it is near normal: the root of a drift distance, the arcsine of a share's root.

    Args:
        kind: of the statistic.
        values: NaN stays NaN.
        missing: the reference's share of missing values, to which a rise is added.
    """
    if kind == DRIFT:
        return np.sqrt(np.maximum(values, 0))
    return np.arcsin(np.sqrt(np.clip(values + (missing if kind == MISSING else 0.0), 0, 1)))


def restored(kind: str, value: float, missing: float) -> float:
    """The reverse of `transformed`; never below 0."""
    if kind == DRIFT:
        return max(value, 0.0) ** 2
    share = math.sin(min(max(value, 0.0), math.pi / 2)) ** 2
    return max(share - (missing if kind == MISSING else 0.0), 0.0)


@dataclass(frozen=True)
class Drawn:
    """The rows of a reference, the same for every column.

    Attributes:
        sample: those of the reference's sample.
        past: the past windows, whole: for categories that occur nowhere else.
        windows: the samples of those windows, as judged windows are sampled.
        resamples: what shows how a column moves by chance.
    """

    sample: Flags
    past: PastWindows
    windows: tuple[Rows, ...]
    resamples: Resamples


def describe(
    column: pa.ChunkedArray,
    name: str,
    role: str,
    numeric: bool,
    gain: float | None,
    drawn: Drawn,
) -> tuple[ColumnProfile, dict[str, Floats]]:
    """Profile one column.

    Args:
        column: the values of every row that the champion learnt from.
        name, role, gain: see `ColumnProfile`.
        numeric: whether the column is to be read as numbers.
        drawn: the rows by which it is known.

    Returns:
        The profile, and by kind of statistic its transformed values by size and resample.
    """
    sample, windows, resamples = drawn.sample, drawn.windows, drawn.resamples
    statistic = drift_statistics.NUMERIC if numeric else drift_statistics.CATEGORICAL
    try:
        values = as_numbers(column) if numeric else None
        codes, categories = (None, None) if numeric else as_codes(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = (
            f"type {column.type} is not readable as {'numbers' if numeric else 'text'}: {str(error)[:120]}"
        )
        return ColumnProfile(name, role, statistic, 1.0, gain=gain, unreadable=reason), {}
    seen, moves = {}, {}
    if values is not None:
        missing = ~np.isfinite(values)
        seen[DRIFT] = drift_statistics.numeric(values, sample, windows)
        moves[DRIFT] = resamples.numeric(values[resamples.rows])
        distinct = [len(np.unique(values[rows][~missing[rows]])) for rows in windows]
    else:
        assert codes is not None
        assert categories is not None
        missing = codes < 0
        seen[DRIFT] = drift_statistics.categorical(codes, len(categories), sample, windows)
        moves[DRIFT] = resamples.categorical(codes[resamples.rows])
        distinct = [len(np.unique(codes[rows][~missing[rows]])) for rows in windows]
        if role == "feature":
            seen[UNSEEN] = drift_statistics.unseen(codes, len(categories), drawn.past.rows)
            # A new row is of an unseen category about as often as a known one is alone in its category (Good 1953).
            alone = drift_statistics.alone(codes, len(categories))
            moves[UNSEEN] = resamples.share(alone[resamples.rows])
    if role == "feature":
        seen[MISSING] = drift_statistics.missing_rise(missing, sample, windows)
        moves[MISSING] = resamples.rise(missing[resamples.rows])
    share = float(missing.mean())
    moves = {kind: transformed(kind, found, share) for kind, found in moves.items()}
    readable = bool(np.isfinite(seen[DRIFT]).any() and (~missing[sample]).any())
    return ColumnProfile(
        name=name,
        role=role,
        statistic=statistic,
        missing=share,
        learnt={kind: _learnt(seen[kind], moves[kind]) for kind in seen},
        gain=gain,
        categories=None if categories is None else tuple(categories),
        least_distinct=min(distinct, default=0),
        unreadable="" if readable else "no value in the rows that the champion learnt from",
    ), moves


def _learnt(seen: Floats, moves: Floats) -> Learnt:
    mean, spread = moves.mean(axis=1), moves.std(axis=1)
    return Learnt(
        tuple(_short(v) if np.isfinite(v) else None for v in seen),
        tuple(_short(v) if np.isfinite(v) else 0.0 for v in mean),
        tuple(_short(v) if np.isfinite(v) else 0.0 for v in spread),
    )


def _short(value: float) -> float:
    """Six digits: what is learnt is not known better, and a profile of many windows stays small."""
    return float(f"{value:.6g}")


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
