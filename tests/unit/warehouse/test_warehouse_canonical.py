"""Values as files write them, against `datetime.strptime`, `zoneinfo` and `decimal`, one by one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files.canonical import MARK, Converter, UnreadReason, converts, unmarked


def read(
    column: dict[str, Any], *parts: Sequence[str | None], kinds: tuple[Any, ...] = ("text",), **source: Any
) -> list[str | None]:
    """What becomes of the values of a column; one part for each column of the file."""
    dataset = DatasetSpec.model_validate({
        "name": "x", "key": ["at"], "event_time": "at", "source": source,
        "columns": {"at": {"type": "timestamp"}, "c": column},
    })  # fmt: skip
    arrays = [pa.array(part, pa.string()) for part in parts]
    found: list[str | None] = Converter(dataset, "c", kinds).read(arrays).to_pylist()
    return found


def held(value: str, why: UnreadReason = UnreadReason.UNREADABLE) -> str:
    return MARK + why.value + value


CASES: dict[str, tuple[dict[str, Any], list[str | None], list[str | None]]] = {
    "markers": (
        {"type": "float", "missing": ["-200", "NA", ""]},
        ["-200", "-200.0", " -2e2", "NA", " NA ", "na", "-200.5", "", "7", None],
        [None, None, None, None, None, "na", "-200.5", None, "7", None],
    ),
    "marker-of-an-integer": (
        {"type": "integer", "missing": ["9223372036854775807"]},
        ["9223372036854775807", "9223372036854775806"],
        [None, "9223372036854775806"],
    ),
    "nan-as-a-marker": ({"type": "float", "missing": ["nan"]}, ["NaN", "nan", "-NaN", "1"], [None, None, None, "1"]),
    "marker-of-a-text-is-a-word": (
        {"type": "category", "missing": ["0", "?"]}, ["0", "0.0", " ?", "?x"], [None, "0.0", None, "?x"],
    ),
    "marker-of-a-time": (
        {"type": "timestamp", "missing": ["0000-00-00"]}, ["0000-00-00", "2024-01-01"], [None, "2024-01-01"],
    ),
    "decimal-comma": (
        {"type": "float", "decimal": ","},
        ["1,5", "-1,5e3", ",5", "5,", "1.5", "1,5,0", "1;5", "NaN"],
        ["1.5", "-1.5e3", ".5", "5.", held("1.5"), held("1,5,0"), held("1;5"), held("NaN")],
    ),
    "marker-with-a-comma": ({"type": "float", "decimal": ",", "missing": ["-200"]}, ["-200,0", "-200,1"], [None, "-200.1"]),
    "thousands": (
        {"type": "float", "decimal": ",", "thousands": "."},
        ["1.234.567,5", "1234567,5", "12.34", "1.2345", "1.5", ".123", "1.234e3"],
        ["1234567.5", "1234567.5", held("12.34"), held("1.2345"), held("1.5"), held(".123"), held("1.234e3")],
    ),
    "blanks-between-thousands": (
        {"type": "integer", "thousands": " "},
        ["1 234", "1\u00a0234\u202f567", "12 34"], ["1234", "1234567", held("12 34")],
    ),
    "swiss-thousands": ({"type": "float", "thousands": "'"}, ["1'234.5", "1’234"], ["1234.5", "1234"]),
    "truths": (
        {"type": "boolean", "true": ["Y"], "false": ["N", "0"], "missing": ["-"]},
        ["Y", " N", "0", "-", "y", "1", None], ["true", "false", "false", None, held("y"), held("1"), None],
    ),
    "european": (
        {"type": "timestamp", "format": "%d/%m/%Y %H:%M"},
        ["31/12/2017 23:59", "1/2/2017 3:04", " 01/02/2017  03:04 ", "12/31/2017 00:00", "30/02/2017 00:00", "31/12/2017",
         "31/12/2017 23:59:00", "31/12/17 23:59", "2017-12-31 23:59"],
        ["2017-12-31 23:59:00+00:00", "2017-02-01 03:04:00+00:00", "2017-02-01 03:04:00+00:00", held("12/31/2017 00:00"),
         held("30/02/2017 00:00"), held("31/12/2017"), held("31/12/2017 23:59:00"), held("31/12/17 23:59"),
         held("2017-12-31 23:59")],
    ),
    "two-digit-years": (
        {"type": "timestamp", "format": "%m/%d/%y %H:%M"}, ["1/1/17 0:00", "1/1/69 0:00", "1/1/68 0:00"],
        ["2017-01-01 00:00:00+00:00", "1969-01-01 00:00:00+00:00", "2068-01-01 00:00:00+00:00"],
    ),
    "compact": (
        {"type": "timestamp", "format": "%Y%m%dT%H%M%S"}, ["20141013T000000", "2014113T000000", "20141013T0000"],
        ["2014-10-13 00:00:00+00:00", held("2014113T000000"), held("20141013T0000")],
    ),
    "hour-24": (
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M"}, ["2016-02-28 24:00", "2016-12-31 24:00", "2016-12-31 24:01", "2016-12-31 25:00"],
        ["2016-02-29 00:00:00+00:00", "2017-01-01 00:00:00+00:00", held("2016-12-31 24:01"), held("2016-12-31 25:00")],
    ),
    "minute-60": ({"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S"}, ["2016-01-01 00:60:00", "2016-01-01 00:00:60"],
                  [held("2016-01-01 00:60:00"), held("2016-01-01 00:00:60")]),
    "english-months": (
        {"type": "date", "format": "%d %B %Y"}, ["1 MAY 2020", "30 sept 2020", "31 april 2020", "3 Mai 2020"],
        ["2020-05-01", "2020-09-30", held("31 april 2020"), held("3 Mai 2020")],
    ),
    "half-days": (
        {"type": "timestamp", "format": "%b %d, %Y %I:%M %p"}, ["Jan 1, 2020 12:05 AM", "Jan 1, 2020 12:05 pm", "Jan 1, 2020 13:05 PM"],
        ["2020-01-01 00:05:00+00:00", "2020-01-01 12:05:00+00:00", held("Jan 1, 2020 13:05 PM")],
    ),
    "day-of-the-year": ({"type": "date", "format": "%Y%j"}, ["2020366", "2021366", "2021001", "2021000"],
                        ["2020-12-31", held("2021366"), "2021-01-01", held("2021000")]),
    "offsets": (
        {"type": "timestamp", "format": "%d.%m.%Y %H:%M %z"},
        ["1.2.2020 10:00 +0200", "1.2.2020 10:00 -05:30", "1.2.2020 10:00 Z", "1.2.2020 10:00", "1.2.2020 10:00 +16"],
        ["2020-02-01 08:00:00+00:00", "2020-02-01 15:30:00+00:00", "2020-02-01 10:00:00+00:00", held("1.2.2020 10:00"),
         held("1.2.2020 10:00 +16")],
    ),
    "fractions": (
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S,%f"}, ["2020-01-01 00:00:00,5", "2020-01-01 00:00:00,123456789"],
        ["2020-01-01 00:00:00.500000+00:00", "2020-01-01 00:00:00.123456+00:00"],
    ),
    "day-with-midnight": ({"type": "date", "format": "%m/%d/%y %H:%M"}, ["1/2/17 0:00", "1/2/17 0:01"], ["2017-01-02", held("1/2/17 0:01")]),
    "formats-by-turns": (
        {"type": "timestamp", "format": ["%d/%m/%Y %H:%M", "%d/%m/%Y"]}, ["01/02/2017", "01/02/2017 00:30", "2017"],
        ["2017-02-01 00:00:00+00:00", "2017-02-01 00:30:00+00:00", held("2017")],
    ),
    "epoch-seconds": (
        {"type": "timestamp", "format": "epoch_s"}, ["1381622400", "1381622400.5", "1.3816224e+9", "-1", "x", "9" * 19, "1e99"],
        ["2013-10-13 00:00:00.000000+00:00", "2013-10-13 00:00:00.500000+00:00", "2013-10-13 00:00:00.000000+00:00",
         "1969-12-31 23:59:59.000000+00:00", held("x"), held("9" * 19), held("1e99")],
    ),
    "epoch-milliseconds": ({"type": "timestamp", "format": "epoch_ms"}, ["1381622400123"], ["2013-10-13 00:00:00.123000+00:00"]),
    "epoch-nanoseconds": ({"type": "timestamp", "format": "epoch_ns"}, ["1381622400123456789"], ["2013-10-13 00:00:00.123456+00:00"]),
    "epoch-of-a-day": ({"type": "date", "format": "epoch_s"}, ["86400", "86401"], ["1970-01-02", held("86401")]),
    "year-zero": ({"type": "date", "format": "%Y-%m-%d"}, ["0000-01-01", "0001-01-01"], [held("0000-01-01"), "0001-01-01"]),
    "literal-signs": (
        {"type": "timestamp", "format": "[%Y.%m.%d] %H Uhr 100%%"}, ["[2020.01.02] 3 Uhr 100%", "x2020.01.02] 3 Uhr 100%"],
        ["2020-01-02 03:00:00+00:00", held("x2020.01.02] 3 Uhr 100%")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_value_is_read_or_stays_as_it_was(case: str) -> None:
    column, given, expected = CASES[case]
    assert read(column, given) == expected
    assert [unmarked(v) for v in read(column, given) if v and v.startswith(MARK)] == [
        g for g, e in zip(given, expected, strict=True) if e and e.startswith(MARK)
    ]


def test_several_columns_make_one_time() -> None:
    column = {"type": "timestamp", "from": ["y", "m", "d", "h"], "format": "%Y %B %d %H"}
    parts = [
        ["2020", "2020", None, "2020"],
        ["may", "NA", None, "june"],
        ["1", "1", None, "31"],
        ["24", "0", None, "0"],
    ]
    found = read({**column, "missing": ["NA"]}, *parts, kinds=("number", "text", "number", "number"))
    assert found == [
        "2020-05-02 00:00:00+00:00",
        held("2020 NA 1 0", UnreadReason.PARTIAL),
        None,
        held("2020 june 31 0"),
    ]
    assert read(
        {"type": "timestamp", "from": ["a", "b"]}, ["2020-01-01"], ["10:00"], kinds=("text", "text")
    ) == ["2020-01-01 10:00:00+00:00"]


TYPED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "number": ({"type": "float", "decimal": ",", "thousands": "."}, "number", "1.5", "1.5"),
    "truth": ({"type": "boolean", "true": ["Y"], "false": ["N"]}, "truth", "true", "true"),
    "time": ({"type": "timestamp", "format": "%d/%m/%Y"}, "time", "2020-01-02 03:04:05.000000", "2020-01-02 03:04:05+00:00"),
    "zoned-time": ({"type": "timestamp", "format": "%d/%m/%Y"}, "time", "2020-01-02 03:04:05.000000Z", "2020-01-02 03:04:05+00:00"),
    "digits": ({"type": "date", "format": "%Y%m%d"}, "number", "20200102", "2020-01-02"),
    "digits-as-a-float": ({"type": "timestamp", "format": "%Y%m%d%H%M%S"}, "number", "2.0200102030405e+13", "2020-01-02 03:04:05+00:00"),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_what_a_typed_file_has_typed_is_not_read_as_text(case: str) -> None:
    column, kind, given, expected = TYPED[case]
    assert read(column, [given], kinds=(kind,)) == [expected]


LOCAL = {
    "2023-07-01": "2023-06-30 22:00:00+00:00",
    "2023-07-01T10:00:00": "2023-07-01 08:00:00+00:00",
    "2023-07-01 10:00:00Z": "2023-07-01 10:00:00+00:00",
    "2023-07-01 10:00:00-05": "2023-07-01 15:00:00+00:00",
    "2023-07-01 10:00 UTC": "2023-07-01 10:00:00+00:00",
    "2023-10-29 02:30:00": held("2023-10-29 02:30:00", UnreadReason.TWICE),
    "2023-03-26 02:30:00": held("2023-03-26 02:30:00", UnreadReason.NEVER),
    "2023-07-01 10": held("2023-07-01 10"),
    "now": held("now"),
    "0001-01-01": held("0001-01-01"),
}


@pytest.mark.parametrize("value", LOCAL)
def test_local_time(value: str) -> None:
    assert read({"type": "timestamp"}, [value], timezone="Europe/Berlin") == [LOCAL[value]]


FORMATS = (
    "%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%y %H:%M", "%Y%m%dT%H%M%S", "%d.%m.%Y %H.%M.%S", "%B %d, %Y %I:%M %p",
    "%a %d %b %Y %H:%M:%S.%f", "%Y-%jT%H:%M", "%d-%b-%y", "%Y/%m/%d %H", "%Y-%m-%dT%H:%M:%S%z",
)  # fmt: skip
SPOIL = "0123456789/:. -+TZapmMayé"


def strict(value: str, format_: str) -> datetime | None:
    """What Python's strptime makes of it, less where that is looser: blanks, widths, letters after the number."""
    try:
        found = datetime.strptime(value.strip(" "), format_)
    except ValueError:
        return None
    return found


