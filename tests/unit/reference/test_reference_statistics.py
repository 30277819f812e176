"""The fast statistics of the reference are Evidently's, to the last digits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

from evergreen.reference import drift_statistics, noise

ROWS = 600
WINDOWS = [np.arange(a, a + 90) for a in (0, 200, 510)]


def drift(name: str, before: pd.Series, now: pd.Series) -> float:
    """Evidently's own."""
    kind = ColumnType.Numerical if name == drift_statistics.NUMERIC else ColumnType.Categorical
    return float(get_stattest(before, now, kind, name)(before, now, kind, 0.1).drift_score)


def evidently(name: str, values: np.ndarray, sample: np.ndarray) -> list[float]:
    column = pd.Series(values)
    if name == drift_statistics.NUMERIC:
        column = column.replace([np.inf, -np.inf], np.nan)
    found = []
    for window in WINDOWS:
        rest = sample.copy()
        rest[window] = False
        found.append(drift(name, column[rest].dropna(), column.iloc[window].dropna()))
    return found


@pytest.fixture(params=["every row in the sample", "a third in the sample"])
def sample(request) -> np.ndarray:
    return np.ones(ROWS, dtype=bool) if "every" in request.param else np.arange(ROWS) % 3 == 0


@pytest.mark.parametrize("kind", ["smooth", "ties", "constant", "missing and infinite"])
def test_numbers_are_measured_as_evidently_does(kind, sample):
    rng = np.random.default_rng(3)
    values = rng.gamma(2.0, 3.0, ROWS)
    if kind == "ties":
        values = np.round(values)
    if kind == "constant":
        values = np.full(ROWS, 4.0)
    if kind == "missing and infinite":
        values[rng.integers(0, ROWS, 80)] = np.nan
        values[[5, 250]] = np.inf
    found = drift_statistics.numeric(values, sample, WINDOWS)
    np.testing.assert_allclose(
        found, evidently(drift_statistics.NUMERIC, values, sample), rtol=1e-9, atol=1e-12
    )


def test_categories_are_measured_as_evidently_does(sample):
    rng = np.random.default_rng(4)
    codes = rng.choice(5, ROWS, p=[0.4, 0.3, 0.2, 0.06, 0.04])
    codes[200:290] = rng.choice([0, 4], 90)
    codes[rng.integers(0, ROWS, 40)] = -1
    names = np.array([*"abcde", None], dtype=object)[codes]
    found = drift_statistics.categorical(codes, 5, sample, WINDOWS)
    np.testing.assert_allclose(
        found, evidently(drift_statistics.CATEGORICAL, names, sample), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("share", [0.0, 0.3], ids=["of-equal-shares", "moved"])
def test_two_sides_of_a_judged_window_are_measured_as_evidently_does(share):
    rng = np.random.default_rng(8)
    before, now = rng.gamma(2.0, 3.0, 700), rng.gamma(2.0, 3.0 + share, 200)
    assert drift_statistics.normed(before, now) == pytest.approx(
        drift(drift_statistics.NUMERIC, pd.Series(before), pd.Series(now)), rel=1e-9
    )
    old = pd.Series([*"abc"] * 100)
    new = old.copy() if not share else pd.Series([*"abcc"] * 40 + ["new"])
    counts = [
        np.array([(side == name).sum() for name in ("a", "b", "c", "new")], float) for side in (old, new)
    ]
    told = drift(drift_statistics.CATEGORICAL, old, new)
    expected = 0.0 if not share else told
    assert drift_statistics.divergence(*counts) == pytest.approx(expected, abs=1e-7)


def test_equal_shares_are_no_distance():
    codes = np.tile([0, 1, 2], 200)
    assert drift_statistics.categorical(codes, 3, np.ones(ROWS, dtype=bool), WINDOWS).max() < 1e-6


def test_missing_values_and_lone_categories_are_shares_of_rows():
    everything = np.ones(ROWS, dtype=bool)
    missing = np.zeros(ROWS, dtype=bool)
    missing[:45] = True
    assert drift_statistics.missing_rise(missing, everything, WINDOWS) == pytest.approx(
        [0.5, -45 / 510, -45 / 510]
    )
    codes = np.zeros(ROWS, dtype=np.int64)
    codes[200:209] = 1
    assert drift_statistics.unseen(codes, 2, WINDOWS) == pytest.approx([0.0, 0.1, 0.0])
    assert drift_statistics.alone(np.array([0, 1, -1, 1, 2]), 3).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_a_resample_is_measured_as_evidently_does(kind):
    rng = np.random.default_rng(5)
    drawn = noise.Resamples.draw(np.arange(100, 700), 40, 500, 7)
    assert drawn.sizes == (20, 58, 171, 500)
    assert drawn.rows.min() >= 100
    if kind == "numbers":
        values = rng.gamma(2.0, 3.0, len(drawn.rows))
        values[rng.integers(0, len(values), 40)] = np.nan
        found, column, name = drawn.numeric(values), pd.Series(values), drift_statistics.NUMERIC
    else:
        codes = rng.choice([-1, 0, 1, 2], len(drawn.rows), p=[0.1, 0.6, 0.2, 0.1])
        column = pd.Series(np.array([*"abc", None], dtype=object)[codes])
        found, name = drawn.categorical(codes), drift_statistics.CATEGORICAL
    for size, resample in ((0, 0), (1, 7), (3, 399)):
        before, now = (
            column.repeat(counts[:, resample].astype(int)).dropna()
            for counts in (drawn.reference, drawn.windows[size])
        )
        assert found[size, resample] == pytest.approx(drift(name, before, now), rel=1e-4, abs=1e-4)


def test_shares_in_resamples_are_those_of_the_drawn_rows():
    drawn = noise.Resamples.draw(np.arange(50), 40, 500, 7)
    flags = np.arange(50) < 10
    assert drawn.windows[0].sum(0) == pytest.approx(drawn.sizes[0])
    assert drawn.reference.sum(0) == pytest.approx(50)
    assert drawn.share(flags)[1, 3] == pytest.approx(drawn.windows[1][:10, 3].sum() / drawn.sizes[1])
    assert drawn.rise(flags)[1, 3] == pytest.approx(
        drawn.share(flags)[1, 3] - drawn.reference[:10, 3].sum() / 50
    )


@pytest.mark.parametrize("values", [np.full(50, np.nan), np.full(50, 4.0)], ids=["nothing", "a constant"])
def test_resamples_of_a_column_that_says_nothing(values):
    found = noise.Resamples.draw(np.arange(50), 40, 500, 7).numeric(values)
    assert np.isnan(found).all() if np.isnan(values).all() else (found == 0).all()
