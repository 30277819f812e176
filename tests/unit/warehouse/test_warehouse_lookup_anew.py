"""Features by key: is what was prepared once used again, and made anew when it does not hold any more?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lookup_scene import LONG_S, START, backends, hour, land, stations

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.spec import Specs, load_specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features.lookup import Lookup
from evergreen.warehouse.migrate import ensure_dataset

REPOSITORY = Path(__file__).resolve().parents[3]


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
