"""A warehouse in which an insert sleeps, so that a test can act while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from validation_room import Room

from evergreen.warehouse.connection import connect

SLEEP = """
CREATE OR REPLACE FUNCTION evergreen.nap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE TRIGGER nap AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION evergreen.nap();
"""
"""Whoever inserts into the table sleeps in the middle of it."""


def execute(query: str) -> None:
    """Run a statement in the warehouse."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(query)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds; fails after so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def napping(room: Room) -> bool:
    """Is somebody in the nap of the trigger?"""
    return bool(
        room.rows(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
    )
