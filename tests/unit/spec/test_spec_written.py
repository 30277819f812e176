"""How a file names and writes its columns, as a spec says it: what is taken, and what is refused with the next step."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest

from evergreen.spec import DatasetSpec, load_dataset
from evergreen.spec.timeformat import time_format
from evergreen.spec.zones import zone_problem

SPEC = """
name: air
key: [at]
event_time: at
{more}
columns:
  at: {at}
  x: {x}
"""


def read(tmp_path: Path, *, at: str = "{type: timestamp}", x: str = "{type: float}", more: str = "") -> Any:
    """The dataset, or the text of its only problem."""
    (tmp_path / "datasets").mkdir(exist_ok=True)
    (tmp_path / "datasets" / "air.yaml").write_text(SPEC.format(at=at, x=x, more=more))
    specs = load_dataset(tmp_path, "air")
    return specs.datasets["air"] if specs.datasets else "\n".join(map(str, specs.problems))


TAKEN = {
    "odd-header": (dict(x='{type: float, from: "CO(GT)"}'), "origin", ("CO(GT)",)),
    "position": (dict(x="{type: float, from: 3}"), "origin", (3,)),
    "one-marker": (dict(x="{type: float, missing: NA}"), "missing", ("NA",)),
    "numbers-as-markers": (
        dict(x='{type: float, missing: [-200, -1.5, "NULL", ""]}'),
        "missing",
        ("-200", "-1.5", "NULL", ""),
    ),
    "truth-words": (dict(x='{type: boolean, true: ["Y"], false: ["N"]}'), "true", ("Y",)),
    "truth-numbers": (dict(x="{type: boolean, true: 1, false: [0, 2]}"), "false", ("0", "2")),
    "decimal-comma": (dict(x='{type: float, decimal: ",", thousands: "."}'), "decimal", ","),
    "one-format": (dict(x='{type: date, format: "%d.%m.%Y"}'), "format", ("%d.%m.%Y",)),
    "formats-by-turns": (
        dict(x='{type: timestamp, format: ["%d/%m/%Y %H:%M", epoch_ms]}'),
        "format",
        ("%d/%m/%Y %H:%M", "epoch_ms"),
    ),
    "joined": (
        dict(x='{type: timestamp, from: [Date, 4], format: "%d/%m/%Y %H.%M"}'),
        "origin",
        ("Date", 4),
    ),
    "day-as-bound": (dict(x="{type: timestamp, min: 2010-01-01}"), "min", date(2010, 1, 1)),
    "moment-as-bound": (
        dict(x="{type: timestamp, max: 2010-01-01T02:00:00+02:00}"),
        "max",
        datetime(2010, 1, 1, tzinfo=UTC),
    ),
    "bound-in-quotes": (dict(x='{type: date, min: "2010-01-01"}'), "min", date(2010, 1, 1)),
    "number-as-bound": (dict(x="{type: integer, min: -5}"), "min", -5),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(tmp_path: Path, case: str) -> None:
    change, field, value = TAKEN[case]
    dataset = read(tmp_path, **change)
    assert isinstance(dataset, DatasetSpec), dataset
    assert getattr(dataset.columns["x"], field) == value
    assert DatasetSpec.model_validate(dataset.model_dump(mode="json")) == dataset


REFUSED = {
    "null-as-marker": (dict(x="{type: float, missing: [NULL]}"), 'YAML reads an item as null, whatever the file calls it; write the file\'s word in quotes, such as "NULL"'),
    "truth-as-marker": (dict(x="{type: float, missing: [NO]}"), 'such as "NO"'),
    "truth-as-word": (dict(x='{type: boolean, true: [yes], false: ["no"]}'), 'such as "YES"'),
    "truth-as-header": (dict(x="{type: float, from: yes}"), "from: True is what YAML makes of it; put the name of a column in quotes"),
    "column-zero": (dict(x="{type: float, from: 0}"), "the first one is 1"),
    "no-column": (dict(x="{type: float, from: []}"), "from: is empty"),
    "one-truth": (dict(x='{type: boolean, true: ["Y"]}'), "true and false go together"),
    "truth-twice": (dict(x='{type: boolean, true: ["1"], false: [1]}'), "true and false both name '1'"),
    "words-of-a-number": (dict(x='{type: float, true: ["1"], false: ["0"]}'), "true is for boolean, not for float"),
    "comma-in-a-text": (dict(x='{type: text, decimal: ","}'), "decimal is for float and integer, not for text"),
    "sign-twice": (dict(x='{type: float, decimal: ",", thousands: ","}'), "decimal and thousands are both ','"),
    "point-twice": (dict(x='{type: float, thousands: "."}'), "decimal and thousands are both '.'"),
    "digit-as-sign": (dict(x='{type: float, decimal: "1"}'), "decimal: '1' is part of a number itself"),
    "format-of-a-number": (dict(x='{type: float, format: "%Y"}'), "format is for timestamp and date, not for float"),
    "joined-number": (dict(x="{type: float, from: [a, b]}"), "several columns make a timestamp or a date"),
    "no-directive": (dict(x="{type: date, format: dd/mm/yyyy}"), "holds no directive; write one such as '%d/%m/%Y %H:%M'"),
    "unknown-directive": (dict(x='{type: date, format: "%Y-%U"}'), "%U is not known"),
    "zone-by-name": (dict(x='{type: timestamp, format: "%Y-%m-%d %Z"}'), "write the zone's letters as they stand"),
    "no-year": (dict(x='{type: timestamp, format: "%d %B"}'), "names no year; add the column that holds it"),
    "no-month": (dict(x='{type: timestamp, format: "%Y %d"}'), "a day needs month"),
    "half-of-a-day": (dict(x='{type: timestamp, format: "%Y-%m-%d %H:%M %p"}'), "%p goes with %I, not with %H"),
    "no-half-of-a-day": (dict(x='{type: timestamp, format: "%Y-%m-%d %I:%M"}'), "%I needs %p"),
    "month-twice": (dict(x='{type: timestamp, format: "%Y %m %b %d"}'), "twice"),
    "offset-of-a-day": (dict(x='{type: date, format: "%Y-%m-%d %z"}'), "a date has no offset"),
    "percent-at-the-end": (dict(x='{type: date, format: "%Y-%m-%d %"}'), "% is not known"),
    "bound-of-another-type": (dict(x="{type: float, min: 2010-01-01}"), "min 2010-01-01 is none of a float; write a number"),
    "number-for-a-time": (dict(x="{type: timestamp, max: 5}"), "write a date or time, such as 2024-03-31"),
    "bound-of-a-text": (dict(x="{type: text, min: 5}"), "min and max are for numbers and times, not for text"),
    "word-as-bound": (dict(x="{type: timestamp, min: yesterday}"), "'yesterday' is no number, date or time"),
    "list-as-bound": (dict(x="{type: float, min: [1]}"), "is no number, date or time"),
    "hour-of-a-date": (dict(x="{type: date, min: 2010-01-01 10:00:00}"), "has a time of day"),
    "bounds-crossed": (dict(x="{type: date, min: 2011-01-01, max: 2010-01-01}"), "min 2011-01-01 is larger than max 2010-01-01"),
    "misspelt-from": (dict(x="{type: float, form: A}"), "did you mean format?"),
    "name-without-header": (dict(x="{type: float, from: A}", at="{type: timestamp, from: 1}", more="source: {header: false}"), "columns.x.from: a file without a header has no column 'A'; write its number"),
    "some-by-position": (dict(x="{type: float, from: 2}", more="source: {header: false}"), "columns.at.from: other columns have a number"),
    "posix-zone": (dict(more="source: {timezone: UTC+2}"), "source.timezone: 'UTC+2' is no time zone by name, and POSIX reads its sign the other way round"),
    "unknown-fold": (dict(more="source: {fold: third}"), "source.fold"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_next_step(tmp_path: Path, case: str) -> None:
    change, said = REFUSED[case]
    found = read(tmp_path, **change)
    assert isinstance(found, str), found.columns["x"]
    assert said in found
    assert "\n" not in found
    assert "datasets/air.yaml: " in found


def test_column_adds_to_the_source_and_can_stand_aside(tmp_path: Path) -> None:
    source = 'source: {missing: ["NA"], decimal: ",", thousands: ".", "true": "J", "false": "N"}'
    found = read(tmp_path, x="{type: float, missing: -200}", more=source).written("x")
    assert (found.missing, found.decimal, found.thousands, found.true) == (("NA", "-200"), ",", ".", None)
    assert read(tmp_path, x="{type: text, missing: []}", more=source).written("x").missing == ()
    own = read(tmp_path, x='{type: boolean, true: "1", false: "0"}', more=source).written("x")
    assert (own.true, own.false) == (("1",), ("0",))
    assert read(tmp_path, x="{type: boolean}", more=source).written("x").true == ("J",)
    swapped = read(tmp_path, x='{type: float, decimal: ".", thousands: ","}', more=source).written("x")
    assert (swapped.decimal, swapped.thousands) == (".", ",")


NEAR = {
    "UTC+2": "Etc/GMT-2: 2 h east of Greenwich",
    "GMT+2": "Etc/GMT-2",
    "UTC-05:00": "Etc/GMT+5: 5 h west",
    "+02:00": "Etc/GMT-2",
    "-3": "Etc/GMT+3",
    "+05:30": "Asia/Kolkata",
    "+00:00": "write UTC",
    "Berlin2": "POSIX's form, whose number counts hours west of Greenwich; write Europe/Berlin",
    "CET-1CEST": "POSIX's form",
    "<+02>-2": "POSIX's form",
    "EST5EDT": "write America/New_York",
    "PST8PDT": "write America/Los_Angeles",
    "Berlin": "write Europe/Berlin",
    "New York": "write America/New_York",
    "europe/berlin": "write Europe/Berlin",
    "Europe/Berlim": "write Europe/Berlin",
    "utc": "write UTC",
    "Z": "write UTC",
    "CEST": "write Europe/Berlin",
    "localtime": "is no IANA time zone",
    "Mars/Base": "such as Europe/Berlin, or UTC",
    "": "is no IANA time zone",
    "../etc/passwd": "is no IANA time zone",
}


@pytest.mark.parametrize("name", NEAR)
def test_what_only_looks_like_a_time_zone_is_told_the_near_one(name: str) -> None:
    problem = zone_problem(name)
    assert problem
    assert NEAR[name] in problem


def test_places_are_time_zones() -> None:
    places = [name for name in available_timezones() if "/" in name]
    assert len(places) > 300
    assert [name for name in ["UTC", "Etc/GMT-2", *places] if zone_problem(name)] == []


def test_numbers_that_touch_have_their_whole_width() -> None:
    assert time_format("%Y%m%d").pattern.count(r"\d{2}") == 2
    assert time_format("%d/%m/%Y").pattern.count(r"\d{1,2}") == 2
    assert time_format("%-d/%-m/%y %k:%M").parts == ("day", "month", "year2", "hour", "minute")
    assert time_format("%D %R").parts == time_format("%m/%d/%y %H:%M").parts
