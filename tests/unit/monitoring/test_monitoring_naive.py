"""A champion that is surely worse than a forecast without a model is in violation, however wide its limit is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, at, learnt, mails, model, rows, week

from evergreen.alerting.content import history
from evergreen.alerting.letters import digest
from evergreen.monitoring.monitor import monitor
from evergreen.monitoring.windows import measure, performance, reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Status, What
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.reference import error_limit, frame, reference
from evergreen.reference.calendar import Window
from evergreen.warehouse.features import arrow

ALL_IN = WindowFacts(ROWS, ROWS, ROWS)
WIDE = {"max_worse": 1000.0}


def lost(frame: pd.DataFrame, by: float = 12.0) -> pd.DataFrame:
    """Predictions that lost touch with the label: far worse than a week ago's label, which is off by about 1.5."""
    noise = np.random.default_rng(3).normal(0, by, len(frame))
    return frame.assign(guess=frame["guess"] + noise)


def served(frame: pd.DataFrame, spec, made, baseline: object = None):
    current = measure.frame(as_table(frame))
    if baseline is not None:
        current["_baseline"] = np.asarray(baseline, dtype=float)
    metrics, violations = performance.judge_error(spec, current, made, ALL_IN)
    return metrics[spec.performance_metric], violations


@pytest.fixture(scope="module")
def wide():
    """A champion whose limit is far beyond any error."""
    return reference.build(model(performance=WIDE), learnt(), {"rmse": 1.0, "mae": 0.8, "r2": 0.95})


def test_worse_than_the_baseline_is_a_violation_within_the_limit(wide):
    frame = lost(week(0))
    found, violations = served(frame, model(performance=WIDE), wide, week(0)["guess"])
    learnt_limit = error_limit.limit_at(model(performance=WIDE), wide, ROWS)
    assert found.value < learnt_limit
    assert (found.violated, found.limit, found.baseline) == (True, found.baseline, found.baseline)
    assert found.baseline == pytest.approx(1.0, abs=0.2)
    (violation,) = violations
    assert (violation.kind, violation.limit) == (What.PERFORMANCE, found.baseline)
    assert "surely (95%) worse than that" in violation.detail


@pytest.mark.parametrize(
    ("performance_", "by", "baseline"),
    [
        pytest.param({**WIDE, "beat_baseline": False}, 12.0, True, id="the spec does not ask"),
        pytest.param(WIDE, 0.1, True, id="worse by chance"),
        pytest.param(WIDE, 0.0, False, id="better than the mean"),
    ],
)
def test_otherwise_the_limit_decides(wide, performance_, by, baseline):
    frame = lost(week(0), by)
    said = week(0)["guess"] if baseline else None
    found, violations = served(frame, model(performance=performance_), wide, said)
    assert (found.violated, violations) == (False, ())
    assert found.limit == error_limit.limit_at(model(performance=WIDE), wide, ROWS)
    assert found.baseline is not None, "it is told all the same"


def test_without_a_baseline_of_its_own_the_mean_label_is_the_baseline(wide):
    found, violations = served(lost(week(0), 40.0), model(performance=WIDE), wide)
    assert [v.kind for v in violations] == [What.PERFORMANCE]
    assert found.baseline == pytest.approx(float(week(0)["y"].std()), rel=0.1)


def test_a_classifier_that_is_worse_than_the_class_prior_alarms():
    spec = model("binary", performance={**WIDE, "metric": "log_loss"})
    frame = rows(1, CUTOFF, ROWS * 5)
    chance = 1 / (1 + np.exp(10 - frame["amount"]))
    frame["y"] = (np.random.default_rng(1).random(len(frame)) < chance).astype(float)
    frame["guess"] = chance
    made = reference.build(spec, as_table(frame), {"log_loss": 0.4})
    turned = frame.head(ROWS).assign(guess=1 - chance.head(ROWS))
    found, violations = served(turned, spec, made)
    assert found.value < error_limit.limit_at(spec, made, ROWS)
    assert [v.kind for v in violations] == [What.PERFORMANCE]
    assert found.limit == found.baseline < 0.75


