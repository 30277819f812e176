"""Numbers in words, and how often long work tells how far it is."""

from __future__ import annotations

import logging

import pytest

from evergreen.progress import Progress, counted, span, took
from evergreen.quiet import hand_over


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_a_duration_in_words(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_numbers_with_their_nouns() -> None:
    assert [counted(n, "row") for n in (0, 1, 5038)] == ["0 rows", "1 row", "5,038 rows"]
    assert counted(2, "batch", "batches") == "2 batches"
    assert took(5038, 12.0) == "in 12 s (420 rows/s)"


def test_long_work_is_told_after_ten_seconds_and_then_each_half_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    now = 0.0
    progress = Progress(logging.getLogger("evergreen.x"), "rides: scoring", 600, clock=lambda: now)
    for second in range(121):
        now = float(second)
        progress.tell(5 * second)
    assert [r.getMessage() for r in caplog.records] == [
        "rides: scoring: 50 of 600 rows after 10 s, about 1 min 50 s left",
        "rides: scoring: 200 of 600 rows after 40 s, about 1 min 20 s left",
        "rides: scoring: 350 of 600 rows after 1 min 10 s, about 50 s left",
        "rides: scoring: 500 of 600 rows after 1 min 40 s, about 20 s left",
    ]


def test_short_work_and_work_without_an_end_in_sight(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = 9.0
    progress = Progress(logging.getLogger("evergreen.x"), "reading", noun="block", clock=lambda: now)
    progress.tell(7)
    assert caplog.records == []
    now = 20.0
    progress.tell(1234, ", rmse 5.1")
    assert caplog.messages == ["reading: 1,234 blocks after 11 s, rmse 5.1"]


def test_a_library_with_a_handler_of_its_own_warns_like_all_others(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = logging.getLogger("a_loud_library")
    loud.addHandler(logging.StreamHandler())
    loud.propagate = False
    loud.setLevel(logging.INFO)
    hand_over("a_loud_library")
    logging.getLogger("a_loud_library.part").info("waiting up to 300 seconds")
    logging.getLogger("a_loud_library.part").warning("the file is damaged")
    assert caplog.messages == ["the file is damaged"]
    assert "300 seconds" not in capfd.readouterr().err