@pytest.mark.parametrize("format_", FORMATS)
def test_times_are_those_of_strptime(format_: str) -> None:
    chance = random.Random(format_)
    values = []
    for number in range(600):
        moment = datetime(1969, 1, 1) + timedelta(
            seconds=chance.randrange(99 * 365 * 86400), microseconds=chance.randrange(10**6)
        )
        text = list(
            moment.replace(tzinfo=timezone(timedelta(minutes=30 * chance.randint(-20, 20)))).strftime(format_)
        )
        for _ in range(chance.randint(0, 2) if number % 2 else 0):
            text[chance.randrange(len(text))] = chance.choice(SPOIL)
        values.append("".join(text))
    found = read({"type": "timestamp", "format": format_}, values, timezone="America/New_York", fold="first")
    place, taken = ZoneInfo("America/New_York"), 0
    for value, got in zip(values, found, strict=True):
        oracle = strict(value, format_)
        assert got
        if got.startswith(MARK):
            gap = oracle is not None and got[1] == UnreadReason.NEVER.value
            # strptime reads one digit where two touch, and offsets of a day.
            loose = oracle is not None and (format_ in ("%Y%m%dT%H%M%S", "%Y-%jT%H:%M") or "%z" in format_)
            assert oracle is None or gap or loose, (value, got)
            continue
        taken += 1
        assert oracle is not None or re.search(r"\b24[:.]?0|T24|sept", value.lower()), (value, got)
        if oracle is not None:
            if oracle.tzinfo is None:
                oracle = oracle.replace(tzinfo=place)
            assert datetime.fromisoformat(got) == oracle, (value, got)
    assert taken >= 280


