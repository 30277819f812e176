"""Hours of stations, many entities, and what tests of features by key ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2.extras

from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import ensure_dataset

START = datetime(2025, 6, 2, tzinfo=UTC)
HOURS = 24 * 28
LONG_S = 20.0


def hour(n: int) -> dict[str, str]:
    return {"ts": (START + timedelta(hours=n)).isoformat().replace("+00:00", "Z")}


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
