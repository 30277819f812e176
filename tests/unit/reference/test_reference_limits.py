"""Limits keep the rate of false alarms that the spec states, without being wider than that asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evergreen.reference import drift_statistics
from evergreen.reference.limits import EQUAL, RESAMPLED_WIDENING, limits, weights
from evergreen.reference.profile import restored, transformed
from evergreen.reference.reference import Reference, build
from evergreen.spec import ModelSpec

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NUMBERS, TEXTS = [f"n{i}" for i in range(8)], ["c0", "c1"]
# No floor: what was learnt decides.
BARE = {"numeric": 1e-9, "categorical": 1e-9, "missing": 1e-9}
DAYS = np.array([1.0, 1.1, 0.9, 1.0, 1.2, 0.7, 0.6])


def spec(numbers=NUMBERS, texts=TEXTS, **drift) -> ModelSpec:
    return ModelSpec.model_validate({
        "name": "m", "task": "regression", "datasets": ["d"], "key": ["ts"], "event_time": "ts", "label": {"column": "y"},
        "features": {"numeric": numbers, "categorical": texts}, "query": "SELECT 1",
        "monitoring": {"window": "1d", "min_rows": 10, "sample_rows": 2000, "drift": {**BARE, **drift}},
    })  # fmt: skip


def window(number: int, rows: int, seed: int, season: float = 0.0) -> pd.DataFrame:
    """A day of rows; its numbers have something in common, a twentieth of them is missing."""
    rng = np.random.default_rng([seed, number + 1000])
    shift = season * (np.sin(2 * np.pi * number / 28) + DAYS[number % 7] - 1)
    common = rng.normal(size=rows)
    frame = pd.DataFrame({n: 0.5 * common + rng.gamma(2.0, 1.0, rows) + shift for n in NUMBERS})
    frame = frame.mask(rng.random(frame.shape) < 0.05)
    frame["c0"] = rng.choice([*"abcd"], rows, p=[0.4, 0.3, 0.2, 0.1])
    frame["c1"] = rng.choice([f"k{i}" for i in range(60)], rows)
    return frame.assign(_prediction=common + shift, _label=common)


def champion(
    windows: float, rows: int, seed: int, season: float = 0.0, model: ModelSpec | None = None, gains=None
) -> Reference:
    """The reference of a champion that learnt the windows before window 0."""
    whole = int(np.ceil(windows))
    frame = pd.concat([window(n, rows, seed, season) for n in range(-whole, 0)], ignore_index=True)
    step = timedelta(days=1) / rows
    times = [BEGIN + timedelta(days=700) - step * (len(frame) - i) for i in range(len(frame))]
    frame = frame.assign(_time=times, _key=[str(i) for i in range(len(frame))]).tail(int(windows * rows))
    return build(model or spec(), pa.Table.from_pandas(frame, preserve_index=False), {"rmse": 1.0}, gains)


def alarms(made: Reference, model: ModelSpec, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What is beyond its limit, by the statistics that a test holds equal to Evidently's."""
    known = limits(made.columns, made.family, model.monitoring.drift, len(frame))
    before = made.sample.to_pandas()
    sample, now = np.arange(len(before) + len(frame)) < len(before), [np.arange(len(frame)) + len(before)]
    found = []
    for (name, kind), limit in known.items():
        both = pd.concat([before[name], frame[name]], ignore_index=True)
        if name == "_label":
            continue
        if kind == "missing":
            value = frame[name].isna().mean() - made.columns[name].missing
        elif kind == "unseen":
            value = (~frame[name].isin(made.columns[name].categories)).mean()
        elif made.columns[name].numeric:
            value = drift_statistics.numeric(both.to_numpy(float), sample, now)[0]
        else:
            codes, names = pd.factorize(both)
            value = drift_statistics.categorical(codes, len(names), sample, now)[0]
        if value >= limit:
            found.append((name, kind))
    return found


