"""Measures one window against the champion's reference with Evidently's statistics, column by column.

A column that cannot be measured is a finding of its own (`unreadable`, a violation without a value); the others
are measured all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.monitoring.windows.judgement import IGNORED, LABELS, ColumnResult, What, with_reason
from evergreen.monitoring.windows.reads import BEYOND
from evergreen.reference import drift_statistics
from evergreen.reference.limits import limits
from evergreen.reference.profile import DRIFT, MISSING, UNSEEN, ColumnProfile
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec

# A number that took at least this many values in every past window and takes one now is a stuck sensor.
STUCK_FROM = 5
Floats = npt.NDArray[np.float64]
DRIFT_OF = {"feature": What.DATA_DRIFT, "label": What.DATA_DRIFT, "prediction": What.PREDICTION_DRIFT}


def columns(
    model: ModelSpec,
    window: pd.DataFrame,
    reference: Reference,
    *,
    labels: bool,
    lost: Mapping[str, str] | None = None,
) -> list[ColumnResult]:
    """Every statistic of every column of a window.

    Features: drift, rise of missing values, share of categories that the champion never saw. Predictions: drift.
    Labels, where they are in: their drift is shown and never violates, because the error tells what it means.
    Columns under `monitoring.drift.ignore` are measured and never violate either.

    Args:
        model: names the features and the limits' settings.
        window: rows of the window (`reads.sample`); rows without a prediction have none. What is in it for its label alone
            counts for the label alone.
        reference: the champion's.
        labels: whether the labels are in.
        lost: features of the model that the window does not have, each with why.
    """
    labelled = window["_label"].dropna() if BEYOND in window else None
    window = sampled(window)
    known = limits(reference.columns, reference.family, model.monitoring.drift, len(window))
    if labels and labelled is not None:
        of_label = limits(reference.columns, reference.family, model.monitoring.drift, len(labelled))
        known["_label", DRIFT] = of_label["_label", DRIFT]
    found: list[ColumnResult] = []
    for name in lost or {}:
        gone = _unreadable(name, "drift", 0.0, (lost or {})[name])
        found.append(_shown(gone) if name in model.monitoring.drift.ignore else gone)
    for name in (
        *(n for n in model.features.all if n not in (lost or {})),
        "_prediction",
        *(("_label",) if labels else ()),
    ):
        shown_only = name == "_label" or name in model.monitoring.drift.ignore
        profile = reference.columns.get(name)
        numeric = name in (*model.features.numeric, "_prediction", "_label")
        results = (
            _guarded(
                labelled if name == "_label" and labelled is not None else window[name],
                (reference.labelled if name == "_label" else reference.sample)[name],
                profile,
                {kind: known[name, kind] for kind in profile.kinds},
            )
            if profile is not None and profile.numeric == numeric
            else [
                _unreadable(
                    name,
                    "drift",
                    0.0,
                    "the champion was trained without this column or with another kind of it",
                )
            ]
        )
        found += [_shown(r) for r in results] if shown_only else results
    return found


def sampled(window: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for the window, without those that are there for their label alone (`reads.sample`)."""
    return window[~window[BEYOND]].drop(columns=BEYOND) if BEYOND in window else window


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as Evidently reads it: infinities are missing values."""
    rows = table.to_pandas()
    for name in rows.columns:
        if rows[name].dtype.kind == "f" and np.isinf(found := rows[name].to_numpy()).any():
            rows[name] = np.where(np.isinf(found), np.nan, found)
    return rows


def _guarded(
    now: pd.Series, before: pa.ChunkedArray, profile: ColumnProfile, limit_of: dict[str, float]
) -> list[ColumnResult]:
    try:
        return _column(now, before, profile, limit_of)
    # Whatever a strange column makes NumPy, pandas or Arrow raise is its own finding, not the report's end.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [_unreadable(profile.name, profile.statistic, limit_of[DRIFT], reason)]


def _column(
    now: pd.Series, before: pa.ChunkedArray, profile: ColumnProfile, limit_of: dict[str, float]
) -> list[ColumnResult]:
    name, limit = profile.name, limit_of[DRIFT]
    found: list[ColumnResult] = []
    if profile.role == "feature":
        missing = float(now.isna().mean())
        found.append(
            _result(
                name, What.MISSING, "missing_rise", missing - profile.missing, limit_of[MISSING],
                f"missing {missing:.1%} (reference {profile.missing:.1%})",
            )
        )  # fmt: skip
    if profile.unreadable:
        return [*found, _unreadable(name, profile.statistic, limit, f"reference: {profile.unreadable}")]
    sides = _Numbers.of(now, before) if profile.numeric else _Categories.of(now, before)
    if not sides.there:
        return [*found, _unreadable(name, profile.statistic, limit, f"all {len(now)} values are missing")]
    if isinstance(sides, _Numbers):
        if profile.role == "feature" and profile.least_distinct >= STUCK_FROM and sides.stuck:
            return [
                *found,
                _unreadable(
                    name, profile.statistic, limit,
                    f"stuck: all {len(sides.now)} values are {sides.now[0]:g}; "
                    f"past windows had at least {profile.least_distinct} different ones",
                ),
            ]  # fmt: skip
    elif profile.categories is not None:
        fresh = sides.now[~sides.now.index.isin(profile.categories)].sort_values(ascending=False)
        names = ", ".join(map(str, fresh.index[:5]))
        found.append(
            _result(
                name, What.NEW_CATEGORY, "unseen_share", float(fresh.sum()) / len(now), limit_of[UNSEEN],
                f"never seen: {names}" if names else "",
            )
        )  # fmt: skip
    value = sides.distance()
    if not math.isfinite(value):
        raise ValueError(f"{profile.statistic} is {value}")
    return [
        *found,
        _result(name, DRIFT_OF[profile.role], profile.statistic, value, limit, sides.summary()),
    ]


@dataclass(frozen=True)
class _Numbers:
    """The numbers of a column in the window and in the reference, without the missing ones."""

    now: Floats
    before: Floats

    @classmethod
    def of(cls, now: pd.Series, before: pa.ChunkedArray) -> _Numbers:
        return cls(_present(now.to_numpy(dtype=float)), _present(np.asarray(before.to_numpy(), dtype=float)))

    @property
    def there(self) -> bool:
        return bool(len(self.now) and len(self.before))

    @property
    def stuck(self) -> bool:
        return bool(self.now[0] == self.now[-1] and (self.now == self.now[0]).all())

    def distance(self) -> float:
        return drift_statistics.normed(self.before, self.now)

    def summary(self) -> str:
        same = drift_statistics.constant(np.sort(self.before))
        if same is None:
            return f"mean {self.now.mean():.4g} (reference {self.before.mean():.4g})"
        other = float((np.abs(self.now - same) > drift_statistics.ROUNDING * abs(same)).mean())
        return f"constant in the reference, {same:.4g}; now {other:.1%} of the values differ, mean {self.now.mean():.4g}"


@dataclass(frozen=True)
class _Categories:
    """How often each category of a column is in the window and in the reference, in the order of their first rows."""

    now: pd.Series
    before: pd.Series

    @classmethod
    def of(cls, now: pd.Series, before: pa.ChunkedArray) -> _Categories:
        counted = pc.value_counts(before.drop_null())
        known = pd.Series(counted.field("counts").to_numpy(), index=counted.field("values").to_pandas())
        return cls(now.value_counts(sort=False), known)

    @property
    def there(self) -> bool:
        return bool(len(self.now) and len(self.before))

    def distance(self) -> float:
        names = list(dict.fromkeys([*self.before.index, *self.now.index]))
        sides = (side.to_dict() for side in (self.before, self.now))
        return drift_statistics.divergence(
            *(np.array([side.get(n, 0) for n in names], float) for side in sides)
        )

    def summary(self) -> str:
        """The two categories whose share moved most."""
        now, before = (side.sort_values(ascending=False) / side.sum() for side in (self.now, self.before))
        names = now.index if now.index.equals(before.index) else now.index.union(before.index)
        now, before = (side.reindex(names, fill_value=0.0) for side in (now, before))
        moved = (now - before).abs().sort_values(ascending=False).index[:2]
        return ", ".join(f"{n} {now[n]:.0%} (reference {before[n]:.0%})" for n in moved)


def _present(values: Floats) -> Floats:
    missing = ~np.isfinite(values)
    return values[~missing] if missing.any() else values


def _result(name: str, kind: What, statistic: str, value: float, limit: float, detail: str) -> ColumnResult:
    # A value on the limit counts, as in Evidently.
    return ColumnResult(name, kind, statistic, value, limit, value >= limit, detail)


def _unreadable(name: str, statistic: str, limit: float, reason: str) -> ColumnResult:
    return ColumnResult(name, What.UNREADABLE, statistic, None, limit, True, reason)


def _shown(result: ColumnResult) -> ColumnResult:
    why = LABELS if result.column == "_label" else IGNORED
    return ColumnResult(
        result.column, result.kind, result.statistic, result.value, result.limit, False,
        with_reason(result.detail, why),
    )  # fmt: skip
