"""The plot that every story follows: history, quiet weeks, a broken delivery, a new unit, a change of behaviour.

A plot only cuts a table of hours into deliveries. What happens in the hours is the business of the feed; what
happens to a file on its way (the broken delivery, the sensor's unit on real data) is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from evergreen.errors import ErrorReason, TerminalError
from evergreen.feeds.story import HOUR, File, Story, StoryStep

DATASET = "bike_hourly"
WEEK = timedelta(days=7)
LANDS_AFTER = timedelta(hours=2)
CORRECTED_AFTER = timedelta(hours=8)

WEEKS = 12
BROKEN_WEEK, UNIT_WEEK, BEHAVIOUR_WEEK = 4, 5, 9

BROKEN_NOTE = (
    "week 4: a broken delivery. Half of the hours; humidity as text and as 900 %, negative demand, hours twice: "
    "to be quarantined"
)


def tell(
    name: str, table: pd.DataFrame, history_end: datetime, notes: Sequence[str], history_note: str
) -> Story:
    """Cut a table into the deliveries of a story.

    The history lands as one delivery with a file for each quarter, then every Monday the week before lands at
    02:00. In the week `BROKEN_WEEK` a broken file lands first and the corrected one six hours later.

    Args:
        name: of the story.
        table: columns of the dataset, `ts` in UTC, ordered, at least up to twelve weeks after the history.
        history_end: a Monday, 00:00 UTC.
        notes: what is true about each of the twelve weeks.
        history_note: the same for the history.
    """
    check_monday(history_end)
    past = table[table["ts"] < history_end]
    start = past["ts"].iloc[0].to_pydatetime()
    quarters = past["ts"].dt.year.astype(str) + "-q" + past["ts"].dt.quarter.astype(str)
    files = tuple(File(f"{DATASET}_history_{q}.csv", rows) for q, rows in past.groupby(quarters, sort=True))
    deliveries = [
        StoryStep(
            "history", history_end + LANDS_AFTER, start, history_end - HOUR, "history", history_note, files
        )
    ]
    for number, note in enumerate(notes, start=1):
        first = history_end + (number - 1) * WEEK
        end = first + WEEK
        rows = table[(table["ts"] >= first) & (table["ts"] < end)]
        week = f"{first:%Y-%m-%d}"
        file = f"{DATASET}_{week}.csv"
        if number != BROKEN_WEEK:
            deliveries.append(
                StoryStep(
                    f"week {week}", end + LANDS_AFTER, first, end - HOUR, "normal", note, (File(file, rows),)
                )
            )
            continue
        corrected = File(f"{DATASET}_{week}_corrected.csv", rows)
        deliveries += [
            StoryStep(
                f"week {week} broken", end + LANDS_AFTER, first, end - HOUR, "broken", BROKEN_NOTE,
                (File(file, break_week(rows)),),
            ),
            StoryStep(
                f"week {week} corrected", end + CORRECTED_AFTER, first, end - HOUR, "corrected", note, (corrected,)
            ),
        ]  # fmt: skip
    return Story(name, DATASET, start, history_end, tuple(deliveries))


def break_week(week: pd.DataFrame) -> pd.DataFrame:
    """What a failing export makes of a week; each mistake alone is enough to refuse the file.

    The second half of the hours is missing; of the rest every seventh humidity is text and every seventh is
    900 %, every eleventh demand is negative, and the first six hours come twice.
    """
    rows = week.iloc[: len(week) // 2].reset_index(drop=True)
    place = pd.Series(range(len(rows)))
    humidity = rows["humidity"].astype(object)
    humidity[place % 7 == 2] = "n/a%"
    humidity[place % 7 == 5] = 900.0
    demand = rows["demand"].where(place % 11 != 4, -rows["demand"] - 1)
    return pd.concat([rows.assign(humidity=humidity, demand=demand), rows.head(6)], ignore_index=True)


def to_fahrenheit(celsius: Any) -> Any:
    """The same temperatures (array or series) in °F, to a tenth of a degree."""
    return (celsius * 1.8 + 32.0).round(1)


def check_monday(moment: datetime) -> None:
    """Weeks are cut where the monitored windows are, from Monday to Monday.

    Raises:
        TerminalError: the moment is no Monday, 00:00 UTC.
    """
    if moment.utcoffset() != timedelta(0) or moment.weekday() or moment.time() != datetime.min.time():
        raise TerminalError(
            f"a story's weeks begin on a Monday at 00:00 UTC, as the monitored windows do, not at {moment.isoformat()}; "
            "give another start",
            ErrorReason.BAD_SPEC,
        )
