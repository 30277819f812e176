"""Killed in the middle, twice at once, readers meanwhile: nothing is half published."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from psycopg2 import sql
from sleeping_insert import SLEEP, execute, napping, wait_for
from validation_room import AS_OF, Room, reading, spec

import clean_fork
from evergreen.errors import TransientError
from evergreen.validation import engine
from evergreen.validation import ingest as module
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features.views import as_known


@pytest.mark.parametrize(
    "table", ["data.readings", "evergreen.decision"], ids=["in-the-upsert", "at-the-decision"]
)
def test_killed_in_mid_publish_leaves_nothing_and_the_next_run_does_it(room: Room, table: str) -> None:
    room.land("0.csv", [reading(0, value=1)])
    room.ingest(spec())
    room.land("1.csv", [reading(0, value=2), reading(1)])
    execute(SLEEP.format(table=table))
    try:
        asked, folder = spec(), room.folder
        child = clean_fork.start(lambda: module.ingest(asked, AS_OF, "dag/killed", folder=folder))
        wait_for(lambda: napping(room) or not child.is_alive())
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert room.rows("SELECT value FROM data.readings") == [{"value": 1.0}]
        assert room.rows("SELECT count(*) AS n FROM evergreen.batch") == [{"n": 1}]
        assert len(room.staging()) == 1
        # The server notices within seconds that its client is gone; until then the table is locked.
        wait_for(lambda: not napping(room), 20)
    finally:
        execute(f"DROP TRIGGER nap ON {table}")
    outcome = room.one(spec(), run_id="dag/killed")
    assert (outcome.rows_new, outcome.rows_changed) == (1, 1)
    assert room.published() == 2
    assert room.rows("SELECT count(*) AS n FROM data.readings__history") == [{"n": 1}]
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 2}]
    assert room.staging() == []


def test_two_ingests_at_once_decide_each_file_once(room: Room) -> None:
    for index in range(3):
        room.land(f"{index}.csv", [reading(index)])
    outcomes: list[str] = []

    def run(name: str) -> None:
        outcomes.extend(o.file for o in room.ingest(spec(), run_id=name))

    threads = [threading.Thread(target=run, args=(f"dag/{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["0.csv", "1.csv", "2.csv"]
    assert room.published() == 3
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 3}]


def test_ingest_that_waits_too_long_for_another_is_transient(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    with module.alone(spec()):
        monkeypatch.setattr(module, "connect", lambda **other: Impatient(connect(**other)))
        with pytest.raises(TransientError, match="another run holds the lock"):
            room.ingest(spec())


class Impatient:
    """A connection that waits 200 ms for a lock instead of a minute."""

    def __init__(self, manager) -> None:  # type: ignore[no-untyped-def]
        self.manager = manager

    def __enter__(self):  # type: ignore[no-untyped-def]
        conn = self.manager.__enter__()
        with conn.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        conn.commit()
        return conn

    def __exit__(self, *error):  # type: ignore[no-untyped-def]
        return self.manager.__exit__(*error)


def test_long_reader_and_publishing_do_not_wait_for_each_other(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    room.land("b.csv", [reading(0, value=2), reading(1)])
    with connect() as reader:
        query = sql.SQL("{}SELECT * FROM readings").format(as_known([spec()], AS_OF))
        assert len(fetch(reader, query)) == 1
        started = time.monotonic()
        assert room.one(spec()).rows_new == 1
        assert time.monotonic() - started < 30


def test_no_connection_stays_open(room: Room) -> None:
    room.land("a.csv", [reading(0, value=1000)])
    room.ingest(spec())
    query = "SELECT application_name AS n FROM pg_stat_activity WHERE application_name LIKE 'evergreen%'"
    assert [r["n"] for r in room.rows(query)] == ["evergreen"]


CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'evergreen-validation' AND wait_event_type = 'Lock'
"""


def test_warehouse_that_dies_while_the_batch_is_judged_is_transient(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.land("a.csv", [reading(0)])
    validate = engine._validate
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.05):
            execute(CUT)

    def validate_without_a_server(*args):  # type: ignore[no-untyped-def]
        typed = next(t for t in room.staging() if t.endswith("_t"))
        killer = threading.Thread(target=cut)
        killer.start()
        try:
            with connect() as blocker, blocker.cursor() as cursor:
                cursor.execute(f"LOCK TABLE staging.{typed}")
                return validate(*args)
        finally:
            done.set()
            killer.join()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_validate", validate_without_a_server)
        with pytest.raises(TransientError):
            room.ingest(spec())
    assert room.rows("SELECT count(*) AS n FROM evergreen.batch") == [{"n": 0}]
    assert room.one(spec()).state == "published"
    assert room.staging() == []
