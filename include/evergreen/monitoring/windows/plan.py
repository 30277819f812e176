"""Which windows are due as of a time, and what holds each of them back; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from evergreen.monitoring.windows import due_windows, judgement, readiness, reads
from evergreen.monitoring.windows.due_windows import EarlierJudgement, WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What
from evergreen.reference import calendar
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec

WEEK = timedelta(days=7)
# So many of the newest windows that could be judged say by how much the feed has grown.
GROWN_BY = 12


@dataclass(frozen=True)
class Due:
    """What one run has to do, what it knows of the feed, what holds windows back, and their last outcome, by their start."""

    windows: list[tuple[Window, int]]
    feed: reads.WindowCounts
    held: dict[datetime, tuple[Violation, ...]]
    before: dict[datetime, Status]


def span(model: ModelSpec, found: Sequence[Window], as_of: datetime) -> tuple[datetime, datetime]:
    """From where on rows are counted for some windows, and how far back the newest row is looked for."""
    length = model.monitoring.window
    start = min((w.start for w in found), default=calendar.window_of(as_of, length).start)
    # Far enough back to see the newest row of a feed that has just become stale; a usual silence is less than a week.
    return start, min(start, as_of - model.monitoring.freshness - max(length, WEEK))


def plan(
    model: ModelSpec,
    reference: Reference,
    found: list[Window],
    feed: reads.WindowCounts,
    earlier: Sequence[Judgement],
    first_scored: datetime | None,
    as_of: datetime,
) -> Due:
    """Which windows are due as of a time, and what holds each of them back; a pure function.

    Args:
        model: the settings.
        reference: the champion's.
        found: the windows that the champion answers for (`due_windows.candidates`), oldest first.
        feed: their counts.
        earlier: the newest revision of their earlier judgements for this champion.
        first_scored: event time of the model's first prediction; None before it.
        as_of: the cut-off of the run.
    """
    open_window = calendar.window_of(as_of, model.monitoring.window)
    history = judgement.history(earlier, model.label.delay)
    growth = _growth(reference, earlier)

    def wanted(window: Window) -> bool:
        facts = feed.facts.get(window.start, WindowFacts())
        return readiness.stopped(model, reference, feed.newest, window.end) or not readiness.nothing_due(
            model, reference, facts, window
        )

    found = [w for w in found if wanted(w)]
    held = {
        w.start: readiness.check(
            model, reference, feed.facts.get(w.start, WindowFacts()), w, feed.newest, as_of, growth
        )
        for w in (*found, open_window)
    }

    def news(window: Window) -> bool:
        facts = feed.facts.get(window.start, WindowFacts())
        return not _repeats(window, held[window.start], history.get(window.start), facts, first_scored)

    due = due_windows.due(found, feed.facts, history, model.monitoring.performance.min_labels, news)
    told = bool(found) and readiness.stopped(model, reference, feed.newest, found[-1].end)
    stopped = (
        readiness.stopped(model, reference, feed.newest, as_of) and not told and open_window.start < as_of
    )
    if stopped and news(open_window):
        before = history.get(open_window.start)
        due.append((open_window, before.revision + 1 if before else 1))
    return Due(due, feed, held, {j.window_start: j.status for j in earlier})


def _growth(reference: Reference, earlier: Sequence[Judgement]) -> float:
    """By how much the feed has grown since the reference, as its newest judged windows show; at least 1.

    Windows that could not be judged do not count, so a sudden rise stays an alarm; and a feed that shrinks does not become usual.
    """
    usual = ((j.rows, reference.rhythm.at(j.window)[0]) for j in earlier if not j.held_back)
    grown = [rows / was for rows, was in usual if was > 0][-GROWN_BY:]
    return max(1.0, median(grown)) if grown else 1.0


def _repeats(
    window: Window,
    held: Sequence[Violation],
    before: EarlierJudgement | None,
    facts: WindowFacts,
    first_scored: datetime | None,
) -> bool:
    """Whether a window that cannot be judged needs no further judgement: it has the same already, or scoring began inside it."""
    if not held:
        return False
    kinds = frozenset(v.kind.value for v in held)
    if due_windows.still_held_back(before, kinds, facts):
        return True
    began_inside = first_scored is not None and window.start < first_scored
    return began_inside and kinds == {What.UNSCORED.value}
