"""A small dataset of sensor readings, and ways to land files of it and to look at what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.validation.ingest import ingest
from evergreen.validation.outcome import BatchOutcome
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features.views import as_known
from evergreen.warehouse.migrate import ensure_dataset

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
HEADER = ("at", "sensor", "value", "count", "ok", "kind")

Row = dict[str, Any]


def reading(hour: int = 0, **other: Any) -> Row:
    """A good row, an hour for each number."""
    row: Row = {
        "at": (datetime(2024, 2, 1, tzinfo=UTC) + timedelta(hours=hour)).isoformat(),
        "sensor": "a",
        "value": 1.5,
        "count": 3,
        "ok": "true",
        "kind": "cold",
    }
    return {**row, **other}


def spec(**changes: Any) -> DatasetSpec:
    """The dataset, with other fields than usual."""
    columns = {
        "at": {"type": "timestamp"},
        "sensor": {"type": "text"},
        "value": {"type": "float", "required": False, "min": -100, "max": 100},
        "count": {"type": "integer", "required": False},
        "ok": {"type": "boolean"},
        "kind": {"type": "category", "values": ["cold", "it's hot", "100%"], "required": False},
        **changes.pop("columns", {}),
    }
    content = {"name": "readings", "key": ["at", "sensor"], "event_time": "at", "columns": columns}
    return DatasetSpec.model_validate({**content, **changes})


@dataclass
class Room:
    """A landing folder and its warehouse."""

    folder: Path
    runs: int = field(default=0)

    def land(self, name: str, content: Iterable[Row] | str | bytes, header: Iterable[str] = HEADER) -> Path:
        """Write a file: rows as CSV, or the content as it is."""
        path = self.folder / name
        if not isinstance(content, (str, bytes)):
            lines = [header, *([row[c] for c in header] for row in content)]
            content = "".join(",".join("" if v is None else str(v) for v in line) + "\n" for line in lines)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self, dataset: DatasetSpec, as_of: datetime = AS_OF, **other: Any) -> list[BatchOutcome]:
        """Ingest as a run of its own, an hour after the files were written unless a time is given."""
        self.runs += 1
        other.setdefault("now", datetime.now(UTC) + timedelta(hours=1))
        return ingest(dataset, as_of, other.pop("run_id", f"ingest/{self.runs}"), folder=self.folder, **other)

    def one(self, dataset: DatasetSpec, as_of: datetime = AS_OF, **other: Any) -> BatchOutcome:
        """Ingest and return the only outcome."""
        outcomes = self.ingest(dataset, as_of, **other)
        assert len(outcomes) == 1
        return outcomes[0]

    def rows(self, query: str) -> list[Row]:
        """The result of a query."""
        with connect() as conn:
            return fetch(conn, query)

    def seen(self, dataset: DatasetSpec, as_of: datetime) -> set[tuple[Any, ...]]:
        """The rows of the dataset as they were known at a time."""
        with connect() as conn:
            ensure_dataset(conn, dataset)
            known, name = as_known([dataset], as_of), sql.Identifier(dataset.name)
            rows = fetch(conn, sql.SQL("{}SELECT * FROM {}").format(known, name))
        seen = [tuple(row[c] for c in dataset.columns) for row in rows]
        assert len(seen) == len(set(seen))
        return set(seen)

    def published(self) -> int:
        """How many rows are in the dataset's table; 0 if there is none."""
        there = self.rows("SELECT to_regclass('data.readings') AS t")[0]["t"]
        return self.rows("SELECT count(*) AS n FROM data.readings")[0]["n"] if there else 0

    def staging(self) -> list[str]:
        """The tables in the schema staging."""
        return [
            r["tablename"] for r in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'")
        ]


def empty(url: str) -> None:
    """Empty a warehouse."""
    with connect(url) as conn, conn.cursor() as cursor:
        # The ledger refuses to be emptied, as it should; only a superuser's replica gets around that.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "TRUNCATE evergreen.decision, evergreen.batch, evergreen.mail RESTART IDENTITY CASCADE"
        )
        cursor.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
                       " WHERE schemaname IN ('data', 'staging', 'quarantine')")  # fmt: skip
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {name}")
