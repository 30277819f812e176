"""Scoring: each row once by each version, seen as of the run, whole or not at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import psycopg2
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import events
from evergreen.scoring import writer
from evergreen.scoring.score import rechunk, score
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def champion(world, made_once, start):
    """A champion as of day 30, with rows up to the last one whose label was mature then."""

    def make():
        world.land(start, 30 - 1 / 24)
        world.promote(start + timedelta(days=30), "dag/first")

    made_once(make)
    return world


def run(world, as_of, run_id="score", **more):
    return score(world.specs, world.model, as_of, run_id, **more)


def stored():
    with connect() as conn:
        return fetch(conn, "SELECT * FROM evergreen.prediction ORDER BY event_time, version")


def test_rows_since_the_champion_are_scored_once(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 2, seed=2)
    result = run(champion, day + timedelta(days=2))
    # The newest hour has not arrived: rows arrive an hour after their event.
    assert (result.version, result.rows, result.chunks, result.state) == ("1", 48, 1, "scored")
    assert json.loads(json.dumps(result.to_dict()))["start"] == (day - timedelta(hours=1)).isoformat()
    rows = stored()
    again = run(champion, day + timedelta(days=2))
    assert (again.rows, again.state) == (0, "up_to_date")
    assert stored() == rows
    champion.land(day + timedelta(days=2), 1, seed=3)
    assert run(champion, day + timedelta(days=3)).rows == 24


def test_the_planner_knows_many_predictions_at_once(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 4, seed=2)
    run(champion, day + timedelta(days=4))
    with connect() as conn:
        query = "SELECT reltuples FROM pg_class WHERE oid = 'evergreen.prediction'::regclass"
        assert fetch(conn, query)[0]["reltuples"] == len(stored()) == 96


def test_a_row_whose_label_was_not_mature_for_the_first_champion_is_scored(champion, start):
    day = start + timedelta(days=30)
    champion.land(day - timedelta(hours=1), 2 / 24, seed=2)
    run(champion, day + timedelta(hours=1))
    assert [r["event_time"] for r in stored()] == [day - timedelta(hours=1), day]


def test_a_late_row_is_scored_when_it_arrives(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2, arrived=day + timedelta(days=3))
    champion.land(day + timedelta(days=1), 1, seed=3)
    assert run(champion, day + timedelta(days=2)).rows == 24
    assert run(champion, day + timedelta(days=3)).rows == 24


@pytest.mark.parametrize(
    ("later", "x"),
    [pytest.param(1, 1.0, id="before-it-arrived"), pytest.param(6, 40.0, id="after-it-arrived")],
)
def test_predictions_are_those_of_the_features_known_at_as_of(champion, start, later, x):
    day = start + timedelta(days=30)
    moment = day + timedelta(hours=3)
    champion.land(day, 1, seed=2, edit=lambda row: row.update(x=1.0, kind="wet"))
    champion.correct(moment, day + timedelta(days=5), x=40.0)
    run(champion, day + timedelta(days=later))
    loaded = registry.load(champion.model, "1")
    wanted = {
        value: loaded.predict(pa.table({"hour": [3.0], "x": [value], "kind": ["wet"]}))[0]
        for value in (1.0, 40.0)
    }
    assert wanted[1.0] != wanted[40.0]
    assert [r["prediction"] for r in stored() if r["event_time"] == moment] == [wanted[x]]


def test_a_new_champion_scores_from_its_own_as_of_on(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 4, seed=2)
    run(champion, day + timedelta(days=3))
    champion.promote(day + timedelta(days=2), "dag/second")
    result = run(champion, day + timedelta(days=4))
    assert (result.version, result.rows) == ("2", 48)
    by_version = {v: [r["event_time"] for r in stored() if r["version"] == v] for v in "12"}
    assert min(by_version["2"]) == day + timedelta(days=2)
    assert len(by_version["1"]) == 72


def test_a_range_by_hand_is_scored_by_the_champion_of_now(champion, start):
    low, high = start + timedelta(days=2), start + timedelta(days=4)
    result = run(champion, start + timedelta(days=30), start=low, end=high)
    assert (result.rows, result.start, result.end) == (48, low.isoformat(), high.isoformat())
    assert run(champion, start + timedelta(days=30), start=low, end=high).rows == 0
    with pytest.raises(TerminalError, match="not before end"):
        run(champion, start + timedelta(days=30), start=high, end=low)


def test_a_range_by_hand_adds_what_this_version_lacks_and_changes_nothing(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 6, seed=2)
    run(champion, day + timedelta(days=4))
    champion.promote(day + timedelta(days=4), "dag/second")
    later = day + timedelta(days=5)
    run(champion, later, "dag/daily")
    champion.correct(day + timedelta(days=4, hours=3), later, x=40.0)
    served = stored()
    low, high = day + timedelta(days=2), later
    result = run(champion, later, "dag/by-hand", start=low, end=high)
    by_hand = [r for r in stored() if r["run_id"] == "dag/by-hand"]
    assert [r for r in stored() if r["run_id"] != "dag/by-hand"] == served
    lacking = {low + timedelta(hours=h) for h in range(72)} - {
        r["event_time"] for r in served if r["version"] == "2"
    }
    assert {r["event_time"] for r in by_hand} == lacking
    assert {r["version"] for r in by_hand} == {"2"}
    assert result.rows == len(by_hand) == len(lacking) > 24


def test_a_run_for_an_earlier_time_has_the_champion_of_that_time(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 4, seed=2)
    champion.promote(day + timedelta(days=3), "dag/second")
    assert run(champion, day + timedelta(days=2)).version == "1"
    assert {r["version"] for r in stored()} == {"1"}
    assert run(champion, day + timedelta(days=4)).version == "2"
    with pytest.raises(TerminalError, match="no champion as of") as caught:
        run(champion, start + timedelta(days=29))
    assert caught.value.reason is ErrorReason.NO_CHAMPION


def test_a_binary_model_gives_probabilities_of_class_1(world, wetness, mlflow_url, start):
    day = start + timedelta(days=30)
    wet = world.with_model(wetness)
    wet.land(start, 32)
    wet.promote(day, "dag/first")
    result = run(wet, day + timedelta(days=2), start=day)
    found = np.array([r["prediction"] for r in stored()])
    assert (result.version, result.rows, len(found)) == ("1", 48, 48)
    assert (found > 0).all()
    assert (found < 1).all()
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT (x + sin(extract(epoch FROM ts)) > 0) AS wet FROM data.rides_hourly WHERE ts >= %s ORDER BY ts",
            (day,),
        )
    truth = np.array([r["wet"] for r in rows])
    assert found[truth].mean() > found[~truth].mean() + 0.2


def test_chunks_are_bounded_and_hold_every_row_once(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 2, seed=2)
    small = champion.with_model(scoring={"chunk_rows": 7})
    result = run(small, day + timedelta(days=2))
    assert (result.rows, result.chunks) == (48, 7)
    assert len({r["key"] for r in stored()}) == 48
    loaded = registry.load(champion.model, "1")
    assert loaded.version == "1"


@pytest.mark.parametrize("rows", [1, 3, 4, 9, 100])
def test_rechunk(rows):
    schema = pa.schema([("n", pa.int64())])
    batches = [pa.record_batch([list(range(a, b))], schema) for a, b in ((0, 4), (4, 4), (4, 5), (5, 9))]
    tables = list(rechunk(batches, schema, rows))
    assert [n for t in tables for n in t["n"].to_pylist()] == list(range(9))
    assert all(t.num_rows == rows for t in tables[:-1])
    assert 0 < tables[-1].num_rows <= rows


def test_a_run_that_dies_leaves_whole_chunks_and_the_next_one_finishes(champion, start, monkeypatch):
    class Killed(BaseException):
        pass

    day = start + timedelta(days=30)
    champion.land(day, 2, seed=2)
    small = champion.with_model(scoring={"chunk_rows": 10})
    whole, calls = writer._write, []

    def dies(*args, **more):
        calls.append(whole(*args, **more))
        if len(calls) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write", lambda *a, **m: dies(*a, **m) or calls[-1])
        with pytest.raises(Killed):
            run(small, day + timedelta(days=2))
    assert len(stored()) == 20
    with connect() as conn:
        assert events.owed(conn, f"predictions/{small.model.name}").as_of == day + timedelta(days=2)
    assert run(small, day + timedelta(days=2)).rows == 28
    assert len({r["key"] for r in stored()}) == len(stored()) == 48


def test_what_the_model_does_not_know_is_counted_and_scored(champion, start):
    day = start + timedelta(days=30)

    def strange(row):
        if row["ts"].hour < 5:
            row["kind"] = "snow"
        if row["ts"].hour == 7:
            row["x"] = float("inf")
        if row["ts"].hour > 20:
            row["x"] = None

    champion.land(day, 1, seed=2, edit=strange)
    result = run(champion, day + timedelta(days=1))
    assert (result.rows, result.unseen, result.infinite) == (24, {"kind": 5}, {"x": 1})
    assert all(np.isfinite(r["prediction"]) for r in stored())


def test_a_feature_that_is_all_missing(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2, edit=lambda row: row.update(x=None, kind=None))
    assert run(champion, day + timedelta(days=1)).rows == 24


def test_nothing_to_score_is_no_error_and_is_visible(champion, start):
    result = run(champion, start + timedelta(days=40))
    assert (result.rows, result.state) == (0, "no_rows")


def test_without_a_champion(world, mlflow_url, start):
    with pytest.raises(TerminalError) as caught:
        run(world, start)
    assert caught.value.reason is ErrorReason.NO_CHAMPION


def test_a_champion_that_mlflow_lost(champion, start):
    MlflowClient().delete_model_version("rides", "1")
    with pytest.raises(TerminalError) as caught:
        run(champion, start + timedelta(days=31))
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_a_prediction_that_is_not_finite_is_not_written(champion, start, monkeypatch):
    champion.land(start + timedelta(days=30), 1, seed=2)
    monkeypatch.setattr("evergreen.registry.models.predict", lambda _, matrix: np.full(len(matrix), np.nan))
    with pytest.raises(TerminalError) as caught:
        run(champion, start + timedelta(days=31))
    assert caught.value.reason is ErrorReason.BAD_METRIC
    assert stored() == []


AGAIN = {
    "beside-it": "",
    "in-another-hour": " + interval '5 hours'",
    "where-all-is-scored": " - interval '12 hours'",
}


@pytest.mark.parametrize("where", AGAIN)
@pytest.mark.parametrize("chunk_rows", [1, 1000], ids=["across-chunks", "in-one-chunk"])
def test_a_key_that_comes_twice_stops_every_run_and_nothing_is_written(champion, start, chunk_rows, where):
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2)
    run(champion, day + timedelta(hours=13))
    before = stored()
    query = (
        "SELECT ts, at, extract(hour FROM ts)::int AS hour, x, kind, demand FROM rides_hourly,"
        f" LATERAL (VALUES (ts), (CASE WHEN ts = '{(day + timedelta(hours=15)).isoformat()}' THEN ts{AGAIN[where]} END))"
        " AS other (at) WHERE at IS NOT NULL"
    )
    twice = champion.with_model(query=query, event_time="at", scoring={"chunk_rows": chunk_rows})
    for _ in range(2):
        with pytest.raises(TerminalError, match="more than once") as caught:
            run(twice, day + timedelta(days=1))
        assert caught.value.reason is ErrorReason.BAD_QUERY
        assert json.dumps((day + timedelta(hours=15)).isoformat()) in str(caught.value)
        assert stored() == before


def test_more_keys_than_are_held_are_told_apart_by_postgresql(champion, start, monkeypatch):
    monkeypatch.setattr("evergreen.scoring.score.MOST_HASHES", 5)
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2)
    assert run(champion, day + timedelta(days=1)).rows == 24
    doubled = champion.with_model(
        query="SELECT ts, extract(hour FROM ts)::int AS hour, x, kind, demand FROM rides_hourly, generate_series(1, 2)"
    )
    with pytest.raises(TerminalError, match="more than once"):
        run(doubled, day + timedelta(days=1))


LEFT = {
    "left": {"features": {"numeric": ("hour",)}},
    "left-all-but-a-new-one": {"features": {"numeric": ("minute",), "categorical": ()}},
    "another-kind": {"features": {"numeric": ("x",), "categorical": ("kind", "hour")}},
}


@pytest.mark.parametrize("changes", LEFT.values(), ids=LEFT)
def test_a_feature_that_left_the_spec_is_still_the_champions(champion, start, changes):
    """The query returns it, so the champion predicts as it did, until another one takes its place."""
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2)
    query = champion.model.query.replace("ts,", "ts, extract(minute FROM ts)::int AS minute,", 1)
    other = champion.with_model(query=query, **changes)
    assert run(other, day + timedelta(days=1)).rows == 24
    with connect() as conn:
        known = fetch(conn, "SELECT ts, x, kind FROM data.rides_hourly WHERE ts >= %s ORDER BY ts", (day,))
    features = pa.table({
        "hour": [float(r["ts"].hour) for r in known], "x": [r["x"] for r in known], "kind": [r["kind"] for r in known],
    })  # fmt: skip
    predicted = [r["prediction"] for r in sorted(stored(), key=lambda r: r["event_time"])]
    assert predicted == list(registry.load(champion.model, "1").predict(features))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        pytest.param("", "x: the feature query does not return it now", id="gone"),
        pytest.param(
            "x::text AS x,", "x: it was a number, and the feature query returns text now", id="text"
        ),
        pytest.param(
            "x > 0 AS x,", "x: it was a number, and the feature query returns boolean now", id="boolean"
        ),
    ],
)
def test_a_feature_that_left_the_query_is_told_with_the_way_on(champion, start, column, told):
    champion.land(start + timedelta(days=30), 1, seed=2)
    query = champion.model.query.replace("x, ", column and f"{column} ", 1)
    fewer = champion.with_model(query=query, features={"numeric": ("hour",)})
    with pytest.raises(TerminalError, match="needs the features x") as caught:
        run(fewer, start + timedelta(days=31))
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    for part in (told, "models/rides.sql", "train__rides", "promote__rides"):
        assert part in str(caught.value)


def test_a_chunk_that_cannot_be_written_stops_the_run_with_its_own_error(champion, start, monkeypatch):
    day = start + timedelta(days=30)
    champion.land(day, 2, seed=2)
    small = champion.with_model(scoring={"chunk_rows": 10})
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE evergreen.prediction ADD CONSTRAINT refused CHECK (event_time <> %s)",
            (day + timedelta(hours=25),),
        )
    made, predict = [], registry.LoadedModel.predict_encoded
    monkeypatch.setattr(
        registry.LoadedModel,
        "predict_encoded",
        lambda self, e: made.append(len(e.matrix)) or predict(self, e),
    )
    with pytest.raises(psycopg2.errors.CheckViolation):
        run(small, day + timedelta(days=2))
    # Hours 0 to 19 went in; the chunk after the refused one was made at most, and not written.
    assert len(stored()) == 20
    assert len(made) <= 4
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("ALTER TABLE evergreen.prediction DROP CONSTRAINT refused")
    assert run(small, day + timedelta(days=2)).rows == 28


def test_a_prediction_that_is_not_finite_leaves_the_chunks_before_it(champion, start, monkeypatch):
    day = start + timedelta(days=30)
    champion.land(day, 2, seed=2)
    calls, predict = [], registry.LoadedModel.predict_encoded

    def third_is_broken(self, encoded):
        calls.append(1)
        found = predict(self, encoded)
        return found if len(calls) < 3 else np.full(len(found), np.inf)

    monkeypatch.setattr(registry.LoadedModel, "predict_encoded", third_is_broken)
    with pytest.raises(TerminalError) as caught:
        run(champion.with_model(scoring={"chunk_rows": 10}), day + timedelta(days=2))
    assert caught.value.reason is ErrorReason.BAD_METRIC
    assert len(stored()) == 20


def test_two_runs_at_once_score_each_row_once_and_what_was_made_first_stays(champion, start):
    day = start + timedelta(days=30)
    champion.land(day, 8, seed=2)
    small = champion.with_model(scoring={"chunk_rows": 7})
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda n: run(small, day + timedelta(days=8), f"score/{n}"), range(2)))
    assert sum(r.rows for r in results) == len(stored()) == len({r["key"] for r in stored()}) == 192


def test_a_chunk_keeps_what_another_run_wrote_since_the_rows_were_asked_for(champion, start, monkeypatch):
    day = start + timedelta(days=30)
    champion.land(day, 1, seed=2)
    taken = day + timedelta(hours=5)
    write = writer._write

    def after_the_other_run(*args):
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
                " VALUES ('rides', '1', %s, %s, -1, %s, 'other')",
                (json.dumps([taken.isoformat()]), taken, taken),
            )
        return write(*args)

    monkeypatch.setattr(writer, "_write", after_the_other_run)
    assert run(champion, day + timedelta(days=1)).rows == 23
    rows = stored()
    assert len(rows) == 24
    assert [(r["prediction"], r["run_id"]) for r in rows if r["event_time"] == taken] == [(-1.0, "other")]


def test_what_is_written_is_what_was_predicted(champion, start):
    day = start + timedelta(days=30)
    as_of = day + timedelta(days=1, microseconds=7)
    champion.land(day, 1, seed=2)
    run(champion, as_of, "dag/läuft")
    with connect() as conn:
        known = fetch(conn, "SELECT ts, x, kind FROM data.rides_hourly WHERE ts >= %s ORDER BY ts", (day,))
    features = pa.table({
        "hour": [float(r["ts"].hour) for r in known], "x": [r["x"] for r in known], "kind": [r["kind"] for r in known],
    })  # fmt: skip
    wanted = registry.load(champion.model, "1").predict(features)
    rows = stored()
    assert [r["event_time"] for r in rows] == [r["ts"] for r in known]
    assert [r["key"] for r in rows] == [json.dumps([r["ts"].isoformat()]) for r in known]
    assert [r["prediction"] for r in rows] == list(wanted)
    assert {(r["model"], r["version"], r["as_of"], r["run_id"]) for r in rows} == {
        ("rides", "1", as_of, "dag/läuft")
    }
    assert all(r["scored_at"] > day for r in rows)
