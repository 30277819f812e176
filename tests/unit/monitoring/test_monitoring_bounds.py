"""A limit that no value can pass is no watch: it is bounded by a coin's value, or said to be none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from monitoring_scene import ROWS, at, model, week

from evergreen import check, check_warehouse
from evergreen.alerting.content.history import windows
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows import error_text, performance
from evergreen.monitoring.windows.judgement import MetricResult
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.reference import error_limit
from evergreen.reference.movement import Movement
from evergreen.spec import LARGER_IS_BETTER, METRICS, metric_name, passable
from evergreen.warehouse.connection import connect

LABELS = {"binary": np.repeat([0.0, 1.0], [150, 50]), "regression": np.arange(200.0)}
COIN = {
    "roc_auc": 0.5, "pr_auc": 0.25, "log_loss": 0.5623, "brier": 0.1875,
    "r2": 0.0, "rmse": float(np.arange(200.0).std()), "mae": 50.0, "wape": 50.0 / 99.5, "accuracy": 0.75, "f1": 0.4,
    "mape": min(float(np.mean(np.abs(1 - c / np.arange(1, 200)))) for c in range(1, 200)),
    "pinball": min(float(np.mean(np.maximum(0.9 * (y - c), 0.1 * (c - y)))) for y in [np.arange(200.0)] for c in y),
}  # fmt: skip


class Known:
    """A reference whose error moved without end, or not at all."""

    def __init__(self, task: str, metric: str, value: float, moves: float) -> None:
        self.holdout_metrics = {metric: value}
        self.sample = self.labelled = pa.table({"_label": LABELS[task]})
        self.usual_rows = self.usual_labels = 168.0
        self.baseline_metrics = {}
        self.movement = Movement(metric, 5, (10, 1000), (0.0, 0.0), (moves, moves), moves)


def spec(task: str, metric: str, max_worse: float = 0.02):
    return model(task, performance={"metric": metric, "max_worse": max_worse})


def of(task: str, metric: str, value: float, moves: float, max_worse: float = 0.02) -> error_limit.Limit:
    return error_limit.limit_for(spec(task, metric, max_worse), Known(task, metric, value, moves), 168)


@pytest.mark.parametrize(("task", "metric"), [(t, m) for t, names in METRICS.items() for m in names])
def test_a_limit_learnt_beyond_all_bounds_is_a_coins_and_one_that_can_be_passed_stands(task, metric):
    better = 1 if metric in LARGER_IS_BETTER else -1
    near = 1.0 - 0.0026 if better > 0 else 0.05 * COIN[metric]
    found = of(task, metric, near, 3.0)
    assert better * found.learnt < better * COIN[metric], "what was learnt is worse than a coin"
    assert passable(metric, found.value)
    if passable(metric, found.learnt):
        assert found.value == found.learnt
        assert (
            f"and a coin gets {COIN[metric]:.4g}: within this limit only a champion that is surely worse"
            in found.note
        )
    else:
        assert found.value == pytest.approx(COIN[metric], rel=1e-3)
        assert "cannot alarm on so few rows" in found.note
        assert f"chance alone reaches any {metric_name(metric)} on 168" in found.note, (
            "and no value that it cannot have"
        )
        assert "the limit is a coin's" in found.note
    quiet = of(task, metric, near, 0.001)
    assert (quiet.note, better * quiet.value > better * COIN[metric]) == ("", True)


def test_a_champion_that_is_hardly_better_than_a_coin_keeps_what_was_learnt_while_it_can_be_passed():
    learnt = of("binary", "roc_auc", 0.52, 0.05, max_worse=0.3)
    assert 0 < learnt.value == learnt.learnt < 0.5
    assert learnt.note == ""
    bounded = of("binary", "roc_auc", 0.52, 3.0, max_worse=0.3)
    assert bounded.value == pytest.approx(0.52 * 0.7)
    assert "the limit is max_worse's" in bounded.note
    none = of("binary", "roc_auc", 0.52, 3.0, max_worse=1.0)
    assert not passable("roc_auc", none.value)
    assert none.note.startswith("cannot alarm on so few rows, nor with this max_worse")


def test_training_says_what_the_watch_of_its_champion_can_do():
    told = error_limit.about_usual_windows(spec("binary", "roc_auc"), Known("binary", "roc_auc", 0.9974, 3.0))
    assert told.startswith("ROC AUC of windows of 168 rows, as is usual: limit 0.5 (holdout 0.9974); ")
    assert "make monitoring.window longer, or watch another metric" in told
    assert (
        error_limit.about_usual_windows(spec("binary", "roc_auc"), Known("binary", "roc_auc", 0.9974, 0.001))
        == ""
    )


def test_an_old_limit_that_no_value_can_pass_is_in_no_picture_and_is_said():
    old = MetricResult(0.9974, -10.39, 0.99, "judged", rows=168)
    said = error_text.sentence("roc_auc", old)
    assert "-10" not in said
    assert "cannot alarm on so few rows" in said


def test_the_note_is_kept_with_the_window_told_and_not_drawn(scene):
    world = scene()
    world.champion()
    world.live(1)
    (found,) = judge_windows(world.specs, world.spec, at(1))
    assert found.metrics["rmse"].note == "", "a limit that means something needs no word"
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.window_judgement SET metrics = "
            """'{"roc_auc": {"value": 0.9, "limit": -10.39, "reference": 0.9, "state": "judged"}}'"""
        )
        (window,) = windows(conn, "watched", "roc_auc")
    assert (window.value, window.limit, window.few_rows) == (0.9, None, True)


def test_make_check_says_so(warehouse_url):
    watched = spec("binary", "roc_auc", 1.0)
    (never,) = check._never_alarms(watched)
    assert "monitoring.performance.max_worse" in str(never)
    assert check._never_alarms(spec("binary", "roc_auc", 0.5)) == []
    assert check._never_alarms(spec("regression", "rmse", 2.0)) == []
    with connect() as conn:
        assert check_warehouse.check_alarms(conn, watched) == []
        for version, evidence in (("1", {"error_limit": "limit 0.5, a coin's"}), ("2", {})):
            append(
                conn,
                Decision(
                    at(0),
                    "model/watched",
                    DecisionKind.PROMOTED,
                    "first_champion",
                    "t/1",
                    f"p:{version}",
                    evidence,
                    version,
                ),
            )
            told = [str(note) for note in check_warehouse.check_alarms(conn, watched)]
            assert len(told) == (version == "1")
            assert all("limit 0.5, a coin's" in note for note in told)
        back = Decision(
            at(1),
            "model/watched",
            DecisionKind.ROLLED_BACK,
            "worse_than_previous",
            "w/1",
            "b",
            {},
            version="1",
        )
        append(conn, back)
        assert len(check_warehouse.check_alarms(conn, watched)) == 1, (
            "the champion is back, and so is its watch"
        )


def test_a_week_is_no_alarm_and_a_coin_is():
    watched = spec("binary", "roc_auc")
    reference = Known("binary", "roc_auc", 0.9974, 3.0)
    from monitoring_scene import as_table

    from evergreen.monitoring.windows.due_windows import WindowFacts
    from evergreen.monitoring.windows.measure import frame

    rng = np.random.default_rng(2)
    for skill, violated in ((1.0, False), (-0.2, True)):
        rows = week(0).assign(y=rng.integers(0, 2, ROWS).astype(float))
        rows["guess"] = np.clip(0.5 + skill * (rows["y"] - 0.5) / 2 + rng.normal(0, 0.1, ROWS), 0, 1)
        metrics, _ = performance.judge_error(
            watched, frame(as_table(rows)), reference, WindowFacts(ROWS, ROWS, ROWS)
        )
        assert metrics["roc_auc"].violated is violated
        assert "cannot alarm on so few rows" in error_text.sentence("roc_auc", metrics["roc_auc"])


@pytest.mark.parametrize(
    ("task", "metric", "limit", "said"),
    [
        ("regression", "mae", 0.0, "a perfect prediction has 0, so it always alarms"),
        ("regression", "rmse", -1.0, "always alarms"),
        ("regression", "r2", 1.0, "a perfect prediction has 1, so it always alarms"),
        ("binary", "roc_auc", 1.2, "always alarms"),
        ("binary", "roc_auc", 0.0, "no value is worse, so it never alarms"),
        ("binary", "accuracy", -0.1, "never alarms"),
        ("binary", "brier", 1.0, "never alarms"),
    ],
)
def test_an_absolute_limit_that_cannot_be_met_or_passed_is_refused(task, metric, limit, said):
    with pytest.raises(ValueError, match=said):
        model(task, performance={"metric": metric, "limit": limit})


@pytest.mark.parametrize(
    ("task", "metric", "holdout", "stricter", "wider"),
    [("regression", "mae", 10.0, 11.0, 90.0), ("binary", "roc_auc", 0.9, 0.88, 0.4)],
)
def test_the_stricter_of_the_absolute_and_the_learnt_limit_counts(task, metric, holdout, stricter, wider):
    def limited(limit: float | None) -> error_limit.Limit:
        spec = model(task, performance={"metric": metric, "limit": limit, "max_worse": 0.2})
        return error_limit.limit_for(spec, Known(task, metric, holdout, 0.001), 168)

    learnt = limited(None)
    assert not learnt.own
    found = limited(stricter)
    assert (found.value, found.own, found.learnt) == (stricter, True, learnt.learnt)
    assert limited(wider) == learnt


def test_a_limit_that_nothing_learnt_could_give_is_the_specs():
    """Where chance reaches farther than any value, the absolute limit still alarms."""
    spec = model("binary", performance={"metric": "roc_auc", "limit": 0.8})
    found = error_limit.limit_for(spec, Known("binary", "roc_auc", 0.9974, 3.0), 168)
    assert (found.value, found.note, found.own) == (0.8, "", True)


def test_a_violation_of_the_absolute_limit_says_that_the_spec_set_it(scene):
    made = scene(performance={"metric": "mae", "limit": 0.7})
    made.champion()
    made.live(1)
    (found,) = judge_windows(made.specs, made.spec, at(1))
    result = found.metrics["mae"]
    assert result.violated, "an mae of 0.8 or so, as ever"
    said = error_text.sentence("mae", result)
    assert "at most 0.7 (set in the spec)" in said
    assert "limit 0.7 (set in the spec)" in found.violations[0].detail


def test_training_and_check_say_that_a_limit_is_better_than_the_holdout(warehouse_url):
    spec = model(performance={"metric": "mae", "limit": 5.0})
    told = error_limit.about_usual_windows(spec, Known("regression", "mae", 8.0, 0.001))
    assert told == (
        "monitoring.performance.limit 5 is better than the MAE of the holdout, 8: it alarms from the first window on, unless "
        "served rows are easier"
    )
    easy = Known("regression", "mae", 4.0, 0.001)
    assert error_limit.about_usual_windows(spec, easy) == ""
    with connect() as conn:
        evidence = {"mlflow_run": "x", "holdout": {"mae": 8.0}}
        append(
            conn, Decision(at(0), "model/watched", DecisionKind.PROMOTED, "r", "t/1", "p:1", evidence, "1")
        )
        (problem,) = check_warehouse.check_alarms(conn, spec)
        assert "monitoring.performance.limit" in str(problem)
        assert "is better than the MAE of the champion's holdout, 8" in str(problem)
        assert check_warehouse.check_alarms(conn, model(performance={"metric": "mae", "limit": 9.0})) == []
