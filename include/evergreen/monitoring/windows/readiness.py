"""Whether a window can be judged at all: is the data still coming, are there enough rows, were they scored?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from evergreen.monitoring.windows.due_windows import EXACT, WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec, format_duration

HOUR = timedelta(hours=1)
# Share of a window's rows that must have a prediction. Room for a few rows that land between scoring and monitor, which are
# judged when they are scored; none for a scoring that stopped half way. Not `min_labels`: every row can be scored.
LEAST_SCORED = 0.8
# Where a tenth of the past windows of a place in the week had no row, an empty one is no surprise.
OFTEN_EMPTY = 0.1


def check(
    model: ModelSpec,
    reference: Reference,
    facts: WindowFacts,
    window: Window,
    newest: datetime | None,
    as_of: datetime,
    growth: float = 1.0,
) -> tuple[Violation, ...]:
    """What keeps a window from being judged; empty if nothing does.

    Stale: the newest row that had arrived is older than it may be (`fresh_since`) at the window's end, or as of now
    for a window that is not over. Volume: fewer rows than `monitoring.min_rows` or `volume.min` times the usual
    number of its place in the week, or more than `volume.max` times. Unscored: fewer than `LEAST_SCORED` of the window's own
    rows have a served prediction.

    Args:
        model: the limits.
        reference: when rows usually come, and how many.
        facts: the window's counts.
        window: its range.
        newest: newest event time that had arrived by `as_of`; None if there is no row.
        as_of: the cut-off of the run.
        growth: by how much the feed has grown since the reference, at least 1.
    """
    monitoring = model.monitoring
    seen_from = min(window.end, as_of)
    if stopped(model, reference, newest, seen_from):
        age = None if newest is None else (seen_from - newest) / HOUR
        seen = "no row arrived" if newest is None else f"the newest row is of {newest:%Y-%m-%d %H:%M} UTC"
        allowed = seen_from - fresh_since(model, reference, seen_from)
        usual_silence = (
            ", this feed's usual silence included" if allowed > monitoring.freshness + HOUR else ""
        )
        detail = (
            f"{seen}; at {seen_from:%Y-%m-%d %H:%M} UTC it may be {format_duration(allowed)} old{usual_silence}; "
            "look at the feed and at ingest"
        )
        limit = allowed / HOUR
        return (Violation(What.STALE, "_time", "hours_since_newest_row", age, limit, detail),)
    usual = growth * reference.rhythm.at(window)[0]
    least = max(float(monitoring.min_rows), monitoring.volume.min * usual)
    # Where none are usual, a number of rows is too large only if it is nowhere usual.
    most = monitoring.volume.max * (usual or growth * _most_usual(reference))
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


def nothing_due(model: ModelSpec, reference: Reference, facts: WindowFacts, window: Window) -> bool:
    """Whether a window has no row, or too few to judge, and that is usual at its place in the week: a night, a day of rest.

    Such a window is neither judged nor told; whether the feed is still there is a question of its own (`stopped`). A model
    whose windows usually have fewer than `min_rows` everywhere is told: nothing of it could ever be judged.
    """
    usual, empty = reference.rhythm.at(window)
    if not facts.rows:
        return empty >= OFTEN_EMPTY
    return facts.rows < model.monitoring.min_rows and usual < model.monitoring.min_rows <= _most_usual(
        reference
    )


def fresh_since(model: ModelSpec, reference: Reference, when: datetime) -> datetime:
    """The oldest that the newest row may be at a time.

    `monitoring.freshness` ago, where the spec sets it. Where it is left to its default, that is how long rows may take to
    arrive, and what the newest row of then usually is counts: on a Sunday, Friday's.
    """
    since = when - model.monitoring.freshness
    if "freshness" in model.monitoring.model_fields_set:
        return since
    return min(since, reference.rhythm.newest_at(since))


def stopped(model: ModelSpec, reference: Reference, newest: datetime | None, when: datetime) -> bool:
    """Whether the newest row was older than it may be (`fresh_since`) at a time."""
    return newest is None or newest < fresh_since(model, reference, when)


def _most_usual(reference: Reference) -> float:
    return max(reference.rhythm.largest, reference.usual_rows)
