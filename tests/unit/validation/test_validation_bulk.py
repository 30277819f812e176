"""The quick way reads a file as the long way does, or leaves it alone."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg2 import sql
from validation_room import HEADER, Room, reading, spec

from evergreen.spec import DatasetSpec
from evergreen.validation import ingest as module
from evergreen.warehouse.batches import bulk, staging
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.files import landing, opened

LINE = "2024-02-01 00:00:00+00,a,1.5,3,true,cold"
TOP = ",".join(HEADER) + "\n"


def quick(dataset: DatasetSpec, folder: Path) -> list[dict[str, Any]] | None:
    """The typed rows that the quick way makes of the only file; None where it leaves the file alone."""
    with connect() as conn:
        (file,) = landing.find(dataset, folder)
        staged = bulk.load(conn, dataset, file, timeout_s=60)
        if staged is None:
            assert not fetch(conn, "SELECT 1 FROM pg_tables WHERE schemaname = 'staging'")
            return None
        rows = typed(conn, dataset, staged.typed)
        assert staged.rows == len(rows)
        staging.drop(conn, (staged.typed,))
        return rows


def long(dataset: DatasetSpec, folder: Path) -> list[dict[str, Any]] | None:
    """The typed rows of the long way; None where anything is wrong with the file."""
    with connect() as conn:
        (file,) = landing.find(dataset, folder)
        try:
            staged = staging.load(conn, dataset, file)
        except staging.UnreadableError:
            conn.rollback()
            return None
        findings, _ = staging.type_rows(conn, dataset, staged)
        rows = typed(conn, dataset, staged.typed)
        staging.drop(conn, (staged.raw, staged.typed))
        return None if findings else rows


def typed(conn: Any, dataset: DatasetSpec, name: str) -> list[dict[str, Any]]:
    columns = sql.SQL(", ").join(map(sql.Identifier, ("_row", *dataset.columns)))
    return fetch(conn, sql.SQL("SELECT {} FROM {} ORDER BY _row").format(columns, staging.table(name)))


def test_good_file_goes_the_quick_way(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.staging, "load", lambda *_: pytest.fail("the long way was taken"))
    room.land("a.csv", [reading(h) for h in range(5)])
    assert room.one(spec()).rows_new == 5
    room.land("b.csv", [reading(0, value=7), reading(9)])
    assert (room.one(spec()).rows_changed, room.published(), room.staging()) == (1, 6, [])


TAKEN = {
    "plain": LINE,
    "several-lines": f"{LINE}\n{LINE.replace('1.5', '')}\n{LINE.replace('cold', '')}",
    "windows-line-ends": f"{LINE}\r\n{LINE}\r\n",
    "quoted": '"2024-02-01 00:00:00+00","a,b","1.5","3","true","cold"',
    "line-end-in-quotes": '2024-02-01,"a\nb",1,1,t,cold',
    "doubled-quote": '2024-02-01,"a""b",1,1,t,cold',
    "lone-carriage-returns": f"{LINE}\r{LINE}",
    "end-of-data-marker": LINE.replace(",a,", ",\\.,"),
    "quoted-empty": '2024-02-01,a,"","",t,""',
    "spaces-around-a-number": "2024-02-01,a, 1.5 , 3,t,cold",
    "space-in-a-text": "2024-02-01, a ,1,1,t,cold",
    "backslash": "2024-02-01,a\\,1,1,t,cold",
    "exponent": "2024-02-01,a,-1.5E-3,1,t,cold",
    "long-fraction": "2024-02-01,a,0.1000000000000000055511151231257827,1,t,cold",
    "smallest-integer": "2024-02-01,a,1,-9223372036854775808,t,cold",
    "booleans": "\n".join(f"2024-02-01,a,1,1,{b},cold" for b in ("t", "TRUE", "yes", "On", "1", "0", "n", "off", "False")),
    "zone-of-its-own": LINE.replace("+00", "-05:30"),
    "letter-z": LINE.replace("+00", ".123456Z").replace(" 00", "T00"),
    "not-ascii": LINE.replace(",a,", ",Käthe 木,"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_quick_way_gives_the_rows_of_the_long_way(room: Room, case: str) -> None:
    room.land("x.csv", (TOP + TAKEN[case]).encode())
    rows = quick(spec(), room.folder)
    assert rows
    assert rows == long(spec(), room.folder)


DOUBTED = {
    "unclosed-quote": '2024-02-01,a,1,1,t,"cold\n',
    "quote-inside": '2024-02-01,a"b"c,1,1,t,cold',
    "mixed-line-ends": f"{LINE}\r\n{LINE}\n",
    "hexadecimal": "2024-02-01,a,1,0xFFFFFFFFFFFFFFFF,t,cold",
    "not-a-number": "2024-02-01,a,NaN,1,t,cold",
    "too-small": "2024-02-01,a,1e-400,1,t,cold",
    "too-large": "2024-02-01,a,1e400,1,t,cold",
    "infinite": "2024-02-01,a,-inf,1,t,cold",
    "word-for-a-time": "now,a,1,1,t,cold",
    "ambiguous-time": "03/02/2024,a,1,1,t,cold",
    "hour-alone": "2024-02-01 10,a,1,1,t,cold",
    "year-0": "0000-02-01,a,1,1,t,cold",
    "offset-of-a-day": LINE.replace("+00", "+16:00"),
    "no-such-day": "2024-02-30,a,1,1,t,cold",
    "zoned-and-not": f"{LINE}\n2024-02-01 10:00:00,a,1,1,t,cold\n",
    "field-too-many": f"{LINE},1",
    "field-too-few": "2024-02-01,a",
    "nul": LINE.replace(",a,", ",a\0,"),
    "invalid-utf8": LINE.encode().replace(b",a,", b",\xe4,"),
    "no-rows": "",
}


@pytest.mark.parametrize("case", DOUBTED)
def test_what_is_in_doubt_goes_the_long_way(room: Room, case: str) -> None:
    content = DOUBTED[case]
    room.land("x.csv", TOP.encode() + (content if isinstance(content, bytes) else content.encode()))
    assert quick(spec(), room.folder) is None


def test_empty_line_is_no_row_that_passes(room: Room) -> None:
    room.land("x.csv", f"{TOP}{LINE}\n\n")
    assert room.one(spec()).failures[0].expectation == "file_readable"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_local_times_are_read_alike_in_both_ways(room: Room, zone: str) -> None:
    room.land("x.csv", f"{TOP}{LINE.replace('+00', '')}\n")
    dataset = spec(source={"timezone": zone})
    rows = quick(dataset, room.folder)
    assert rows
    assert rows == long(dataset, room.folder)
    assert rows[0]["at"] == datetime(2024, 2, 1, tzinfo=ZoneInfo(zone))


def test_times_are_read_alike_or_left_alone(room: Room) -> None:
    chance = random.Random(7)
    seeds = [
        "2024-02-10 10:00:00Z",
        "2024-02-10T10:00:00.123456+02:00",
        "2024-02-10",
        "2024-02-10 10:00",
        "2024-02-10 10-0230",
    ]
    taken = 0
    for number in range(150):
        text = list(chance.choice(seeds))
        for _ in range(chance.randint(0, 2)):
            text[chance.randrange(len(text))] = chance.choice("0123456789-:.+ TZUC")
        room.land("x.csv", TOP + LINE.replace("2024-02-01 00:00:00+00", "".join(text)))
        rows = quick(spec(), room.folder)
        if rows is not None:
            taken += 1
            assert rows == long(spec(), room.folder), (number, "".join(text))
    assert taken > 20


def test_many_blocks_keep_the_number_of_each_row(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", 4096)
    room.land("x.csv", [reading(h, count=h) for h in range(2000)])
    rows = quick(spec(), room.folder)
    assert rows is not None
    assert [r["_row"] for r in rows] == list(range(1, 2001))
    assert [r["count"] for r in rows] == list(range(2000))
    assert rows == long(spec(), room.folder)


@pytest.mark.parametrize("key", [["at", "sensor"], ["at"]])
def test_doubled_key_is_found(room: Room, key: list[str]) -> None:
    room.land("x.csv", [reading(0), reading(1), reading(1, value=3)])
    outcome = room.one(spec(key=key, quarantine="batch"))
    assert [(f.expectation, f.failed_rows) for f in outcome.failures] == [
        ("expect_column_values_to_be_unique", 2)
    ]
    assert room.staging() == []


def test_key_of_two_texts_is_not_mixed_up(room: Room) -> None:
    columns = {"ward": {"type": "text"}}
    header = (*HEADER, "ward")
    room.land("x.csv", [reading(0, sensor="a", ward="bc"), reading(0, sensor="ab", ward="c")], header=header)
    dataset = spec(columns=columns, key=["at", "sensor", "ward"])
    assert quick(dataset, room.folder)
    room.land("x.csv", [reading(0, sensor="a\x1fb", ward="c")], header=header)
    assert quick(dataset, room.folder) is None
