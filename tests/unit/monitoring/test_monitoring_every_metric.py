"""Every metric of the spec goes through everything that takes one: one that is missing somewhere fails here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from monitoring_scene import as_table, model, rows

from evergreen.errors import TerminalError
from evergreen.metrics import metric_values, paired_bootstrap, resampled
from evergreen.metrics.interval import interval
from evergreen.monitoring.page.pack import unpacked
from evergreen.monitoring.windows import error_text, measure, performance, report
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.promotion import after_promotion
from evergreen.reference import error_limit
from evergreen.reference.movement import Outside, learn
from evergreen.reference.reference import Reference, build
from evergreen.spec import BY_CUT, IN_LABEL_UNITS, LARGER_IS_BETTER, METRICS, ModelSpec, metric_name, passable
from evergreen.training.gate.slices import SliceRule, slices

CASES = [(task, name) for task, names in METRICS.items() for name in names]
EACH = pytest.mark.parametrize(("task", "metric"), CASES, ids=[name for _, name in CASES])
HOUR = timedelta(hours=1)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOURS, WEEK = 20 * 168, 168


def spec(task: str, metric: str) -> ModelSpec:
    made = model(task, performance={"metric": metric})
    gate = {"metric": metric, **({"quantile": 0.9} if task == "regression" else {"threshold": 0.4})}
    return ModelSpec.model_validate(
        {**made.model_dump(), "gate": gate, "training": {"holdout": "28d"}, "query": made.query}
    )


def frame(task: str, begin: datetime, hours: int, *, wrong: float = 0.0, seed: int = 1) -> pd.DataFrame:
    """Rows whose predictions are right but for chance, and a share of them not at all."""
    found = rows(seed, begin, hours)
    rng = np.random.default_rng([seed, 7, hours])
    if task == "regression":
        found["guess"], found["y"] = found["guess"] + 1, found["y"] + rng.normal(0, 2, hours)
    else:
        found["guess"] = 1 / (1 + np.exp(-(found["amount"] - 10)))
        found["y"] = (rng.random(hours) < found["guess"]).astype(float)
    at_random = rng.random(hours) < wrong
    found.loc[at_random, "guess"] = rng.permutation(found.loc[at_random, "guess"].to_numpy())
    return found


@cache
def champion(task: str, metric: str) -> tuple[ModelSpec, Reference]:
    made, learnt = spec(task, metric), frame(task, BEGIN, HOURS)
    held = learnt[-28 * 24 :]
    found = metric_values.compute(task, held["y"].to_numpy(), held["guess"].to_numpy(), made.cut)
    table = as_table(learnt.assign(_outside=learnt["guess"]))
    return made, build(made, table, found, baseline_metrics=found)


def arrays(task: str, **more: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = frame(task, BEGIN, 1000, **more)
    return np.arange(1000), found["y"].to_numpy(dtype=float), found["guess"].to_numpy(dtype=float)


@EACH
def test_it_has_a_name_a_direction_a_worst_value_and_a_place_in_the_spec(task, metric):
    assert metric_name(metric) != metric or metric == "accuracy"
    assert resampled.at_distance(metric, resampled.distance(metric, 0.7)) == pytest.approx(0.7)
    worst = 0.0 if metric in LARGER_IS_BETTER and metric != "r2" else 1.0 if metric == "brier" else None
    assert worst is None or not passable(metric, worst)
    assert passable(metric, 0.5)
    assert spec(task, metric).performance_metric == spec(task, metric).gate_metric == metric
    other = next(t for t in METRICS if t != task)
    with pytest.raises(ValueError, match=f"{metric} is not a metric of {other}"):
        model(other, performance={"metric": metric})


@EACH
def test_it_is_measured_compared_and_told_with_an_interval(task, metric):
    made = spec(task, metric)
    times, y, p = arrays(task)
    value = metric_values.compute(task, y, p, made.cut)[metric]
    low, high = interval(metric, times, y, p, seed=1, cut=made.cut)
    assert low < value < high
    _, _, worse = arrays(task, wrong=0.6)
    point = paired_bootstrap.point(metric, y, p, worse, made.cut)
    assert point > 0
    found = slices(
        paired_bootstrap.Paired(metric, times, y, worse, p, made.cut), {"kind": pa.array(["a", "b"] * 500)},
        SliceRule(named=("kind",), search=True, max_worse=0.05, min_rows=100, confidence=0.95, seed=1),
    )  # fmt: skip
    assert all(s.worse for s in found.named["kind"])


@EACH
def test_its_limit_is_learnt_and_a_window_beyond_it_is_found(task, metric):
    made, reference = champion(task, metric)
    assert reference.movement.metric == metric
    assert reference.movement.blocks >= 2
    assert reference.movement.windows > 4, "past windows tell of it"
    known = error_limit.limit_for(made, reference, WEEK)
    assert passable(metric, known.value)
    end = BEGIN + HOURS * HOUR
    for wrong, violated in ((0.0, False), (1.0, True)):
        window = measure.frame(as_table(frame(task, end, WEEK, wrong=wrong, seed=5)))
        found, violations = performance.judge_error(made, window, reference, WindowFacts(WEEK, WEEK, WEEK))
        assert found[metric].state == "judged"
        assert found[metric].violated is violated, found[metric]
        assert [v.kind for v in violations] == [What.PERFORMANCE] * violated
        side = "at least" if metric in LARGER_IS_BETTER else "at most"
        assert side in error_text.sentence(metric, found[metric])


@EACH
def test_a_coins_value_is_that_of_a_prediction_that_knows_nothing(task, metric):
    made, reference = champion(task, metric)
    y = reference.labelled["_label"].to_numpy().astype(float)
    naive = error_limit.coin(metric, reference, made.cut)
    if metric == "pr_auc":
        assert naive == pytest.approx(y.mean())
        return
    # Of all constants none is better, and one is as good.
    constants = np.unique(np.concatenate([y, [y.mean()], np.linspace(0, 1, 11)[1:-1]]))
    constants = constants if task == "regression" else constants[(constants > 0) & (constants < 1)]
    away = [
        resampled.distance(metric, metric_values.compute(task, y, np.full(len(y), c), made.cut)[metric])
        for c in constants
    ]
    assert resampled.distance(metric, naive) == pytest.approx(min(away))


@EACH
def test_a_champion_of_the_previous_one_is_compared_by_it(task, metric):
    times, y, p = arrays(task)
    _, _, worse = arrays(task, wrong=0.6)
    made = spec(task, metric)
    table = pa.table({
        "_time": pa.array(times * 3_600_000_000, pa.timestamp("us", "UTC")), "_label": y, "_new": worse, "_old": p,
    })  # fmt: skip
    seen = after_promotion.compared(made, table)
    assert seen.improvement is not None
    assert seen.improvement.high < 0


@EACH
def test_the_page_of_a_window_tests_it_against_its_limit(task, metric, tmp_path):
    made, reference = champion(task, metric)
    window = measure.frame(as_table(frame(task, BEGIN + HOURS * HOUR, WEEK)))
    found, violations = performance.judge_error(made, window, reference, WindowFacts(WEEK, WEEK, WEEK))
    judged = Judgement(
        "watched", "1", BEGIN, BEGIN + 168 * HOUR, 1, BEGIN, Status.OK, WEEK, WEEK, WEEK, metrics=found,
        violations=violations,
    )  # fmt: skip
    report.write_performance(judged, task, window, tmp_path)
    text = unpacked((tmp_path / report.PERFORMANCE_FILE).read_text())
    limit = found[metric].limit
    assert f"{limit:.3f}" in text, "the limit stands in the test"
    assert "could not draw" not in (tmp_path / report.PERFORMANCE_FILE).read_text()


@pytest.mark.parametrize("metric", sorted(BY_CUT))
def test_another_cut_than_the_champions_is_measured_from_its_sample(metric):
    task = "regression" if metric == "pinball" else "binary"
    made, reference = champion(task, metric)
    other = made.model_copy(
        update={"gate": made.gate.model_copy(update={"quantile": 0.5} if metric == "pinball" else {"threshold": 0.6})}
    )  # fmt: skip
    assert reference.for_window(made) is reference
    found = reference.for_window(other)
    held = frame(task, BEGIN, HOURS)[-28 * 24 :]
    expected = metric_values.compute(task, held["y"].to_numpy(), held["guess"].to_numpy(), other.cut)[metric]
    assert found.cut == other.cut
    assert found.movement != reference.movement
    # The sample holds every fourth row or so.
    assert found.holdout_metrics[metric] == pytest.approx(expected, rel=0.15)
    assert found.holdout_metrics[metric] != reference.holdout_metrics[metric]
    kept = {n: v for n, v in reference.holdout_metrics.items() if n not in BY_CUT}
    assert {n: found.holdout_metrics[n] for n in kept} == kept


def test_a_champion_of_before_a_metric_was_known_is_watched_by_it(tmp_path):
    made, reference = champion("binary", "accuracy")
    old = champion("binary", "roc_auc")[1]
    known = {n: v for n, v in old.holdout_metrics.items() if n not in ("accuracy", "f1")}
    Reference(**{**old.__dict__, "holdout_metrics": known, "cut": None}).write(tmp_path)
    found = Reference.read(tmp_path).for_window(made)
    assert found.holdout_metrics["accuracy"] == pytest.approx(reference.holdout_metrics["accuracy"], abs=0.05)
    assert found.movement.metric == "accuracy"
    assert Reference.read(tmp_path).for_window(spec("binary", "roc_auc")).holdout_metrics == known


def test_units_and_cuts_name_metrics_that_there_are():
    names = {name for names in METRICS.values() for name in names}
    assert {*IN_LABEL_UNITS, *BY_CUT, *LARGER_IS_BETTER} <= names


@pytest.mark.parametrize(
    ("task", "gate", "said"),
    [
        ("regression", {"metric": "pinball"}, "gate.quantile says none; write gate.quantile: 0.9"),
        ("regression", {"threshold": 0.4}, "gate.threshold: a regression model has none"),
        ("binary", {"quantile": 0.4}, "gate.quantile: a binary model has none"),
        ("binary", {"metric": "mape"}, "mape is not a metric of binary"),
    ],
)
def test_a_cut_that_does_not_fit_is_refused(task, gate, said):
    with pytest.raises(ValueError, match=said):
        ModelSpec.model_validate({**model(task).model_dump(), "gate": gate, "query": "SELECT 1"})


@EACH
def test_rows_on_which_it_is_not_defined_are_no_number(task, metric):
    """Absent and never NaN: one class, labels all 0, or no quantile."""
    made = spec(task, metric)
    zeros, low = np.zeros(30), np.full(30, 0.1)
    found = metric_values.compute(task, zeros, low, made.cut)
    assert all(np.isfinite(value) for value in found.values())
    absent = {"r2", "mape", "wape", "roc_auc", "pr_auc", "f1"}
    assert (metric in found) is (metric not in absent)
    if metric in absent - {"r2"}:
        assert paired_bootstrap.point(metric, zeros, low, low, made.cut) is None
        where = np.zeros(30, dtype=np.int64)
        assert np.isnan(resampled.statistic(metric, where, zeros, low, made.cut)(np.ones((1, 1)))[0])


def test_a_metric_of_a_name_that_there_is_not_is_refused():
    times, y, p = arrays("binary")
    with pytest.raises(ValueError, match="no metric"):
        paired_bootstrap.point("auroc", y, p, p)
    with pytest.raises(TerminalError):
        metric_values.compute("binary", y, p + 1)
    assert learn("f1", Outside(times[:3], y[:3], p[:3]), Outside(times, y, p), 1e6, 100, 1).blocks == 0
