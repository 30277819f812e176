"""Features by key: the same values as the batch reads, found by an index, in time, and again after whatever happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import psycopg2.extras
import pyarrow as pa
import pytest
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.feeds import simulated
from evergreen.registry import encoding
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.features.lookup import BadKeysError, Found, Lookup
from evergreen.warehouse.migrate import ensure_dataset

REPOSITORY = Path(__file__).resolve().parents[3]
START = datetime(2025, 6, 2, tzinfo=UTC)
HOURS = 24 * 28
LONG_S = 20.0


@pytest.fixture
def specs() -> Specs:
    return load_specs(REPOSITORY / "include")


@pytest.fixture
def bikes(warehouse_url: str, specs: Specs) -> str:
    """Four weeks of the demo's simulated city, each hour arrived when it had ended; the name of their database."""
    dataset = specs.datasets["bike_hourly"]
    table = simulated.hours(START, START + timedelta(hours=HOURS), 7)[list(dataset.columns)]
    rows = [
        (*(None if v != v else v for v in row), row[0] + timedelta(hours=1), 1)
        for row in table.itertuples(index=False)
    ]
    with connect() as conn, conn.cursor() as cursor:
        ensure_dataset(conn, dataset)
        psycopg2.extras.execute_values(cursor, "INSERT INTO data.bike_hourly VALUES %s", rows, page_size=1000)
    return warehouse_url.rpartition("/")[2]


@pytest.fixture
def asking() -> Iterator[Callable[..., Lookup]]:
    """Make lookups that are closed at the end."""
    made: list[Lookup] = []

    def make(specs: Specs, model: ModelSpec, **more: Any) -> Lookup:
        made.append(Lookup(specs, model, **more))
        return made[-1]

    yield make
    for lookup in made:
        lookup.close()


def hour(n: int) -> dict[str, str]:
    return {"ts": (START + timedelta(hours=n)).isoformat().replace("+00:00", "Z")}


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


# ------------------------------------------------------------------ how it is found, and how long that takes


@pytest.fixture
def large(conn: Connection) -> Specs:
    """200 stations with 1,000 hours each."""
    specs = stations()
    land(conn, specs, [])
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.station_hourly (station, ts, x, kind, demand, _arrived_at, _batch)"
            " SELECT 's' || s, %s + h * interval '1h', s + h / 1000.0, 'dry', 1, %s + h * interval '1h', 1"
            " FROM generate_series(1, 200) AS s, generate_series(0, 999) AS h",
            (START, START),
        )
    conn.commit()
    with conn.cursor() as cursor:
        cursor.execute("ANALYZE data.station_hourly")
    conn.commit()
    return specs


def plan(lookup: Lookup, statement: str, *arrays: str) -> str:
    """The plan of a prepared statement, on the connection that has it."""
    slot = lookup._idle.queue[-1]
    slot.connection.deadline = time.monotonic() + LONG_S
    given = sql.SQL(", ").join(map(sql.Literal, arrays))
    lines = slot.connection.fetch(sql.SQL("EXPLAIN EXECUTE {} ({})").format(sql.SQL(statement), given))
    return "\n".join(line for (line,) in lines)


def test_a_key_is_found_by_the_index_in_a_large_table(large: Specs, asking: Callable[..., Lookup]) -> None:
    lookup = asking(large, large.models["stations"], connections=1)
    lookup.prepare()
    once = {"station": "s77", "ts": (START + timedelta(hours=500)).isoformat()}
    for keys in ([once], [{"station": "s77"}]):
        took = []
        # Custom plans first, then the generic one.
        for _ in range(20):
            begin = time.perf_counter()
            (found,) = lookup.rows(keys, timeout_s=LONG_S)
            took.append(time.perf_counter() - begin)
            assert found is not None
        assert sorted(took)[10] < 0.02, "reading the whole table takes longer"
    for shown in (
        plan(lookup, "evergreen_exact", "{s77}", f"{{{once['ts']}}}"),
        plan(lookup, "evergreen_newest", "{s77}"),
    ):
        assert "station_hourly_pkey" in shown
        assert "Seq Scan" not in shown
        assert "history" not in shown
    stepwise = changed(
        large,
        query="SELECT station, ts, avg(x) OVER (PARTITION BY station ORDER BY ts ROWS 5 PRECEDING) AS x, kind, demand FROM station_hourly",
    )
    lookup = asking(large, stepwise, connections=1)
    assert lookup.rows([once], timeout_s=LONG_S)[0] is not None
    assert "Seq Scan" not in plan(lookup, "evergreen_exact", "{s77}", f"{{{once['ts']}}}")
    assert "Seq Scan" not in plan(lookup, "evergreen_newest", "{s77}")


