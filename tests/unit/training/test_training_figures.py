"""The figures of a training: the same each time, small whatever there is to draw, and never in the way of the training."""

from __future__ import annotations

import logging
import math

import numpy as np
import pyarrow as pa
import pytest

from evergreen.metrics.metric_values import compute
from evergreen.training.figures import of_the_fit, of_the_judged_rows
from evergreen.training.figures.figures import MOST_BYTES, drawn
from evergreen.training.figures.judged_sample import JudgedSample
from evergreen.training.figures.slice_errors import LEAST_ROWS, features_shown, slice_errors
from evergreen.training.search.leaderboard import Leaderboard, common_params, params_text
from evergreen.training.search.validate import Candidate, Scored

HOUR = 3_600_000_000
PNG = b"\x89PNG"


def sample(count=400, binary=False, **features):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=count)
    y = (truth > 0).astype(float) if binary else 50 + 20 * truth

    def predicted(noise):
        seen = truth + noise * rng.normal(size=count)
        return 1 / (1 + np.exp(-3 * seen)) if binary else 50 + 20 * seen

    by = {"challenger": predicted(0.3), "champion": predicted(0.5), "baseline": predicted(2.0)}
    columns = {name: pa.chunked_array([pa.array(values)]) for name, values in features.items()}
    return JudgedSample(1_700_000_000_000_000 + HOUR * np.arange(count), y, by, columns, count)


def board():
    spec = {"max_depth": 6, "learning_rate": 0.08, "subsample": 0.9}
    tried = [spec, *({**spec, "max_depth": depth, "learning_rate": 0.01 * depth} for depth in range(2, 20))]
    scored = tuple(
        Scored(Candidate("xgboost", f"trial {n}" if n else "spec", "all", params), (10.0 + n,), (5,), 1.0)
        for n, params in enumerate(tried)
    )
    return Leaderboard(
        "rmse", ("from 2025-01-01",), scored, tuple(1 + 0.1 * n for n in range(len(tried))), 17, ""
    )


def every_figure(model, rows):
    slices = slice_errors(model, rows)
    return {
        "against": lambda: of_the_judged_rows.predicted_against_actual(model, rows),
        "ranking": lambda: of_the_judged_rows.ranking(model, rows),
        "residuals": lambda: of_the_judged_rows.residuals_over_time(model, rows),
        "slices": lambda: of_the_judged_rows.error_by_slice(model, rows, slices),
        "importance": lambda: of_the_fit.importance({"x": 0.7, "$\\frac{1}{0}$ <b>": 0.3}),
        "leaderboard": lambda: of_the_fit.leaderboard(board()),
    }


@pytest.mark.parametrize("binary", [False, True], ids=["regression", "binary"])
@pytest.mark.parametrize("count", [60, 5_000], ids=["few", "many"])
def test_every_figure_is_small_and_the_same_each_time(rides, wetness, binary, count, caplog):
    model, kinds = wetness if binary else rides, np.array(["dry", "wet"])[np.arange(count) % 2]
    rows = sample(count, binary, hour=np.arange(count) % 24.0, kind=kinds)
    figures = every_figure(model, rows)
    first, second = ({name: drawn("rides", name, draw) for name, draw in figures.items()} for _ in range(2))
    assert first == second
    there = {name for name, picture in first.items() if picture}
    assert there == {*figures} - {"against" if binary else "ranking"}
    assert all(
        picture.startswith(PNG) and len(picture) <= MOST_BYTES for picture in first.values() if picture
    )
    assert not caplog.records


def test_a_figure_that_cannot_be_drawn_says_so_and_is_left_out(caplog):
    def broken():
        raise ZeroDivisionError("nothing to divide by")

    with caplog.at_level(logging.WARNING):
        assert drawn("rides", "ranking", broken) is None
    assert [r.getMessage() for r in caplog.records] == [
        "rides: the figure ranking cannot be drawn: ZeroDivisionError: nothing to divide by"
    ]


def test_slices_have_the_metric_that_the_rows_have(rides):
    count = 384
    rows = sample(
        count,
        hour=np.arange(count) % 24.0,
        kind=np.array(["dry", "wet", None, "wet"], object)[np.arange(count) % 4],
    )
    found = slice_errors(rides, rows)
    wet = next(s for s in found if (s.feature, s.value) == ("kind", "wet"))
    chosen = np.arange(count) % 2 == 1
    assert wet.rows == chosen.sum()
    for who, predictions in rows.by.items():
        assert math.isclose(
            wet.values[who], compute("regression", rows.y[chosen], predictions[chosen])["rmse"]
        )
    assert {s.value for s in found if s.feature == "kind"} == {"dry", "wet", "(missing)"}
    quarters = [s for s in found if s.feature == "hour"]
    assert [s.value for s in quarters] == ["0 to 5", "6 to 11", "12 to 17", "18 to 23"]
    assert sum(s.rows for s in quarters) == count


def test_a_slice_of_few_rows_is_left_out(rides):
    kinds = np.where(np.arange(200) < LEAST_ROWS - 1, "rare", "common")
    assert [s.value for s in slice_errors(rides, sample(200, kind=kinds))] == ["common"]


def test_named_slices_are_shown_before_important_ones(rides, change):
    asked = change(rides, gate={"slices": ["kind=wet"]})
    assert features_shown(asked, {"x": 0.9, "hour": 0.1, "kind": 0.0}) == ("kind", "x", "hour")


def test_parameters_are_told_as_people_read_them_and_only_where_they_differ():
    assert params_text({"subsample": 0.9, "learning_rate": 0.0769512, "max_depth": 6}) == (
        "learning_rate 0.077, max_depth 6, subsample 0.9"
    )
    assert common_params([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {}]) == {"a"}
