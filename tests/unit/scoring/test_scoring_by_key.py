"""Features by key, as of now and the newest that the scoring keeps, give what the scoring predicted: bit for bit, row by row."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import psycopg2.extras
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from psycopg2 import sql

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.feeds import simulated
from evergreen.scoring import newest
from evergreen.scoring.score import score
from evergreen.serving.follow import Follower
from evergreen.serving.served import SLICE, Shelf
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.batches import correction, publish
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.features.lookup import Found, Lookup
from evergreen.warehouse.migrate import ensure_dataset

if TYPE_CHECKING:
    from conftest import World

START = datetime(2025, 3, 3, tzinfo=UTC)
WEEKS = 10
TRAINED = START + timedelta(weeks=WEEKS - 1)
END = START + timedelta(weeks=WEEKS)
LONG_S = 20.0
QUICK: dict[str, Any] = {
    "window": "70d",
    "holdout": "7d",
    "min_rows": 200,
    "max_rounds": 15,
    "early_stopping_rounds": 5,
}
STATIONS = ("north", 'the "south"', "west\\end", "ä, €")


@pytest.fixture
def bikes(specs: Specs, world: World, mlflow_url: str, made_once: Any, change: Any) -> World:
    """The demo's bikes, simulated, with a champion that has scored the last week."""
    model = change(
        specs.models["bike_demand"], training={**QUICK, "params": {"max_depth": 4, "learning_rate": 0.3}}
    )
    dataset = specs.datasets["bike_hourly"]
    made = replace(world, specs=Specs({dataset.name: dataset}, {model.name: model}), model=model)

    def make() -> None:
        put(dataset, simulated.hours(START, END, 7)[list(dataset.columns)].itertuples(index=False))
        promote(made, mlflow_url)
        assert score(made.specs, model, END, "score/1").rows >= 24 * 7

    made_once(make)
    return made


@pytest.fixture
def stations(specs: Specs, world: World, mlflow_url: str, made_once: Any, change: Any) -> World:
    """The same city at several stations, with a champion; nothing is scored yet, and the newest features are to be kept."""
    content = specs.datasets["bike_hourly"].model_dump()
    dataset = DatasetSpec.model_validate({
        **content, "name": "station_hourly", "key": ["station", "ts"], "deleted": "gone",
        "columns": {"station": {"type": "text"}, **content["columns"], "gone": {"type": "boolean", "required": False}},
    })  # fmt: skip
    bikes = specs.models["bike_demand"]
    model = change(
        bikes, name="stations", datasets=["station_hourly"], key=["ts", "station"], training={**QUICK, "params": {"max_depth": 4}},
        serving={"features": "latest"},
        query=bikes.query.replace("    ts,", "    ts, station,", 1).replace("FROM bike_hourly", "FROM station_hourly"),
    )  # fmt: skip
    made = replace(world, specs=Specs({dataset.name: dataset}, {model.name: model}), model=model)

    def make() -> None:
        for seed, name in enumerate(STATIONS):
            # Each station's newest hour is another one.
            table = simulated.hours(START, END - timedelta(hours=seed), seed)
            rows = table[[n for n in dataset.columns if n in table]].itertuples(index=False)
            put(dataset, ((name, *row, None) for row in rows))
        promote(made, mlflow_url)

    made_once(make)
    return made


def promote(made: World, mlflow_url: str) -> None:
    """Train the first champion; its files are beside the other ones of the test."""
    place = made.folder.parent / "artifacts" / made.model.name
    MlflowClient(mlflow_url).create_experiment(made.model.name, artifact_location=place.as_uri())
    made.promote(TRAINED, "train/1")


def put(dataset: DatasetSpec, rows: Any) -> None:
    """Publish rows, each an hour after its event."""
    at = list(dataset.columns).index("ts")
    content = [
        (*(None if v != v else v for v in row), row[at] + timedelta(hours=1), 1) for row in map(tuple, rows)
    ]
    with connect() as conn, conn.cursor() as cursor:
        ensure_dataset(conn, dataset)
        target = sql.Identifier("data", dataset.name).as_string(cursor)
        psycopg2.extras.execute_values(cursor, f"INSERT INTO {target} VALUES %s", content, page_size=1000)


