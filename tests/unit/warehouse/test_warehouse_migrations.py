"""Migrations: each is applied once and whole, in its order, by one process; a warehouse that this release cannot know is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import migrate
from evergreen.warehouse.schema_versions import Migration, known

FOLDER = Path(__file__).resolve().parents[3] / "include" / "evergreen" / "warehouse" / "migrations"
RELEASED = Path(__file__).with_name("migrations.sha256")
NEXT = known()[-1].number + 1

# Not one of these may run twice.
FIRST = Migration(
    NEXT, f"{NEXT:04}_a", "CREATE TABLE evergreen.a (x int); INSERT INTO evergreen.a VALUES (1)"
)
SECOND = Migration(NEXT + 1, f"{NEXT + 1:04}_b", "CREATE TABLE evergreen.b AS SELECT x FROM evergreen.a")
BROKEN = Migration(
    NEXT + 1, SECOND.name, "CREATE TABLE evergreen.b (x int); SELECT 1 FROM evergreen.no_table"
)


def versions(conn: Connection) -> dict[int, str]:
    rows = fetch(conn, "SELECT version, name FROM evergreen.schema_version ORDER BY version")
    return {row["version"]: row["name"] for row in rows}


def tables(conn: Connection) -> set[str]:
    rows = fetch(
        conn, "SELECT relname FROM pg_class WHERE relnamespace = 'evergreen'::regnamespace AND relkind = 'r'"
    )
    return {row["relname"] for row in rows}


def test_the_files_are_numbered_without_a_gap() -> None:
    names = sorted(file.name for file in FOLDER.iterdir())
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names), names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1)), (
        "two branches took the same number?"
    )
    assert [f"{migration.name}.sql" for migration in known()] == names


def test_a_released_file_is_not_edited() -> None:
    recorded = dict(
        reversed(line.split()) for line in RELEASED.read_text().splitlines()
    )  # as sha256sum writes them
    found = {f"{migration.name}.sql": migration.sha256 for migration in known()}
    assert found == recorded, (
        f"a file that was merged stays as it is, and a new one gets its line in {RELEASED.name}: docs/extending.md, A migration"
    )


@pytest.mark.parametrize("migration", known(), ids=lambda migration: migration.name)
def test_a_file_does_not_end_its_transaction(migration: Migration) -> None:
    text = re.sub(r"--.*", "", migration.statements)
    assert not re.findall(
        r"(?i)\b(commit|rollback|abort|begin\s*;|start\s+transaction|concurrently|vacuum)\b", text
    )


def test_a_new_warehouse_has_had_all(conn: Connection) -> None:
    assert versions(conn) == {migration.number: migration.name for migration in known()}


def test_where_nothing_is_to_do_nothing_is_locked(conn: Connection) -> None:
    assert migrate(conn) == []
    locks = fetch(
        conn, "SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'"
    )
    assert {lock["mode"] for lock in locks} == {"AccessShareLock"}, locks


def test_each_is_a_transaction_of_its_own(warehouse_url: str) -> None:
    told = rf'{BROKEN.name} failed \(relation "evergreen.no_table" does not exist\)'
    with pytest.raises(TerminalError, match=told) as found, connect(warehouse_url) as conn:
        migrate(conn, (*known(), FIRST, BROKEN))
    assert found.value.reason is ErrorReason.BAD_MIGRATION
    with connect(warehouse_url) as conn:
        assert list(versions(conn)) == list(range(1, NEXT + 1))
        assert {"a", "b"} & tables(conn) == {"a"}
        assert migrate(conn, (*known(), FIRST, SECOND)) == [SECOND.name]
        assert fetch(conn, "SELECT x FROM evergreen.b") == [{"x": 1}]


def test_one_that_takes_long_is_not_ended(warehouse_url: str) -> None:
    slow = Migration(NEXT, "slow", "SELECT pg_sleep(2); CREATE TABLE evergreen.slow (x int)")
    with connect(warehouse_url, timeout_s=1) as conn:
        assert migrate(conn, (*known(), slow)) == ["slow"]


def test_of_two_at_once_each_file_is_applied_by_one(warehouse_url: str) -> None:
    migrations = (*known(), FIRST, SECOND)

    def one(_: int) -> list[str]:
        with connect(warehouse_url) as conn:
            return migrate(conn, migrations)

    with ThreadPoolExecutor(4) as pool:
        applied = sorted(name for names in pool.map(one, range(4)) for name in names)
    assert applied == [FIRST.name, SECOND.name]


@pytest.fixture
def killed(warehouse_url: str) -> Iterator[Connection]:
    """The warehouse after a process was killed that had applied FIRST and was in the middle of what follows it."""
    program = textwrap.dedent(f"""
        from evergreen.warehouse.connection import connect
        from evergreen.warehouse.migrate import migrate
        from evergreen.warehouse.schema_versions import Migration, known
        with connect() as conn:
            migrate(conn, (*known(), {FIRST!r},
                Migration({SECOND.number}, "middle", "CREATE TABLE evergreen.b (x int); ALTER TABLE evergreen.mail ADD COLUMN x int")))
    """)
    with closing(psycopg2.connect(warehouse_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE evergreen.mail IN ACCESS SHARE MODE")  # as a task that reads has it
        process = subprocess.Popen([sys.executable, "-c", program], env=os.environ)
        try:
            with closing(psycopg2.connect(warehouse_url)) as watching:
                watching.autocommit = True
                waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'evergreen.mail'::regclass"
                for _ in range(300):
                    if fetch(watching, waits):
                        break
                    time.sleep(0.1)
                else:
                    pytest.fail("the migration did not get to its second statement")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    with connect(warehouse_url) as conn:
        yield conn


def test_one_that_is_killed_in_the_middle_was_not_there(killed: Connection) -> None:
    # It waits for what the server does for the dead one.
    assert migrate(killed, (*known(), FIRST, SECOND)) == [SECOND.name]
    assert versions(killed)[NEXT] == FIRST.name
    columns = fetch(
        killed, "SELECT 1 FROM pg_attribute WHERE attrelid = 'evergreen.mail'::regclass AND attname = 'x'"
    )
    assert not columns
    assert fetch(killed, "SELECT x FROM evergreen.b") == [{"x": 1}]


def test_a_warehouse_of_a_newer_release_is_refused(conn: Connection) -> None:
    assert migrate(conn, (*known(), FIRST)) == [FIRST.name]
    with pytest.raises(
        TerminalError, match=rf"tables are of version {NEXT}, this release knows {NEXT - 1}\)"
    ) as found:
        migrate(conn)
    assert found.value.reason is ErrorReason.NEWER_SCHEMA


def test_a_file_that_was_edited_after_it_was_applied_is_refused(conn: Connection) -> None:
    edited = Migration(FIRST.number, FIRST.name, FIRST.statements + ";")
    migrate(conn, (*known(), FIRST))
    with pytest.raises(TerminalError, match=f"had {FIRST.name} with other statements") as found:
        migrate(conn, (*known(), edited, SECOND))
    assert found.value.reason is ErrorReason.BAD_MIGRATION
    assert "b" not in tables(conn)


@pytest.fixture
def visitor(warehouse_url: str) -> Iterator[str]:
    """The address of the warehouse for a login without any right of its own."""
    with closing(psycopg2.connect(warehouse_url)) as admin, admin, admin.cursor() as cursor:
        cursor.execute("CREATE ROLE migrations_visitor LOGIN PASSWORD 'known'")
    yield psycopg2.extensions.make_dsn(warehouse_url, user="migrations_visitor", password="known")
    with closing(psycopg2.connect(warehouse_url)) as admin, admin, admin.cursor() as cursor:
        cursor.execute("DROP OWNED BY migrations_visitor; DROP ROLE migrations_visitor")


@pytest.mark.parametrize("made", [True, False], ids=["migrated", "empty"])
def test_a_login_that_may_not_migrate_is_told_so(warehouse_url: str, visitor: str, made: bool) -> None:
    if not made:
        with connect(warehouse_url) as conn, conn.cursor() as cursor:
            cursor.execute("DROP SCHEMA evergreen CASCADE")
    told = r"migrations_visitor may not migrate the warehouse \(permission denied"
    with pytest.raises(TerminalError, match=told) as found, connect(visitor) as conn:
        migrate(conn)
    assert found.value.reason is ErrorReason.NO_ACCESS
