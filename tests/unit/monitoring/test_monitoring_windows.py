"""Windows lie on the calendar, and a window is judged when, and only when, there is something to judge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from evergreen.monitoring.windows import due_windows
from evergreen.monitoring.windows.due_windows import EarlierJudgement, WindowFacts
from evergreen.reference import calendar
from evergreen.reference.calendar import Window

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "length", "start"),
    [
        pytest.param("2024-01-03T12:00", WEEK, "2024-01-01T00:00", id="a week starts on Monday"),
        pytest.param("2024-01-01T00:00", WEEK, "2024-01-01T00:00", id="a start belongs to its own window"),
        pytest.param("2024-01-03T23:59", DAY, "2024-01-03T00:00", id="a day is a UTC day"),
        pytest.param("1969-12-31T10:00", DAY, "1969-12-31T00:00", id="before the anchor"),
    ],
)
def test_a_time_lies_in_one_window(time, length, start):
    found = calendar.window_of(utc(time), length)
    assert found == Window(utc(start), utc(start) + length)


@pytest.mark.parametrize(
    ("as_of", "count"),
    [
        pytest.param("2024-01-14T23:59", 1, id="a minute before the end it is not complete"),
        pytest.param("2024-01-15T00:00", 2, id="at its end it is"),
    ],
)
def test_a_window_is_complete_at_its_end(as_of, count):
    assert len(calendar.complete(WEEK, utc("2024-01-03T00:00"), utc(as_of))) == count


@pytest.mark.parametrize(
    ("reign", "first_scored", "as_of", "delay", "first"),
    [
        pytest.param("2024-01-03T02:00", "2024-01-03T00:00", "2024-01-23T00:00", 0, "2024-01-01", id="from the window of office"),
        pytest.param("2024-01-01T00:00", "2024-01-09T05:00", "2024-01-23T00:00", 0, "2024-01-08", id="not before the first prediction"),
        pytest.param("2024-01-03T02:00", None, "2024-01-23T00:00", 0, "2024-01-08", id="unscored from the first whole window"),
        pytest.param("2023-01-02T00:00", "2023-01-02T00:00", "2024-01-01T00:00", 0, "2023-10-09", id="the newest twelve"),
        pytest.param("2023-01-02T00:00", "2023-01-02T00:00", "2024-01-01T00:00", 28, "2023-09-11", id="and as many as labels take"),
    ],
)  # fmt: skip
def test_how_far_back_a_champion_answers(reign, first_scored, as_of, delay, first):
    scored = None if first_scored is None else utc(first_scored)
    found = due_windows.candidates(WEEK, utc(reign), scored, utc(as_of), timedelta(days=delay))
    assert found[0].start == utc(first)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("before", "now", "again"),
    [
        pytest.param(EarlierJudgement(1, 168, 168, 168, True), WindowFacts(168, 168, 168), False, id="nothing new"),
        pytest.param(EarlierJudgement(1, 168, 0, 168, False), WindowFacts(168, 130, 168), False, id="labels still too few"),
        pytest.param(EarlierJudgement(1, 168, 0, 168, False), WindowFacts(168, 135, 168), True, id="labels suffice now"),
        pytest.param(EarlierJudgement(1, 168, 135, 168, True), WindowFacts(168, 136, 168), False, id="one label more"),
        pytest.param(EarlierJudgement(1, 168, 135, 168, True), WindowFacts(168, 150, 168), True, id="a twentieth more labels"),
        pytest.param(EarlierJudgement(1, 168, 165, 168, True), WindowFacts(168, 168, 168), True, id="the last labels"),
        pytest.param(EarlierJudgement(1, 120, 120, 120, True), WindowFacts(168, 168, 168), True, id="late rows"),
        pytest.param(EarlierJudgement(1, 168, 168, 140, True), WindowFacts(168, 168, 168), True, id="late predictions"),
        pytest.param(EarlierJudgement(1, 168, 0, 140, False), WindowFacts(168, 0, 168), True, id="late predictions without labels"),
        pytest.param(EarlierJudgement(1, 168, 168, 160, True), WindowFacts(168, 168, 168), False, id="a few late predictions"),
        pytest.param(EarlierJudgement(1, 168, 0, 130, False), WindowFacts(168, 140, 130), False, id="too few can have label and prediction"),
        pytest.param(EarlierJudgement(1, 3, 3, 3, False, frozenset({"volume"})), WindowFacts(3, 3, 3), True, id="held back is looked at again"),
    ],
)  # fmt: skip
def test_what_is_worth_a_new_revision(before, now, again):
    assert due_windows.worth_judging_again(before, now, 0.8) is again


@pytest.mark.parametrize(
    ("facts", "least", "enough"),
    [
        pytest.param(WindowFacts(168, 30, 168), 30, True, id="thirty of them when they are due"),
        pytest.param(WindowFacts(168, 29, 168), 30, False, id="fewer than thirty"),
        pytest.param(WindowFacts(168, 168, 20), 30, False, id="hardly any prediction"),
        pytest.param(WindowFacts(10**7, 30, 10**7), 30, True, id="however small a share"),
        pytest.param(WindowFacts(20, 20, 20), 30, True, id="all of a small window"),
        pytest.param(WindowFacts(20, 19, 20), 30, False, id="not all of a small window"),
        pytest.param(WindowFacts(168, 134, 168, due=False), 30, False, id="most must be there before"),
        pytest.param(WindowFacts(168, 135, 168, due=False), 30, True, id="four fifths are most"),
        pytest.param(WindowFacts(168, 134, 168), 0.8, False, id="a share stays a share"),
        pytest.param(WindowFacts(168, 135, 168, due=False), 0.8, True, id="whenever"),
        pytest.param(WindowFacts(168, 168, 168), 1, True, id="one is all"),
        pytest.param(WindowFacts(168, 167, 168), 1, False, id="and not a single label"),
        pytest.param(WindowFacts(0, 0, 0), 30, False, id="no row"),
    ],
)
def test_how_many_labels_are_enough(facts, least, enough):
    assert facts.enough_labels(least) is enough


def test_labels_that_will_not_come_are_not_waited_for():
    waiting = EarlierJudgement(1, 168, 31, 168, False, due=False)
    assert due_windows.worth_judging_again(waiting, WindowFacts(168, 31, 168), 30)
    assert not due_windows.worth_judging_again(waiting, WindowFacts(168, 31, 168, due=False), 30)
    # What was judged when they were due had its chance: too few rows had both.
    assert not due_windows.worth_judging_again(
        EarlierJudgement(2, 168, 31, 168, False), WindowFacts(168, 31, 168), 30
    )


def test_held_back_for_the_same_reason_is_no_news():
    before = EarlierJudgement(1, 3, 3, 3, False, frozenset({"volume"}))
    assert due_windows.still_held_back(before, frozenset({"volume"}), WindowFacts(3, 3, 0))
    assert not due_windows.still_held_back(before, frozenset({"stale"}), WindowFacts(3, 3, 0))
    assert not due_windows.still_held_back(before, frozenset({"volume"}), WindowFacts(4, 4, 0))
    assert not due_windows.still_held_back(None, frozenset({"volume"}), WindowFacts(3, 3, 0))


def test_windows_without_news_do_not_take_the_place_of_those_whose_labels_came():
    found = calendar.complete(HOUR, utc("2024-01-01"), utc("2024-01-03T12:00"))
    outage = {w.start for w in found[-12:]}
    empty = EarlierJudgement(1, 0, 0, 0, False, frozenset({"volume"}))
    history = {w.start: empty if w.start in outage else EarlierJudgement(1, 60, 0, 60, False) for w in found}
    facts = {w.start: WindowFacts() if w.start in outage else WindowFacts(60, 60, 60) for w in found}
    due = due_windows.due(found, facts, history, 0.8, lambda w: w.start not in outage)
    assert [w for w, _ in due] == found[-24:-12]
    assert {revision for _, revision in due} == {2}


def test_due_windows_are_bounded_with_the_newest_in_time_order():
    found = calendar.complete(DAY, utc("2024-01-01"), utc("2024-03-01"))
    judged = {found[-1].start: EarlierJudgement(1, 24, 24, 24, True)}
    facts = {w.start: WindowFacts(24, 24, 24) for w in found}
    due = due_windows.due(found, facts, judged, 0.8)
    assert [w for w, _ in due] == found[-due_windows.MOST_PER_RUN - 1 : -1]
    assert {revision for _, revision in due} == {1}