@pytest.mark.parametrize(
    ("decimal", "thousands"), [(",", "."), (".", ","), (",", " "), (".", "'"), (",", None)]
)
def test_numbers_are_those_of_decimal(decimal: str, thousands: str | None) -> None:
    chance = random.Random(f"{decimal}{thousands}")
    values = []
    for _ in range(500):
        number = Decimal(chance.randint(-(10 ** chance.randint(1, 12)), 10**9)).scaleb(-chance.randint(0, 4))
        text = format(number, ",f" if thousands and chance.random() < 0.7 else "f")
        text = text.translate({ord(","): thousands or "", ord("."): decimal})
        if chance.random() < 0.3:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice("0,.' -e") + text[at + 1 :]
        values.append(text)
    found = read({"type": "float", "decimal": decimal, "thousands": thousands}, values)
    taken = 0
    for value, got in zip(values, found, strict=True):
        assert got
        if got.startswith(MARK):
            assert unmarked(got) == value
            continue
        taken += 1
        plain = value.strip(" ")
        if thousands:
            head = re.split(f"[{re.escape(decimal)}e]", plain)[0].lstrip("+-")
            groups = head.split(thousands)
            assert len(groups) == 1 or (1 <= len(groups[0]) <= 3 and all(len(g) == 3 for g in groups[1:])), (
                value
            )
            plain = plain.replace(thousands, "")
        assert Decimal(got) == Decimal(plain.replace(decimal, ".")), value
    assert taken > 300


