"""Every expectation that can be asked of single rows, on every type of column: exactly the bad rows are held back.

What is bad is told here by hand, not by the library that is tested.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from validation_room import HEADER, Room, reading, spec

from evergreen.validation import offered
from evergreen.validation.offered import offered_by_row

ODD = ("it's 100%", 'a "b"', "semi;colon", "back\\slash", "{curly} %s", "naïve – ü", "")

# By name: kwargs, the changes of the good row that are bad, and good rows that come close to being bad.
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "between-times": ("expect_column_values_to_be_between",
        {"column": "at", "min_value": "2024-01-01T00:00:00+00:00"},
        [{"at": "2023-12-31T23:59:59Z"}], [{"at": "2024-01-01T00:00:00Z"}]),
    "between-times-with-a-zone": ("expect_column_values_to_be_between",
        {"column": "seen", "min_value": "2024-01-01 02:00:00+02:00", "strict_min": True},
        [{"seen": "2024-01-01T00:00:00Z"}], [{"seen": "2024-01-01T00:00:01Z"}, {"seen": ""}]),
    "between-dates": ("expect_column_values_to_be_between",
        {"column": "day", "min_value": "2024-01-01", "max_value": "2024-12-31"},
        [{"day": "2023-12-31"}, {"day": "2025-01-01"}], [{"day": "2024-12-31"}, {"day": ""}]),
    "between-floats": ("expect_column_values_to_be_between",
        {"column": "value", "max_value": 10.5}, [{"value": "10.500001"}], [{"value": "10.5"}, {"value": ""}]),
    "between-integers": ("expect_column_values_to_be_between",
        {"column": "count", "min_value": 0}, [{"count": "-1"}], [{"count": "0"}, {"count": ""}]),
    "set-of-texts": ("expect_column_values_to_be_in_set",
        {"column": "note", "value_set": [*ODD[:-1], "plain"]}, [{"note": "it''s 100%"}, {"note": "100%%"}],
        [{"note": '"it\'s 100%"'}, {"note": "back\\slash"}, {"note": '"a ""b"""'}, {"note": ""}]),
    "set-of-times": ("expect_column_values_to_not_be_in_set",
        {"column": "seen", "value_set": ["2024-01-05T00:00:00+00:00"]},
        [{"seen": "2024-01-05T01:00:00+01"}], [{"seen": "2024-01-05T00:00:01Z"}]),
    "set-of-dates": ("expect_column_values_to_not_be_in_set",
        {"column": "day", "value_set": ["2024-12-24"]}, [{"day": "2024-12-24"}], [{"day": "2024-12-25"}]),
    "set-of-booleans": ("expect_column_values_to_be_in_set",
        {"column": "ok", "value_set": [True]}, [{"ok": "false"}], []),
    "set-of-integers": ("expect_column_values_to_be_in_set",
        {"column": "count", "value_set": [1, 2, 3]}, [{"count": "4"}], [{"count": ""}]),
    "regular-expression": ("expect_column_values_to_match_regex",
        {"column": "note", "regex": r"^[^%']*$|100%$"}, [{"note": "5% off"}], [{"note": "it's 100%"}, {"note": ""}]),
    "not-regular-expression": ("expect_column_values_to_not_match_regex",
        {"column": "note", "regex": "%|'"}, [{"note": "it's"}, {"note": "5%"}], [{"note": ""}]),
    "regular-expressions": ("expect_column_values_to_match_regex_list",
        {"column": "note", "regex_list": ["^plain$", "%$"], "match_on": "any"}, [{"note": "other"}],
        [{"note": "100%"}, {"note": ""}]),
    "not-regular-expressions": ("expect_column_values_to_not_match_regex_list",
        {"column": "note", "regex_list": ["^x", "%$"]}, [{"note": "100%"}, {"note": "x"}], [{"note": ""}]),
    "like": ("expect_column_values_to_match_like_pattern",
        {"column": "note", "like_pattern": "p%n"}, [{"note": "100%"}], [{"note": "p%n"}, {"note": ""}]),
    "not-like": ("expect_column_values_to_not_match_like_pattern",
        {"column": "note", "like_pattern": "%'%"}, [{"note": "it's"}], [{"note": ""}]),
    "likes": ("expect_column_values_to_match_like_pattern_list",
        {"column": "note", "like_pattern_list": ["pl%", "%'s"], "match_on": "any"}, [{"note": "other"}],
        [{"note": "it's"}, {"note": ""}]),
    "not-likes": ("expect_column_values_to_not_match_like_pattern_list",
        {"column": "note", "like_pattern_list": ["x%", "%'s"]}, [{"note": "it's"}], [{"note": ""}]),
    "null": ("expect_column_values_to_be_null", {"column": "gone"}, [{"gone": "1"}], []),
    "not-null-time": ("expect_column_values_to_not_be_null", {"column": "seen"}, [{"seen": ""}], []),
    "not-null-text": ("expect_column_values_to_not_be_null", {"column": "note"}, [{"note": ""}], []),
    "unique-time": ("expect_column_values_to_be_unique", {"column": "seen"},
        [{"seen": "2024-03-01T00:00:00Z"}, {"seen": "2024-03-01T01:00:00+01"}], [{"seen": ""}, {"seen": ""}]),
    "unique-text": ("expect_column_values_to_be_unique", {"column": "mark"},
        [{"mark": "it's 1%"}, {"mark": "it's 1%"}], [{"mark": ""}, {"mark": ""}]),
    "unique-together": ("expect_compound_columns_to_be_unique", {"column_list": ["seen", "mark"]},
        [{"seen": "2024-02-20T00:00:00Z", "mark": "5%"}, {"seen": "2024-02-20T00:00:00Z", "mark": "5%"}], []),
    "length": ("expect_column_value_lengths_to_be_between", {"column": "note", "max_value": 5},
        [{"note": "it's 100%"}], [{"note": "naïve"}, {"note": ""}]),
    "length-equal": ("expect_column_value_lengths_to_equal", {"column": "note", "value": 5},
        [{"note": "%"}], [{"note": "naïve"}, {"note": ""}]),
    "far-from-the-mean": ("expect_column_value_z_scores_to_be_less_than",
        {"column": "value", "threshold": 4, "double_sided": True}, [{"value": "99"}], [{"value": ""}]),
    "outlier": ("expect_column_values_to_not_be_outliers",
        {"column": "spread", "method": "iqr", "multiplier": 3}, [{"spread": "999"}], []),
    "pair-of-times": ("expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "seen", "column_B": "at", "or_equal": True, "ignore_row_if": "either_value_is_missing"},
        [{"seen": "2020-01-01T00:00:00Z"}], [{"seen": ""}]),
    "pair-of-numbers": ("expect_column_pair_values_to_be_equal",
        {"column_A": "value", "column_B": "twin", "ignore_row_if": "both_values_are_missing"},
        [{"twin": "2"}, {"twin": ""}], [{"value": "", "twin": ""}]),
    "pair-of-texts": ("expect_column_pair_values_to_be_in_set",
        {"column_A": "note", "column_B": "mark_kind",
         "value_pairs_set": [["plain", "cold"], ["it's 100%", "it's hot"]]},
        [{"note": "it's 100%"}], [{"note": "it's 100%", "mark_kind": "it's hot"}]),
    "sum": ("expect_multicolumn_sum_to_equal",
        {"column_list": ["value", "twin"], "sum_total": 3, "ignore_row_if": "any_value_is_missing"},
        [{"twin": "2"}], [{"twin": ""}]),
    "all-equal": ("expect_multicolumn_values_to_be_equal",
        {"column_list": ["value", "twin"], "ignore_row_if": "any_value_is_missing"},
        [{"twin": "2"}], [{"twin": ""}]),
    "different-within-a-row": ("expect_select_column_values_to_be_unique_within_record",
        {"column_list": ["note", "mark_kind"], "ignore_row_if": "any_value_is_missing"},
        [{"note": "cold"}], [{"note": ""}]),
    "own-query": ("unexpected_rows_expectation",
        {"unexpected_rows_query": "SELECT * FROM {batch} WHERE note LIKE '%it''s%'"},
        [{"note": "it's 100%"}], [{"note": "100%"}]),
    "only-some-rows": ("expect_column_values_to_be_between",
        {"column": "value", "max_value": 10, "row_condition": 'col("sensor")=="b"',
         "condition_parser": "great_expectations"},
        [{"sensor": "b", "value": "11"}], [{"sensor": "c", "value": "11"}]),
    "unique-among-some-rows": ("expect_column_values_to_be_unique",
        {"column": "mark", "row_condition": 'col("sensor")=="b"', "condition_parser": "great_expectations"},
        [{"sensor": "b", "mark": "m"}, {"sensor": "b", "mark": "m"}], [{"sensor": "c", "mark": "m"}]),
}  # fmt: skip

