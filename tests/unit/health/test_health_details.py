"""A model, a window, a dataset and an incident as their pages show them, from a real warehouse."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from evergreen.alerting.content.history import JudgedWindow
from evergreen.health import approval, dataset, incident, model, told, window
from evergreen.health.charts import columns, error_history, sparkline
from evergreen.health.dataset import line_of
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import IGNORED, LABELS, ColumnResult, What
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from health_scene import BEGIN, DEMAND, HOURLY, MARKUP, RUSH, WEEK, judge, only_shown


def test_a_model_has_its_past_its_champions_and_what_was_asked_for(story: Specs, conn: Connection) -> None:
    found = model.details(conn, story, "bike_demand")
    assert [w.value for w in found.windows] == [44.0, 47.0, 75.0, 81.0, 46.0, 72.0]
    assert [(m.kind, m.version) for m in found.marks] == [
        ("promoted", "1"), ("retrain_requested", "1"), ("promoted", "2"), ("retrain_requested", "2"),
    ]  # fmt: skip
    assert found.alarms == ((BEGIN + 2 * WEEK, "drift"),)
    assert [(c.version, c.until, c.returnable, c.previous, c.holdout) for c in found.champions] == [
        ("2", None, False, False, "RMSE 48"), ("1", BEGIN + 4.01 * WEEK, True, True, "RMSE 45"),
    ]  # fmt: skip
    assert [(r.row.kind, r.ending) for r in found.requests] == [
        ("retrain_requested", "open"),
        ("retrain_requested", "new champion v2: it beat the champion on the same rows"),
        ("retrain_suppressed", "held back"),
    ]
    assert [(i.words, i.ended) for i in found.incidents] == [("drift", None)]


def test_the_heat_map_has_the_worst_columns_first_and_a_cell_for_each_window(
    story: Specs, conn: Connection
) -> None:
    heat = model.heat_map(conn, "bike_demand")
    assert heat.columns == ("temperature", "humidity", "_label", "weather")
    assert [start for start, _, _ in heat.windows] == [BEGIN + n * WEEK for n in range(6)]
    assert [round(heat.cells["temperature", n].ratio or 0, 2) for n in range(6)] == [
        0.3,
        0.9,
        3.1,
        3.4,
        0.4,
        0.5,
    ]
    assert [heat.cells["temperature", n].violated for n in range(6)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    newest = model.heat_map(conn, "bike_demand", most=2)
    assert [start for start, _, _ in newest.windows] == [BEGIN + 4 * WEEK, BEGIN + 5 * WEEK]


def test_in_the_heat_map_columns_that_are_only_shown_come_last(story: Specs) -> None:
    with connect() as conn:
        judge(
            conn, 6, "2", 50.0, {"temperature": 0.5, "humidity": 0.4, "price": 0.1}, [
                only_shown("_label", 9.0, LABELS), only_shown("weather", None, IGNORED), only_shown("windspeed", 3.0, IGNORED),
            ],
        )  # fmt: skip
        heat = model.heat_map(conn, "bike_demand")
    assert heat.columns == ("temperature", "humidity", "price", "_label", "windspeed", "weather")


def test_a_window_has_its_worst_column_first_with_its_past(story: Specs, conn: Connection) -> None:
    found = window.details(conn, "bike_demand", BEGIN + 3.5 * WEEK)
    assert found is not None
    assert [c.column for c in found.columns] == ["temperature", "humidity", "_label", "weather"]
    assert [round(share or 0, 2) for share in found.columns[0].past] == [0.3, 0.9, 3.1, 3.4]
    assert found.errors[0][1] is True
    assert found.errors[0][0].startswith("RMSE: 81")
    assert (found.before, found.after) == (BEGIN + 2 * WEEK, BEGIN + 4 * WEEK)
    assert window.details(conn, "bike_demand", BEGIN - WEEK) is None


def test_the_columns_of_a_window_come_in_the_order_in_which_they_matter(story: Specs) -> None:
    """Beyond, could not be computed, within, only shown, not judged: whatever their values are."""
    lost = ColumnResult(
        "holiday", What.UNREADABLE, "wasserstein", None, 0.2, True, "all 168 values are missing"
    )
    shown = [
        only_shown("weather", None, IGNORED), only_shown("price", 9.0, IGNORED), only_shown("_label", 0.9, LABELS),
    ]  # fmt: skip
    with connect() as conn:
        judge(
            conn, 6, "2", 50.0, {"humidity": 0.4, "workingday": -3.0, "windspeed": 1.5, "temperature": 0.5}, [*shown, lost],
        )  # fmt: skip
        found = window.details(conn, "bike_demand", BEGIN + 6.5 * WEEK)
        judge(conn, 7, "2", 50.0, {"humidity": 0.4}, shown)
        quiet = window.details(conn, "bike_demand", BEGIN + 7.5 * WEEK)
    assert found is not None
    assert [(c.column, c.violated, c.not_judged) for c in found.columns] == [
        ("holiday", True, ""), ("windspeed", True, ""), ("temperature", False, ""), ("humidity", False, ""), ("workingday", False, ""),
        ("price", False, IGNORED), ("_label", False, LABELS), ("weather", False, IGNORED),
    ]  # fmt: skip
    assert quiet is not None
    assert [c.column for c in quiet.columns] == ["humidity", "price", "_label", "weather"]


def test_a_held_row_has_file_line_column_value_and_rule(story: Specs, conn: Connection) -> None:
    found = dataset.details(conn, story, "bike_hourly")
    assert [(b.file, b.state, b.waits) for b in found.batches] == [
        ("2-bad.csv", "quarantined", True),
        ("1-good.csv", "published", False),
    ]
    rows = dataset.held_rows(conn, "bike_hourly", batches=found.waiting)
    assert [(r.file, r.line, [(b.column, b.value) for b in r.broken]) for r in rows] == [
        ("2-bad.csv", 3, [("weather", "hail")]), ("2-bad.csv", 4, [("temperature", "500")]), ("2-bad.csv", 6, [("weather", MARKUP)]),
    ]  # fmt: skip
    assert rows[0].broken[0].rule == "be in set"
    assert "clear" in rows[0].broken[0].expected
    assert rows[0].values["humidity"] == "50"
    assert dataset.held_rows(conn, "bike_hourly", after=(rows[0].batch, rows[0].row), limit=1) == rows[1:2]
    assert dataset.held_rows(conn, "bike_hourly", batches=[]) == []
    assert dataset.held_rows(conn, "nothing_landed") == [], "there is no such table"
    assert fetch(conn, "SELECT 1 AS still") == [{"still": 1}], "the transaction goes on"


@pytest.mark.parametrize(
    ("row", "line"),
    [(1, 2), (3, 4), (5, 6), (6, None), (8, None), (10, 13), (12, None)],
    ids=[
        "known",
        "between two alike",
        "known too",
        "a long row may lie between",
        "so it may here",
        "the last known",
        "beyond",
    ],
)
def test_a_line_is_told_only_where_it_follows_from_those_that_are_known(row: int, line: int | None) -> None:
    assert line_of(row, [(1, 2), (5, 6), (10, 13)]) == line


def test_evidence_is_a_sentence_facts_and_tables(story: Specs, conn: Connection) -> None:
    promoted = next(r for r in told.rows(conn, DEMAND, kinds=["promoted"]) if r.version == "2")
    found = told.told(conn, promoted.id)
    assert found is not None
    assert found.row.sentence == f"it beat the champion on the same rows: it is better {MARKUP}"
    assert ("metric", "RMSE") in found.facts
    tables = {t.title: t for t in found.tables}
    assert tables["What the gate checked"].rows == (("the improvement is 40 %", "passed"),)
    same = tables["On the same rows"]
    shown = dict(zip(same.columns, same.rows[0], strict=True))
    assert shown == {"Metric": "RMSE", "challenger": "48", "champion": "80", "baseline": "90"}
    assert ("fingerprint", "f" * 64) in found.small_print, "a hash is small print"
    assert [r.kind for r in found.answers] == ["retrain_requested"]
    asked = told.told(conn, found.answers[0].id)
    assert asked is not None
    assert [r.id for r in asked.answered_by] == [promoted.id]
    assert ("drifted", "temperature") in asked.facts
    assert told.told(conn, 10**9) is None


def test_every_kind_of_decision_is_told_without_json(story: Specs, conn: Connection) -> None:
    for subject in (DEMAND, RUSH, HOURLY):
        for row in told.rows(conn, subject):
            found = told.told(conn, row.id)
            assert found is not None
            shown = [value for _, value in found.facts] + [
                cell for t in found.tables for line in t.rows for cell in line
            ]
            assert not [text for text in shown if text.startswith(("{", "[")) or "': " in text], row.kind
    assert told.kinds_of(conn, HOURLY) == ["batch_published", "batch_quarantined"]


def test_an_incident_is_one_time_line_with_a_permanent_id(story: Specs, conn: Connection) -> None:
    first = model.details(conn, story, "bike_demand").incidents[0].id
    found = incident.incident(conn, first)
    assert found is not None
    assert (found.id, found.words, found.told_as, found.thread.end) == (
        first,
        "drift",
        ("the input data drifted",),
        None,
    )
    assert [(s.what, s.words.partition(":")[0]) for s in found.steps] == [
        ("begin", "it began"), ("decision", "retraining held back v1"), ("decision", "retraining asked for v1"), ("mail", "mail"),
        ("decision", "new champion v2"), ("decision", "retraining asked for v2"),
    ]  # fmt: skip
    assert next(s.state for s in found.steps if s.what == "mail") == "waits"
    assert found.runs[0].startswith("monitor__bike_demand/")
    assert incident.subject_of(conn, first) == DEMAND
    assert incident.incident(conn, 10**9) is None


def test_the_question_about_a_challenger_names_the_run_that_asks(story: Specs, conn: Connection) -> None:
    found = approval.question(conn, story, "bike_rush")
    assert found is not None
    assert (found.waiting.version, found.run_id) == ("2", "promote__bike_rush/asset__5")
    assert found.letter.headline.startswith("bike_rush: version 2 waits for approval")
    assert approval.question(conn, story, "bike_demand") is None


def test_the_pictures_are_well_formed_and_say_in_words_what_they_show(story: Specs, conn: Connection) -> None:
    found = model.details(conn, story, "bike_demand")
    drawn = error_history.error_history(
        found.windows,
        "RMSE",
        found.marks,
        found.alarms,
        found.champions,
        lambda number: f"../decision/{number}",
    )
    root = ElementTree.fromstring(drawn)
    assert root.find("desc") is not None
    assert "6 windows from 2026-01-05 00:00 UTC" in (root.findtext("desc") or "")
    assert len(root.findall("a")) == 4, "each decision leads to its evidence"
    assert len([e for e in root.findall("rect") if e.get("class") == "bad"]) == 3
    assert MARKUP not in drawn
    assert "&lt;script&gt;" in drawn
    spark = ElementTree.fromstring(sparkline.sparkline(found.windows, "RMSE"))
    assert "newest 72, limit 60; 3 in violation" in (spark.findtext("desc") or "")
    assert sparkline.sparkline([], "RMSE") == ""
    assert error_history.error_history([], "RMSE", (), (), (), str) == ""


def test_an_odd_past_is_drawn_all_the_same() -> None:
    windows = [
        JudgedWindow(BEGIN, BEGIN + WEEK, "1", "ok", 5.0, None),
        JudgedWindow(BEGIN + WEEK, BEGIN + 2 * WEEK, "1", "stale", None, None),
        JudgedWindow(BEGIN + 60 * WEEK, BEGIN + 61 * WEEK, "1", "ok", 5.0, None, estimated=True),
    ]
    drawn = error_history.error_history(windows, "RMSE", (), (), (), str)
    root = ElementTree.fromstring(drawn)
    assert "no window was judged in between" in drawn
    assert len([e for e in root.findall("path") if e.get("class") == "estimated"]) == 1
    numbers = [float(x) for x in re.findall(r'(?:x|y|cx|cy)="(-?[\d.]+)"', drawn)]
    assert min(numbers) >= 0
    assert ElementTree.fromstring(columns.against_limit(None, (), "x", violated=True)) is not None
    assert ElementTree.fromstring(columns.distribution(("a", "b"), (0.4, 0.6), (), "x")) is not None
    assert columns.distribution((), (), (), "x") == ""


def test_the_kinds_of_decisions_all_have_words() -> None:
    from evergreen.ledger import words

    assert set(words.KINDS) == {kind.value for kind in DecisionKind}
