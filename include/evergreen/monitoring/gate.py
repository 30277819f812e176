"""Whether a window can be judged at all: is the data still coming, are there enough rows, were they scored?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from evergreen.monitoring.judgement import Judgement, Status, Violation, What
from evergreen.monitoring.reference import Reference
from evergreen.monitoring.windows import EXACT, Facts, Window
from evergreen.spec import ModelSpec, format_duration

HOUR = timedelta(hours=1)
# Share of a window's rows that must have a prediction. Room for a few rows that land between scoring and monitor, which are
# judged when they are scored; none for a scoring that stopped half way. Not `min_labels`: every row can be scored.
LEAST_SCORED = 0.8


def check(
    model: ModelSpec,
    reference: Reference,
    facts: Facts,
    window: Window,
    newest: datetime | None,
    as_of: datetime,
) -> tuple[Violation, ...]:
    """What keeps a window from being judged; empty if nothing does.

    Stale: the newest row that had arrived is older than `monitoring.freshness` at the window's end, or as of now
    for a window that is not over. Volume: fewer rows than `monitoring.min_rows` or `volume.min` times the
    reference's usual number, or more than `volume.max` times. Unscored: fewer than `LEAST_SCORED` of the window's own
    rows have a served prediction.

    Args:
        model: the limits.
        reference: the usual number of rows.
        facts: the window's counts.
        window: its range.
        newest: newest event time that had arrived by `as_of`; None if there is no row.
        as_of: the cut-off of the run.
    """
    monitoring = model.monitoring
    seen_from = min(window.end, as_of)
    if stopped(model, newest, seen_from):
        age = None if newest is None else (seen_from - newest) / HOUR
        seen = "no row arrived" if newest is None else f"the newest row is of {newest:%Y-%m-%d %H:%M} UTC"
        detail = (
            f"{seen}; at {seen_from:%Y-%m-%d %H:%M} UTC it may be {format_duration(monitoring.freshness)} old; "
            "look at the feed and at ingest"
        )
        limit = monitoring.freshness / HOUR
        return (Violation(What.STALE, "_time", "hours_since_newest_row", age, limit, detail),)
    usual = reference.usual_rows
    least = max(float(monitoring.min_rows), monitoring.volume.min * usual)
    most = monitoring.volume.max * usual
    why = f"usual are {usual:g}, min_rows is {monitoring.min_rows}"
    if facts.rows < least:
        return (Violation(What.VOLUME, "_key", "rows", facts.rows, least, f"too few rows; {why}"),)
    if facts.rows > most:
        return (Violation(What.VOLUME, "_key", "rows", facts.rows, most, f"too many rows; {why}"),)
    wanted = LEAST_SCORED * facts.rows
    if facts.scored < wanted:
        about = "about " if facts.scored >= EXACT else ""
        detail = (
            f"{about}{facts.rows - facts.scored} of {facts.rows} rows have no prediction, {LEAST_SCORED:.0%} need one; "
            "run the scoring"
        )
        return (
            Violation(What.UNSCORED, "_prediction", "rows_with_prediction", facts.scored, wanted, detail),
        )
    return ()


def held_back(found: Judgement, held: Sequence[Violation]) -> Judgement:
    """The judgement of a window that cannot be judged."""
    stale = any(v.kind is What.STALE for v in held)
    return replace(found, status=Status.STALE if stale else Status.INSUFFICIENT, violations=tuple(held))


def stopped(model: ModelSpec, newest: datetime | None, when: datetime) -> bool:
    """Whether the newest row was older than `monitoring.freshness` at a time."""
    return newest is None or newest < when - model.monitoring.freshness