OWN_QUERY = list(CASES).index("own-query")
COLUMNS: dict[str, dict[str, Any]] = {
    "at": {"type": "timestamp"}, "sensor": {"type": "text"}, "ok": {"type": "boolean"},
    "value": {"type": "float", "required": False}, "count": {"type": "integer", "required": False},
    "seen": {"type": "timestamp", "required": False}, "day": {"type": "date", "required": False},
    "note": {"type": "text", "required": False}, "mark": {"type": "text", "required": False},
    "mark_kind": {"type": "category"}, "twin": {"type": "float", "required": False},
    "spread": {"type": "float"}, "gone": {"type": "integer", "required": False},
}  # fmt: skip


def _good(hour: int) -> dict[str, Any]:
    other = {
        "seen": f"2024-02-10T{hour % 24:02}:{hour % 60:02}:{hour // 60:02}Z", "day": "2024-02-03", "note": "plain",
        "mark": f"m{hour}", "mark_kind": "cold", "twin": "1.5", "spread": hour % 5, "gone": "",
    }  # fmt: skip
    return {**reading(hour), **other}


def test_only_the_rows_that_fail_are_held(room: Room) -> None:
    """All cases in one file, each with columns and rows of its own, because a run takes a second."""
    columns, expectations, wanted = {}, [], {}
    rows = [_good(h) for h in range(60)]
    for number, (kind, kwargs, bad, good) in enumerate(CASES.values()):
        text = json.dumps(kwargs)
        own = [name for name in COLUMNS if re.search(rf"\b{name}\b(?!\":)", text)]
        for name in own:
            columns[f"{name}_{number}"] = COLUMNS[name]
            text = re.sub(rf"\b{name}\b(?!\":)", f"{name}_{number}", text)
        expectations.append({"type": kind, "kwargs": json.loads(text), "rows": True})
        for row in rows:
            row.update({f"{name}_{number}": row[name] for name in own})
        for changes in good + bad:
            row = _good(len(rows))
            rows.append({**row, **{f"{name}_{number}": value for name, value in changes.items()}})
        wanted[number] = list(range(len(rows) - len(bad) + 1, len(rows) + 1))
    for row in rows:
        for name in columns:
            row.setdefault(name, row[name.rpartition("_")[0]])
    room.land("x.csv", rows, header=(*HEADER, *columns))
    dataset = spec(quarantine="rows", max_bad_rows=0.9, columns=columns, expectations=expectations)
    assert offered.problems(dataset) == []
    outcome = room.one(dataset)
    assert [(f.expectation, f.whole, f.observed) for f in outcome.failures if f.whole] == []
    assert (outcome.state, len(outcome.failures)) == ("published", len(CASES))
    held = {
        number: [r["row_number"] for r in room.rows(
            "SELECT row_number FROM quarantine.readings, unnest(reasons) AS reason"
            f" WHERE reason ~ '(^|, )[a-z_]+_{number}(,|:)' OR ({number} = {OWN_QUERY} AND reason LIKE 'row:%') ORDER BY 1"
        )]
        for number in wanted
    }  # fmt: skip
    assert {list(CASES)[n]: r for n, r in held.items()} == {list(CASES)[n]: r for n, r in wanted.items()}


