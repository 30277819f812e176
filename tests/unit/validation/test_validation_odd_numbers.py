"""What PostgreSQL reads and a person would be surprised by is held, alike in every format and on every server."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from validation_room import HEADER, Room, empty, reading, spec

from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate

ODD = {
    "count": ["0x1F", "0X1f", "0b1", "0o17", "1_000", "-1_0", "+0x1", "0x", "1e3", "5.0", "1__0", "_1"],
    "value": ["0x1F", "-0x1p3", "0X1P-2", "0b1", "1_000", "1_0.5", "1e400", "-1e400", "1e-400", "1e1_0"],
    "ok": ["tru", "tr", "ye", "fal", "of", "T1", "2", "01"],
}
NOT_FINITE = ["NaN", " NaN", "nan ", "-NaN", "Infinity", "-infinity", "inf", " +Inf"]
GOOD = {
    "count": {"7": 7, " 7": 7, "+7": 7, "-7 ": -7, "007": 7, "9223372036854775807": 9223372036854775807},
    "value": {" 1.5": 1.5, "+.5": 0.5, "5.": 5.0, "1E1": 10.0, "1e-3 ": 0.001, "0": 0.0},
    "ok": {"t": True, "Y": True, "yes": True, "On": True, "1": True, "F": False, "n": False, "No": False, "off": False, "0": False},
}  # fmt: skip
BAD_ROWS = [(column, text) for column, texts in ODD.items() for text in texts] + [
    ("value", t) for t in NOT_FINITE
]
GOOD_ROWS = [(column, text) for column, texts in GOOD.items() for text in texts]


def csv(rows: list[dict[str, object]]) -> tuple[str, str]:
    lines = [",".join(HEADER), *(",".join(str(row[c]) for c in HEADER) for row in rows)]
    return "x.csv", "\n".join(lines) + "\n"


def jsonl(rows: list[dict[str, object]]) -> tuple[str, str]:
    """The same texts, as texts."""
    lines = (
        json.dumps({n: v if n in ("at", "sensor", "kind") else str(v) for n, v in row.items()})
        for row in rows
    )
    return "x.jsonl", "\n".join(lines) + "\n"


@pytest.fixture(params=["the newest server", "the oldest server"])
def any_room(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A warehouse of that server."""
    if request.param == "the newest server":
        found: Room = request.getfixturevalue("room")
        return found
    url = request.getfixturevalue("oldest_postgres_url")
    with connect(url) as conn:
        migrate(conn)
    empty(url)
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    (tmp_path / "old").mkdir()
    return Room(tmp_path / "old")


@pytest.mark.parametrize("written", [csv, jsonl], ids=["CSV", "JSON lines"])
def test_odd_values_are_held_and_usual_ones_taken(
    any_room: Room, written: Callable[[list[dict[str, object]]], tuple[str, str]]
) -> None:
    cases = [*BAD_ROWS, *GOOD_ROWS]
    rows = [reading(hour, **{column: text}) for hour, (column, text) in enumerate(cases)]
    any_room.land(*written(rows))
    wide = {"value": {"type": "float", "required": False}}
    outcome = any_room.one(spec(quarantine="rows", max_bad_rows=1, columns=wide))
    held = any_room.rows("SELECT row_number - 1 AS at, reasons FROM quarantine.readings ORDER BY 1")
    assert [cases[row["at"]] for row in held] == BAD_ROWS
    kinds = {case: row["reasons"] for case, row in zip(BAD_ROWS, held, strict=True)}
    assert all("to_be_finite" in str(kinds["value", text]) for text in NOT_FINITE)
    assert all("to_be_of_type" in str(kinds[column, text]) for column, texts in ODD.items() for text in texts)
    start = datetime(2024, 2, 1, tzinfo=UTC)
    taken = {row["at"]: row for row in any_room.rows("SELECT * FROM data.readings")}
    for hour, (column, text) in enumerate(cases[len(BAD_ROWS) :], start=len(BAD_ROWS)):
        assert taken[start + timedelta(hours=hour)][column] == GOOD[column][text], text
    assert outcome.rows_new == len(GOOD_ROWS)


@pytest.mark.parametrize("text", ["0x1F", "0b1", "1_000"])
def test_a_file_of_nothing_else_is_held_too(room: Room, text: str) -> None:
    """Where no value of the file is of another type, each of them is converted without being asked about first."""
    room.land("x.csv", [reading(hour, count=text) for hour in range(3)])
    outcome = room.one(spec())
    assert (outcome.state, outcome.failures[0].failed_rows) == ("quarantined", 3)


def test_groups_of_digits_are_taken_where_the_spec_names_their_sign(room: Room) -> None:
    rows = [reading(0, count="1_000", value="2_000.5")]
    room.land("x.csv", rows)
    (number, real) = room.one(spec()).failures[:2]
    assert 'thousands: "_" of columns.count in datasets/readings.yaml' in (number.remedy + real.remedy)
    told = spec(
        columns={"count": {"type": "integer", "thousands": "_"}, "value": {"type": "float", "thousands": "_"}}
    )
    assert room.one(told, force=True).rows_new == 1
    assert room.rows("SELECT count, value FROM data.readings") == [{"count": 1000, "value": 2000.5}]
