"""Counts of windows and the sample of a large one, against the plain way to ask for them."""

from __future__ import annotations

import time
from datetime import timedelta

import pyarrow as pa
import pytest
from monitoring_scene import BEGIN, SENSOR, WEEK, model, specs
from psycopg2 import sql

from evergreen.monitoring.windows import reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.reference.calendar import window_of
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features import arrow, views
from evergreen.warehouse.migrate import ensure_dataset

ROWS = 30_000
SAMPLE = 100
WINDOW = window_of(BEGIN, WEEK)
AS_OF = WINDOW.end + timedelta(hours=2)


@pytest.fixture
def busy(warehouse_url):
    """A week with a row every twenty seconds; each has arrived, and a prediction by version 1."""
    with connect() as conn, conn.cursor() as cursor:
        ensure_dataset(conn, SENSOR)
        cursor.execute(
            "INSERT INTO data.sensor (ts, amount, pressure, level, kind, y, guess, _arrived_at, _batch)"
            " SELECT t, n, n, 4, 'a', CASE WHEN n %% 2 = 0 THEN n END, n, t, 1"
            " FROM generate_series(0, %s) AS n, LATERAL (SELECT %s + n * interval '20 s' AS t) AS at",
            (ROWS - 1, BEGIN),
        )
    predict("1")


def predict(version: str, where: str = "true") -> None:
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
            f" SELECT 'watched', %s, json_build_array(ts)::text, ts, guess, %s, 'score/1' FROM data.sensor WHERE {where}",
            (version, WINDOW.end),
        )


def smallest(count: int) -> list[str]:
    """The keys of the served rows with the smallest hashes, sorted."""
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT key FROM (SELECT DISTINCT key FROM evergreen.prediction) AS k"
            " ORDER BY hashtextextended(key, 0), key LIMIT %s",
            (count,),
        )
    return sorted(r["key"] for r in rows)


def watched(**monitoring):
    spec = model(**{"sample_rows": SAMPLE, **monitoring})
    return specs(spec), spec


def facts_of(given, spec):
    return reads.feed(given, spec, AS_OF, WINDOW.start, WINDOW.start).facts.get(WINDOW.start, WindowFacts())


@pytest.mark.parametrize(
    ("sample", "by_index"),
    [pytest.param(SAMPLE, True, id="by-index"), pytest.param(5_000, False, id="by-sorting")],
)
def test_the_sample_is_the_served_rows_with_the_smallest_hashes(busy, sample, by_index, monkeypatch):
    given, spec = watched(sample_rows=sample)
    asked = []
    monkeypatch.setattr(reads, "_drawn", lambda *a, whole=reads._drawn: asked.append(1) or whole(*a))
    found = reads.sample(given, spec, AS_OF, WINDOW, facts_of(given, spec))
    assert bool(asked) is by_index
    assert sorted(found["_key"].to_pylist()) == smallest(sample)
    assert found["_time"].to_pylist() == sorted(found["_time"].to_pylist())
    assert found.schema.names == [*arrow.feature_schema(spec).names, "_prediction", "_version", "_baseline"]
    assert found["_prediction"].to_pylist() == found["amount"].to_pylist()
    assert reads.sample(given, spec, AS_OF, WINDOW, facts_of(given, spec)).equals(found)


