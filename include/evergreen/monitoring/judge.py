"""Judges the champion on every window that is due: freshness, volume, then drift and the served error.

Runs after scoring and on the spec's own schedule. In this order, because each step is only worth something if the
one before held: data that stopped arriving or rows that are too few, or unscored, are never called fine and
their drift is not judged. A judgement and its report do not part: the report is in MLflow before the numbers
are in the warehouse, so a failure between the two leaves a report that the next try writes again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

import pandas as pd

from evergreen import registry
from evergreen.monitoring import (
    estimate,
    gate,
    judgement,
    measure,
    performance,
    reads,
    report,
    windows,
    wording,
)
from evergreen.monitoring.estimate import Estimator
from evergreen.monitoring.judgement import ColumnResult, Judgement, Status, Violation, What
from evergreen.monitoring.reference import Reference
from evergreen.monitoring.reign import reign_of
from evergreen.monitoring.windows import Facts, Judged, Window
from evergreen.registry import Champion
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect

REFERENCE_PATH = "reference"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Due:
    """What one run has to do, what it knows of the feed, what holds windows back, and their last outcome, by their start."""

    windows: list[tuple[Window, int]]
    feed: reads.Feed
    held: dict[datetime, tuple[Violation, ...]]
    before: dict[datetime, Status]


def judge(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> list[Judgement]:
    """Judge every window of the champion that is due as of a time, and write the judgements.

    The champion is the one of that time: decisions as of a later one do not count.

    A window is due when it is complete, ended after the champion came to office, and was not judged for this
    version, or when labels, rows or predictions came in that can change its judgement (revision + 1). A
    feed that stopped is found before its window is over: then the open window is judged `stale`.
    Two calls at once judge each window once. Each window is one transaction.

    Args:
        specs: all specs (the model's datasets are among them).
        model: whose champion is judged.
        as_of: the cut-off, aware: rows and predictions that came later do not count.
        run_id: `dag_id/run_id` of the run, for the log.

    Returns:
        The judgements that this call made, oldest window first; none before the first champion.

    Raises:
        TerminalError: the champion's reference is missing or damaged, or the feature query does not run.
        TransientError: the warehouse or MLflow does not answer; the windows not yet judged stay due.
    """
    with connect() as conn:
        # The alias is put right by those who promote, score and roll back; watching needs only the ledger.
        champion = registry.champion(conn, model.name, repair=False, as_of=as_of)
        if champion is None:
            return []
        reign = reign_of(conn, model, champion, as_of)
    reference = Reference.read(registry.artifact_folder(champion.run_id, REFERENCE_PATH)).for_window(model)
    due = _due(specs, model, reference, champion, reign, as_of)
    done = []
    # Learnt at most once in a run, and only where a window asks for it.
    estimator = cache(lambda: estimate.fit(model, reference))
    for window, revision in due.windows:
        facts = due.feed.facts.get(window.start, Facts())
        held = due.held[window.start]
        with connect() as guard:
            _lock(guard, model)
            if _judged_meanwhile(guard, model, champion, window, revision):
                continue
            found = Judgement(
                model.name, champion.version, window.start, window.end, revision, as_of,
                Status.OK, facts.rows, 0, facts.labelled, mlflow_run=champion.run_id, scored=facts.scored,
            )  # fmt: skip
            found = (
                held_back(found, held)
                if held
                else _measured(specs, model, reference, found, facts, estimator)
            )
            found = judgement.insert(guard, replace(found, before=due.before.get(window.start)))
            if wording.flipped(found):
                log.info("%s: %s is %s", model.name, window, wording.verdict(found))
            done.append(found)
    return done


def _due(
    specs: Specs, model: ModelSpec, reference: Reference, champion: Champion, reign: datetime, as_of: datetime
) -> Due:
    length = model.monitoring.window
    first_scored = reads.first_scored(model, as_of)
    found = windows.candidates(length, reign, first_scored, as_of, model.label.delay)
    start, look_back = span(model, found, as_of)
    feed = reads.feed(specs, model, as_of, start, look_back)
    with connect() as conn:
        earlier = judgement.newest(
            conn, model.name, champion.version, ends_after=start - length, as_of=as_of, limit=10_000
        )
    return plan(model, reference, found, feed, earlier, first_scored, as_of)


def span(model: ModelSpec, found: Sequence[Window], as_of: datetime) -> tuple[datetime, datetime]:
    """From where on rows are counted for some windows, and how far back the newest row is looked for."""
    length = model.monitoring.window
    start = found[0].start if found else windows.window_of(as_of, length).start
    # Far enough back to see the newest row of a feed that has just become stale.
    return start, min(start, as_of - model.monitoring.freshness - length)


def plan(
    model: ModelSpec,
    reference: Reference,
    found: list[Window],
    feed: reads.Feed,
    earlier: Sequence[Judgement],
    first_scored: datetime | None,
    as_of: datetime,
) -> Due:
    """Which windows are due as of a time, and what holds each of them back; a pure function.

    Args:
        model: the settings.
        reference: the champion's.
        found: the windows that the champion answers for (`windows.candidates`), oldest first.
        feed: their counts.
        earlier: the newest revision of their earlier judgements for this champion.
        first_scored: event time of the model's first prediction; None before it.
        as_of: the cut-off of the run.
    """
    open_window = windows.window_of(as_of, model.monitoring.window)
    history = judgement.history(earlier)
    held = {
        w.start: gate.check(model, reference, feed.facts.get(w.start, Facts()), w, feed.newest, as_of)
        for w in (*found, open_window)
    }

    def news(window: Window) -> bool:
        facts = feed.facts.get(window.start, Facts())
        return not _repeats(window, held[window.start], history.get(window.start), facts, first_scored)

    due = windows.due(found, feed.facts, history, model.monitoring.performance.min_labels, news)
    told = bool(found) and gate.stopped(model, feed.newest, found[-1].end)
    stopped = gate.stopped(model, feed.newest, as_of) and not told and open_window.start < as_of
    if stopped and news(open_window):
        before = history.get(open_window.start)
        due.append((open_window, before.revision + 1 if before else 1))
    return Due(due, feed, held, {j.window_start: j.status for j in earlier})


def _repeats(
    window: Window,
    held: Sequence[Violation],
    before: Judged | None,
    facts: Facts,
    first_scored: datetime | None,
) -> bool:
    """Whether a window that is held back needs no judgement: it has the same already, or scoring began inside it."""
    if not held:
        return False
    kinds = frozenset(v.kind.value for v in held)
    if windows.still_held_back(before, kinds, facts):
        return True
    began_inside = first_scored is not None and window.start < first_scored
    return began_inside and kinds == {What.UNSCORED.value}


def held_back(found: Judgement, held: Sequence[Violation]) -> Judgement:
    """The judgement of a window that cannot be judged."""
    stale = any(v.kind is What.STALE for v in held)
    return replace(found, status=Status.STALE if stale else Status.INSUFFICIENT, violations=tuple(held))


def _measured(
    specs: Specs,
    model: ModelSpec,
    reference: Reference,
    found: Judgement,
    facts: Facts,
    estimator: Callable[[], Estimator | None],
) -> Judgement:
    rows = measure.frame(reads.sample(specs, model, found.as_of, found.window, facts))
    wanted = model.monitoring.performance.estimate and not performance.enough_labels(model, facts)
    found, columns, worse = measured(model, reference, found, facts, rows, estimator() if wanted else None)
    with tempfile.TemporaryDirectory(prefix="evergreen-report-") as name:
        folder = Path(name)
        try:
            report.write(replace(found, columns=tuple(columns)), model.task, rows, reference, folder)
        # Evidently refused the whole page because of some column: that column is reported, the others are drawn.
        except Exception:
            columns = _without(columns, report.refused(columns, rows, reference))
            report.write(replace(found, columns=tuple(columns)), model.task, rows, reference, folder)
        path = report.artifact_path(found)
        registry.log_files(str(found.mlflow_run), folder, path)
    return replace(concluded(found, columns, worse, rows), report=f"{path}/{report.DRIFT_FILE}")


def measured(
    model: ModelSpec,
    reference: Reference,
    found: Judgement,
    facts: Facts,
    rows: pd.DataFrame,
    estimator: Estimator | None = None,
) -> tuple[Judgement, list[ColumnResult], tuple[Violation, ...]]:
    """Measure the rows of a window (`measure.frame`): the judgement with its metrics, columns, violations of the error.

    Where another version served most rows, neither their error nor the drift of their predictions is a violation.
    """
    columns = measure.columns(model, rows, reference, labels=performance.enough_labels(model, facts))
    of_another = (rows["_version"].dropna() != found.version).mean() > 0.5
    if not of_another:
        metrics, worse = performance.judge(model, rows, reference, facts, estimator)
    else:
        columns = [replace(c, violated=False) if c.kind is What.PREDICTION_DRIFT else c for c in columns]
        metrics, worse = performance.of_another(model, rows, reference), ()
    return replace(found, sampled_rows=len(rows), metrics=metrics), columns, worse


def concluded(
    found: Judgement, columns: Sequence[ColumnResult], worse: Sequence[Violation], rows: pd.DataFrame
) -> Judgement:
    """The judgement of what `measured` found."""
    columns = _served_by(columns, rows, found.version)
    violations = (*(c.violation for c in columns if c.violated), *worse)
    return replace(
        found,
        status=Status.VIOLATION if violations else Status.OK,
        violations=violations,
        columns=tuple(columns),
    )


def _without(columns: Sequence[ColumnResult], refused: dict[str, str]) -> list[ColumnResult]:
    return [
        replace(c, kind=What.UNREADABLE, value=None, violated=True, detail=refused[c.column])
        if c.column in refused and c.kind in report.DRIFTS
        else c
        for c in columns
    ]


def _served_by(columns: Sequence[ColumnResult], rows: pd.DataFrame, version: str) -> list[ColumnResult]:
    """Say on the prediction's row which versions served the window, where it was not this one alone: after a promotion."""
    counts = rows["_version"].value_counts().sort_index()
    if set(counts.index) <= {version}:
        return list(columns)
    served = "served by " + ", ".join(f"version {v} ({n} rows)" for v, n in counts.items())
    return [replace(c, detail=f"{c.detail}; {served}") if c.column == "_prediction" else c for c in columns]


def _lock(conn: Connection, model: ModelSpec) -> None:
    with conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"evergreen.judge.{model.name}",))


def _judged_meanwhile(
    conn: Connection, model: ModelSpec, champion: Champion, window: Window, revision: int
) -> bool:
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM evergreen.window_judgement WHERE model = %s AND version = %s AND window_start = %s"
            " AND revision >= %s LIMIT 1",
            (model.name, champion.version, window.start, revision),
        )
        return cursor.fetchone() is not None