def test_an_expression_over_the_key_is_not(large: Specs, asking: Callable[..., Lookup]) -> None:
    hidden = changed(
        large,
        key=["code"],
        query="SELECT station || '/' || x AS code, ts, x, kind, demand FROM station_hourly",
    )
    lookup = asking(large, hidden, connections=1)
    assert lookup.rows([{"code": "s77/77.5"}], timeout_s=LONG_S)[0] is not None
    assert "Seq Scan" in plan(lookup, "evergreen_exact", "{s77/77.5}")


SLOW = "SELECT a.station, a.ts, (SELECT sum(b.x * c.x) FROM station_hourly AS b, station_hourly AS c) AS x, a.kind, a.demand FROM station_hourly AS a"


def test_what_takes_too_long_ends_in_time(large: Specs, asking: Callable[..., Lookup]) -> None:
    lookup = asking(large, changed(large, query=SLOW), connections=1)
    lookup.prepare()
    (pid,) = backends()
    for _ in range(2):
        begin = time.monotonic()
        with pytest.raises(
            TransientError, match=r"no features by key within 300 ms .* raise serving.timeout_ms"
        ) as caught:
            lookup.rows([{"station": "s1"}], timeout_s=0.3)
        assert caught.value.reason is ErrorReason.BUSY
        assert time.monotonic() - begin < 1
    assert backends() == [pid], "the connection is as good as before"
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(lookup.rows, [{"station": "s1"}], timeout_s=2)
        time.sleep(0.3)
        begin = time.monotonic()
        with pytest.raises(TransientError, match=r"within 200 ms \(every connection is busy\)"):
            lookup.rows([{"station": "s1"}], timeout_s=0.2)
        assert time.monotonic() - begin < 1
        assert isinstance(slow.exception(), TransientError)


def test_threads_share_the_connections(large: Specs, asking: Callable[..., Lookup]) -> None:
    lookup = asking(large, large.models["stations"], connections=2)

    def ask(n: int) -> bool:
        keys = [
            {"station": f"s{1 + (n + i) % 200}", "ts": (START + timedelta(hours=n)).isoformat()}
            for i in range(5)
        ]
        found = lookup.rows(keys, timeout_s=LONG_S)
        return [f and f.features["x"] for f in found] == [
            float(f"{1 + (n + i) % 200}.{n:03}") for i in range(5)
        ]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(400)))
    assert len(backends()) == 2


# ------------------------------------------------------------------ prepared once, and again when that does not hold


def backends() -> list[int]:
    """The processes of the lookups' connections, all of which must be idle, out of any transaction."""
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT pid, state, xact_start, backend_xmin FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'evergreen-lookup' ORDER BY pid",
        )
    return [
        r["pid"]
        for r in rows
        if r["state"] == "idle" and r["xact_start"] is None and r["backend_xmin"] is None
    ]


def made() -> list[int]:
    """The numbers of the views that are the feature queries of the open connections."""
    with connect() as conn:
        rows = fetch(conn, "SELECT oid::bigint FROM pg_class WHERE relname = '_features' ORDER BY oid")
    return [r["oid"] for r in rows]


