"""As-of views, the feature query's check, snapshots: what was known then, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pyarrow.parquet as pq
import pytest

from evergreen.errors import TerminalError, TransientError
from evergreen.spec import Specs, load_specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import arrow, feature_query, snapshot, views
from evergreen.warehouse.migrate import ensure_dataset, migrate

REPOSITORY = Path(__file__).resolve().parents[3]
START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def specs() -> Specs:
    return load_specs(REPOSITORY / "include")


@pytest.fixture
def landed(conn: Connection, specs: Specs) -> Connection:
    """A month of hours, each arrived one hour after it happened."""
    for dataset in specs.datasets.values():
        ensure_dataset(conn, dataset)
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.bike_hourly SELECT t, false, true, 'clear', 10, 50, 3, 1, extract(hour FROM t), t + interval '1h', 1"
            " FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1h', '1h') AS t",
            (START, END),
        )
    conn.commit()
    return conn


def correct(conn: Connection, at: datetime, arrived: datetime, demand: int) -> None:
    """Publish a correction of one row, as ingest does."""
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.bike_hourly__history SELECT *, %s FROM data.bike_hourly WHERE ts = %s",
            (arrived, at),
        )
        cursor.execute(
            "UPDATE data.bike_hourly SET demand = %s, _arrived_at = %s WHERE ts = %s", (demand, arrived, at)
        )
    conn.commit()


def test_a_later_correction_does_not_leak_into_an_earlier_as_of(
    landed: Connection, specs: Specs, tmp_path: Path
) -> None:
    model, as_of = specs.models["bike_demand"], START + timedelta(days=20)
    before = snapshot.take(specs, model, as_of, tmp_path)
    correct(landed, START + timedelta(days=3), as_of + timedelta(hours=1), 9999)
    assert snapshot.take(specs, model, as_of, tmp_path) == before
    later = snapshot.take(specs, model, as_of + timedelta(hours=1), tmp_path)
    assert later.fingerprint != before.fingerprint
    assert max(pq.read_table(later.path).column("_label").to_pylist()) == 9999


def test_rows_that_had_not_arrived_are_not_there(landed: Connection, specs: Specs, tmp_path: Path) -> None:
    as_of = START + timedelta(days=10)
    taken = snapshot.take(specs, specs.models["bike_demand"], as_of, tmp_path)
    times = pq.read_table(taken.path).column("_time").to_pylist()
    assert max(times) == as_of - timedelta(hours=1)
    assert taken.rows == 240


def test_immature_labels_are_left_out(landed: Connection, specs: Specs, tmp_path: Path) -> None:
    model = specs.models["bike_demand"]
    late = model.model_copy(update={"label": model.label.model_copy(update={"delay": timedelta(days=2)})})
    as_of = START + timedelta(days=10)
    times = pq.read_table(snapshot.take(specs, late, as_of, tmp_path).path).column("_time").to_pylist()
    assert max(times) == as_of - timedelta(days=2)


def test_no_row_stops_with_a_reason_and_leaves_no_file(
    conn: Connection, specs: Specs, tmp_path: Path
) -> None:
    with pytest.raises(TerminalError, match="no row with a mature label") as caught:
        snapshot.take(specs, specs.models["bike_demand"], START, tmp_path)
    assert caught.value.reason.value == "no_rows"
    assert list(tmp_path.rglob("*.part")) == list(tmp_path.rglob("*.parquet")) == []


def test_odd_values_survive_the_way_to_arrow(landed: Connection, specs: Specs) -> None:
    odd = 'a "quoted",\nnew line'
    with landed.cursor() as cursor:
        cursor.execute(
            "UPDATE data.bike_hourly SET weather = %s, temperature = 'NaN', humidity = NULL WHERE ts = %s",
            (odd, START),
        )
        cursor.execute(
            "UPDATE data.bike_hourly SET weather = '', temperature = 'infinity' WHERE ts = %s",
            (START + timedelta(hours=1),),
        )
    landed.commit()
    model = specs.models["bike_demand"]
    query = feature_query.feature_query(model, START, START + timedelta(hours=3))
    with views.reading(specs, model, END) as reader:
        first, second, third = reader.table(query, arrow.feature_schema(model)).to_pylist()
    assert first["weather"] == odd
    assert first["temperature"] != first["temperature"]
    assert first["humidity"] is None
    assert second["weather"] == ""
    assert second["temperature"] == float("inf")
    assert third["_time"] == START + timedelta(hours=2)


def test_a_percent_sign_in_the_query_stands_for_itself(landed: Connection, specs: Specs) -> None:
    model = specs.models["bike_demand"]
    model = model.model_copy(
        update={"query": model.query + " WHERE weather LIKE 'cl%' AND extract(hour FROM ts)::int % 2 = 0"}
    )
    query = feature_query.feature_query(model, START, START + timedelta(hours=4))
    with views.reading(specs, model, END) as reader:
        assert reader.table(query, arrow.feature_schema(model)).num_rows == 2


QUERY_MISTAKES = {
    "syntax": ("SELECT\n", "SELEKT\n", "does not run: syntax error"),
    "unknown-column": ("humidity,", "humidty,", 'does not run: column "humidty" does not exist'),
    "unknown-table": ("FROM bike_hourly", "FROM bikes", 'does not run: relation "bikes" does not exist'),
    "missing-feature": ("    price,\n", "", "the query returns no such column"),
    "text-feature": ("    humidity,", "    humidity::text AS humidity,", "has type text; cast it"),
    "boolean-feature": ("    humidity,", "    holiday AS humidity,", "is a boolean; write humidity::int"),
}


@pytest.mark.parametrize(("old", "new", "message"), QUERY_MISTAKES.values(), ids=QUERY_MISTAKES.keys())
def test_query_mistakes_are_found_without_data(
    conn: Connection, specs: Specs, old: str, new: str, message: str
) -> None:
    model = specs.models["bike_demand"]
    assert old in model.query
    broken = model.model_copy(update={"query": model.query.replace(old, new)})
    problems = feature_query.check(specs, broken)
    assert any(message in str(p) for p in problems), [str(p) for p in problems]
    with pytest.raises(TerminalError):
        feature_query.require_valid(specs, broken)
    assert feature_query.check(specs, model) == []


def test_an_unreachable_warehouse_is_transient() -> None:
    with (
        pytest.raises(TransientError, match="does not answer"),
        connect("postgresql://nobody@127.0.0.1:1/none"),
    ):
        pass


def test_a_lost_connection_is_transient(warehouse_url: str) -> None:
    with pytest.raises(TransientError), connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_an_error_of_the_query_rolls_back(warehouse_url: str) -> None:
    with pytest.raises(psycopg2.Error), connect() as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE data.half (a int)")
        cursor.execute("SELECT 1 / 0")
    with connect() as conn:
        assert fetch(conn, "SELECT 1 AS one FROM pg_tables WHERE tablename = 'half'") == []


def test_migrating_again_changes_nothing(conn: Connection) -> None:
    migrate(conn)
    assert {r["nspname"] for r in fetch(conn, "SELECT nspname FROM pg_namespace")} >= {
        "evergreen",
        "data",
        "staging",
        "quarantine",
    }
