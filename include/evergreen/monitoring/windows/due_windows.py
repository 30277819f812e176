"""Which windows of event time there are, and which of them a champion still owes a judgement.

Windows of `monitoring.window` lie end to end from Monday 1970-01-05T00:00Z, so that a week is a calendar week
and a day a UTC day, whenever the monitoring runs. A window is complete when its end is not after as-of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.reference.calendar import Window, complete, window_of

MOST_PER_RUN = 12
# Labels, rows and predictions that trickle in are worth a new revision only when they add this share of the window's rows.
RELEVANT_GROWTH = 0.05
# Before the labels are due, so many of the rows must have one.
EARLY = 0.8


EXACT = 3_000_000
"""Fewer predictions than this are counted; the number of more is an estimate, within half a percent."""


@dataclass(frozen=True)
class WindowFacts:
    """What is known of a window's rows as of a time: rows, rows with a label, rows with a served prediction (see `EXACT`).

    `due`: whether `label.delay` has passed since its end. A label that is not in by then may never come.
    """

    rows: int = 0
    labelled: int = 0
    scored: int = 0
    due: bool = True

    @property
    def judgeable(self) -> int:
        """The most rows that can have both a label and a prediction."""
        return min(self.labelled, self.scored)

    @property
    def surely_judgeable(self) -> int:
        """Rows that surely have both a label and a prediction; exact where no row lacks both."""
        return max(0, self.labelled + self.scored - self.rows)

    def labels_needed(self, least: float) -> int:
        """How many rows with a label and a prediction the window's error is judged by.

        Args:
            least: `performance.min_labels`: a share of the rows up to 1, else a number. Before the labels are due they must be
                most of the rows (`EARLY`) as well: what is in by then may be of one kind only.
        """
        if least <= 1:
            return math.ceil(least * self.rows)
        return min(self.rows, math.ceil(max(least, 0.0 if self.due else EARLY * self.rows)))

    def enough_labels(self, least: float) -> bool:
        """Whether there can be enough rows with both to judge the error."""
        return self.rows > 0 and self.judgeable >= self.labels_needed(least)


@dataclass(frozen=True)
class EarlierJudgement:
    """The newest revision of an earlier judgement, as far as it decides whether to judge again.

    `held_back` holds the kinds of violation (volume, unscored, stale) that kept the window from being judged.
    """

    revision: int
    rows: int
    labelled: int
    scored: int
    performance: bool
    held_back: frozenset[str] = frozenset()
    due: bool = True

    @property
    def facts(self) -> WindowFacts:
        """What was known of the window then."""
        return WindowFacts(self.rows, self.labelled, self.scored, self.due)


def candidates(
    length: timedelta, begun: datetime, first_scored: datetime | None, as_of: datetime, label_delay: timedelta
) -> list[Window]:
    """The complete windows that a champion answers for, oldest first.

    They end after the champion came to office, and not before the model's first prediction: earlier rows were
    never meant to be scored. Without any prediction they are the windows that began since the champion is in
    office, so that a scoring that never ran is found. How far back is bounded, see `oldest`.

    Args:
        length: `monitoring.window`.
        begun: since when the champion is in office, see `in_office.begun`.
        first_scored: event time of the model's first prediction, by any version; None before it.
        as_of: the cut-off of this run.
        label_delay: the spec's `label.delay`.
    """
    found = complete(length, begun, as_of)
    if first_scored is None:
        found = [w for w in found if w.start >= begun]
    else:
        found = [w for w in found if w.end > first_scored]
    earliest = oldest(length, as_of, label_delay)
    return [w for w in found if w.start >= earliest]


def oldest(length: timedelta, as_of: datetime, label_delay: timedelta) -> datetime:
    """Start of the oldest window that is still looked at, of whichever champion.

    Looked at are the newest `MOST_PER_RUN` complete windows, and as many more as the label's delay covers, because those
    are judged again when their labels come. So a label is waited for `MOST_PER_RUN` windows longer than was declared.
    """
    count = MOST_PER_RUN + math.ceil(label_delay / length)
    return window_of(as_of, length).start - count * length


def due(
    windows: list[Window],
    facts: Mapping[datetime, WindowFacts],
    history: Mapping[datetime, EarlierJudgement],
    min_labels: float,
    news: Callable[[Window], bool] = lambda window: True,
) -> list[tuple[Window, int]]:
    """The windows to judge in this run with the revision each gets, in time order, at most `MOST_PER_RUN`.

    If more are due, the newest go first: they say how the model does now. Windows that `news` refuses, because
    their judgement would repeat the last one, are left out before that: they must not take the place of older
    ones whose labels have come.
    """
    found = []
    for window in windows:
        if not news(window):
            continue
        before = history.get(window.start)
        if before is None:
            found.append((window, 1))
        elif worth_judging_again(before, facts.get(window.start, WindowFacts()), min_labels):
            found.append((window, before.revision + 1))
    return found[-MOST_PER_RUN:]


def worth_judging_again(before: EarlierJudgement, now: WindowFacts, min_labels: float) -> bool:
    """Whether what came in since the last judgement can change it.

    Yes when the labels now suffice for performance and did not before, when the last labels came in, or when
    rows, labels or predictions grew by at least `RELEVANT_GROWTH` of the rows. A window that could not be judged is looked at
    in every run; `still_held_back` tells whether nothing changed.
    """
    if before.held_back:
        return True
    step = max(1.0, RELEVANT_GROWTH * now.rows)
    return (
        labels_tell_more(before, now, min_labels)
        or (before.labelled < now.labelled == now.rows)
        or now.rows - before.rows >= step
        or now.scored - before.scored >= step
    )


def labels_tell_more(before: EarlierJudgement, now: WindowFacts, min_labels: float) -> bool:
    """Whether labels that came since the last judgement can change the served error.

    They suffice now and did not before, or they are the last ones, or they grew by `RELEVANT_GROWTH` of the rows. Labels suffice
    also by becoming due: those that are not in by then are not waited for.
    """
    if not now.enough_labels(min_labels):
        return False
    return (
        not (before.performance or before.facts.enough_labels(min_labels))
        or before.labelled < now.labelled == now.rows
        or now.labelled - before.labelled >= max(1.0, RELEVANT_GROWTH * now.rows)
    )


def still_held_back(before: EarlierJudgement | None, kinds: frozenset[str], now: WindowFacts) -> bool:
    """Whether a window that cannot be judged now could not be for the same reason on the same rows before."""
    return (
        before is not None
        and before.held_back == kinds
        and (before.rows, before.labelled) == (now.rows, now.labelled)
    )