def invent(count: int) -> None:
    """Online predictions of keys that no row has, those with the smallest hashes."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
            " SELECT 'watched', '1', key, %s, 1, %s, 'online/here' FROM (SELECT json_build_array('1999-01-01T00:00Z'::timestamptz"
            " + n * interval '1 s')::text AS key FROM generate_series(1, 100000) AS n) AS invented"
            " ORDER BY hashtextextended(key, 0) LIMIT %s",
            (BEGIN + timedelta(hours=1), WINDOW.end, count),
        )


def test_keys_that_a_client_invents_take_no_rows_place(busy):
    given, spec = watched()
    before, facts = reads.sample(given, spec, AS_OF, WINDOW, facts_of(given, spec)), facts_of(given, spec)
    invent(4 * SAMPLE)
    # Nothing of it was analysed: rows and predictions are not compared each with each.
    began = time.monotonic()
    assert facts_of(given, spec) == facts
    assert time.monotonic() - began < 30
    assert reads.sample(given, spec, AS_OF, WINDOW, facts).to_pydict() == before.to_pydict()


def test_a_time_that_a_client_names_does_not_say_since_when_rows_are_scored(busy):
    _, spec = watched()
    with connect() as conn:
        first = reads.first_scored(conn, spec, AS_OF)
        invent(1)
        assert reads.first_scored(conn, spec, AS_OF) == first
        with conn.cursor() as cursor:
            cursor.execute("DELETE FROM evergreen.prediction WHERE run_id NOT LIKE 'online/%'")
        assert reads.first_scored(conn, spec, AS_OF) is None


def test_both_ways_choose_the_same_rows(busy):
    given, spec = watched()
    by_index = reads.sample(given, spec, AS_OF, WINDOW, WindowFacts(ROWS, 0, ROWS))
    by_sorting = reads.sample(given, spec, AS_OF, WINDOW, WindowFacts(ROWS, 0, 0))
    assert by_index.to_pydict() == by_sorting.to_pydict()


def test_a_key_of_two_columns_and_a_query_that_changes_it(busy):
    given, spec = watched()
    spec = spec.model_copy(
        update={"key": ("kind", "ts"), "query": "SELECT ts, kind, amount, pressure, level, y FROM sensor"}
    )
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.prediction SET key = json_build_array('a', event_time)::text")
    found = reads.sample(given, spec, AS_OF, WINDOW, WindowFacts(ROWS, 0, ROWS))
    assert sorted(found["_key"].to_pylist()) == smallest(SAMPLE)


def test_a_key_that_json_does_not_give_back_is_sampled_by_sorting(busy):
    given, spec = watched()
    spec = spec.model_copy(
        update={
            "query": "SELECT ARRAY[ts] AS ts_list, ts, kind, amount, pressure, level, y FROM sensor",
            "key": ("ts_list",),
        }
    )
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.prediction SET key = json_build_array(ARRAY[event_time])::text")
    found = reads.sample(given, spec, AS_OF, WINDOW, WindowFacts(ROWS, 0, ROWS))
    assert sorted(found["_key"].to_pylist()) == smallest(SAMPLE)
    assert None not in found["_prediction"].to_pylist()


def test_served_first_counts_in_a_sample_by_index_too(busy):
    given, spec = watched()
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.sensor SET guess = guess + 7")
    predict("2")
    facts = facts_of(given, spec)
    assert (facts.rows, facts.labelled, facts.scored) == (ROWS, ROWS // 2, ROWS)
    found = reads.sample(given, spec, AS_OF, WINDOW, facts)
    assert set(found["_version"].to_pylist()) == {"1"}
    assert found["_prediction"].to_pylist() == found["amount"].to_pylist()


def test_a_sample_by_sorting_keeps_rows_without_a_prediction_and_may_be_empty(busy):
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.prediction WHERE prediction >= 15000")
        cursor.execute("UPDATE evergreen.prediction SET as_of = %s WHERE prediction < 1000", (AS_OF + WEEK,))
    given, spec = watched(sample_rows=ROWS)
    found = reads.sample(given, spec, AS_OF, WINDOW, facts_of(given, spec)).to_pandas()
    assert len(found) == ROWS
    scored = found["_prediction"].notna()
    assert (scored == ((found["pressure"] >= 1000) & (found["pressure"] < 15000))).all()
    assert (found.loc[scored, "_prediction"] == found.loc[scored, "pressure"]).all()
    nothing = window_of(BEGIN - 10 * WEEK, WEEK)
    assert reads.sample(given, spec, AS_OF, nothing, WindowFacts()).num_rows == 0


def test_rows_without_a_prediction_and_predictions_made_later_are_not_counted_as_scored(busy):
    given, spec = watched()
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.prediction WHERE event_time < %s", (BEGIN + timedelta(days=1),))
        cursor.execute(
            "UPDATE evergreen.prediction SET as_of = %s WHERE event_time < %s",
            (AS_OF + timedelta(seconds=1), BEGIN + timedelta(days=2)),
        )
    left = ROWS - 2 * 24 * 180
    facts = facts_of(given, spec)
    assert (facts.rows, facts.scored) == (ROWS, left)
    found = reads.sample(given, spec, AS_OF, WINDOW, facts)
    assert found.num_rows == SAMPLE
    assert min(found["_time"].to_pylist()) >= BEGIN + timedelta(days=2)


def test_of_very_many_predictions_the_number_of_keys_is_estimated_from_an_index(busy, monkeypatch):
    given, spec = watched()
    predict("2", "extract(day FROM ts)::int %% 2 = 0")
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.prediction WHERE prediction >= 24010")
    exact = facts_of(given, spec).scored
    assert exact == 24010
    monkeypatch.setattr(reads, "EXACT", 1000)
    estimated = facts_of(given, spec).scored
    expected = exact * reads.ESTIMATED / reads.BUCKETS
    assert estimated % (reads.BUCKETS // reads.ESTIMATED) == 0, "not the count of all"
    assert abs(estimated - exact) < 5 * exact / expected**0.5


@pytest.mark.parametrize(("estimate", "scored"), [(29_500, ROWS), (29_300, 29_300), (30_100, ROWS)])
def test_an_estimate_does_not_tell_almost_all_rows_from_all(busy, monkeypatch, estimate, scored):
    given, spec = watched()
    monkeypatch.setattr(reads, "EXACT", 1000)
    monkeypatch.setattr(reads, "_scored", lambda *a: estimate)
    assert facts_of(given, spec).scored == scored


def test_the_newest_row_is_looked_for_before_the_first_window_if_need_be(busy):
    given, spec = watched()
    later = WINDOW.end + 2 * WEEK
    newest = BEGIN + (ROWS - 1) * timedelta(seconds=20)
    seen = reads.feed(given, spec, later, WINDOW.end, WINDOW.start)
    assert (seen.facts, seen.newest) == ({}, newest)
    assert reads.feed(given, spec, later, WINDOW.end, WINDOW.end).newest is None
    assert reads.feed(given, spec, later, WINDOW.start, WINDOW.start).newest == newest


def test_texts_reach_the_server_as_they_are(busy):
    given, spec = watched()
    texts = ["plain", 'a "quote"', "back\\slash", "it's", "{a,b}", "NULL", "", "line\nend", "é"]
    array = reads._array(pa.array(texts), "text")
    with views.reading(given, spec, AS_OF) as reader:
        assert reader.rows(sql.SQL("SELECT {} AS texts").format(array))[0]["texts"] == texts