@pytest.mark.parametrize(
    ("off", "violated"),
    [pytest.param(0.0, False, id="within-the-limit"), pytest.param(1e6, True, id="beyond-it")],
)
def test_where_no_baseline_can_be_told_the_limit_still_decides(off, violated):
    spec = model(performance=WIDE)
    made = reference.build(spec, learnt(), {"rmse": 1.0, "mae": 0.8, "r2": 0.95})
    blank = pa.array([None] * made.sample.num_rows, pa.float64())
    place = made.sample.column_names.index("_label")
    made = replace(made, sample=made.sample.set_column(place, "_label", blank))
    frame = week(0)
    found, _ = served(frame.assign(guess=frame["guess"] + off), spec, made)
    assert (found.baseline, found.violated, found.state) == (None, violated, "judged")


@pytest.mark.parametrize("rows", [0, 4], ids=["no-row", "too-few-moments-to-be-sure"])
def test_too_few_rows_are_never_surely_worse_and_no_row_is_no_value(wide, rows):
    frame = lost(week(0), 40.0).head(rows)
    current = measure.frame(as_table(frame))
    metrics, violations = performance.judge_error(
        model(performance=WIDE), current, wide, WindowFacts(ROWS, ROWS, ROWS)
    )
    if rows:
        assert (metrics["rmse"].violated, violations) == (False, ())
    else:
        assert (metrics["rmse"].state, metrics["rmse"].value) == ("unreadable", None)
        assert [v.kind for v in violations] == [What.UNREADABLE]


def test_an_unchanged_champion_that_beats_the_baseline_is_quiet(wide):
    for number in range(30):
        frame = week(number, seed=9)
        found, violations = served(frame, model(performance=WIDE), wide, week(number - 1, seed=9)["y"])
        assert violations == ()
        assert found.value < found.baseline


@pytest.mark.parametrize(
    ("delay", "weeks_before"),
    [pytest.param("1h", 1, id="a week ago"), pytest.param("8d", 2, id="labels that take longer")],
)
def test_the_sample_brings_the_label_of_a_season_before(scene, delay, weeks_before):
    world = scene()
    world.spec = world.spec.model_copy(
        update={"label": world.spec.label.model_copy(update={"delay": pd.Timedelta(delay).to_pytimedelta()})}
    )
    world.live(4)
    window = Window(CUTOFF + 3 * WEEK, CUTOFF + 4 * WEEK)
    found = reads.sample(world.specs, world.spec, at(4), window, ALL_IN).to_pandas()
    np.testing.assert_allclose(found["_baseline"], week(3 - weeks_before)["y"])
    assert "_entity" not in found


def test_labels_that_were_not_known_yet_answer_for_nothing(scene):
    world = scene()
    world.live(2)
    window = Window(CUTOFF + WEEK, CUTOFF + 2 * WEEK)
    asked = as_of = CUTOFF + WEEK + WEEK / 2
    found = reads.sample(world.specs, world.spec, as_of, window, WindowFacts(84, 84, 84)).to_pandas()
    assert found["_time"].max() < asked
    np.testing.assert_allclose(found["_baseline"], week(0)["y"].head(len(found)))
    first = Window(CUTOFF, CUTOFF + WEEK)
    early = reads.sample(world.specs, world.spec, at(1), first, ALL_IN).to_pandas()
    assert np.isnan(early["_baseline"].iloc[0]), "nothing is known before the first row"
    # Then the newest label that was mature an hour before.
    np.testing.assert_allclose(early["_baseline"].iloc[1:], week(0)["y"].iloc[:-1])


def test_of_the_weeks_before_only_the_newest_label_is_fetched(scene, monkeypatch):
    world = scene()
    world.spec = world.spec.model_copy(
        update={"training": world.spec.training.model_copy(update={"baseline": "last_value"})}
    )
    world.live(4)
    fetched, table = [], arrow.Reader.table

    def counted(reader, query, schema):
        found = table(reader, query, schema)
        if schema == reads.LABELS:
            fetched.append(found.num_rows)
        return found

    monkeypatch.setattr(arrow.Reader, "table", counted)
    window = Window(CUTOFF + 3 * WEEK, CUTOFF + 4 * WEEK)
    found = reads.sample(world.specs, world.spec, at(4), window, ALL_IN).to_pandas()
    labels = pd.concat([week(2)["y"].tail(1), week(3)["y"].head(ROWS - 1)])
    np.testing.assert_allclose(found["_baseline"], labels)
    assert sum(fetched) <= ROWS