def test_epochs_are_exact() -> None:
    chance = random.Random(3)
    for unit, digits in (("epoch_s", 0), ("epoch_ms", 3), ("epoch_us", 6), ("epoch_ns", 9)):
        moments = [chance.randint(-(10**15), 4 * 10**15) for _ in range(200)]
        values = [format(Decimal(m).scaleb(digits - 6), "f") for m in moments]
        found = read({"type": "timestamp", "format": unit}, values)
        origin = datetime(1970, 1, 1, tzinfo=UTC)
        assert [
            (datetime.fromisoformat(str(f)) - origin) // timedelta(microseconds=1) for f in found
        ] == moments


def test_spec_that_says_nothing_of_the_file_converts_nothing() -> None:
    columns = {
        kind: {"type": kind}
        for kind in ("float", "integer", "boolean", "text", "category", "timestamp", "date")
    }
    dataset = DatasetSpec.model_validate(
        {"name": "x", "key": ["timestamp"], "event_time": "timestamp", "columns": columns}
    )
    assert [name for name in columns if converts(dataset, name)] == []
    renamed = {name: {**column, "from": name.upper()} for name, column in columns.items()}
    dataset = DatasetSpec.model_validate(
        {"name": "x", "key": ["timestamp"], "event_time": "timestamp", "columns": renamed}
    )
    assert [name for name in columns if converts(dataset, name)] == []


@pytest.mark.parametrize("values", [[], [None], [""], [None, "1/1/17 0:00"]])
def test_nothing_and_little_are_read_too(values: list[str | None]) -> None:
    found = read(
        {"type": "timestamp", "format": "%m/%d/%y %H:%M"},
        [v or None for v in values],
        timezone="Europe/Berlin",
    )
    assert found == [v and "2016-12-31 23:00:00+00:00" for v in [v or None for v in values]]