def test_views_are_made_once_for_a_connection(
    bikes: str, specs: Specs, asking: Callable[..., Lookup]
) -> None:
    lookup = asking(specs, specs.models["bike_demand"])
    lookup.prepare()
    views_before, backends_before = made(), backends()
    for n in range(20):
        assert lookup.rows([hour(n)], timeout_s=LONG_S)[0] is not None
    lookup.follow(
        load_specs(REPOSITORY / "include"), load_specs(REPOSITORY / "include").models["bike_demand"]
    )
    lookup.prepare()
    assert (made(), backends()) == (views_before, backends_before)
    assert len(views_before) == len(backends_before) == 2
    lookup.close()
    assert backends() == []
    with pytest.raises(TransientError, match="are closed"):
        lookup.rows([hour(1)], timeout_s=LONG_S)


def test_a_lost_connection_is_made_again(bikes: str, specs: Specs, asking: Callable[..., Lookup]) -> None:
    lookup = asking(specs, specs.models["bike_demand"])
    lookup.prepare()
    before = backends()
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", (before,))
    assert lookup.rows([hour(3)], timeout_s=LONG_S)[0] is not None
    lookup.prepare()
    assert len(backends()) == 2
    assert not set(backends()) & set(before)


def test_a_warehouse_that_is_away_is_told_at_once_and_used_when_it_is_back(
    bikes: str,
    specs: Specs,
    asking: Callable[..., Lookup],
    monkeypatch: pytest.MonkeyPatch,
    administrator: Connection,
) -> None:
    lookup = asking(specs, specs.models["bike_demand"])
    assert lookup.rows([hour(3)], timeout_s=LONG_S)[0] is not None
    with administrator.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {bikes} WITH ALLOW_CONNECTIONS false")
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (bikes,)
        )
        begin = time.monotonic()
        for _ in range(3):
            with pytest.raises(TransientError, match="does not answer") as caught:
                lookup.rows([hour(3)], timeout_s=LONG_S)
            assert caught.value.reason is ErrorReason.UNREACHABLE
        url = os.environ["EVERGREEN_WAREHOUSE_URL"]
        monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/none")
        with pytest.raises(TransientError, match="refused"):
            lookup.rows([hour(3)], timeout_s=LONG_S)
        assert time.monotonic() - begin < 2
        cursor.execute(f"ALTER DATABASE {bikes} WITH ALLOW_CONNECTIONS true")
        monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    assert lookup.rows([hour(3)], timeout_s=LONG_S)[0] is not None


def test_a_server_that_hangs_holds_nobody_up(bikes: str, specs: Specs, asking: Callable[..., Lookup]) -> None:
    lookup = asking(specs, specs.models["bike_demand"], connections=1)
    lookup.prepare()
    (pid,) = backends()
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(TransientError) as caught:
            lookup.rows([hour(3)], timeout_s=0.3)
        assert caught.value.reason is ErrorReason.BUSY
        assert time.monotonic() - begin < 1
        assert lookup.rows([hour(3)], timeout_s=LONG_S)[0] is not None, "on another connection"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_column_that_a_dataset_gains_is_seen(conn: Connection, asking: Callable[..., Lookup]) -> None:
    before, after = stations(), stations(more=True)
    lookup = asking(after, after.models["stations"])
    key = {"station": "a"}
    assert lookup.rows([key], timeout_s=LONG_S) == [None], "nothing has landed yet"
    land(conn, before, [("a", START, 1.0, "dry")])
    (found,) = lookup.rows([key], timeout_s=LONG_S)
    assert found is not None
    assert found.features == {"x": 1.0, "more": None, "kind": "dry"}
    ensure_dataset(conn, after.datasets["station_hourly"])
    with conn.cursor() as cursor:
        cursor.execute("UPDATE data.station_hourly SET more = 5")
    conn.commit()
    (found,) = lookup.rows([key], timeout_s=LONG_S)
    assert found is not None
    assert found.features == {"x": 1.0, "more": 5.0, "kind": "dry"}


