"""Columns that are constant in the reference, or nearly, or of a small unit: a tiny change is none, a real one is told as such."""

from __future__ import annotations

import numpy as np
import pytest
from monitoring_scene import BEGIN, ROWS, WEEK, as_table, learnt, model, week

from evergreen.monitoring.windows import measure, report
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.reference import drift_statistics, noise
from evergreen.reference.reference import build

METRICS = {"rmse": 1.0, "mae": 0.8, "r2": 0.95}


def of_level(change, before=lambda f: f.assign(level=4.0)):
    table = before(learnt().to_pandas())
    made = build(
        model(),
        as_table(table.rename(columns={"_time": "ts", "_label": "y", "_prediction": "guess"})),
        METRICS,
    )
    frame = measure.frame(as_table(change(week(0))))
    found = measure.columns(model(), frame, made, labels=False)
    return next(c for c in found if (c.column, c.kind) == ("level", What.DATA_DRIFT)), made, frame


def one_in(count, value, other):
    return lambda f: f.assign(level=np.where(np.arange(len(f)) % count == 0, value, other))


@pytest.mark.parametrize(
    ("before", "change", "alarms"),
    [
        pytest.param(4.0, lambda f: f.assign(level=4.0), False, id="unchanged"),
        pytest.param(4.0, lambda f: f.assign(level=4.0 + 1e-9), False, id="rounding"),
        pytest.param(448.0, lambda f: f.assign(level=448.448), False, id="a-thousandth"),
        pytest.param(4.0, one_in(50, 5.0, 4.0), False, id="a-few-rows"),
        pytest.param(4.0, one_in(ROWS, 1e9, 4.0), False, id="one-row-far-off"),
        pytest.param(0.0, lambda f: f.assign(level=1e-9), False, id="nothing-beside-zero"),
        pytest.param(4.0, lambda f: f.assign(level=5.0), True, id="all-rows"),
        pytest.param(0.0, lambda f: f.assign(level=1.0), True, id="from-zero"),
        pytest.param(-4.0, lambda f: f.assign(level=4.0), True, id="sign"),
        pytest.param(0.0, one_in(4, 7.0, 0.0), True, id="a-quarter-of-the-rows"),
    ],
)
def test_a_constant_is_measured_by_its_size(before, change, alarms):
    found, _, _ = of_level(change, lambda f: f.assign(level=before))
    assert found.violated is alarms
    assert found.value <= 2.0
    if alarms:
        assert f"constant in the reference, {before:.4g}; now " in found.detail
        assert "of the values differ" in found.detail


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        pytest.param(one_in(84, 9.0, 4.0), False, id="a-few-more-rows"),
        pytest.param(lambda f: f.assign(level=9.0), True, id="all-rows"),
    ],
)
def test_so_is_a_column_in_which_hardly_a_row_differs(change, alarms):
    found, _, _ = of_level(change, one_in(1680, 9.0, 4.0))
    assert found.violated is alarms
    assert found.value <= 2.0


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7], ids=["tiny", "one", "huge"])
def test_a_column_is_measured_in_its_own_unit(unit):
    """Evidently divides by 0.001 at least, so that of small numbers nothing was ever seen."""
    rng = np.random.default_rng(1)

    def drawn(shift):
        return lambda f: f.assign(level=unit * (5 + shift + rng.normal(size=len(f))))

    quiet, _, _ = of_level(drawn(0.0), drawn(0.0))
    moved, _, _ = of_level(drawn(2.0), drawn(0.0))
    assert (quiet.violated, moved.violated) == (False, True)
    assert moved.value == pytest.approx(2.0, abs=0.4)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param(lambda f: f.assign(level=4.0), lambda f: f.assign(level=5.0), id="constant"),
        pytest.param(
            lambda f: f.assign(level=1e-6 * np.arange(len(f))),
            lambda f: f.assign(level=5e-3 + 1e-6 * np.arange(len(f))),
            id="small-unit",
        ),
        pytest.param(
            lambda f: f.assign(level=f["amount"]), lambda f: f.assign(level=3.0 + f["amount"]), id="plain"
        ),
    ],
)
def test_the_page_has_the_judged_number(before, change, tmp_path):
    _, made, frame = of_level(change, before)
    frame = frame.assign(_version="1")
    found = Judgement("watched", "1", BEGIN, BEGIN + WEEK, 1, BEGIN + WEEK, Status.OK, ROWS, ROWS, ROWS)
    columns = measure.columns(model(), frame, made, labels=False)
    drawn = report.write(found.concluded(columns, ()), "regression", frame, made, tmp_path)
    told = {c.column: c.value for c in columns if c.kind is What.DATA_DRIFT}
    assert drawn["level"] == pytest.approx(told["level"], rel=1e-9)


def test_chance_moves_a_nearly_constant_column_by_its_share_of_rows():
    values = np.zeros(5_000)
    values[::2_000] = 1.0
    drawn = noise.Resamples.draw(np.arange(5_000), 500, 1_000, 3)
    found = drawn.numeric(values[drawn.rows])
    assert np.isfinite(found).all()
    assert found.max() < 0.02
    assert drift_statistics.normed(values, np.ones(100)) == pytest.approx(1.0, abs=0.01)
