"""A file that was decided is read again only when it changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from validation_room import Room, reading, spec

from evergreen.warehouse.connection import connect
from evergreen.warehouse.files import landed_file, landing

SECOND = 1_000_000_000


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the files that were hashed since the last call."""
    names: list[str] = []
    whole = landing._hashed

    def noting(path: Path, name: str) -> landed_file.LandedFile | None:
        names.append(name)
        return whole(path, name)

    def told() -> list[str]:
        found = list(names)
        names.clear()
        return found

    monkeypatch.setattr(landing, "_hashed", noting)
    return told


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + SECOND))


def test_decided_files_are_hashed_once(room: Room, hashed: Callable[[], list[str]]) -> None:
    room.land("good.csv", [reading(0)])
    room.land("held.csv", [reading(1, value=1000)])
    assert [o.state for o in room.ingest(spec())] == ["published", "quarantined"]
    assert hashed() == ["good.csv", "held.csv"]
    assert room.ingest(spec()) == []
    assert hashed() == []
    assert [o.file for o in room.ingest(spec(), force=True)] == ["held.csv"]
    assert hashed() == ["held.csv"]
    room.land("new.csv", [reading(2)])
    assert room.one(spec()).file == "new.csv"
    assert hashed() == ["new.csv"]


def test_a_file_that_was_touched_is_hashed_once_more(room: Room, hashed: Callable[[], list[str]]) -> None:
    path = room.land("x.csv", [reading(0)])
    room.ingest(spec())
    hashed()
    touch(path)
    assert room.ingest(spec()) == []
    assert hashed() == ["x.csv"]
    assert room.ingest(spec()) == []
    assert hashed() == []


@pytest.mark.parametrize("keeps", ["size", "time", "both"])
def test_new_content_under_the_name_is_a_new_batch(room: Room, keeps: str) -> None:
    path = room.land("x.csv", [reading(0)])
    room.ingest(spec())
    before = path.stat()
    room.land("x.csv", [reading(0, value=77.5 if keeps == "time" else 7.5)])
    moved = SECOND if keeps == "size" else 0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + moved))
    assert (path.stat().st_size == before.st_size) == (keeps != "time")
    assert room.one(spec()).rows_changed == 1


def test_the_same_stamp_under_another_name_is_hashed(room: Room) -> None:
    first = room.land("x.csv", [reading(0)])
    room.ingest(spec())
    second = room.land("y.csv", [reading(1)])
    os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    assert room.one(spec()).file == "y.csv"


def test_another_dataset_decides_the_file_for_itself(room: Room) -> None:
    room.land("x.csv", [reading(0)])
    room.ingest(spec())
    assert room.one(spec(name="others")).state == "published"


def test_batches_from_before_this_was_remembered_are_hashed_once(
    room: Room, hashed: Callable[[], list[str]]
) -> None:
    room.land("x.csv", [reading(0)])
    room.ingest(spec())
    hashed()
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.batch SET file_inode = NULL, file_ctime_ns = NULL")
    for expected in (["x.csv"], []):
        assert room.ingest(spec()) == []
        assert hashed() == expected
