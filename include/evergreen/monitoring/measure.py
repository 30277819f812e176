"""Measures one window against the champion's reference with Evidently's statistics, column by column.

A column that cannot be measured is a finding of its own (`unreadable`, a violation without a value); the others
are measured all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

from evergreen.monitoring import statistics
from evergreen.monitoring.judgement import ColumnResult, What
from evergreen.monitoring.limits import limits
from evergreen.monitoring.profile import DRIFT, MISSING, UNSEEN, ColumnProfile
from evergreen.monitoring.reference import Reference
from evergreen.spec import ModelSpec

# A number that took at least this many values in every past window and takes one now is a stuck sensor.
STUCK_FROM = 5
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
        window: rows of the window (`reads.sample`); rows without a prediction have none.
        reference: the champion's.
        labels: whether the labels are in.
        lost: features of the model that the window does not have, each with why.
    """
    before = frame(reference.sample)
    known = limits(reference.columns, reference.family, model.monitoring.drift, len(window))
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
            _guarded(window[name], before[name], profile, {kind: known[name, kind] for kind in profile.kinds})
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


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as Evidently reads it: infinities are missing values."""
    rows = table.to_pandas()
    for name in rows.columns:
        if rows[name].dtype.kind == "f" and np.isinf(found := rows[name].to_numpy()).any():
            rows[name] = np.where(np.isinf(found), np.nan, found)
    return rows


def drift(profile: ColumnProfile, before: pd.Series, now: pd.Series, limit: float) -> float:
    """Evidently's drift statistic of two samples without missing values.

    Raises:
        ValueError: Evidently gives no number.
    """
    if profile.numeric:
        value = statistics.normed(before.to_numpy(dtype=float), now.to_numpy(dtype=float))
    else:
        kind = ColumnType.Categorical
        test = get_stattest(before, now, kind, profile.statistic)
        value = float(test(before, now, kind, limit).drift_score)
    if math.isnan(value) and not profile.numeric and _same_shares(before, now):
        return 0.0  # rounding makes the divergence of equal shares a hair negative, and its root NaN
    if not math.isfinite(value):
        raise ValueError(f"{profile.statistic} is {value}")
    return value


def _guarded(
    now: pd.Series, before: pd.Series, profile: ColumnProfile, limit_of: dict[str, float]
) -> list[ColumnResult]:
    try:
        return _column(now, before, profile, limit_of)
    # Whatever a strange column makes pandas or Evidently raise is its own finding, not the report's end.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [_unreadable(profile.name, profile.statistic, limit_of[DRIFT], reason)]


def _column(
    now: pd.Series, before: pd.Series, profile: ColumnProfile, limit_of: dict[str, float]
) -> list[ColumnResult]:
    name, limit = profile.name, limit_of[DRIFT]
    found: list[ColumnResult] = []
    if profile.role == "feature":
        rise = float(now.isna().mean()) - profile.missing
        found.append(
            _result(
                name, What.MISSING, "missing_rise", rise, limit_of[MISSING],
                f"missing {now.isna().mean():.1%} (reference {profile.missing:.1%})",
            )
        )  # fmt: skip
    if profile.unreadable:
        return [*found, _unreadable(name, profile.statistic, limit, f"reference: {profile.unreadable}")]
    values, old = now.dropna(), before.dropna()
    if values.empty or old.empty:
        return [*found, _unreadable(name, profile.statistic, limit, f"all {len(now)} values are missing")]
    if (
        profile.numeric
        and profile.role == "feature"
        and values.iloc[0] == values.iloc[-1]
        and values.nunique() == 1
        and profile.least_distinct >= STUCK_FROM
    ):
        return [
            *found,
            _unreadable(
                name, profile.statistic, limit,
                f"stuck: all {len(values)} values are {values.iloc[0]:g}; "
                f"past windows had at least {profile.least_distinct} different ones",
            ),
        ]  # fmt: skip
    if profile.categories is not None:
        fresh = ~values.isin(profile.categories)
        names = ", ".join(map(str, values[fresh].value_counts().index[:5]))
        found.append(
            _result(
                name, What.NEW_CATEGORY, "unseen_share", float(fresh.sum()) / len(now), limit_of[UNSEEN],
                f"never seen: {names}" if names else "",
            )
        )  # fmt: skip
    value = drift(profile, old, values, limit)
    describe: Callable[[pd.Series, pd.Series], str] = _numbers if profile.numeric else _shares
    return [
        *found,
        _result(name, DRIFT_OF[profile.role], profile.statistic, value, limit, describe(values, old)),
    ]


def _result(name: str, kind: What, statistic: str, value: float, limit: float, detail: str) -> ColumnResult:
    # A value on the limit counts, as in Evidently.
    return ColumnResult(name, kind, statistic, value, limit, value >= limit, detail)


def _unreadable(name: str, statistic: str, limit: float, reason: str) -> ColumnResult:
    return ColumnResult(name, What.UNREADABLE, statistic, None, limit, True, reason)


def _shown(result: ColumnResult) -> ColumnResult:
    why = (
        "labels are shown, their error is judged"
        if result.column == "_label"
        else "shown only: monitoring.drift.ignore"
    )
    detail = f"{result.detail} ({why})" if result.detail else why
    return ColumnResult(
        result.column, result.kind, result.statistic, result.value, result.limit, False, detail
    )


def _numbers(now: pd.Series, before: pd.Series) -> str:
    return f"mean {now.mean():.4g} (reference {before.mean():.4g})"


def _shares(now: pd.Series, before: pd.Series) -> str:
    shares = pd.DataFrame(
        {"now": now.value_counts(normalize=True), "before": before.value_counts(normalize=True)}
    )
    shares = shares.fillna(0.0)
    moved = (shares["now"] - shares["before"]).abs().sort_values(ascending=False).index[:2]
    return ", ".join(f"{n} {shares.at[n, 'now']:.0%} (reference {shares.at[n, 'before']:.0%})" for n in moved)


def _same_shares(before: pd.Series, now: pd.Series) -> bool:
    a, b = before.value_counts(normalize=True).sort_index(), now.value_counts(normalize=True).sort_index()
    return a.index.equals(b.index) and bool(np.allclose(a, b))
