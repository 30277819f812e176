"""How a step ended: all that is left of it in the warehouse, in MLflow and on the disk, in a form that can be compared.

What may differ between two runs is taken out: clocks, random ids, and the gaps that a rolled back transaction leaves in
a sequence. Everything else must be the same.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

CLOCKS = frozenset(
    {"decided_at", "judged_at", "scored_at", "created_at", "sent_at", "message_id", "file_mtime_ns"}
)
_RANDOM = re.compile(r"[0-9a-f]{32}")
# A copy of a file is another one of the same content.
_OF_THE_DISK = ("file_inode", "file_ctime_ns")
# The story plays in 2024: any other year is a clock's.
_NOW = re.compile(r"20(?:2[5-9]|[3-9]\d)-\d\d-\d\d[T ][0-9:.+]+Z?")


def end(conn: Connection, folder: Path) -> dict[str, list[str]]:
    """Everything that is there, sorted, by the place where it is."""
    return {
        **dict(_tables(conn)),
        "mlflow versions": sorted(_versions(folder / "mlflow.db")),
        "mlflow runs": sorted(_runs(folder / "mlflow.db")),
        "files": sorted(_files(folder)),
    }


def differences(is_: dict[str, list[str]], should: dict[str, list[str]]) -> list[str]:
    """What is too much (+) and what is missing (-), a line each."""
    found = []
    for place in sorted({*is_, *should}):
        left, right = list(is_.get(place, [])), list(should.get(place, []))
        for line in list(left):
            if line in right:
                left.remove(line)
                right.remove(line)
        found += [f"{place}: + {line[:400]}" for line in left] + [
            f"{place}: - {line[:400]}" for line in right
        ]
    return found


def close_gaps(conn: Connection) -> None:
    """Let each sequence go on after the last number that is used, as if nothing had been rolled back."""
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE is_identity = 'YES'"
        )
        for schema, table, column in cursor.fetchall():
            cursor.execute(
                sql.SQL(
                    "SELECT setval(pg_get_serial_sequence(%s, %s), coalesce(max({c}), 0) + 1, false) FROM {t}"
                ).format(c=sql.Identifier(column), t=sql.Identifier(schema, table)),
                (f'"{schema}"."{table}"', column),
            )
    conn.commit()


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k not in _OF_THE_DISK}
    text = json.dumps(value, sort_keys=True, default=str)
    return _NOW.sub("NOW", _RANDOM.sub("RANDOM", text))


def _tables(conn: Connection) -> Iterator[tuple[str, list[str]]]:
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('evergreen', 'data', 'staging', 'quarantine')"
        )
        for schema, table in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table)))
            names = [c.name for c in cursor.description or ()]
            yield (
                f"{schema}.{table}",
                sorted(
                    _plain({n: v for n, v in zip(names, row, strict=True) if n not in CLOCKS})
                    for row in cursor.fetchall()
                ),
            )
    conn.rollback()


def _query(path: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as store:
        return store.execute(query).fetchall()


def _versions(path: Path) -> Iterator[str]:
    # MLflow keeps the rows of versions that were deleted, and gives their numbers to no other: a try that was killed after it
    # had registered its version leaves the next one the next number. So they are counted, not named.
    versions = _query(
        path,
        "SELECT name, version, current_stage, status FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
        " ORDER BY name, version",
    )
    nth = {(name, version): place for place, (name, version, *_) in enumerate(versions)}
    for name, version, *row in versions:
        yield _plain(["version", name, nth[name, version], *row])
    for name, version, *row in _query(path, "SELECT name, version, key, value FROM model_version_tags"):
        # MLflow leaves the tags of a version that was deleted in its tables.
        if (name, version) in nth:
            yield _plain(["tag", name, nth[name, version], *row])
    for name, alias, version in _query(path, "SELECT name, alias, version FROM registered_model_aliases"):
        yield _plain(["alias", name, alias, nth.get((name, version))])


def _runs(path: Path) -> Iterator[str]:
    # Runs that were discarded are deleted: MLflow keeps them for its own garbage collection.
    runs = _query(path, "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
    for run, status in runs:
        counts = {
            table: _query(path, f"SELECT count(*) FROM {table} WHERE run_uuid = '{run}'")[0][0]
            for table in ("params", "latest_metrics")
        }
        tags = _query(
            path, f"SELECT key, value FROM tags WHERE run_uuid = '{run}' AND key LIKE 'evergreen.%'"
        )
        yield _plain([status, counts, sorted(tags)])


def _files(folder: Path) -> Iterator[str]:
    # An MLflow run that was discarded keeps its artifacts until MLflow's garbage collection.
    aside = ("landing", "mlflow.db", "artifacts")
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in aside and path.suffix != ".db-journal":
            yield _plain(str(relative))


def leftovers(folder: Path) -> list[str]:
    """Runs in MLflow that say they are running although nobody is at work."""
    return [
        f"MLflow run {name} is {status}"
        for name, status in _query(
            folder / "mlflow.db",
            "SELECT name, status FROM runs WHERE status IN ('RUNNING', 'SCHEDULED') AND lifecycle_stage = 'active'",
        )
    ]


def server(url: str) -> Connection:
    """A connection that may make and drop databases."""
    conn = psycopg2.connect(url)
    conn.autocommit = True
    return conn
