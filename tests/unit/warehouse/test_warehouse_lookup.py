"""Features by key: are they the values that the batch reads, one answer for each key, whatever is asked?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lookup_scene import HOURS, LONG_S, START, changed, hour, land, stations

from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry import encoding
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.features.lookup import BadKeysError, Found, Lookup


def batch(specs: Specs, model: ModelSpec) -> pa.Table:
    """The rows as the batch scorer reads them, as of now."""
    with views.reading(specs, model, datetime.now(UTC)) as reader:
        return reader.table(feature_query.feature_query(model, None, None), arrow.feature_schema(model))


def as_table(model: ModelSpec, found: list[Found]) -> pa.Table:
    return pa.table(
        {n: pa.array([f.features[n] for f in found], pa.float64()) for n in model.features.numeric}
        | {n: pa.array([f.features[n] for f in found], pa.string()) for n in model.features.categorical}
    )


def test_the_features_are_those_of_the_batch_bit_for_bit(
    bikes: str, specs: Specs, asking: Callable[..., Lookup]
) -> None:
    odd = [
        "NaN",
        "Infinity",
        "-Infinity",
        "-0",
        "1e-310",
        "1e39",
        "0.30000000000000004",
        "1.7976931348623157e308",
        "5e-324",
        "0.1",
    ]
    with connect() as conn, conn.cursor() as cursor:
        for n, value in enumerate(odd):
            cursor.execute(
                "UPDATE data.bike_hourly SET temperature = %s, humidity = NULL WHERE ts = %s",
                (value, START + timedelta(hours=n)),
            )
        for n, text in enumerate(("", 'a "quoted",\nnew\tline \\', "ä€", "NULL", "{}")):
            cursor.execute(
                "UPDATE data.bike_hourly SET weather = %s WHERE ts = %s", (text, START + timedelta(hours=n))
            )
    for name in ("bike_demand", "bike_rush"):
        model = specs.models[name]
        wanted = batch(specs, model)
        keys = [{"ts": at.isoformat()} for at in wanted["_time"].to_pylist()]
        found = asking(specs, model).rows(keys[::-1], timeout_s=LONG_S)[::-1]
        assert None not in found
        assert [f.key for f in found] == wanted["_key"].to_pylist()
        assert [f.event_time for f in found] == wanted["_time"].to_pylist()
        for n in model.features.numeric:
            bits = np.array([np.nan if f.features[n] is None else f.features[n] for f in found]).view(
                np.int64
            )
            assert (bits == wanted[n].to_numpy().view(np.int64)).all() or n == "humidity", n
            assert [f.features[n] is None for f in found] == wanted[n].is_null().to_pylist()
        known = encoding.survey(model, wanted.to_batches()).encoding
        mine, theirs = encoding.encode(known, as_table(model, found)), encoding.encode(known, wanted)
        assert mine.matrix.tobytes() == theirs.matrix.tobytes()
        assert (mine.unseen, mine.infinite) == (theirs.unseen, theirs.infinite)
    assert len(wanted) < HOURS, "the rush hours of the first day are none, and no row of the query"


def test_one_answer_for_each_key_in_order(bikes: str, specs: Specs, asking: Callable[..., Lookup]) -> None:
    # What a text means, and how a number is written, does not depend on the server's settings.
    with connect() as conn, conn.cursor() as cursor:
        for setting in ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'SQL, DMY'", "extra_float_digits = -15"):
            cursor.execute(f"ALTER DATABASE {bikes} SET {setting}")
    lookup = asking(specs, specs.models["bike_demand"])
    assert lookup.rows([], timeout_s=LONG_S) == []
    nowhere = {"ts": "2031-01-01T00:00:00Z"}
    # The same moment, however it is written; without a zone it is UTC.
    written = [
        {"ts": t} for t in ("2025-06-02 13:00", "2025-06-02T15:00:00+02:00", "2025-06-02T13:00:00.000Z")
    ]
    found = lookup.rows([hour(13), nowhere, hour(2), *written, hour(13)], timeout_s=LONG_S)
    assert [f and f.features["hour"] for f in found] == [13.0, None, 2.0, 13.0, 13.0, 13.0, 13.0]
    assert found[0] == found[3] == found[4] == found[5]
    assert found[0] is not None
    assert (found[0].key, found[0].event_time) == (
        '["2025-06-02T13:00:00+00:00"]',
        START + timedelta(hours=13),
    )


def test_what_is_no_key_is_told_all_at_once_and_harms_nothing(
    bikes: str, specs: Specs, asking: Callable[..., Lookup]
) -> None:
    lookup = asking(specs, specs.models["bike_demand"], connections=1)
    before = lookup.rows([hour(1)], timeout_s=LONG_S)
    wrong: list[Any] = [
        hour(1), {"ts": None}, {"ts": ["x"]}, {}, {"tz": 1, "ts": "2025-06-02"}, "text", {"ts": "a\0b"}, {"ts": "\ud800"}, {"ts": 10**5000},
    ]  # fmt: skip
    with pytest.raises(BadKeysError) as caught:
        lookup.rows(wrong, timeout_s=LONG_S)
    assert [(p.position, p.column) for p in caught.value.problems] == [
        (1, "ts"), (2, "ts"), (3, "ts"), (4, "tz"), (5, ""), (6, "ts"), (7, "ts"), (8, "ts"),
    ]  # fmt: skip
    assert caught.value.problems[3].message == "is no key column; the key of bike_demand is ts"
    texts = [
        "yesterdayish",
        "2025-13-01",
        True,
        17.5,
        "'; DROP TABLE data.bike_hourly; --",
        "\\",
        '"',
        "{",
        "300000-01-01",
        "x" * 100_000,
    ]
    with pytest.raises(BadKeysError) as caught:
        lookup.rows([hour(2), *({"ts": t} for t in texts), hour(3)], timeout_s=LONG_S)
    assert [p.position for p in caught.value.problems] == list(range(1, 11))
    assert caught.value.problems[0].message == (
        'is no timestamp with time zone: invalid input syntax for type timestamp with time zone: "yesterdayish"'
    )
    assert lookup.rows([hour(1)], timeout_s=LONG_S) == before


def test_only_what_is_known_now_is_seen(conn: Connection, asking: Callable[..., Lookup]) -> None:
    specs = stations(gone=True)
    now = datetime.now(UTC)
    land(
        conn,
        specs,
        [
            ("a", START, 1.0, "dry"),
            ("a", START + timedelta(hours=1), 2.0, "wet"),
            ("b", START, 3.0, "dry"),
            ("c", START, 4.0, "dry"),
        ],
    )
    with conn.cursor() as cursor:
        cursor.execute("UPDATE data.station_hourly SET gone = true WHERE station = 'b'")
        cursor.execute(
            "UPDATE data.station_hourly SET _arrived_at = %s WHERE station = 'c'", (now + timedelta(hours=1),)
        )
        cursor.execute(
            "INSERT INTO data.station_hourly__history SELECT *, %s FROM data.station_hourly WHERE station = 'a'",
            (now,),
        )
        cursor.execute("DELETE FROM data.station_hourly WHERE station = 'a' AND ts > %s", (START,))
    conn.commit()
    lookup = asking(specs, specs.models["stations"])
    keys = [{"station": s, "ts": START.isoformat()} for s in "abc"] + [{"station": s} for s in "abc"]
    found = lookup.rows(keys, timeout_s=LONG_S)
    assert [f and f.features["x"] for f in found] == [1.0, None, None, 1.0, None, None]


def test_a_key_without_its_event_time_is_the_newest_row(
    conn: Connection, asking: Callable[..., Lookup]
) -> None:
    specs = stations()
    hours = [START + timedelta(hours=n) for n in range(5)]
    land(conn, specs, [(s, t, n + 10.0 * k, "dry") for k, s in enumerate("ab") for n, t in enumerate(hours)])
    lookup = asking(specs, specs.models["stations"])
    keys: list[dict[str, Any]] = [
        {"station": "b"}, {"station": "a", "ts": hours[2].isoformat()}, {"station": "no"}, {"station": "a"}, {"station": "b", "ts": "2020-01-01"},
    ]  # fmt: skip
    found = lookup.rows(keys, timeout_s=LONG_S)
    assert [f and (f.key, f.features["x"]) for f in found] == [
        ('["b", "2025-06-02T04:00:00+00:00"]', 14.0), ('["a", "2025-06-02T02:00:00+00:00"]', 2.0), None,
        ('["a", "2025-06-02T04:00:00+00:00"]', 4.0), None,
    ]  # fmt: skip
    with pytest.raises(
        BadKeysError,
        match="is missing; the key of stations is station, ts; without ts the newest row is meant",
    ):
        lookup.rows([{"ts": "2020-01-01"}], timeout_s=LONG_S)


def test_keys_of_many_combinations_each_get_their_row(
    conn: Connection, asking: Callable[..., Lookup]
) -> None:
    specs = stations()
    names = [f"s{n}" for n in range(60)]
    land(
        conn,
        specs,
        [
            (s, START + timedelta(hours=n), 100.0 * k + n, "dry")
            for k, s in enumerate(names)
            for n in range(60)
        ],
    )
    keys = [
        {"station": f"s{n * 7 % 60}", "ts": (START + timedelta(hours=n * 11 % 60)).isoformat()}
        for n in range(60)
    ]
    found = asking(specs, specs.models["stations"]).rows(keys, timeout_s=LONG_S)
    assert [f and f.features["x"] for f in found] == [100.0 * (n * 7 % 60) + n * 11 % 60 for n in range(60)]


TYPES = {
    "bigint": ("ts_n::bigint", 17, 18),
    "numeric": ("(ts_n + 0.50)::numeric(9, 2)", 17.5, "18.500"),
    "double precision": ("ts_n / 10.0::float8", 1.7, "1.80"),
    "boolean": ("ts_n = 17", True, None),
    "date": ("date '2025-01-01' + ts_n", "2025-01-18", "2025-01-19"),
    "character": ("rpad('k' || ts_n, 6)::character(6)", "k17", "k18   "),
    "varchar": ("('k' || ts_n)::varchar(9)", "k17", "k18"),
    "enum": ("('k' || ts_n)::public.kinds", "k17", "k18"),
}


@pytest.mark.parametrize(("expression", "first", "second"), TYPES.values(), ids=TYPES.keys())
def test_keys_of_every_type(
    conn: Connection, asking: Callable[..., Lookup], expression: str, first: object, second: object
) -> None:
    specs = stations()
    land(conn, specs, [("a", START, 17.0, "dry"), ("b", START, 18.0, "dry")])
    with conn.cursor() as cursor:
        cursor.execute("CREATE TYPE public.kinds AS ENUM ('k17', 'k18')")
    conn.commit()
    query = f"SELECT {expression} AS n, ts, x, kind, demand FROM (SELECT *, x::int AS ts_n FROM station_hourly) AS q"
    model = changed(specs, key=["n"], query=query)
    wanted = dict(zip(*(batch(specs, model)[c].to_pylist() for c in ("x", "_key")), strict=True))
    found = asking(specs, model).rows([{"n": first}] + ([{"n": second}] if second else []), timeout_s=LONG_S)
    assert [f and (f.features["x"], f.key) for f in found] == [
        (n, wanted[n]) for n in (17.0, 18.0)[: len(found)]
    ]


def test_two_rows_for_one_key_are_an_error(conn: Connection, asking: Callable[..., Lookup]) -> None:
    specs = stations()
    land(conn, specs, [("a", START, 1.0, "dry"), ("b", START, 2.0, "dry")])
    doubled = changed(
        specs, query="SELECT s.* FROM station_hourly AS s CROSS JOIN (VALUES (1), (2)) AS v (n)"
    )
    lookup = asking(specs, doubled)
    for key in ({"station": "a", "ts": START.isoformat()}, {"station": "a"}):
        with pytest.raises(TerminalError, match=r'returns the key \["a", .* more than once') as caught:
            lookup.rows([key], timeout_s=LONG_S)
        assert caught.value.reason is ErrorReason.BAD_QUERY


def test_a_query_that_fails_on_a_row_is_told_and_no_fault_of_the_key(
    conn: Connection, asking: Callable[..., Lookup]
) -> None:
    specs = stations()
    land(conn, specs, [("a", START, 0.0, "dry"), ("b", START, 2.0, "dry")])
    lookup = asking(
        specs, changed(specs, query="SELECT station, ts, 1 / x AS x, kind, demand FROM station_hourly")
    )
    with pytest.raises(TerminalError, match="division by zero") as caught:
        lookup.rows([{"station": "a"}], timeout_s=LONG_S)
    assert caught.value.reason is ErrorReason.BAD_QUERY
    assert [f and f.features["x"] for f in lookup.rows([{"station": "b"}], timeout_s=LONG_S)] == [0.5]
