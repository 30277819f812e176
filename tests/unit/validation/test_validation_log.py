"""What a person reads in the log of an ingest: each file with its rows, each failed expectation, and the run in a line."""

from __future__ import annotations

import logging

import pytest
from validation_room import Room, reading, spec

from evergreen.validation import log_lines


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("evergreen")]


def test_a_file_is_told_with_its_rows_and_a_run_in_a_line(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evergreen")
    room.land("a.csv", [reading(h) for h in range(600)])
    outcomes = room.ingest(spec())
    first, last = lines(caplog)
    assert first.startswith("readings: a.csv: published: 600 rows read, 600 new in ")
    assert first.endswith("rows/s)")
    assert last == "readings: 1 file published: 600 new"
    assert log_lines.run(outcomes, "there") == "1 file published: 600 new"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []

    caplog.clear()
    room.ingest(spec())
    (nothing,) = lines(caplog)
    assert nothing == f"readings: nothing new in {room.folder}"


def test_what_is_held_back_is_a_warning_with_each_failed_expectation(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evergreen")
    room.land("a.csv", [reading(0), reading(1, value=1000), reading(2, kind="lukewarm")])
    room.land("b.csv", [reading(h) for h in range(3, 5)])
    room.ingest(spec())
    told_of = [r for r in caplog.records if "a.csv" in r.getMessage()]
    assert {r.levelno for r in told_of if "goes the long way" not in r.getMessage()} == {logging.WARNING}
    said = lines(caplog)
    assert any(s.startswith("readings: a.csv: held back, ") and "3 rows read, 3 held back" in s for s in said)
    (value,) = [s for s in said if s.startswith("readings: a.csv: value: ")]
    assert "1 of 3 rows, expected" in value
    assert any(s.startswith("readings: a.csv: kind: ") for s in said)
    assert said[-1] == "readings: 1 file held back, 1 published: 2 new, 3 held back"
    assert not any("{" in s for s in said), "no dict"
