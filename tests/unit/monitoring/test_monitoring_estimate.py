"""What is expected of a window before its labels are in: right on quiet data, and honest about what it cannot see."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from monitoring_scene import BEGIN, as_table, model

from evergreen.metrics import metric_values
from evergreen.monitoring.windows import estimate, measure, performance
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import What
from evergreen.reference import error_limit
from evergreen.reference.reference import Reference, build
from evergreen.spec import METRICS, ModelSpec

WAITING = WindowFacts(1500, 0, 1500)
CASES = [(task, name) for task, names in METRICS.items() for name in names]


def spec(task: str, metric: str, **more: object) -> ModelSpec:
    made = model(task, performance={"metric": metric, "estimate": True, **more})
    training = made.training.model_copy(update={"holdout": pd.Timedelta(days=70).to_pytimedelta()})
    return made.model_copy(update={"training": training})


def rows(
    task: str, seed: int, hours: int = 3000, *, hard: float = 0.2, concept: bool = False
) -> pd.DataFrame:
    """Rows of which a share is hard to predict (kind "c"); `concept`: the label has come to mean something else."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"ts": [BEGIN + pd.Timedelta(hours=h) for h in range(hours)]})
    frame["amount"], frame["pressure"] = rng.normal(10, 3, hours), rng.normal(1000, 5, hours)
    frame["level"] = 4.0
    kind = np.where(rng.random(hours) < hard, "c", rng.choice(["a", "b"], hours))
    frame["kind"] = kind
    if task == "regression":
        # Far from 0, where one label would decide a mean of shares.
        frame["guess"] = 30 + 2 * frame["amount"] + (kind == "a")
        frame["y"] = frame["guess"] + rng.normal(0, 1, hours) * np.where(kind == "c", 4, 1)
        return frame.assign(y=100 - frame["y"]) if concept else frame
    # The probabilities are too sure of themselves, and hard rows have probabilities near a half.
    sure = np.where(kind == "c", 0.1, 1.5) * (frame["amount"] - 10)
    frame["guess"] = 1 / (1 + np.exp(-sure))
    chance = 1 / (1 + np.exp(-0.7 * sure))
    frame["y"] = (rng.random(hours) < (1 - chance if concept else chance)).astype(float)
    return frame


@cache
def champion(task: str, metric: str) -> tuple[ModelSpec, Reference]:
    made, learnt = spec(task, metric), rows(task, 1)
    begin = learnt["ts"].max() - made.training.holdout
    held = learnt[learnt["ts"] > begin]
    found = metric_values.compute(task, held["y"].to_numpy(), held["guess"].to_numpy(), made.cut)
    return made, build(made, as_table(learnt), found)


def window(task: str, seed: int, **more: object) -> pd.DataFrame:
    return measure.frame(as_table(rows(task, seed, 1500, **more)))


def true(made: ModelSpec, frame: pd.DataFrame) -> float:
    y, p = frame["_label"].to_numpy(), frame["_prediction"].to_numpy()
    return metric_values.compute(made.task, y, p, made.cut)[made.performance_metric]


@pytest.mark.parametrize(("task", "metric"), CASES)
@pytest.mark.parametrize("hard", [0.2, 0.7], ids=["unchanged", "many hard rows"])
def test_it_is_near_the_metric_that_the_labels_give_later(task, metric, hard):
    made, reference = champion(task, metric)
    estimator = estimate.fit(made, reference)
    guesses, truths = [], []
    for seed in range(10, 14):
        frame = window(task, seed, hard=hard)
        truths.append(true(made, frame))
        guesses.append(estimator.estimate(frame.assign(_label=np.nan)).value)
    assert np.mean(guesses) == pytest.approx(np.mean(truths), rel=0.12)


