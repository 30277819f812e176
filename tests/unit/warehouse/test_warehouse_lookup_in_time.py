"""Features by key: are they found by an index, in time, by many at once?"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from lookup_scene import LONG_S, START, backends, changed, land, stations
from psycopg2 import sql

from evergreen.errors import ErrorReason, TransientError
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.features.lookup import Lookup


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
