"""Files as other programs write them: odd headers, forms of values, local clocks; the same in both ways into a table."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from psycopg2 import sql
from validation_room import Room

from evergreen.spec import DatasetSpec
from evergreen.validation import decide
from evergreen.warehouse.batches import staging
from evergreen.warehouse.connection import connect, fetch


def dataset(columns: dict[str, Any], **changes: Any) -> DatasetSpec:
    """A dataset `readings` whose key and event time is its first column."""
    first = next(iter(columns))
    content = {
        "name": "readings",
        "key": [first],
        "event_time": first,
        "columns": columns,
        "quarantine": "rows",
    }
    return DatasetSpec.model_validate({**content, **changes})


def published(room: Room, columns: tuple[str, ...] = ("at", "x")) -> list[tuple[Any, ...]]:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with connect() as conn:
        rows = fetch(conn, sql.SQL("SELECT {} FROM data.readings ORDER BY 1").format(names))
    return [tuple(row.values()) for row in rows]


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


AT = {"at": {"type": "timestamp"}}
DAY = "2024-02-01"
TAKEN: dict[str, tuple[DatasetSpec, str, list[tuple[Any, ...]]]] = {
    "odd-headers": (
        dataset({"at": {"type": "timestamp", "from": "Date & Time"}, "x": {"type": "float", "from": "CO(GT) µg/m³."}}),
        f"CO(GT) µg/m³.,Date & Time\n1.5,{DAY}\n", [(at(2024, 2, 1), 1.5)],
    ),
    "header-twice": (
        dataset({"at": {"type": "timestamp", "from": 1}, "x": {"type": "float", "from": 3}, "y": {"type": "float", "from": 2}}),
        f"at,value,value\n{DAY},1,2\n", [(at(2024, 2, 1), 2.0)],
    ),
    "no-header": (dataset({**AT, "x": {"type": "float"}}, source={"header": False}), f"{DAY},1\n", [(at(2024, 2, 1), 1.0)]),
    "no-header-by-position": (
        dataset({"at": {"type": "timestamp", "from": 2}, "x": {"type": "float", "from": 1}}, source={"header": False}),
        f"1,{DAY}\n2,2024-02-02\n", [(at(2024, 2, 1), 1.0), (at(2024, 2, 2), 2.0)],
    ),
    "extra-columns": (
        dataset({**AT, "x": {"type": "float"}}, source={"extra_columns": "ignore"}), f"z,at,,x,z\n9,{DAY},,1,8\n",
        [(at(2024, 2, 1), 1.0)],
    ),
    "absent-column": (dataset({**AT, "x": {"type": "float", "required": False}}), f"at\n{DAY}\n", [(at(2024, 2, 1), None)]),
    "markers": (
        dataset({**AT, "x": {"type": "float", "required": False, "missing": -200}}, source={"missing": ["NA"]}),
        f"at,x\n{DAY},-200.0\n2024-02-02,NA\n2024-02-03,7\n",
        [(at(2024, 2, 1), None), (at(2024, 2, 2), None), (at(2024, 2, 3), 7.0)],
    ),
    "european": (
        dataset(
            {"at": {"type": "timestamp", "from": ["Date", "Time"], "format": "%d/%m/%Y %H.%M.%S"}, "x": {"type": "float"}},
            source={"decimal": ",", "thousands": ".", "delimiter": ";"},
        ),
        "Date;Time;x\n01/02/2024;13.30.00;1.234,5\n", [(at(2024, 2, 1, 13, 30), 1234.5)],
    ),
    "truths": (
        dataset({**AT, "x": {"type": "boolean", "true": "Y", "false": "N"}}), f"at,x\n{DAY},Y\n2024-02-02,N\n",
        [(at(2024, 2, 1), True), (at(2024, 2, 2), False)],
    ),
    "milliseconds": (
        dataset({"at": {"type": "timestamp", "format": "epoch_ms"}, "x": {"type": "integer"}}), "at,x\n1706788800500,1\n",
        [(datetime(2024, 2, 1, 12, 0, 0, 500000, tzinfo=UTC), 1)],
    ),
    "month-by-name": (
        dataset({"at": {"type": "timestamp", "from": ["year", "month", "day", "hr"], "format": "%Y %b %d %H"}, "x": {"type": "float"}}),
        "year,month,day,hr,x\n2024,feb,1,24,1\n", [(at(2024, 2, 2), 1.0)],
    ),
    "tabs": (dataset({**AT, "x": {"type": "float", "decimal": ","}}), f"at\tx\n{DAY}\t1,5\n", [(at(2024, 2, 1), 1.5)]),
}  # fmt: skip


@pytest.mark.parametrize("way", ["quick", "long"])
@pytest.mark.parametrize("case", TAKEN)
def test_file_lands_as_it_is(room: Room, monkeypatch: pytest.MonkeyPatch, case: str, way: str) -> None:
    spec, content, expected = TAKEN[case]
    if way == "long":
        monkeypatch.setattr(decide, "_published_at_once", lambda *_, **__: None)
    else:
        monkeypatch.setattr(staging, "load", lambda *_: pytest.fail("the long way was taken"))
    room.land("x.tsv" if case == "tabs" else "x.csv", content)
    outcome = room.one(spec)
    assert outcome.failures == ()
    assert published(room) == expected


HELD: dict[str, tuple[DatasetSpec, str, str, str]] = {
    "another-format": (
        dataset({"at": {"type": "timestamp", "format": "%d/%m/%Y"}}), "31/12/2023\n2024-02-30", "2024-02-30", "%d/%m/%Y",
    ),
    "point-for-a-comma": (dataset({**AT, "x": {"type": "float", "decimal": ","}}), f"{DAY},1.5", "1.5", "decimal"),
    "unknown-truth": (
        dataset({**AT, "x": {"type": "boolean", "true": "Y", "false": "N"}}), f"{DAY},y", "y", "columns.x in datasets/readings.yaml",
    ),
    "marker": (dataset({**AT, "x": {"type": "float"}}), f"{DAY},N/A", "N/A", 'source.missing: ["N/A"]'),
    "null": (dataset({**AT, "x": {"type": "integer"}}), f"{DAY},NULL", "NULL", 'source.missing: ["NULL"]'),
    "nan": (dataset({**AT, "x": {"type": "float"}}), f"{DAY},NaN", "NaN", 'source.missing: ["NaN"]'),
    "doubled-hour": (
        dataset(AT, source={"timezone": "Europe/Berlin"}), "2023-10-29 02:30:00", "2023-10-29 02:30:00", "set source.fold",
    ),
    "left-out-hour": (
        dataset(AT, source={"timezone": "Europe/Berlin", "fold": "first"}), "2024-03-31 02:30:00", "2024-03-31 02:30:00", "in spring",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HELD)
def test_value_that_does_not_fit_is_held_as_the_file_has_it(room: Room, case: str) -> None:
    spec, lines, value, said = HELD[case]
    spec = spec.model_copy(update={"max_bad_rows": 0.5})
    header = "at,x" if "x" in spec.columns else "at"
    good = {"another-format": "01/01/2024"}.get(
        case, "2024-02-15" + {"unknown-truth": ",N", "point-for-a-comma": ",1"}.get(case, ",1")
    )
    room.land(
        "x.csv", f"{header}\n{good if ',' in header else good.split(',')[0]}\n{lines.splitlines()[-1]}\n"
    )
    outcome = room.one(spec, as_of=at(2024, 6, 1))
    assert (outcome.state, outcome.rows_new, outcome.rows_held) == ("published", 1, 1)
    (failure,) = outcome.failures
    assert failure.sample == (value,)
    assert said in f"{failure.limit} {failure.remedy}"
    if "hour" in case:
        assert "time zone Europe/Berlin" in failure.limit
    row = room.rows("SELECT row FROM quarantine.readings")[0]["row"]
    assert value in row.values()


REFUSED = {
    "near-name": ({**AT, "x": {"type": "float", "from": "CO(GT)"}}, {}, "at,CO (GT)", "did you mean 'CO (GT)' for CO(GT)"),
    "name-twice": ({**AT, "x": {"type": "float"}}, {}, "at,x,x", "choose by position in datasets/readings.yaml, such as from: 2"),
    "unknown-column": ({**AT, "x": {"type": "float"}}, {}, "at,x,y", "extra_columns"),
    "no-such-position": ({"at": {"type": "timestamp", "from": 1}, "x": {"type": "float", "from": 9}}, {}, "at,x", "x (column 9)"),
    "absent-and-required": ({**AT, "x": {"type": "float"}}, {"source": {"extra_columns": "ignore"}}, "at,z", "missing x"),
    "absent-by-its-spelling": (
        {**AT, "x": {"type": "float", "required": False}}, {"source": {"extra_columns": "ignore"}}, "at, X", "from: ' X'",
    ),
    "part-of-a-time": (
        {"at": {"type": "timestamp", "from": ["d", "t"]}, "x": {"type": "float"}}, {}, "d,x", "missing t",
    ),
    "too-many-without-a-header": ({**AT, "x": {"type": "float"}}, {"source": {"header": False}}, "1,2,3", "3 columns"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_file_with_other_columns_is_refused_with_the_near_name(room: Room, case: str) -> None:
    columns, more, header, said = REFUSED[case]
    room.land("x.csv", f"{header}\n{header}\n")
    (failure,) = room.one(dataset(columns, **more)).failures
    assert failure.expectation == "expect_table_columns_to_match_set"
    assert said in f"{failure.observed} {failure.remedy}"


def test_what_is_absent_or_left_out_is_in_the_ledger(room: Room) -> None:
    spec = dataset({**AT, "x": {"type": "float", "required": False}}, source={"extra_columns": "ignore"})
    room.land("x.csv", f"at,z\n{DAY},1\n")
    assert room.one(spec).state == "published"
    evidence = room.rows("SELECT evidence FROM evergreen.decision")[0]["evidence"]
    assert (evidence["columns_absent"], evidence["columns_ignored"]) == (["x"], ["z"])


def test_doubled_hour_of_a_file_in_order_lands_whole(room: Room) -> None:
    first = datetime(2023, 10, 28, tzinfo=timezone(timedelta(hours=2)))
    hours = [first + timedelta(hours=h) for h in range(73)]
    local = [h.astimezone(timezone(timedelta(hours=2 if h < at(2023, 10, 29, 1) else 1))) for h in hours]
    lines = [f"{t:%Y-%m-%d %H:%M:%S},{s}" for t in local for s in "ab"]
    room.land("x.csv", "at,sensor\n" + "\n".join(lines) + "\n")
    columns = {**AT, "sensor": {"type": "text"}}
    source = {"timezone": "Europe/Berlin"}
    held = room.one(dataset(columns, key=["at", "sensor"], source=source, quarantine="batch"))
    assert (held.state, [f.failed_rows for f in held.failures]) == ("quarantined", [4])
    assert "time zone" in held.failures[0].limit
    spec = dataset(columns, key=["at", "sensor"], source={**source, "fold": "by_order"}, quarantine="batch")
    assert room.one(spec, force=True).rows_new == 146
    assert [t for t, s in published(room, ("at", "sensor")) if s == "a"] == hours


SAME = dataset({
    "at": {"type": "timestamp", "from": "When", "min": "2020-01-01"}, "day": {"type": "date", "from": "Day", "format": "%Y%m%d"},
    "x": {"type": "float", "from": "X", "required": False, "missing": -200, "decimal": ","}, "ok": {"type": "boolean"},
}, source={"timezone": "America/New_York", "extra_columns": "ignore", "missing": ["?"]})  # fmt: skip
ROWS = [
    (at(2024, 2, 1, 15), datetime(2024, 2, 1).date(), None, True),
    (at(2024, 7, 1, 14), datetime(2024, 2, 2).date(), 1.5, False),
]


def as_parquet(path: Path) -> None:
    times = [datetime(2024, 2, 1, 10), datetime(2024, 7, 1, 10)]
    table = {
        "When": pa.array(times, pa.timestamp("us")),
        "Day": [20240201, 20240202],
        "X": [-200.0, 1.5],
        "ok": [True, False],
        "z": [1, 2],
    }
    pq.write_table(pa.table(table), path.with_suffix(".parquet"))


def as_json(path: Path) -> None:
    rows = [
        {"When": "2024-02-01 10:00:00", "Day": 20240201, "X": -200, "ok": True},
        {"ok": False, "X": 1.5, "Day": "20240202", "When": "2024-07-01T10:00", "z": "?"},
    ]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def as_packed_csv(path: Path) -> None:
    text = 'z,When,Day,X,ok\n1,2024-02-01 10:00,20240201,?,t\n2,2024-07-01 10:00,20240202,"1,5",f\n'
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize("write", [as_parquet, as_json, as_packed_csv])
def test_every_kind_of_file_goes_through_the_same_spec(room: Room, write: Any) -> None:
    write(room.folder / "x")
    outcome = room.one(SAME, as_of=at(2024, 8, 1))
    assert outcome.failures == ()
    assert published(room, ("at", "day", "x", "ok")) == ROWS


GERMAN = dataset(
    {**AT, "x": {"type": "float", "decimal": ",", "thousands": ".", "missing": "NA", "required": False}}
)
COUNTS = dataset({**AT, "x": {"type": "integer", "required": False}})
TRUTHS = dataset({**AT, "x": {"type": "boolean", "true": "Y", "false": "N"}})
DAYS = [at(2024, 2, day) for day in range(1, 9)]
JSON_VALUES: dict[str, tuple[DatasetSpec, str, list[Any]]] = {
    "whole-numbers-with-a-point": (COUNTS, "5.0 1e3 -0.0 9007199254740993 null", [5, 1000, 0, 2**53 + 1, None]),
    "numbers-have-a-point": (GERMAN, '1.234 5 "NA" ""', [1.234, 5.0, None, None]),
    "texts-have-the-signs-of-the-spec": (GERMAN, '"1.234" "1.234,5" "NA"', [1234.0, 1234.5, None]),
    "truths": (TRUTHS, "true false", [True, False]),
    "words-for-truths": (TRUTHS, '"Y" "N"', [True, False]),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON_VALUES)
def test_json_value_is_what_it_stands_for(room: Room, case: str) -> None:
    spec, values, expected = JSON_VALUES[case]
    lines = zip(DAYS, values.split(), strict=False)
    room.land("x.jsonl", "".join(f'{{"at": "{day:%Y-%m-%d}", "x": {value}}}\n' for day, value in lines))
    assert room.one(spec).failures == ()
    assert [x for _, x in published(room)] == expected


def test_number_and_text_that_would_mean_two_things_in_one_column_are_refused(room: Room) -> None:
    room.land("x.jsonl", '{"at": "2024-02-01", "x": 1.234}\n{"at": "2024-02-02", "x": "1.234"}\n')
    (failure,) = room.one(GERMAN).failures
    assert (failure.column, failure.observed) == ("x", "numbers and texts in one column")
    assert room.published() == 0


@pytest.mark.parametrize("first", ["1.234", 1.234], ids=["text-first", "number-first"])
def test_parts_that_have_a_column_as_text_and_as_number_are_refused(room: Room, first: str | float) -> None:
    parts = room.folder / "x.parquet"
    parts.mkdir()
    for n, x in enumerate([first, 1.234 if first == "1.234" else "1.234"]):
        pq.write_table(pa.table({"at": [DAYS[n]], "x": [x]}), parts / f"{n}.parquet")
    (failure,) = room.one(GERMAN).failures
    assert failure.observed == "numbers and texts in one column"
    assert room.published() == 0


def test_part_without_a_value_says_nothing_of_its_column(room: Room) -> None:
    parts = room.folder / "x.parquet"
    parts.mkdir()
    for n, x in enumerate([None, 1.234]):
        pq.write_table(pa.table({"at": [DAYS[n]], "x": [x]}), parts / f"{n}.parquet")
    assert room.one(GERMAN).failures == ()
    assert [x for _, x in published(room)] == [None, 1.234]


CSV = b"at,x\n2024-02-01,1\n"
SIGNS = {
    "gzip-without-its-ending": ("x.csv", gzip.compress(CSV) + b"\n", "packed by gzip", ".gz"),
    "gzip-twice": ("x.csv.gz", gzip.compress(gzip.compress(CSV)), "packed by gzip", "once"),
    "zip": ("x.csv", b"PK\x03\x04" + CSV, "a zip archive or an Excel workbook", "save the sheet as CSV"),
    "another-encoding": ("x.csv", b"\xef\xbb\xbf" + CSV, "the byte order mark of utf-8 at the begin", "source.encoding to utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNS)
def test_file_whose_begin_says_what_it_is_is_not_read_as_letters(room: Room, case: str) -> None:
    name, content, observed, remedy = SIGNS[case]
    room.land(name, content)
    text = {"at": {"type": "timestamp", "from": 1}, "x": {"type": "text", "from": 2}}
    (failure,) = room.one(dataset(text, source={"encoding": "latin-1", "header": False})).failures
    assert failure.observed == observed
    assert remedy in failure.remedy


def test_page_on_files_says_what_works(room: Room) -> None:
    page = (Path(__file__).parents[3] / "docs" / "files.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0].replace("air_quality", "readings")
    room.land("x.csv", "Date;Time;CO(GT);T;;\n10/03/2024;18.00.00;2,6;9;;\n10/03/2024;19.00.00;-200;9;;\n")
    assert room.one(DatasetSpec.model_validate(yaml.safe_load(text)), as_of=at(2024, 6, 1)).failures == ()
    assert published(room, ("at", "co_gt")) == [(at(2024, 3, 10, 17), 2.6), (at(2024, 3, 10, 18), None)]
