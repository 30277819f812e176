"""Whatever a file is called, and whatever has the name of one, concerns that file alone, up to the mail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation_room import Room, reading, spec

from evergreen.incidents import threads
from evergreen.warehouse.connection import connect

HEAD = "at,sensor,value,count,ok,kind\n"
NAMES = {
    "not-utf-8": b"m\xe9t\xe9o.csv",
    "line-break": b"a\nb.csv",
    "escape": b"\x1b[2J.csv",
    "long-when-escaped": b"\xe9" * 120 + b".csv",
    "braces": b"%s{x}%(y)s.csv",
    "dash": b"-rf.csv",
    "quote": b"'; drop--<b>.csv",
}


def line(hour: int, value: str) -> str:
    return f"2024-02-01T{hour:02}:00:00Z,a,{value},1,t,cold\n"


def named(room: Room, name: bytes, content: str) -> Path:
    path = Path(os.fsdecode(os.fsencode(room.folder) + b"/" + name))
    path.write_text(content)
    return path


def open_threads(room: Room) -> int:
    with connect() as conn:
        return len(threads.open_ones(conn, kind="batch_quarantined"))


@pytest.mark.parametrize("case", NAMES)
def test_name_is_only_a_name(room: Room, case: str) -> None:
    named(room, NAMES[case], HEAD + line(0, "1"))
    room.land("z.csv", HEAD + line(1, "1"))
    outcomes = room.ingest(spec())
    assert [o.state for o in outcomes] == ["published", "published"]
    assert all(o.file.isprintable() for o in outcomes)
    evidence = [row["evidence"] for row in room.rows("SELECT evidence FROM evergreen.decision")]
    assert all(e["path"].isprintable() and e["path"].endswith("/" + e["file"]) for e in evidence)


@pytest.mark.parametrize("case", NAMES)
def test_held_file_of_any_name_is_told_and_is_not_over_while_it_lies_there(room: Room, case: str) -> None:
    path = named(room, NAMES[case], HEAD + line(0, "1000"))
    assert room.one(spec()).state == "quarantined"
    room.land("z.csv", HEAD + line(1, "1"))
    assert room.one(spec()).state == "published"
    assert open_threads(room) == 1
    path.unlink()
    room.land("zz.csv", HEAD + line(2, "1"))
    assert room.one(spec()).state == "published"
    assert open_threads(room) == 0


def parts(path: Path) -> None:
    path = path.with_suffix(".parquet")
    path.mkdir()
    pq.write_table(pa.Table.from_pylist([reading(0, value=1000.0)]), path / "0.parquet")


ODD: dict[str, Callable[[Path], object]] = {
    "link-to-itself": lambda path: path.symlink_to(path),
    "link": lambda path: path.symlink_to("/etc/hostname"),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "parts": parts,
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_file_is_not_over_while_it_is_there(room: Room, case: str) -> None:
    ODD[case](room.folder / "odd.csv")
    assert room.one(spec()).state == "quarantined"
    room.land("z.csv", HEAD + line(1, "1"))
    assert room.one(spec()).state == "published"
    assert open_threads(room) == 1