@pytest.mark.parametrize(
    ("task", "metric", "method"), [("regression", "rmse", "DLE"), ("binary", "log_loss", "CBPE")]
)
def test_rows_that_move_to_where_the_model_errs_are_seen_before_their_labels(task, metric, method):
    made, reference = champion(task, metric)
    estimator = estimate.fit(made, reference)
    for hard, violated in ((0.2, False), (0.9, True)):
        found, violations = performance.judge_error(
            made, window(task, 5, hard=hard), reference, WAITING, estimator
        )
        assert (found[metric].state, found[metric].violated) == ("estimated", violated)
        assert found[metric].low < found[metric].value < found[metric].high
        assert f"an estimate without labels ({method})" in found[metric].detail
        assert "0 of 1500 labels are in" in found[metric].detail
        assert [v.kind for v in violations] == [What.ESTIMATED_PERFORMANCE] * violated


@pytest.mark.parametrize(("task", "metric"), [("regression", "rmse"), ("binary", "log_loss")])
def test_a_concept_that_changed_is_not_seen_and_the_words_say_so(task, metric):
    made, reference = champion(task, metric)
    frame = window(task, 5, concept=True)
    found, violations = performance.judge_error(
        made, frame, reference, WAITING, estimate.fit(made, reference)
    )
    assert violations == ()
    assert "does not see a change of what the features mean" in found[metric].detail
    judged, violations = performance.judge_error(made, frame, reference, WindowFacts(1500, 1500, 1500))
    assert judged[metric].state == "judged"
    assert [v.kind for v in violations] == [What.PERFORMANCE]


def test_the_value_of_the_labels_takes_the_place_of_an_estimate():
    made, reference = champion("regression", "rmse")
    estimator = estimate.fit(made, reference)
    found, _ = performance.judge_error(
        made, window("regression", 5), reference, WindowFacts(1500, 1200, 1500), estimator
    )
    assert found["rmse"].state == "judged"
    assert found["rmse"].coverage == 0.8


def test_an_estimate_is_held_against_the_limit_of_the_spec():
    made, reference = champion("regression", "rmse")
    estimator, frame = estimate.fit(made, reference), window("regression", 5)
    expected = estimator.estimate(frame).value
    assert expected < error_limit.limit_at(made, reference, len(frame)), "by what was learnt it is fine"
    for share, violated in ((1.05, False), (0.95, True)):
        part = made.monitoring.performance.model_copy(update={"limit": share * expected})
        strict = made.model_copy(
            update={"monitoring": made.monitoring.model_copy(update={"performance": part})}
        )
        found, violations = performance.judge_error(strict, frame, reference, WAITING, estimator)
        assert (found["rmse"].state, found["rmse"].violated) == ("estimated", violated)
        assert (found["rmse"].limit, found["rmse"].limit_set) == (share * expected, True)
        assert [v.kind for v in violations] == [What.ESTIMATED_PERFORMANCE] * violated


def test_without_an_estimator_too_few_labels_are_not_yet_judged():
    made, reference = champion("regression", "rmse")
    found, violations = performance.judge_error(made, window("regression", 5, hard=0.9), reference, WAITING)
    assert (found["rmse"].state, found["rmse"].value, found["rmse"].coverage) == ("not_yet", None, 0.0)
    assert violations == ()


def test_a_reference_of_few_rows_estimates_nothing():
    made = model()
    reference = build(made, as_table(rows("regression", 1, estimate.LEAST_ROWS - 1)), {"rmse": 1.0})
    assert estimate.fit(made, reference) is None


def test_rows_without_predictions_are_not_estimated():
    made, reference = champion("regression", "rmse")
    frame = window("regression", 5).assign(_prediction=np.nan)
    assert estimate.fit(made, reference).estimate(frame) is None
    found, _ = performance.judge_error(made, frame, reference, WAITING, estimate.fit(made, reference))
    assert found["rmse"].state == "not_yet"


def test_estimates_are_off_by_default_and_ask_for_no_training():
    assert not model().monitoring.performance.estimate
    assert not spec("regression", "rmse").monitoring.performance.estimate_requests
    with pytest.raises(ValueError, match="there are no estimates; set estimate: true as well"):
        model(performance={"estimate_requests": True})