def share(rate: float, checks: int, windows: float, learnt: int, rows: int, season: float = 0.0) -> float:
    """The share of checks of unchanged windows that alarm."""
    model, found = spec(false_alarms=rate), []
    for seed in range(4):
        made = champion(windows, learnt, seed, season, model)
        found += [bool(alarms(made, model, window(n, rows, seed, season))) for n in range(checks // 4)]
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("windows", "learnt", "rows", "season", "least", "most"),
    [
        pytest.param(30, 100, 100, 0.0, 0.02, 0.12, id="thirty past windows"),
        pytest.param(4, 300, 300, 0.0, 0.0, 0.12, id="four past windows"),
        pytest.param(30, 300, 100, 0.0, 0.0, 0.12, id="a smaller window than the past ones"),
        pytest.param(30, 100, 300, 0.0, 0.0, 0.12, id="a larger window than the past ones"),
        pytest.param(1.5, 300, 300, 0.0, 0.0, 0.12, id="a short history, resampled"),
        pytest.param(56, 100, 100, 0.7, 0.0, 0.12, id="a season that history has seen twice"),
    ],
)
def test_unchanged_windows_alarm_no_more_often_than_the_spec_says(windows, learnt, rows, season, least, most):
    # Of a tenth, because so few checks could not tell a hundredth from two.
    assert least <= share(0.1, 200, windows, learnt, rows, season) <= most


def limit(made: Reference, name: str, kind: str = "drift", rows: int = 300, **drift: float) -> float:
    return limits(made.columns, made.family, spec(**drift).monitoring.drift, rows)[name, kind]


@pytest.fixture(scope="module")
def made() -> Reference:
    return champion(12, 300, 1)


def test_fewer_rows_and_fewer_false_alarms_ask_for_more(made):
    assert (
        limit(made, "n0", rows=50)
        > limit(made, "n0", rows=100)
        > limit(made, "n0")
        > limit(made, "n0", rows=2000)
    )
    assert limit(made, "n0", false_alarms=0.001) > limit(made, "n0") > limit(made, "n0", false_alarms=0.1)
    assert limit(made, "n0", "missing", false_alarms=0.001) > limit(made, "n0", "missing")


@pytest.mark.parametrize(
    ("name", "kind", "floor"), [("n0", "drift", "numeric"), ("c0", "drift", "categorical"), ("n0", "missing", "missing"), ("c0", "unseen", "missing")]
)  # fmt: skip
def test_the_smallest_effect_that_counts_is_the_specs(made, name, kind, floor):
    assert limit(made, name, kind, **{floor: 0.7}) == 0.7


def test_a_limit_that_cannot_be_learnt_is_the_smallest_effect_and_not_endless(made):
    """A share of the budget of zero asks for an endless quantile; a limit like that would never alarm."""
    spoilt = replace(made.family, smallest=tuple(np.zeros_like(least) for least in made.family.smallest))
    found = limits(made.columns, spoilt, spec(numeric=0.1).monitoring.drift, 300)
    assert all(np.isfinite(value) for value in found.values())
    assert found["n0", "drift"] == 0.1


def test_four_past_windows_learn_from_each_other_how_wide_columns_move():
    # Alone, Student's t of three degrees of freedom would ask for ten times the spread.
    few, many = champion(4, 300, 2), champion(40, 300, 2)
    ratios = [limit(few, n) / limit(many, n) for n in NUMBERS]
    assert max(ratios) < 3


def test_columns_that_are_one_cost_as_much_as_one():
    frame = pd.concat([window(n, 300, 3) for n in range(-20, 0)], ignore_index=True)
    times = [BEGIN + timedelta(seconds=288 * i) for i in range(len(frame))]
    frame = frame.assign(_time=times, _key=[str(i) for i in range(len(frame))])
    alike = frame.assign(**{n: frame["n0"] for n in NUMBERS}, _prediction=frame["n0"])
    model = spec(texts=[])
    apart, one = (build(model, pa.Table.from_pandas(f), {"rmse": 1.0}) for f in (frame, alike))
    assert np.array(one.family.smallest).mean() > 2 * np.array(apart.family.smallest).mean()
    assert limit(one, "n0") < limit(apart, "n0")


def test_important_features_get_more_of_the_budget_and_unused_ones_a_little(made):
    plain, weighed = made, champion(12, 300, 1, gains={"n0": 0.8, "n1": 0.2})
    assert limit(weighed, "n0") < limit(plain, "n0")
    assert limit(weighed, "n7") > limit(plain, "n7")
    assert limit(weighed, "n7") < 1.5 * limit(plain, "n7")
    assert [weighed.columns[n].gain for n in ("n0", "n1", "n7", "_prediction")] == [0.8, 0.2, 0.0, None]


def test_weights_spend_the_budget_once_and_leave_nobody_without():
    found = weights({"a": 0.6, "b": 0.4, "c": 0.0, "d": 0.0})
    assert sum(found.values()) == pytest.approx(4)
    assert found["a"] > found["b"] > found["c"] == found["d"] == EQUAL
    assert weights({"a": 0.0, "b": 0.0}) == weights({"a": None, "b": None}) == {"a": 1.0, "b": 1.0}


def test_limits_from_resampling_alone_are_wider_by_what_is_stated(made):
    alone = replace(made, family=replace(made.family, basis="resampled"))
    assert limit(alone, "n0") == pytest.approx(RESAMPLED_WIDENING * limit(made, "n0"))


def test_what_a_past_window_showed_is_no_drift(made):
    learnt = made.columns["n0"].learnt["drift"]
    odd = replace(learnt, past=(*learnt.past[:-1], 3.0))
    column = replace(made.columns["n0"], learnt={**made.columns["n0"].learnt, "drift": odd})
    assert limit(replace(made, columns={**made.columns, "n0": column}), "n0") >= 3.0


def test_a_column_that_never_moved_has_the_smallest_effect_as_its_limit():
    model = spec(numbers=["n0"], texts=["c0"])
    frame = pd.concat([window(n, 100, 4) for n in range(-8, 0)], ignore_index=True).assign(n0=4.0, c0="a")
    times = [BEGIN + timedelta(seconds=864 * i) for i in range(len(frame))]
    table = pa.Table.from_pandas(frame.assign(_time=times, _key=[str(i) for i in range(len(frame))]))
    still = build(model, table, {"rmse": 1.0})
    assert [limit(still, n, rows=100, numeric=0.1, categorical=0.05) for n in ("n0", "c0")] == [0.1, 0.05]


def test_a_category_that_is_often_alone_is_no_news():
    frame = pd.concat([window(n, 300, 5) for n in range(-8, 0)], ignore_index=True)
    rare = np.random.default_rng(5).random(len(frame)) < 0.1
    times = [BEGIN + timedelta(seconds=288 * i) for i in range(len(frame))]
    frame = frame.assign(c0=frame["c0"].where(~rare, [f"lone{i}" for i in range(len(frame))]))
    table = pa.Table.from_pandas(frame.assign(_time=times, _key=[str(i) for i in range(len(frame))]))
    lonely = build(spec(), table, {"rmse": 1.0})
    assert 0.1 < limit(lonely, "c0", "unseen") < 0.25
    # By chance alone, too: ten of a hundred rows are usual, eighteen are not rare enough.
    assert limit(lonely, "c0", "unseen", rows=50) > 0.18


@pytest.mark.parametrize(("kind", "missing"), [("drift", 0.0), ("missing", 0.2), ("unseen", 0.2)])
def test_what_is_transformed_comes_back(kind, missing):
    for value in (0.0, 0.03, 0.4):
        scaled = float(transformed(kind, np.array([value]), missing)[0])
        assert restored(kind, scaled, missing) == pytest.approx(value)