def test_tables_that_are_made_anew_are_found(conn: Connection, asking: Callable[..., Lookup]) -> None:
    specs = stations()
    land(conn, specs, [("a", START, 1.0, "dry")])
    lookup = asking(specs, specs.models["stations"])
    assert lookup.rows([{"station": "a"}], timeout_s=LONG_S)[0] is not None
    with conn.cursor() as cursor:
        cursor.execute("DROP TABLE data.station_hourly CASCADE")
    conn.commit()
    assert lookup.rows([{"station": "a"}], timeout_s=LONG_S) == [None]
    land(conn, specs, [("a", START, 7.0, "dry")])
    assert [f and f.features["x"] for f in lookup.rows([{"station": "a"}], timeout_s=LONG_S)] == [7.0]


def test_a_changed_spec_is_followed(bikes: str, specs: Specs, asking: Callable[..., Lookup]) -> None:
    model = specs.models["bike_demand"]
    lookup = asking(specs, model)
    (before,) = lookup.rows([hour(5)], timeout_s=LONG_S)
    other = model.model_copy(
        update={"query": model.query.replace("windspeed,", "windspeed + 100 AS windspeed,")}
    )
    lookup.follow(specs, other)
    (after,) = lookup.rows([hour(5)], timeout_s=LONG_S)
    assert before is not None
    assert after is not None
    assert after.features == before.features | {"windspeed": before.features["windspeed"] + 100}  # type: ignore[operator]
    lookup.follow(specs, model.seeing(["price"], ["weather"]))
    (fewer,) = lookup.rows([hour(5)], timeout_s=LONG_S)
    assert fewer is not None
    assert fewer.features == {n: before.features[n] for n in ("price", "weather")}
    lookup.follow(specs, model.seeing(["price", "snow"], ["hour"]))
    with pytest.raises(
        TerminalError, match=r"need snow \(snow: the feature query does not return it now\)"
    ) as caught:
        lookup.rows([hour(5)], timeout_s=LONG_S)
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    lookup.follow(specs, model)
    assert lookup.rows([hour(5)], timeout_s=LONG_S) == [before]


# ------------------------------------------------------------------ a dataset and a model of many entities


def stations(*, gone: bool = False, more: bool = False) -> Specs:
    """Hours of stations, and a model on them whose key is a station and its hour."""
    columns: dict[str, Mapping[str, object]] = {
        "station": {"type": "text"}, "ts": {"type": "timestamp"}, "x": {"type": "float"}, "kind": {"type": "category"},
        "demand": {"type": "float", "required": False},
    }  # fmt: skip
    if gone:
        columns["gone"] = {"type": "boolean", "required": False}
    if more:
        columns["more"] = {"type": "float", "required": False}
    dataset = DatasetSpec.model_validate({
        "name": "station_hourly", "key": ["station", "ts"], "event_time": "ts", "columns": columns, **({"deleted": "gone"} if gone else {}),
    })  # fmt: skip
    numeric = ["x", "more"] if more else ["x"]
    model = ModelSpec.model_validate({
        "name": "stations", "task": "regression", "datasets": ["station_hourly"], "key": ["station", "ts"], "event_time": "ts",
        "label": {"column": "demand"}, "features": {"numeric": numeric, "categorical": ["kind"]},
        "query": f"SELECT station, ts, {', '.join(numeric)}, kind, demand FROM station_hourly",
    })  # fmt: skip
    return Specs({dataset.name: dataset}, {model.name: model})


def land(conn: Connection, specs: Specs, rows: list[tuple[str, datetime, float, str]]) -> None:
    """Publish rows, each arrived at its event time."""
    ensure_dataset(conn, specs.datasets["station_hourly"])
    with conn.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO data.station_hourly (station, ts, x, kind, demand, _arrived_at, _batch) VALUES %s",
            [(*row, 1.0, row[1], 1) for row in rows],
        )
    conn.commit()


def changed(specs: Specs, **changes: Any) -> ModelSpec:
    return ModelSpec.model_validate({**specs.models["stations"].model_dump(), **changes})