def test_every_expectation_that_is_offered_by_row_has_a_case() -> None:
    assert offered_by_row() == {kind for kind, *_ in CASES.values()}


WHOLE: dict[str, tuple[dict[str, Any], str]] = {
    "about-the-file": (
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "value", "max_value": 1}, "rows": True},
        "it is about the file as a whole",
    ),
    "own-query-without-the-row": (
        {"type": "unexpected_rows_expectation", "rows": True,
         "kwargs": {"unexpected_rows_query": "SELECT sensor FROM {batch} WHERE value > 1"}},
        'the query of its rows does not run (column "_row" does not exist)',
    ),
    "not-asked-by-row": (
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "sensor", "regex": "^b"}},
        "the spec does not say `rows: true` of it",
    ),
    "not-judged": (
        {"type": "expect_column_values_to_match_regex", "rows": True, "kwargs": {"column": "value", "regex": "^b"}},
        "no row could be judged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_is_held_whole_says_why(room: Room, case: str) -> None:
    expectation, why = WHOLE[case]
    room.land("x.csv", [reading(h) for h in range(30)])
    outcome = room.one(spec(quarantine="rows", expectations=[expectation]))
    assert (outcome.state, outcome.failures[0].whole) == ("quarantined", why)
    (told,) = room.rows("SELECT evidence->'held_whole' AS whole FROM evergreen.decision")
    assert [text.partition(": ")[2].endswith(why) for text in told["whole"]] == [True]


def test_the_spec_says_that_a_batch_is_held_whole(room: Room) -> None:
    room.land("x.csv", [*map(reading, range(30)), reading(30, value=101)])
    room.one(spec())
    (told,) = room.rows("SELECT evidence->'held_whole' AS whole FROM evergreen.decision")
    assert "quarantine: batch" in told["whole"][0]


def test_too_many_bad_rows_say_so_with_the_limit(room: Room) -> None:
    room.land("x.csv", [reading(h, value=101 if h < 3 else 1) for h in range(30)])
    room.one(spec(quarantine="rows"))
    (told,) = room.rows("SELECT evidence->'held_whole' AS whole FROM evergreen.decision")
    assert told["whole"] == ["3 of 30 rows fail (10.0%), and max_bad_rows allows 0.05"]


WRITES = {
    "second-statement": "SELECT * FROM {batch} WHERE false; DELETE FROM evergreen.batch",
    "in-a-with": "WITH gone AS (DELETE FROM evergreen.batch RETURNING *) SELECT * FROM {batch} WHERE false",
}


@pytest.mark.parametrize("case", WRITES)
def test_an_expectation_that_writes_has_failed_and_nothing_is_written(room: Room, case: str) -> None:
    room.land("a.csv", [reading(0)])
    room.one(spec())
    room.land("b.csv", [reading(1)])
    own = {
        "type": "unexpected_rows_expectation",
        "rows": True,
        "kwargs": {"unexpected_rows_query": WRITES[case]},
    }
    outcome = room.one(spec(quarantine="rows", max_bad_rows=1.0, expectations=[own]))
    assert (outcome.state, len(outcome.failures)) == ("quarantined", 1)
    assert [r["file"] for r in room.rows("SELECT file FROM evergreen.batch ORDER BY id")] == [
        "a.csv",
        "b.csv",
    ]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two-statements": ({"type": "unexpected_rows_expectation",
                        "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch}; DELETE FROM evergreen.batch"}},
                       "more than one statement"),
    "unknown": ({"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "value"}},
                "did you mean expect_column_values_to_be_between?"),
    "argument": ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "value", "min": 3}}, "min"),
    "not-in-sql": ({"type": "expect_column_values_to_be_increasing", "kwargs": {"column": "value"}},
                   "does not judge it in SQL"),
    "not-by-row": ({"type": "expect_column_mean_to_be_between", "kwargs": {"column": "value"}, "rows": True},
                   "about the file as a whole"),
    "type-of-the-column": ({"type": "expect_column_values_to_be_of_type", "rows": True,
                            "kwargs": {"column": "value", "type_": "FLOAT"}}, "about the file as a whole"),
    "column-of-a-pair": ({"type": "expect_column_pair_values_to_be_equal",
                          "kwargs": {"column_A": "value", "column_B": "kont"}}, "no column 'kont'"),
    "column-of-a-list": ({"type": "expect_compound_columns_to_be_unique",
                          "kwargs": {"column_list": ["at", "sensr"]}}, "did you mean sensor?"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_check_refuses_what_cannot_be_judged(case: str) -> None:
    expectation, text = REFUSED[case]
    (problem,) = offered.problems(spec(expectations=[expectation]))
    assert text in problem.remedy
    assert problem.field.startswith("expectations.0")
