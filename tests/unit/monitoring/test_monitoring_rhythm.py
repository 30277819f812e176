"""What is usual of a feed that is not there all the time, and what of an empty window is a surprise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from monitoring_scene import model

from evergreen.monitoring.windows import readiness
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.monitoring.windows.plan import plan
from evergreen.monitoring.windows.reads import WindowCounts
from evergreen.reference import past_windows
from evergreen.reference.calendar import ANCHOR, Window
from evergreen.reference.rhythm import Rhythm

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
NOW = ANCHOR + 2830 * WEEK  # a Monday 00:00 UTC


def micros(times) -> np.ndarray:
    return np.array([int(t.timestamp()) * 1_000_000 for t in times], dtype=np.int64)


def steady(days: float, step: timedelta = HOUR, end: datetime = NOW) -> list[datetime]:
    return [end - step * n for n in range(1, round(days * DAY / step) + 1)]


def spec(window: str, **more):
    settings = {"min_rows": 10, **more}
    if "freshness" not in more:
        watched = model(window=window, **settings)
        monitoring = watched.monitoring.model_dump(exclude={"freshness"}, exclude_unset=True)
        return watched.model_copy(update={"monitoring": type(watched.monitoring)(**monitoring)})
    return model(window=window, **settings)


def learnt(times, watched):
    """What a reference of these rows knows of the feed."""
    found = past_windows.split(micros(times), watched.monitoring, 0)
    return SimpleNamespace(rhythm=found.rhythm, usual_rows=found.usual_rows, windows=len(found.rows))


def state(watched, reference, rows: int, window: Window, newest: datetime, growth: float = 1.0) -> str:
    """How a window comes out, all its rows being scored."""
    facts = WindowFacts(rows, rows, rows)
    held = readiness.check(watched, reference, facts, window, newest, window.end, growth)
    stale = any(v.kind is What.STALE for v in held)
    if not stale and readiness.nothing_due(watched, reference, facts, window):
        return "nothing due"
    return held[0].kind.value if held else "judged"


def of(start: datetime, length: timedelta) -> Window:
    return Window(start, start + length)


@pytest.mark.parametrize("old", [datetime(1970, 1, 1), datetime(1, 1, 1)], ids=["1970", "year 1"])
@pytest.mark.parametrize(("window", "length"), [("1d", DAY), ("7d", WEEK), ("1m", HOUR / 60)], ids=str)
def test_one_row_of_long_ago_changes_nothing(old, window, length):
    watched = spec(window)
    rows = steady(70, min(HOUR, length / 20))
    clean, odd = (learnt(times, watched) for times in (rows, [old.replace(tzinfo=UTC), *rows]))
    assert (odd.rhythm, odd.usual_rows) == (clean.rhythm, clean.usual_rows)
    assert odd.usual_rows == length / min(HOUR, length / 20)
    assert odd.windows >= clean.windows - 1


@pytest.mark.parametrize("window", ["1d", "7d"])
@pytest.mark.parametrize("pause", [200, 370], ids=["a season", "a year"])
@pytest.mark.parametrize("since", [15, 60])
def test_a_pause_says_nothing_of_what_is_usual(window, pause, since):
    watched = spec(window)
    rows = [*steady(90, end=NOW - (pause + since) * DAY), *steady(since)]
    length = watched.monitoring.window
    reference = learnt(rows, watched)
    full = round(length / HOUR)
    assert state(watched, reference, full, of(NOW, length), NOW + length) == "judged"
    assert state(watched, reference, full // 4, of(NOW, length), NOW + length) == "volume"
    assert state(watched, reference, 4 * full, of(NOW, length), NOW + length) == "volume"
    assert state(watched, reference, 0, of(NOW, length), NOW) == ("volume" if length == DAY else "stale")


def shop(weeks: int, days=range(7), hours=range(9, 17), a_day: int = 40) -> list[datetime]:
    start = NOW - weeks * WEEK
    return [
        start + d * DAY + h * HOUR + HOUR * n / a_day
        for d in range(7 * weeks)
        if d % 7 in days
        for h in hours
        for n in range(a_day)
    ]


@pytest.mark.parametrize("weeks", [1, 2, 12])
@pytest.mark.parametrize("freshness", [{}, {"freshness": "36h"}], ids=["by default", "set"])
def test_a_shop_is_judged_while_open_and_left_alone_at_night(weeks, freshness):
    watched = spec("1h", **freshness)
    reference = learnt(shop(weeks), watched)
    for day in range(7):
        for hour in range(24):
            window = of(NOW + day * DAY + hour * HOUR, HOUR)
            opened = 9 <= hour < 17
            newest = window.end if opened else NOW + (day - (hour < 9)) * DAY + 17 * HOUR
            found = state(watched, reference, 40 if opened else 0, window, newest)
            # After one week only the days tell, so the first nine hours are of no place yet.
            assert found == ("judged" if opened else "nothing due"), window
            if opened:
                assert state(watched, reference, 0, window, window.start) == "volume", "unexpectedly empty"
                assert state(watched, reference, 10, window, window.end) == "volume", "a quarter of the usual"
            else:
                assert state(watched, reference, 3, window, window.end) == "nothing due"
                assert state(watched, reference, 40, window, window.end) == "judged", "open for once"
                assert state(watched, reference, 4000, window, window.end) == "volume"


def test_a_feed_that_rests_on_sundays_is_stale_only_when_it_should_have_come():
    watched = spec("1d")
    reference = learnt(shop(12, days=range(5)), watched)
    friday = NOW + 4 * DAY + 17 * HOUR
    for hours in range(0, 24 * 4 - 8):  # until Tuesday 09:00, when Monday's rows may still be on their way
        assert not readiness.stopped(watched, reference, friday, friday + hours * HOUR), hours
    assert readiness.stopped(watched, reference, friday, friday + 4 * DAY + 6 * HOUR)
    assert readiness.stopped(watched, reference, NOW + 12 * HOUR, NOW + 3 * DAY), (
        "in the week as soon as ever"
    )
    for day, found in enumerate(["judged"] * 5 + ["nothing due"] * 2):
        window = of(NOW + day * DAY, DAY)
        newest = min(window.end, friday)
        assert state(watched, reference, 320 if day < 5 else 0, window, newest) == found
    hard = spec("1d", freshness="36h")
    assert readiness.stopped(hard, reference, friday, friday + 37 * HOUR), (
        "what the spec sets is a hard limit"
    )


def test_the_usual_number_is_that_of_the_same_day_of_the_week():
    watched = spec("1d")
    few = shop(12, days=[5, 6], hours=range(24), a_day=5)
    reference = learnt([*shop(12, days=range(5), hours=range(24), a_day=50), *few], watched)
    saturday, monday = of(NOW + 5 * DAY, DAY), of(NOW, DAY)
    assert state(watched, reference, 120, saturday, saturday.end) == "judged"
    assert state(watched, reference, 1200, saturday, saturday.end) == "volume"
    assert state(watched, reference, 120, monday, monday.end) == "volume"
    assert state(watched, reference, 1200, monday, monday.end) == "judged"


def test_hours_that_are_open_half_of_the_year_are_no_surprise_when_they_are_closed():
    watched = spec("1h")
    start = NOW - 52 * WEEK
    rows = [
        start + d * DAY + (h - (d > 182)) * HOUR + n * HOUR / 40
        for d in range(364)
        for h in range(8, 16)
        for n in range(40)
    ]
    reference = learnt(rows, watched)
    for hour in (7, 15):
        window = of(NOW + hour * HOUR, HOUR)
        assert state(watched, reference, 0, window, window.start) == "nothing due"
        assert state(watched, reference, 40, window, window.end) == "judged"
    window = of(NOW + 10 * HOUR, HOUR)
    assert state(watched, reference, 0, window, window.start) == "volume"


def test_bursts_are_judged_although_most_windows_are_empty():
    watched = spec("1h", freshness="30d")
    rng = np.random.default_rng(5)
    bursts = np.flatnonzero(rng.random(24 * 84) < 0.2)
    rows = [NOW - 84 * DAY + int(b) * HOUR + n * HOUR / 50 for b in bursts for n in range(50)]
    reference = learnt(rows, watched)
    found = {state(watched, reference, 50, of(NOW + h * HOUR, HOUR), NOW) for h in range(168)}
    assert found == {"judged"}
    found = {state(watched, reference, 0, of(NOW + h * HOUR, HOUR), NOW) for h in range(168)}
    assert "nothing due" in found


def test_a_model_whose_windows_are_all_too_small_is_told_so():
    watched = spec("1h", min_rows=100)
    reference = learnt(shop(12), watched)
    window = of(NOW + 10 * HOUR, HOUR)
    assert state(watched, reference, 40, window, window.end) == "volume"
    night = of(NOW, HOUR)
    assert state(watched, reference, 0, night, NOW) == "nothing due"


def test_a_feed_that_grew_steadily_is_measured_by_what_it_is_now():
    watched = spec("7d")
    rows = [
        NOW - (40 - w) * WEEK + n * WEEK / int(100 * 1.08**w)
        for w in range(40)
        for n in range(int(100 * 1.08**w))
    ]
    reference = learnt(rows, watched)
    next_one = of(NOW, WEEK)
    assert state(watched, reference, int(100 * 1.08**40), next_one, NOW + WEEK) == "judged"


def judged(watched, number: int, rows: int, status: Status) -> Judgement:
    start = NOW + number * watched.monitoring.window
    end = start + watched.monitoring.window
    from evergreen.monitoring.windows.judgement import Violation

    held = (Violation(What.VOLUME, "_key", "rows", rows, 1.0),) if status is Status.INSUFFICIENT else ()
    return Judgement("watched", "1", start, end, 1, end, status, rows, 0, rows, held, scored=rows)


def due(watched, reference, earlier, rows: int) -> list:
    window = of(NOW + len(earlier) * watched.monitoring.window, watched.monitoring.window)
    feed = WindowCounts({window.start: WindowFacts(rows, rows, rows)}, window.end)
    made = plan(watched, reference, [window], feed, earlier, NOW, window.end)
    return [(w, made.held[w.start]) for w, _ in made.windows]


def test_a_feed_that_goes_on_growing_under_one_champion_is_still_judged_and_a_leap_is_told():
    watched = spec("7d")
    reference = SimpleNamespace(rhythm=Rhythm((168.0,), (0.0,)), usual_rows=168.0)
    sizes = [int(168 * 1.1**n) for n in range(30)]
    earlier: list[Judgement] = []
    for number, rows in enumerate(sizes):
        ((_, held),) = due(watched, reference, earlier, rows)
        assert held == (), f"window {number} of {rows} rows"
        earlier.append(judged(watched, number, rows, Status.OK))
    ((_, held),) = due(watched, reference, earlier, 10 * sizes[-1])
    assert held[0].kind is What.VOLUME
    ((_, held),) = due(watched, reference, earlier, 168)
    assert held[0].kind is What.VOLUME, "back where it began: nine tenths are lost"
    leapt = [*earlier, *(judged(watched, 30 + n, 10 * sizes[-1], Status.INSUFFICIENT) for n in range(12))]
    ((_, held),) = due(watched, reference, leapt, 10 * sizes[-1])
    assert held[0].kind is What.VOLUME, "a leap does not become usual by lasting"


def test_what_was_nothing_is_judged_when_rows_come_late():
    watched = spec("1h")
    reference = learnt(shop(12), watched)
    watched = watched.model_copy()
    night, late = of(NOW, HOUR), NOW + 2 * HOUR
    for rows, expected in ((0, []), (40, [night])):
        feed = WindowCounts({night.start: WindowFacts(rows, rows, rows)}, NOW - 7 * HOUR)
        assert [w for w, _ in plan(watched, reference, [night], feed, [], NOW, late).windows] == expected
    dead = WindowCounts({}, NOW - 3 * DAY)
    ((window, _),) = plan(watched, reference, [night], dead, [], NOW, late).windows
    assert window == night, "a feed that is dead is told at night, too"
