"""On the oldest server that is admitted COPY ends at a line with a backslash and a point; no row may get lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg2 import connect as plain_connect
from validation_room import Room, empty

from evergreen.spec import DatasetSpec
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate

DAY = "2024-02-01T{:02}:00:00Z"
ROWS = [DAY.format(hour) for hour in range(4)]
END = "\\."


@pytest.fixture(scope="module")
def oldest_warehouse(oldest_postgres_url: str) -> str:
    admin = plain_connect(oldest_postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE oldest")
    admin.close()
    url = oldest_postgres_url.removesuffix("/postgres") + "/oldest"
    with connect(url) as conn:
        assert conn.server_version // 10000 == 16
        migrate(conn)
    return url


@pytest.fixture
def old_room(oldest_warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    empty(oldest_warehouse)
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", oldest_warehouse)
    folder = tmp_path / "landing"
    folder.mkdir()
    return Room(folder)


def dataset(**more: object) -> DatasetSpec:
    text = {"type": "text", "required": False}
    return DatasetSpec.model_validate({
        "name": "lines", "key": ["at"], "event_time": "at", "quarantine": "rows", "max_bad_rows": 1,
        "columns": {"word": text, "at": {"type": "timestamp"}, "number": {"type": "float", "required": False}}, **more,
    })  # fmt: skip


FILES = {
    "a value in the first column": f"word,at\na,{ROWS[0]}\n{END},{ROWS[1]}\nb,{ROWS[2]}\nc,{ROWS[3]}\n",
    "quoted": f'word,at\na,{ROWS[0]}\n"{END}",{ROWS[1]}\nb,{ROWS[2]}\nc,{ROWS[3]}\n',
    "a line of a quoted value": f'word,at\na,{ROWS[0]}\n"x\n{END}\ny",{ROWS[1]}\nb,{ROWS[2]}\nc,{ROWS[3]}\n',
    "in the last column": f"at,word\n{ROWS[0]},a\n{ROWS[1]},{END}\n{ROWS[2]},b\n{ROWS[3]},c\n",
}


@pytest.mark.parametrize("bad_row", [False, True], ids=["by the quick way", "by COPY"])
@pytest.mark.parametrize("file", FILES)
def test_value_that_ends_a_copy_is_a_value(old_room: Room, file: str, bad_row: bool) -> None:
    content = FILES[file]
    # A number that only PostgreSQL judges sends the file the long way.
    lines = content.splitlines(keepends=True)
    if bad_row:
        head, *_ = lines
        last = "2024-02-02T00:00:00Z" if head.startswith("at") else "x"
        other = "x" if head.startswith("at") else "2024-02-02T00:00:00Z"
        content = head.replace("\n", ",number\n") + "".join(
            line.replace("\n", ",1\n") if any(row in line for row in ROWS) else line for line in lines[1:]
        )
        content += f"{last},{other},much\n"
    old_room.land("x.csv", content)
    outcome = old_room.one(dataset())
    assert (outcome.state, outcome.rows_new, outcome.rows_held) == ("published", 4, int(bad_row))
    words = [row["word"] for row in old_room.rows("SELECT word FROM data.lines ORDER BY at")]
    assert words == ["a", "x\n\\.\ny" if "line of" in file else END, "b", "c"]


def test_line_that_ends_a_copy_is_no_record_where_there_are_several_columns(old_room: Room) -> None:
    old_room.land("x.csv", f"word,at\na,{ROWS[0]}\nb,{ROWS[1]}\n{END}\nc,{ROWS[2]}\nd,{ROWS[3]}\n")
    outcome = old_room.one(dataset())
    assert outcome.state == "quarantined"
    assert outcome.failures[0].observed == 'line 4: missing data for column "at" (1 values)'


def test_line_that_ends_a_copy_is_a_value_where_there_is_one_column(old_room: Room) -> None:
    old_room.land("x.csv", f"at\n{ROWS[0]}\n{END}\n{ROWS[1]}\n{ROWS[2]}\n")
    outcome = old_room.one(dataset(columns={"at": {"type": "timestamp"}}))
    assert (outcome.state, outcome.rows_new, outcome.rows_held) == ("published", 3, 1)
    assert outcome.failures[0].rows[0].line == 3