def ask(
    made: World, keys: list[dict[str, Any]], *, way: str = "", model: ModelSpec | None = None
) -> list[Found | None]:
    """Look up keys on one of both ways."""
    model = model or made.model
    if way:
        model = ModelSpec.model_validate({**model.model_dump(), "serving": {"features": way}})
    lookup = Lookup(made.specs, model)
    try:
        return lookup.rows(keys, timeout_s=LONG_S)
    finally:
        lookup.close()


def predicted(made: World, found: list[Found | None]) -> np.ndarray:
    """What the champion says of rows that were looked up."""
    loaded = registry.load(made.model, "1")
    rows = [f for f in found if f is not None]
    assert len(rows) == len(found)
    table = {n: pa.array([f.features[n] for f in rows], pa.float64()) for n in loaded.encoding.numeric}
    table |= {n: pa.array([f.features[n] for f in rows], pa.string()) for n in loaded.encoding.categorical}
    return loaded.predict(pa.table(table))


def served() -> list[dict[str, Any]]:
    with connect() as conn:
        return fetch(conn, "SELECT key, event_time, prediction FROM evergreen.prediction ORDER BY key")


def kept() -> dict[str, dict[str, Any]]:
    with connect() as conn:
        rows = fetch(conn, "SELECT * FROM evergreen.latest_features ORDER BY entity")
    return {json.loads(r["entity"])[0]: r for r in rows}


def key_of(made: World, row: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(made.model.key, json.loads(row["key"]), strict=True))


def test_by_key_and_in_batch_the_predictions_are_the_same(bikes: World) -> None:
    rows = served()
    found = ask(bikes, [key_of(bikes, r) for r in rows])
    assert [(f.key, f.event_time) for f in found if f] == [(r["key"], r["event_time"]) for r in rows]
    assert predicted(bikes, found).tobytes() == np.array([r["prediction"] for r in rows]).tobytes()
    assert len({r["prediction"] for r in rows}) > 50


