"""A dataset's digest up to a time: what an as-of time up to then can see changes it, and nothing else does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from evergreen.warehouse.batches.contents import contents
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)


@pytest.fixture
def digest(world, start):
    """Ten days of rides, digested up to the eighth."""
    world.land(start, 10)

    def digest(until=start + 8 * DAY):
        with connect() as conn:
            return contents(conn, world.specs.datasets["rides_hourly"], until)

    return digest


def change(statement, *values):
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(statement, values)
        assert cursor.rowcount


@pytest.mark.parametrize(
    "act",
    [
        lambda world, start: world.land(start - DAY, 1),
        lambda world, start: world.correct(start + 2 * DAY, start + 3 * DAY, demand=1.0),
        lambda world, start: change("UPDATE data.rides_hourly SET x = x + 1 WHERE ts = %s", start),
        lambda world, start: change("UPDATE data.rides_hourly SET x = NULL WHERE ts = %s", start),
        lambda world, start: change("DELETE FROM data.rides_hourly WHERE ts = %s", start),
        lambda world, start: change(
            "UPDATE data.rides_hourly SET _arrived_at = _arrived_at + interval '1 hour' WHERE ts = %s", start
        ),
    ],
    ids=["older-rows", "correction", "other-value", "no-value", "row-gone", "arrived-later"],
)
def test_what_could_be_seen_by_then_changes_it(world, digest, start, act):
    before = digest()
    act(world, start)
    assert digest() != before


@pytest.mark.parametrize(
    "act",
    [
        lambda world, start: world.land(start + 10 * DAY, 1),
        lambda world, start: world.land(start - DAY, 1, arrived=start + 9 * DAY),
        lambda world, start: world.correct(start + 2 * DAY, start + 9 * DAY, demand=1.0),
        lambda world, start: change("UPDATE data.rides_hourly SET _batch = 7"),
    ],
    ids=["newer-rows", "older-rows-later", "correction-later", "other-batch"],
)
def test_what_could_not_be_seen_by_then_does_not(world, digest, start, act):
    before = digest()
    act(world, start)
    assert digest() == before
    assert digest(start + 11 * DAY) != digest(start + 8 * DAY)


def test_a_dataset_that_never_landed_has_no_rows(world, start):
    with connect() as conn:
        assert contents(conn, world.specs.datasets["rides_hourly"], start).versions == 0
