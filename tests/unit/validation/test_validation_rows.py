"""What a value can be, and what a failed expectation holds back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from psycopg2 import sql
from sqlalchemy.engine import make_url
from validation_room import AS_OF, HEADER, Room, reading, spec

from evergreen.validation import engine, suite
from evergreen.validation.outcome import BatchOutcome
from evergreen.validation.verdict import judge_batch
from evergreen.warehouse.batches.staging import SuiteFinding
from evergreen.warehouse.files.failure import Failure

BAD_VALUES: dict[str, tuple[dict[str, Any], str, str]] = {
    "text-for-number": ({"value": "warm"}, "to_be_of_type", "value"),
    "decimal-comma": ({"value": '"1,5"'}, "to_be_of_type", "value"),
    "number-too-large-for-a-float": ({"value": "1e400"}, "to_be_of_type", "value"),
    "huge-number": ({"value": "1e300"}, "to_be_between", "value"),
    "nan": ({"value": "NaN"}, "to_be_finite", "value"),
    "infinity": ({"value": "-inf"}, "to_be_finite", "value"),
    "fraction-for-integer": ({"count": "3.5"}, "to_be_of_type", "count"),
    "integer-too-large": ({"count": "9223372036854775808"}, "to_be_of_type", "count"),
    "word-for-boolean": ({"ok": "maybe"}, "to_be_of_type", "ok"),
    "required-missing": ({"ok": ""}, "to_not_be_null", "ok"),
    "key-missing": ({"sensor": ""}, "to_not_be_null", "sensor"),
    "below-minimum": ({"value": "-100.5"}, "to_be_between", "value"),
    "above-maximum": ({"value": "101"}, "to_be_between", "value"),
    "unknown-category": ({"kind": "Cold"}, "to_be_in_set", "kind"),
    "time-as-a-word": ({"at": "now"}, "to_be_of_type", "at"),
    "time-without-an-end": ({"at": "infinity"}, "to_be_of_type", "at"),
    "ambiguous-date": ({"at": "03/02/2024"}, "to_be_of_type", "at"),
    "offset-of-posix": ({"at": "2024-02-10 10:00 UTC+2"}, "to_be_of_type", "at"),
    "offset-of-posix-behind-z": ({"at": "2024-02-10T10:00:00Z-01:00"}, "to_be_of_type", "at"),
    "offset-of-posix-without-a-sign": ({"at": "2024-02-10 10:00 UTC2"}, "to_be_of_type", "at"),
    "zone-of-posix": ({"at": "2024-02-10 10:00 TUZ+2"}, "to_be_of_type", "at"),
    "no-such-day": ({"at": "2024-02-30 00:00:00"}, "to_be_of_type", "at"),
    "time-that-stands-for-none": ({"at": "1970-01-01T00:00:00Z"}, "to_be_between", "at"),
    "time-of-the-year-1": ({"at": "0001-01-01 00:00:00"}, "to_be_between", "at"),
    "time-in-the-future": ({"at": (AS_OF + timedelta(hours=25)).isoformat()}, "to_be_between", "at"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_value_is_found_and_its_row_held(room: Room, case: str) -> None:
    changes, expectation, column = BAD_VALUES[case]
    room.land("x.csv", [*(reading(h) for h in range(30)), reading(40, **changes)])
    outcome = room.one(spec(quarantine="rows"))
    failure = outcome.failures[0]
    assert (failure.column, failure.failed_rows, len(outcome.failures)) == (column, 1, 1)
    assert failure.expectation.endswith(expectation)
    assert (outcome.state, outcome.rows_held, room.published()) == ("published", 1, 30)
    assert [m["kind"] for m in room.rows("SELECT kind FROM evergreen.mail")] == ["batch_quarantined"], (
        "held rows are told"
    )
    held = room.rows("SELECT batch, row_number, row, reasons FROM quarantine.readings")
    assert [(h["row_number"], len(h["reasons"])) for h in held] == [(31, 1)]
    given = next(iter(changes.values())).strip('"')
    assert held[0]["row"][column] == (given or None)
    assert failure.expectation in held[0]["reasons"][0]
    assert room.staging() == []


@pytest.mark.parametrize("case", ["nan", "above-maximum"])
def test_bad_value_holds_the_batch_where_the_spec_says_so(room: Room, case: str) -> None:
    room.land("x.csv", [*(reading(h) for h in range(30)), reading(40, **BAD_VALUES[case][0])])
    outcome = room.one(spec(quarantine="batch"))
    assert (outcome.state, outcome.rows_held, room.published()) == ("quarantined", 31, 0)
    assert room.rows("SELECT row_number FROM quarantine.readings") == [{"row_number": 31}]


GOOD_VALUES: dict[str, tuple[dict[str, Any], str, str]] = {
    "apostrophe-in-a-category": ({"kind": "it's hot"}, "kind", "it's hot"),
    "percent-in-a-category": ({"kind": "100%"}, "kind", "100%"),
    "space-before-a-number": ({"value": " 2.5"}, "value", "2.5"),
    "exponent": ({"value": "1E1"}, "value", "10"),
    "at-the-limit": ({"value": "100"}, "value", "100"),
    "missing-where-allowed": ({"value": ""}, "value", "None"),
    "zone-of-its-own": ({"at": "2024-02-10 10:00:00+02"}, "at", "2024-02-10 08:00:00+00"),
    "letter-z": ({"at": "2024-02-10T10:00:00Z"}, "at", "2024-02-10 10:00:00+00"),
    "letters-utc": ({"at": "2024-02-10 10:00 UTC "}, "at", "2024-02-10 10:00:00+00"),
    "offset-after-a-blank": ({"at": "2024-02-10 10:00 +02"}, "at", "2024-02-10 08:00:00+00"),
    "day-only": ({"at": "2024-02-10"}, "at", "2024-02-10 00:00:00+00"),
    "as-late-as-tolerated": (
        {"at": (AS_OF + timedelta(hours=24)).isoformat()},
        "at",
        "2024-03-02 00:00:00+00",
    ),
}


SHOWN = 'SELECT "{}"::text AS v FROM data.readings'


@pytest.mark.parametrize("case", GOOD_VALUES)
def test_good_value_is_taken(room: Room, case: str) -> None:
    changes, column, expected = GOOD_VALUES[case]
    room.land("x.csv", [reading(0, **changes)])
    assert room.one(spec()).failures == ()
    assert str(room.rows(SHOWN.format(column))[0]["v"]) == expected


def test_time_without_zone_is_in_the_source_zone(room: Room) -> None:
    room.land("x.csv", [reading(0, at="2024-02-10 10:00:00"), reading(0, at="2024-02-10 10:00:00+00")])
    assert room.one(spec(source={"timezone": "America/New_York"})).rows_new == 2
    times = room.rows('SELECT "at"::text AS t FROM data.readings ORDER BY 1')
    assert [t["t"] for t in times] == ["2024-02-10 10:00:00+00", "2024-02-10 15:00:00+00"]


@pytest.mark.parametrize("quarantine", ["batch", "rows"])
@pytest.mark.parametrize(
    ("kind", "bounds", "good", "bad"),
    [
        pytest.param(
            "timestamp", {"min": "2024-01-01"}, "2024-01-01 00:00:00", "2023-12-31 23:59:59", id="day"
        ),
        pytest.param(
            "timestamp",
            {"max": "2024-01-01T10:00:00+02:00"},
            "2024-01-01T08:00:00Z",
            "2024-01-01T08:00:01Z",
            id="moment",
        ),
        pytest.param(
            "date", {"min": "2024-01-01", "max": "2024-01-31"}, "2024-01-31", "2024-02-01", id="date"
        ),
    ],
)
def test_time_is_held_to_its_bounds(
    room: Room, quarantine: str, kind: str, bounds: dict[str, str], good: str, bad: str
) -> None:  # fmt: skip
    dataset = spec(columns={"due": {"type": kind, **bounds}}, quarantine=quarantine)
    header = (*HEADER, "due")
    room.land("a.csv", [reading(h, due=good) for h in range(30)], header=header)
    assert room.one(dataset).failures == ()
    room.land("b.csv", [*(reading(h, due=good) for h in range(30, 60)), reading(70, due=bad)], header=header)
    outcome = room.one(dataset)
    assert [(f.column, f.failed_rows) for f in outcome.failures] == [("due", 1)]
    assert next(iter(bounds.values()))[:10] in outcome.failures[0].limit
    assert (outcome.state, room.published()) == (
        ("published", 60) if quarantine == "rows" else ("quarantined", 30)
    )


def test_bound_without_an_offset_is_in_the_source_zone(room: Room) -> None:
    dataset = spec(
        source={"timezone": "America/New_York"}, columns={"at": {"type": "timestamp", "min": "2024-02-01"}}
    )
    room.land("x.csv", [reading(0, at="2024-02-01T05:00:00Z"), reading(1, at="2024-02-01T04:59:59Z")])
    assert [f.failed_rows for f in room.one(dataset).failures] == [1]


def test_how_old_an_event_may_be_is_the_specs(room: Room) -> None:
    room.land("x.csv", [reading(0, at="1965-03-01 00:00:00")])
    failure = room.one(spec()).failures[0]
    assert failure.limit == "not before 1990-01-01 (earliest)"
    assert "set earliest in datasets/readings.yaml" in failure.remedy
    assert room.one(spec(earliest="1960-01-01"), force=True).state == "published"
    room.land("y.csv", [reading(0, at="0001-01-01 00:00:00")])
    assert room.one(spec(earliest=None)).state == "published"


def test_day_can_be_the_event_time(room: Room) -> None:
    dataset = spec(columns={"at": {"type": "date"}})
    room.land(
        "x.csv", [reading(0, at="2024-02-01"), reading(0, at="2024-02-02"), reading(0, at="1989-12-31")]
    )
    assert [(f.column, f.failed_rows) for f in room.one(dataset).failures] == [("at", 1)]


def test_doubled_key_holds_every_row_of_it(room: Room) -> None:
    room.land("x.csv", [reading(0), reading(1, value=1), reading(1, value=2), *map(reading, range(2, 60))])
    outcome = room.one(spec(quarantine="rows"))
    assert (outcome.rows_new, outcome.rows_held) == (59, 2)
    assert outcome.failures[0].column == "at, sensor"
    assert [r["row_number"] for r in room.rows("SELECT row_number FROM quarantine.readings ORDER BY 1")] == [
        2,
        3,
    ]


def test_key_of_one_column_must_be_unique_too(room: Room) -> None:
    room.land("x.csv", [reading(0, sensor="a"), reading(0, sensor="b")])
    outcome = room.one(spec(key=["at"]))
    assert outcome.state == "quarantined"
    assert outcome.failures[0].expectation == "expect_column_values_to_be_unique"


def test_one_time_in_two_zones_is_one_key(room: Room) -> None:
    room.land("x.csv", [reading(0, at="2024-02-10T10:00:00Z"), reading(0, at="2024-02-10T12:00:00+02")])
    assert room.one(spec()).failures[0].failed_rows == 2


def test_rows_with_several_faults_are_held_once_with_every_reason(room: Room) -> None:
    room.land("x.csv", [*(reading(h) for h in range(30)), reading(40, value=1000, kind="hot", ok="")])
    outcome = room.one(spec(quarantine="rows"))
    assert (outcome.rows_held, len(outcome.failures)) == (1, 3)
    assert len(room.rows("SELECT reasons FROM quarantine.readings")[0]["reasons"]) == 3


@pytest.mark.parametrize(("bad", "state"), [(2, "published"), (3, "quarantined")])
def test_too_many_bad_rows_hold_the_batch(room: Room, bad: int, state: str) -> None:
    room.land("x.csv", [reading(h, value=1000 if h < bad else 1) for h in range(20)])
    outcome = room.one(spec(quarantine="rows", max_bad_rows=0.1))
    assert outcome.state == state
    assert room.published() == (20 - bad if state == "published" else 0)


def test_batch_of_bad_rows_only_is_never_published(room: Room) -> None:
    room.land("x.csv", [reading(h, ok="?") for h in range(3)])
    assert room.one(spec(quarantine="rows", max_bad_rows=1)).state == "quarantined"


def test_share_of_missing_values_is_about_the_whole_batch(room: Room) -> None:
    columns = {"value": {"type": "float", "required": False, "null_share_max": 0.1}}
    room.land("at-limit.csv", [reading(h, value=None if h < 2 else 1) for h in range(20)])
    room.land("over.csv", [reading(h, value=None if h < 3 else 1) for h in range(20)])
    at_limit, over = room.ingest(spec(quarantine="rows", columns=columns))
    assert (at_limit.state, over.state) == ("published", "quarantined")
    assert "10%" in over.failures[0].limit or "0.1" in over.failures[0].limit


OWN = {
    "row-level-regex": (
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "sensor", "regex": "^a%?$"}, "rows": True},
        {"sensor": "x'y"}, "published",
    ),
    "row-level-pair": (
        {"type": "expect_column_pair_values_a_to_be_greater_than_b",
         "kwargs": {"column_A": "count", "column_B": "value"}, "rows": True},
        {"count": 0}, "published",
    ),
    "table-level": (
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "value", "max_value": 10}},
        {"value": 11}, "quarantined",
    ),
    "about-the-batch-although-by-row": (
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "sensor", "regex": "^a"}},
        {"sensor": "b"}, "quarantined",
    ),
    "exception-inside-the-library": (
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "sensor", "max_value": 3}},
        {}, "quarantined",
    ),
    "exception-inside-postgresql": (
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "sensor", "regex": "(a"}},
        {}, "quarantined",
    ),
    "the-same-as-the-column-already-says": (
        {"type": "expect_column_values_to_be_between",
         "kwargs": {"column": "value", "min_value": -100, "max_value": 100}, "rows": True},
        {"value": 101}, "published",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_own_expectation_of_the_spec(room: Room, case: str) -> None:
    expectation, changes, state = OWN[case]
    room.land("x.csv", [*(reading(h) for h in range(30)), reading(40, **changes)])
    outcome = room.one(spec(quarantine="rows", expectations=[expectation]))
    assert outcome.state == state
    assert outcome.failures[-1].expectation == expectation["type"]
    if state == "published":
        assert [r["row_number"] for r in room.rows("SELECT row_number FROM quarantine.readings")] == [31]
    if case.startswith("exception"):
        assert len(outcome.failures) == 1
        assert "could not be judged" in outcome.failures[0].observed


def test_rule_without_a_verdict_has_failed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.land("x.csv", [reading(0)])
    monkeypatch.setattr(engine, "_validate", lambda batch, expectations, form: [None] * len(expectations))
    outcome = room.one(spec())
    assert outcome.state == "quarantined"
    assert {f.observed for f in outcome.failures} == {"no verdict"}


def test_report_is_short_and_goes_through_json(room: Room) -> None:
    room.land("x.csv", [reading(h, kind=f"{h:02}" * 250) for h in range(50)])
    outcome = room.one(spec())
    assert BatchOutcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    assert len(outcome.failures[0].sample) == 5
    assert max(map(len, outcome.failures[0].sample)) == 80
    assert len(json.dumps(outcome.to_dict())) < 4000


def test_mixed_case_and_reserved_words_are_columns_like_others(room: Room) -> None:
    columns = {"Order": {"type": "integer", "min": 0}, "select": {"type": "date"}}
    header = ("at", "sensor", "value", "count", "ok", "kind", "Order", "select")
    rows = [reading(h, Order=h, select="2024-02-03") for h in range(30)]
    room.land("x.csv", [*rows, reading(40, Order=-1, select="2024-02-03")], header=header)
    outcome = room.one(spec(quarantine="rows", columns=columns, key=["at", "Order"]))
    assert (outcome.rows_new, outcome.rows_held) == (30, 1)


def test_suite_is_built_from_the_spec() -> None:
    rules = suite.rules(spec(), AS_OF, sql.SQL("t"))
    told = {(r.type.removeprefix("expect_column_values_to_"), r.column) for r in rules}
    assert told == {
        ("not_be_null", "at"), ("not_be_null", "sensor"), ("not_be_null", "ok"), ("be_between", "value"),
        ("be_in_set", "kind"), ("be_unique", "at, sensor"), ("be_between", "at"),
    }  # fmt: skip


ROW = SuiteFinding(Failure("e", "c", "o", "l", 1), rows=object())  # type: ignore[arg-type]
TABLE = SuiteFinding(Failure("e", "c", "o", "l"))
VERDICTS = {
    "no-rows": ("rows", 0, 0, [TABLE], "quarantined", "unreadable"),
    "no-rows-and-no-finding": ("rows", 0, 0, [], "quarantined", "unreadable"),
    "all-good": ("batch", 10, 0, [], "published", "passed"),
    "one-bad-row-holds-the-batch": ("batch", 100, 1, [ROW], "quarantined", "failed_expectations"),
    "one-bad-row-holds-itself": ("rows", 100, 1, [ROW], "published", "rows_held"),
    "too-many-bad-rows": ("rows", 100, 6, [ROW], "quarantined", "too_many_bad_rows"),
    "table-level": ("rows", 100, 1, [ROW, TABLE], "quarantined", "failed_expectations"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case: str) -> None:
    quarantine, rows, held, findings, state, reason = VERDICTS[case]
    verdict = judge_batch(spec(quarantine=quarantine), rows, held, findings)
    assert (verdict.state, verdict.reason) == (state, reason)


def test_password_survives_the_way_into_the_sqlalchemy_url() -> None:
    url = engine.sqlalchemy_url("postgresql://me:p%40s%24%7BHOME%7D%2F@/w?host=/tmp/a%20b")
    parsed = make_url(url.render_as_string(hide_password=False))
    assert (parsed.username, parsed.password, parsed.database) == ("me", "p@s${HOME}/", "w")
    assert parsed.query["host"] == "/tmp/a b"
    assert "${" not in url.render_as_string(hide_password=False)