def test_a_very_large_window_is_held_against_the_mean(scene, monkeypatch):
    monkeypatch.setattr(reads, "MOST_FOR_BASELINE", ROWS - 1)
    world = scene()
    world.live(2)
    window = Window(CUTOFF + WEEK, CUTOFF + 2 * WEEK)
    assert reads.sample(world.specs, world.spec, at(2), window, ALL_IN)["_baseline"].to_pandas().isna().all()


def test_a_window_says_from_where_on_the_champion_has_decayed(wide):
    found, _ = served(week(0), model(performance={"max_worse": 0.2}), wide)
    assert found.decayed == pytest.approx(1.2 * wide.holdout_metrics["rmse"])


def test_it_is_judged_told_and_mailed(scene):
    world = scene()
    world.spec = model(performance=WIDE, trigger={"m": 1, "n": 1, "cooldown": "1h"})
    world.champion()
    world.live(1)
    (first,) = judge_windows(world.specs, world.spec, at(1))
    assert first.status is Status.OK
    world.live(1, first=1, change=lost)
    monitor(world.specs, world.spec, at(2), "monitor/2")
    newest = world.judgements()[-1]
    assert newest["status"] == "violation"
    assert newest["metrics"]["rmse"]["limit"] == newest["metrics"]["rmse"]["baseline"]
    texts = " ".join(" ".join(text.split()) for _, text in mails(world))
    assert "naive baseline" in texts


def blind(metrics: dict[str, float], naive: dict[str, float], **monitoring: object) -> tuple[object, str]:
    spec = model(**monitoring)
    made = reference.build(spec, learnt(), metrics, None, naive)
    return made, error_limit.about_usual_windows(spec, made)


def test_training_says_where_the_limit_is_beyond_the_baseline():
    made, told = blind(
        {"rmse": 1.0, "mae": 0.8, "r2": 0.95},
        {"rmse": 1.1, "mae": 5.0, "r2": 0.1},
        performance={"max_worse": 0.3},
    )
    assert (
        "The naive baseline got 1.1 on the holdout: this limit cannot alarm before the served error is worse than that"
        in told
    )
    assert "held against the baseline on its own rows as well" in told
    assert "With monitoring.performance.metric: mae the limit would be" in told
    assert made.baseline_metrics["rmse"] == 1.1


def test_training_names_a_longer_window_where_it_tells_more():
    spec = model(window="1d", performance={"max_worse": 0.01}, min_rows=5)
    made = reference.build(spec, learnt(), {"rmse": 1.0}, None, {"rmse": 1.3})
    assert error_limit.limit_at(spec, made, 24) > 1.3
    told = error_limit.about_usual_windows(spec, made, frame.InMemory.of(learnt()))
    assert "With monitoring.window: " in told
    assert "the limit would be 1.2" in told


def test_nothing_is_said_of_a_limit_below_the_baseline():
    _, told = blind({"rmse": 1.0}, {"rmse": 3.0})
    assert told == ""


def test_the_baselines_metrics_stay_with_the_reference(tmp_path):
    made, _ = blind({"rmse": 1.0}, {"rmse": 3.0})
    made.write(tmp_path)
    assert reference.Reference.read(tmp_path).baseline_metrics == {"rmse": 3.0}


@pytest.mark.parametrize(
    ("metric", "value", "limit", "baseline", "told"),
    [
        pytest.param("rmse", 5.0, 9.0, 4.0, "worse than 4, which the naive baseline got", id="worse than it"),
        pytest.param("rmse", 3.0, 9.0, 4.0, "the limit is beyond 4, which", id="a limit beyond it"),
        pytest.param("rmse", 3.0, 3.5, 4.0, "", id="both better"),
        pytest.param("roc_auc", 0.7, 0.4, 0.5, "the limit is beyond 0.5, which", id="larger is better"),
        pytest.param("roc_auc", 0.7, 0.6, None, "", id="not known"),
    ],
)
def test_the_digest_tells_of_the_baseline_where_it_matters(metric, value, limit, baseline, told):
    found = digest._beside_baseline(
        metric, history.JudgedWindow(CUTOFF, CUTOFF + WEEK, "1", "ok", value, limit, baseline=baseline)
    )
    assert told in found
    assert bool(told) == bool(found)