def test_online_by_key_and_in_batch_the_predictions_are_the_same(
    bikes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends the features which the warehouse has gets what was scored, and its records have the same keys."""
    rows = served()
    found = [row for row in ask(bikes, [key_of(bikes, r) for r in rows]) if row]
    assert len(found) == len(rows)
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: bikes.specs)
    with connect() as conn:
        served_online = Shelf().serve(Follower().bring_up(conn).models["bike_demand"])
    asked = [{**row.features, "ts": row.event_time.isoformat()} for row in found]
    records = msgspec.json.decode(msgspec.json.encode(asked))  # as they come over HTTP
    answers: list[float] = []
    for begin in range(0, len(records), SLICE):
        part = records[begin : begin + SLICE]
        answers += served_online.champion.predict(served_online.champion.encoder.encode(part).rows)
    assert np.array(answers).tobytes() == np.array([r["prediction"] for r in rows]).tobytes()
    assert [row and row[0] for row in served_online.identifier.identify(records)] == [r["key"] for r in rows]


def test_both_ways_give_what_was_scored(stations: World) -> None:
    with pytest.raises(
        TransientError, match="its newest features are not there yet; run score__stations"
    ) as caught:
        ask(stations, [{"station": "north"}])
    assert caught.value.reason is ErrorReason.NO_ROWS
    assert score(stations.specs, stations.model, END + timedelta(hours=1), "score/1").rows > 24 * 7 * 3
    rows = served()
    every = ask(stations, [key_of(stations, r) for r in rows], way="query")
    assert predicted(stations, every).tobytes() == np.array([r["prediction"] for r in rows]).tobytes()
    entities = [{"station": s} for s in STATIONS]
    latest, query = ask(stations, entities), ask(stations, entities, way="query")
    assert latest == query
    by_key = {r["key"]: r["prediction"] for r in rows}
    assert predicted(stations, latest).tolist() == [by_key[f.key] for f in latest if f]
    hours = [END - timedelta(hours=n + 1) for n in range(4)]
    assert [f and f.event_time for f in latest] == hours
    # A key with its event time is that row, or none.
    whole = [{"station": s, "ts": t.isoformat()} for s, t in zip(STATIONS, hours, strict=True)]
    assert ask(stations, whole) == latest
    assert ask(stations, [{**k, "ts": "2025-05-01T00:00Z"} for k in whole]) == [None] * 4
    assert ask(stations, [{"station": "nowhere"}, *entities[:1]]) == [None, latest[0]]


def test_a_first_scoring_fills_in_what_was_scored_before(stations: World, change: Any) -> None:
    before = change(stations.model, serving={"features": "query"})
    first = score(stations.specs, before, END, "score/1")
    assert first.rows
    assert kept() == {}
    again = score(stations.specs, stations.model, END, "score/2")
    assert (again.rows, again.state) == (0, "up_to_date")
    assert set(kept()) == set(STATIONS)
    score(stations.specs, before, END, "score/3")
    assert kept() == {}, "nothing old is answered when it is switched on again"
    with connect() as conn:
        assert fetch(conn, "SELECT * FROM evergreen.latest_filled") == []


def test_newer_rows_replace_and_others_stay_untouched(stations: World) -> None:
    score(stations.specs, stations.model, END, "score/1")
    before, dataset = kept(), stations.specs.datasets["station_hourly"]
    put(dataset, [("north", END + timedelta(hours=5), False, True, "mist", 5.5, None, 1.0, 2.5, None, None)])
    later = END + timedelta(days=1)
    score(stations.specs, stations.model, later, "score/2")
    after = kept()
    assert after["north"]["features"] == {
        "hour": 5.0, "weekday": 1.0, "day_of_year": 132.0, "temperature": 5.5, "humidity": None, "windspeed": 1.0, "price": 2.5,
        "weather": "mist", "day_kind": "working",
    }  # fmt: skip
    assert (after["north"]["event_time"], after["north"]["as_of"]) == (END + timedelta(hours=5), later)
    assert {s: r for s, r in after.items() if s != "north"} == {
        s: r for s, r in before.items() if s != "north"
    }
    score(stations.specs, stations.model, END, "score/3")
    assert kept() == after, "a run as of an earlier time takes nothing back"


def test_rows_that_were_corrected_withdrawn_or_deleted_are_not_answered(stations: World) -> None:
    dataset, as_of = stations.specs.datasets["station_hourly"], END + timedelta(hours=1)
    north, south, west, _ = STATIONS
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.station_hourly SET _batch = 2 WHERE station = %s", (west,))
        cursor.execute(
            "UPDATE data.station_hourly SET _batch = 3 WHERE station = %s AND ts > %s",
            (south, END - timedelta(hours=12)),
        )
        cursor.execute(
            "INSERT INTO evergreen.batch (dataset, checksum, file, as_of, state, rows_read, rows_new, rows_changed, rows_held)"
            " SELECT 'station_hourly', n::text, n || '.csv', %s, 'published', 1, 1, 0, 0 FROM generate_series(1, 3) AS n",
            (START,),
        )
    score(stations.specs, stations.model, as_of, "score/1")
    with connect() as conn, conn.cursor() as cursor:
        publish.prepare(conn, dataset)
        for batch in (2, 3):
            cursor.execute("UPDATE evergreen.batch SET state = 'withdrawn' WHERE id = %s", (batch,))
            assert correction.settle(conn, dataset, batch, as_of + timedelta(hours=1)).gone
        cursor.execute(
            "UPDATE data.station_hourly SET gone = true WHERE station = %s AND ts = %s",
            (north, END - timedelta(hours=1)),
        )
        cursor.execute("UPDATE data.station_hourly SET temperature = 99 WHERE station = %s", (STATIONS[3],))
    again = score(stations.specs, stations.model, as_of + timedelta(hours=2), "score/2")
    assert again.rows == 0
    found = ask(stations, [{"station": s} for s in STATIONS])
    assert found == ask(stations, [{"station": s} for s in STATIONS], way="query")
    assert [f and f.event_time for f in found] == [
        END - timedelta(hours=2), END - timedelta(hours=12), None, END - timedelta(hours=4),
    ]  # fmt: skip
    assert found[3] is not None
    assert found[3].features["temperature"] == 99.0


def test_numbers_come_out_of_json_as_they_went_in(stations: World) -> None:
    odd = [
        0.1 + 0.2,
        5e-324,
        1.7976931348623157e308,
        -1e-310,
        1e22,
        2.0**53 + 2,
        -0.0,
        0.0,
        float("nan"),
        float("inf"),
        float("-inf"),
        1 / 3,
    ]
    names = [f"odd {n}" for n in range(len(odd))]
    with connect() as conn, conn.cursor() as cursor:
        for name, value in zip(names, odd, strict=True):
            cursor.execute(
                "INSERT INTO data.station_hourly (station, ts, holiday, weather, temperature, price, _arrived_at, _batch)"
                " VALUES (%s, %s, false, %s, %s, %s, %s, 1)",
                (name, END, f'\\n\t"{name}"\n', repr(value), repr(-value), END),
            )  # fmt: skip
    score(stations.specs, stations.model, END + timedelta(hours=1), "score/1")
    keys = [{"station": n} for n in names]
    found = ask(stations, keys)
    for column, sign in (("temperature", 1), ("price", -1)):
        values = np.array([f.features[column] for f in found if f], np.float64)
        wanted = sign * np.array(odd)
        assert (values == wanted)[~np.isnan(wanted)].all()
        assert (np.isnan(values) == np.isnan(wanted)).all()
        query = [f.features[column] for f in ask(stations, keys, way="query") if f]
        assert values.tobytes() == np.array(query).tobytes()
        assert (np.signbit(values) == np.signbit(wanted))[~np.isnan(wanted)].all()
    assert [f.features["weather"] for f in found if f] == [f'\\n\t"{n}"\n' for n in names]
    by_key = {r["key"]: r["prediction"] for r in served()}
    assert predicted(stations, found).tolist() == [by_key[f.key] for f in found if f]


def test_the_features_of_the_champion_and_of_the_next_one_are_kept(stations: World, change: Any) -> None:
    content = stations.model.features.model_dump()
    fewer = change(stations.model, features={"numeric": [n for n in content["numeric"] if n != "humidity"] + ["double"]},
                   query=stations.model.query.replace("    humidity,", "    humidity, humidity * 2 AS double,"))  # fmt: skip
    score(stations.specs, fewer, END, "score/1")
    features = kept()["north"]["features"]
    assert features["double"] == 2 * features["humidity"]
    assert set(features) == {*stations.model.features.all, "double"}
    more = change(stations.model, features={"numeric": [*content["numeric"], "half"]},
                  query=stations.model.query.replace("    humidity,", "    humidity, humidity / 2 AS half,"))  # fmt: skip
    with pytest.raises(TerminalError, match=r"do not have what is needed .* Run score__stations") as caught:
        ask(stations, [{"station": "north"}], model=more)
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_two_newest_rows_of_an_entity_are_an_error(stations: World) -> None:
    doubled = stations.model.model_copy(
        update={"query": stations.model.query + " CROSS JOIN (VALUES (1), (2)) AS v (n)"}
    )
    as_of = datetime.now(UTC)
    with connect() as conn, views.reading(stations.specs, doubled, as_of) as reader:
        types = feature_query.types(reader)
        with pytest.raises(TerminalError, match="newest row of an entity more than once"):
            newest.keep(conn, reader, doubled, doubled, types, as_of)
    assert kept() == {}


def test_a_line_is_what_copy_reads() -> None:
    model = ModelSpec.model_validate({
        "name": "m", "task": "regression", "datasets": ["d"], "key": ["a", "ts"], "event_time": "ts", "label": {"column": "y"},
        "features": {"numeric": ["x"], "categorical": ["k"]}, "query": "SELECT 1",
    })  # fmt: skip
    schema = [
        ("_entity", pa.string()),
        *((f.name, f.type) for f in arrow.feature_schema(model) if f.name not in ("_hash", "_label")),
    ]
    batch = pa.RecordBatch.from_pylist(
        [{"_entity": '["a\\n"]', "_key": '["a\\n", "t"]', "_time": START, "x": -0.0, "k": "tab\there"}],
        pa.schema(schema),
    )
    assert list(newest.lines(model, batch)) == [
        '["a\\\\n"]\t["a\\\\n", "t"]\t2025-03-03T00:00:00+00:00\t{"x": "-0", "k": "tab\\\\there"}\n'
    ]
