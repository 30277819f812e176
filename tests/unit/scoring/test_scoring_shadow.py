"""The shadow of a new champion: the same rows by the previous one, never served, and never in the champion's way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.errors import TransientError
from evergreen.monitoring.windows import reads
from evergreen.promotion.rollback import rollback
from evergreen.reference.calendar import window_of
from evergreen.scoring import writer
from evergreen.scoring.score import score
from evergreen.warehouse.connection import connect, fetch

DAY = timedelta(days=1)


@pytest.fixture
def two(world, made_once, start):
    """Champion 1 as of day 30; champion 2 as of day 31, with a day of rows that nobody has scored yet."""

    def make():
        world.land(start, 30)
        world.promote(start + 30 * DAY, "dag/first")
        world.land(start + 30 * DAY, 1, seed=2)
        world.promote(start + 31 * DAY, "dag/second")

    made_once(make)
    return world


def run(world, as_of, run_id="score", **more):
    return score(world.specs, world.model, as_of, run_id, **more)


def stored(table="prediction", what="key, version, event_time, prediction, as_of"):
    with connect() as conn:
        return fetch(conn, f"SELECT {what} FROM evergreen.{table} ORDER BY event_time, version")


def keys(table, version, since):
    return {r["key"] for r in stored(table) if r["version"] == version and r["event_time"] >= since}


def test_both_predict_what_is_new_and_only_the_champion_serves(two, start):
    day = start + 31 * DAY
    two.land(day, 2, seed=3)
    result = run(two, day + 2 * DAY)
    assert (result.version, result.state) == ("2", "scored")
    assert (result.shadow.version, result.shadow.problem) == ("1", "")
    assert keys("shadow_prediction", "1", day) == keys("prediction", "2", day)
    assert len(keys("prediction", "2", day)) == 48
    assert {r["version"] for r in stored()} == {"2"}
    with connect() as conn:
        known = fetch(conn, "SELECT ts, x, kind FROM data.rides_hourly WHERE ts >= %s ORDER BY ts", (day,))
    features = pa.table({
        "hour": [float(r["ts"].hour) for r in known], "x": [r["x"] for r in known], "kind": [r["kind"] for r in known],
    })  # fmt: skip
    its = [r["prediction"] for r in stored("shadow_prediction") if r["event_time"] >= day]
    assert its == list(registry.load(two.model, "1").predict(features))
    assert its != [r["prediction"] for r in stored() if r["event_time"] >= day]


def test_rows_that_the_champion_has_learnt_have_no_shadow(two, start):
    day = start + 31 * DAY
    run(two, day + DAY, start=start + 5 * DAY, end=start + 7 * DAY)
    assert len(stored()) == 48
    assert stored("shadow_prediction") == []


def test_again_writes_nothing(two, start):
    day = start + 31 * DAY
    two.land(day, 2, seed=3)
    run(two, day + 2 * DAY)
    before = stored(), stored("shadow_prediction")
    again = run(two, day + 2 * DAY, "again")
    assert (again.rows, again.shadow.rows, again.chunks, again.state) == (0, 0, 0, "up_to_date")
    assert (stored(), stored("shadow_prediction")) == before


@pytest.mark.parametrize(
    ("after", "version"), [(7 * DAY, "1"), (7 * DAY + timedelta(seconds=1), None)], ids=["last", "over"]
)
def test_the_period_ends_by_as_of(two, start, after, version):
    day = start + 31 * DAY
    two.land(day, 9, seed=3)
    result = run(two, day + after)
    assert (result.shadow.version if result.shadow else None) == version
    assert bool(stored("shadow_prediction")) == bool(version)


def test_a_run_of_the_past_has_the_watch_of_the_past(two, start):
    """As of a time at which version 1 was champion there was nothing before it."""
    result = run(two, start + 30 * DAY + timedelta(hours=12))
    assert (result.version, result.shadow.version, result.shadow.rows) == ("1", None, 0)
    assert "no champion before version 1" in result.shadow.problem


def test_the_first_champion_says_that_it_has_no_shadow(world, mlflow_url, start):
    world.land(start, 31)
    world.promote(start + 30 * DAY, "dag/first")
    result = run(world, start + 31 * DAY)
    assert result.rows > 0
    assert result.to_dict()["shadow"] == {
        "version": None, "rows": 0, "problem": "there was no champion before version 1",
    }  # fmt: skip


def test_switched_off_there_is_none(two, start):
    two.land(start + 31 * DAY, 1, seed=3)
    assert run(two.with_model(watch={"period": None}), start + 32 * DAY).shadow is None
    assert stored("shadow_prediction") == []


def test_after_a_rollback_there_is_none(two, start):
    rollback(two.specs, two.model, start + 31 * DAY, "back", reason="it is worse")
    two.land(start + 31 * DAY, 1, seed=3)
    result = run(two, start + 32 * DAY)
    assert (result.version, result.shadow) == ("1", None)


def test_a_previous_champion_that_is_lost_does_not_stop_the_scoring(two, start, caplog):
    two.land(start + 31 * DAY, 1, seed=3)
    MlflowClient().delete_model_version("rides", "1")
    result = run(two, start + 32 * DAY)
    assert (result.version, result.state, result.shadow.rows) == ("2", "scored", 0)
    assert "version 1" in result.shadow.problem
    assert "version 1, does not predict in the shadow" in caplog.text
    assert stored("shadow_prediction") == []


def test_what_it_missed_it_predicts_in_the_next_run_and_the_champion_is_left_alone(two, start, monkeypatch):
    day = start + 31 * DAY
    two.land(day, 1, seed=3)
    load = registry.load

    def away(model, version):
        if version == "1":
            raise TransientError("MLflow does not answer")
        return load(model, version)

    with monkeypatch.context() as patch:
        patch.setattr("evergreen.registry.load", away)
        assert run(two, day + DAY).shadow.problem == "MLflow does not answer"
    served = stored(what="*")
    two.land(day + DAY, 1, seed=4)
    result = run(two, day + 2 * DAY)
    assert (result.rows, result.state) == (24, "scored")
    assert stored(what="*")[: len(served)] == served
    assert keys("shadow_prediction", "1", day) == keys("prediction", "2", day)
    # Nothing new but the shadow: it is no scoring.
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.shadow_prediction WHERE event_time >= %s", (day + DAY,))
    result = run(two, day + 2 * DAY)
    assert (result.rows, result.shadow.rows, result.state) == (0, 24, "up_to_date")


def test_a_feature_that_only_the_previous_champion_needs_is_read_for_it(two, start):
    day = start + 31 * DAY
    fewer = two.with_model(features={"numeric": ("hour",)})
    fewer.land(day, 2, seed=3)
    fewer.promote(day + DAY, "dag/third")
    result = run(fewer, day + 2 * DAY)
    assert (result.version, result.state) == ("3", "scored")
    assert (result.shadow.version, result.shadow.problem) == ("2", "")
    assert result.shadow.rows > 0


@pytest.mark.parametrize(
    ("query", "features"),
    [
        pytest.param("x, |", {"numeric": ("hour",)}, id="left-the-query"),
        pytest.param(
            "x, |x::text AS x, ", {"numeric": ("hour",), "categorical": ("kind", "x")}, id="another-type"
        ),
        pytest.param(
            "x, |round(x)::int AS x, ",
            {"numeric": ("hour",), "categorical": ("kind", "x")},
            id="another-kind",
        ),
    ],
)
def test_a_feature_that_the_previous_champion_cannot_read_any_more_ends_its_shadow_only(
    two, start, query, features
):
    day = start + 31 * DAY
    other = two.with_model(query=two.model.query.replace(*query.split("|"), 1), features=features)
    other.land(day, 2, seed=3)
    other.promote(day + DAY, "dag/third")
    result = run(other, day + 2 * DAY)
    assert (result.version, result.state) == ("3", "scored")
    assert "needs the features x" in result.shadow.problem


@pytest.mark.parametrize("broken", ["not-finite", "raises"])
def test_a_previous_champion_that_breaks_on_the_way(two, start, monkeypatch, broken):
    day = start + 31 * DAY
    two.land(day, 2, seed=3)
    calls, predict = [], registry.LoadedModel.predict

    def second_fails(self, table):
        calls.append(self.version)
        if len(calls) < 2:
            return predict(self, table)
        if broken == "raises":
            raise pa.ArrowInvalid("no number")
        return np.full(table.num_rows, np.nan)

    monkeypatch.setattr(registry.LoadedModel, "predict", second_fails)
    result = run(two.with_model(scoring={"chunk_rows": 10}), day + 2 * DAY)
    assert calls == ["1", "1"], "it is not asked again in this run"
    assert 0 < result.shadow.rows == len(stored("shadow_prediction")) <= 10
    assert ("not finite" if broken == "not-finite" else "no number") in result.shadow.problem
    assert result.rows == len(stored()) >= 48


def test_a_run_that_dies_between_the_two_leaves_neither_and_the_next_one_finishes_both(
    two, start, monkeypatch
):
    class Killed(BaseException):
        pass

    day = start + 31 * DAY
    two.land(day, 2, seed=3)
    small = two.with_model(scoring={"chunk_rows": 10})
    whole, calls = writer._write, []

    def dies(*args):
        if args[-1].table == writer.SHADOW:
            calls.append(1)
            if len(calls) == 3:
                raise Killed
        return whole(*args)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write", dies)
        with pytest.raises(Killed):
            run(small, day + 2 * DAY)
    assert 0 < len(keys("prediction", "2", start)) < 73
    assert keys("shadow_prediction", "1", start) == keys("prediction", "2", start)
    run(small, day + 2 * DAY, "next")
    assert keys("shadow_prediction", "1", day) == keys("prediction", "2", day)
    assert len(keys("prediction", "2", day)) == 48


def test_two_runs_at_once(two, start):
    day = start + 31 * DAY
    two.land(day, 6, seed=3)
    small = two.with_model(scoring={"chunk_rows": 7})
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda n: run(small, day + 6 * DAY, f"score/{n}"), range(2)))
    for table in ("prediction", "shadow_prediction"):
        rows = stored(table)
        assert len(rows) == len({r["key"] for r in rows})
    assert sum(r.rows for r in results) == len(stored())
    assert sum(r.shadow.rows for r in results) == len(stored("shadow_prediction"))
    assert len(keys("shadow_prediction", "1", day)) == 144


def test_a_shadow_prediction_is_neither_scored_nor_served(two, start):
    """Rows that only the previous champion has predicted are unscored to the watch, and the champion's to predict."""
    day = start + 31 * DAY
    two.land(day, 1, seed=3)
    run(two, day + DAY)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "DELETE FROM evergreen.prediction WHERE event_time >= %s", (day + timedelta(hours=12),)
        )
    as_of = day + DAY + timedelta(hours=1)
    window = window_of(day, DAY)
    watched = two.with_model(monitoring={"window": "1d"})
    facts = reads.feed(watched.specs, watched.model, as_of, window.start, window.start).facts[window.start]
    assert (facts.rows, facts.scored) == (24, 12)
    sample = reads.sample(watched.specs, watched.model, as_of, window, facts)
    assert set(sample["_version"].to_pylist()) == {"2", None}
    assert run(two, day + DAY, "again").rows == 12
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("TRUNCATE evergreen.prediction")
        assert reads.first_scored(conn, watched.model, as_of) is None
