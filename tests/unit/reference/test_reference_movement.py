"""The limit of the error keeps the stated rate of false alarms, and is not wider than that asks for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evergreen.metrics import resampled
from evergreen.metrics.interval import interval
from evergreen.reference import movement
from evergreen.reference.movement import Movement, Outside, learn

DAY = 86_400_000_000
RATE = 0.1


def season(number: np.ndarray) -> np.ndarray:
    return np.exp(0.5 * np.sin(2 * np.pi * number / 28))


def stream(kind: str, first: int, windows: int, rows: int, seed: int, metric: str = "rmse") -> Outside:
    """Days of rows in time order; day 0 is the first one after the training."""
    rng = np.random.default_rng([seed, first + 1000])
    count = windows * rows
    times = (first * DAY + DAY * np.arange(count) / rows).astype(np.int64)
    if metric in ("roc_auc", "log_loss"):
        p = 1 / (1 + np.exp(-rng.normal(-1, 1.5, count)))
        return Outside(times, (rng.random(count) < p).astype(float), p)
    error = rng.standard_t(3, count) if kind == "heavy tails" else rng.normal(size=count)
    if kind == "seasonal":
        error *= season(times / DAY)
    if kind == "hours alike":
        # Each stretch of a tenth of a day has a difficulty of its own.
        error *= np.repeat(np.exp(rng.normal(0, 0.5, windows * 10)), rows // 10)
    return Outside(times, np.zeros(count), error)


def moved(
    kind: str, history: int, held: int, rows: int, seed: int, metric: str = "rmse"
) -> tuple[Movement, float]:
    past = stream(kind, -history, history, rows, seed, metric)
    begin = (history - held) * rows
    holdout = Outside(past.times[begin:], past.y[begin:], past.p[begin:])
    found = learn(metric, holdout, past, DAY, min(rows, 20_000), 7)
    return found, value(metric, holdout)


def value(metric: str, rows: Outside) -> float:
    one = np.zeros(len(rows), dtype=np.int64)
    return float(resampled.statistic(metric, one, rows.y, rows.p)(np.ones((1, 1)))[0])


@pytest.mark.parametrize(
    ("kind", "metric", "history", "held", "rows", "rate", "most"),
    [
        pytest.param("quiet", "rmse", 20, 14, 200, RATE, 0.12, id="normal errors"),
        pytest.param("heavy tails", "rmse", 20, 14, 200, RATE, 0.15, id="heavy tails"),
        pytest.param("hours alike", "rmse", 20, 14, 200, RATE, 0.12, id="rows that depend on each other"),
        pytest.param("quiet", "mae", 20, 2, 100, RATE, 0.12, id="a holdout of two windows"),
        pytest.param("seasonal", "rmse", 56, 14, 200, 0.05, 0.08, id="a season that history has seen twice"),
        pytest.param("quiet", "roc_auc", 20, 14, 200, RATE, 0.12, id="the area under the curve"),
        pytest.param("quiet", "log_loss", 20, 14, 200, RATE, 0.12, id="log loss"),
    ],
)
def test_unchanged_windows_alarm_no_more_often_than_the_spec_says(
    kind, metric, history, held, rows, rate, most
):
    wrong, checks = 0, 0
    for seed in range(12):
        found, usual = moved(kind, history, held, rows, seed, metric)
        away = resampled.distance(metric, usual) * found.factor(rate, rows)
        for number in range(28):
            now = value(metric, stream(kind, number, 1, rows, seed, metric))
            wrong += resampled.distance(metric, now) > away
            checks += 1
    assert wrong / checks <= most


def test_the_limit_is_not_wider_than_chance_asks_for():
    factors = [moved("quiet", 20, 14, 200, seed)[0].factor(0.01, 200) for seed in range(5)]
    # An rmse of 200 normal errors moves by 1 / sqrt(400); a hundredth is 2.33 of these.
    assert np.mean(factors) < np.exp(movement.CAUTION * 2.33 / np.sqrt(400)) + 0.06


def test_fewer_rows_and_fewer_false_alarms_ask_for_more():
    found, _ = moved("quiet", 20, 14, 400, 1)
    assert (
        found.factor(0.01, 30) > found.factor(0.01, 100) > found.factor(0.01, 400) == found.factor(0.01, 9000)
    )
    assert found.factor(0.001, 200) > found.factor(0.01, 200) > found.factor(0.1, 200) > 1


def test_windows_that_are_harder_than_others_widen_the_limit():
    calm, hard = (moved(kind, 56, 14, 200, 1)[0] for kind in ("quiet", "seasonal"))
    assert hard.windows == 56
    assert hard.harder > 0.1, "the holdout was in the easy half"
    assert hard.factor(0.01, 200) > 1.5 * calm.factor(0.01, 200)


def test_a_sample_with_few_rows_of_the_holdout_does_not_widen_the_limit_by_their_number():
    """Rows of a day share its difficulty, so chance is no smaller among many rows of it, and no larger among few."""
    rng, days, held, rows, every = np.random.default_rng(3), 60, 14, 2000, 80
    times = (DAY * np.arange(days * rows) / rows).astype(np.int64)
    error = rng.normal(size=days * rows) * np.repeat(np.exp(rng.normal(0, 0.25, days)), rows)
    whole = Outside(times, np.zeros(len(times)), error)
    few = Outside(times[::every], np.zeros(len(times[::every])), error[::every])
    begin = (days - held) * rows
    holdout = Outside(times[begin:], np.zeros(held * rows), error[begin:])
    of_all, of_few = (learn("mae", holdout, past, DAY, min(rows, 20_000), 7) for past in (whole, few))
    assert of_few.spread[-1] > 0.6 * of_few.spread[0], "chance does not shrink with the rows"
    assert of_few.windows == of_all.windows == days
    assert of_few.zero <= max(of_few.spread) ** 2
    assert of_few.factor(0.01, rows) < 1.25 * of_all.factor(0.01, rows)


def test_what_chance_explains_of_the_past_windows_is_taken_off():
    found, _ = moved("quiet", 56, 14, 200, 1)
    assert found.between == pytest.approx(found.between_chance, rel=0.5)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(Outside(np.array([], np.int64), np.array([]), np.array([])), id="no rows"),
        pytest.param(Outside(np.arange(4) * DAY, np.zeros(4), np.ones(4)), id="four moments"),
        pytest.param(Outside(np.arange(500) * DAY, np.zeros(500), np.zeros(500)), id="no error at all"),
    ],
)
def test_where_nothing_can_be_learnt_the_smallest_effect_decides(rows):
    assert learn("rmse", rows, rows, DAY, 100, 7).factor(0.01, 100) == 1.0


def test_it_comes_back_from_json():
    found, _ = moved("quiet", 20, 14, 200, 1)
    assert Movement.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("metric", ["rmse", "roc_auc"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(metric):
    truth = value(metric, stream("quiet", 500, 400, 200, 99, metric))
    inside = 0
    for seed in range(100):
        rows = stream("quiet", seed, 1, 300, seed, metric)
        low, high = interval(metric, rows.times, rows.y, rows.p, seed=7)
        inside += low <= truth <= high
    assert 88 <= inside <= 100


def test_rows_that_depend_on_each_other_have_a_wider_interval():
    def width(kind: str) -> float:
        rows = stream(kind, 0, 1, 1000, 1)
        low, high = interval("rmse", rows.times, rows.y, rows.p, seed=7)
        return (high - low) / value("rmse", rows)

    assert width("hours alike") > 1.5 * width("quiet")


def test_too_few_moments_or_one_class_have_no_interval():
    assert interval("rmse", np.zeros(50, np.int64), np.zeros(50), np.ones(50), seed=7) == (None, None)
    assert interval("roc_auc", np.arange(50), np.zeros(50), np.linspace(0, 1, 50), seed=7) == (None, None)
