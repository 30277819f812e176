"""Judges the champion on every window that is due: freshness, volume, then drift and the served error.

Runs after scoring and on the spec's own schedule. In this order, because each step is only worth something if the
one before held: data that stopped arriving or rows that are too few, or unscored, are never called fine and
their drift is not judged. A judgement and what is kept of its window do not part: the sample, and the pages of a window in
violation, are in MLflow before the numbers are in the warehouse, so a failure between the two leaves files that the next
try writes again.

Labels outlive reigns: the windows of earlier champions whose labels come late are judged again too, each under the version
that it was judged under (`late_labels`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from statistics import median

import pandas as pd
from threadpoolctl import threadpool_limits

from evergreen import registry
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.monitoring.windows import (
    due_windows,
    estimate,
    judgement,
    kept_sample,
    late_labels,
    measure,
    performance,
    readiness,
    reads,
    report,
    wording,
)
from evergreen.monitoring.windows.due_windows import MOST_PER_RUN, EarlierJudgement, WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judgement import ColumnResult, Judgement, Status, Violation, What
from evergreen.reference import calendar
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.registry import Champion
from evergreen.registry.in_office import in_office_since
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import arrow, feature_query, views

REFERENCE_PATH = "reference"
WEEK = timedelta(days=7)
# So many of the newest windows that could be judged say by how much the feed has grown.
GROWN_BY = 12

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Due:
    """What one run has to do, what it knows of the feed, what holds windows back, and their last outcome, by their start."""

    windows: list[tuple[Window, int]]
    feed: reads.WindowCounts
    held: dict[datetime, tuple[Violation, ...]]
    before: dict[datetime, Status]


def judge_windows(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> list[Judgement]:
    """Judge every window that is due as of a time, and write the judgements.

    The champion is the one of that time: decisions as of a later one do not count.

    A window is due when it is complete, ended after the champion came to office, and was not judged for this
    version, or when labels, rows or predictions came in that can change its judgement (revision + 1). A
    feed that stopped is found before its window is over: then the open window is judged `stale`.
    A window of an earlier champion is due when labels came in that can change its served error. It stays as it was
    judged, with a line in the log, where MLflow does not give the version's reference (any more).
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
    with arrow.sharing():
        return _judge(specs, model, as_of, run_id)


def _judge(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> list[Judgement]:
    with connect() as conn:
        # The alias is put right by those who promote, score and roll back; watching needs only the ledger.
        champion = registry.champion(conn, model.name, repair=False, as_of=as_of)
        if champion is None:
            return []
        reign = in_office_since(conn, model, champion, as_of)
        past = _past(conn, model, as_of)
    reference = _reference(model, champion.run_id)
    with views.reading(specs, model, as_of) as reader:
        there, lost = _watched(reader, model, reference)
        due, waits = _due(reader, specs, model, reference, champion, reign, past, as_of)
    done = []
    # Learnt at most once in a run, and only where a window asks for it.
    estimator = cache(lambda: estimate.fit(there, reference))
    for window, revision in due.windows:
        facts = due.feed.facts.get(window.start, WindowFacts())
        held = due.held[window.start]
        with connect() as guard:
            _lock(guard, model)
            if _judged_meanwhile(guard, model, champion.version, window, revision):
                continue
            found = Judgement(
                model.name, champion.version, window.start, window.end, revision, as_of,
                Status.OK, facts.rows, 0, facts.labelled, mlflow_run=champion.run_id, scored=facts.scored,
            )  # fmt: skip
            found = (
                readiness.held_back(found, held)
                if held
                else _measured(specs, there, reference, found, facts, estimator, lost)
            )
            found = judgement.insert(guard, replace(found, before=due.before.get(window.start)))
            if wording.flipped(found):
                log.info("%s: %s is %s", model.name, window, wording.verdict(found))
            done.append(found)
    return [*_judge_late(specs, model, waits, due.feed, as_of, MOST_PER_RUN - len(due.windows)), *done]


def _reference(model: ModelSpec, run_id: str) -> Reference:
    found, metric = (
        Reference.read(registry.kept(model.name, run_id, REFERENCE_PATH)),
        model.performance_metric,
    )
    if metric not in found.holdout_metrics:
        raise TerminalError(
            f"{model.name}: {metric} is watched, and the holdout of MLflow run {run_id} has "
            f"{', '.join(sorted(found.holdout_metrics)) or 'no metric'}: it was trained for another task. Its windows cannot be "
            f"judged; run train__{model.name}, and approve its challenger in promote__{model.name}",
            ErrorReason.BAD_METRIC,
        )
    return found.for_window(model)


def _watched(
    reader: arrow.Reader, model: ModelSpec, reference: Reference
) -> tuple[ModelSpec, dict[str, str]]:
    """The spec with those features of the champion that the query gives, and the others, each with why it does not.

    What the champion reads is what is watched: a feature that the spec has left since tells of the served predictions still,
    and one that the spec has got since says nothing about them.
    """
    seen = reference.seen_by(model)
    lost = feature_query.lacking(seen, feature_query.types(reader))
    kept = [
        [n for n in names if n not in lost] for names in (seen.features.numeric, seen.features.categorical)
    ]
    if not any(kept):
        raise TerminalError(
            f"{model.name}: the feature query gives none of the features that the champion was trained on; put them back into "
            f"models/{model.name}.sql, or run train__{model.name} and approve its challenger in promote__{model.name}",
            ErrorReason.REGISTRY_MISMATCH,
        )
    return seen.seeing(*kept), lost


@dataclass(frozen=True)
class _Past:
    """What the warehouse has of earlier runs: the newest judgements, and the event time of the first prediction."""

    judged: list[Judgement]
    first_scored: datetime | None


def _past(conn: Connection, model: ModelSpec, as_of: datetime) -> _Past:
    ends_after = due_windows.oldest(model.monitoring.window, as_of, model.label.delay)
    judged = judgement.newest(conn, model.name, None, ends_after=ends_after, as_of=as_of, limit=10_000)
    return _Past(judged, reads.first_scored(conn, model, as_of))


def _due(
    reader: arrow.Reader,
    specs: Specs,
    model: ModelSpec,
    reference: Reference,
    champion: Champion,
    reign: datetime,
    past: _Past,
    as_of: datetime,
) -> tuple[Due, list[Judgement]]:
    """What is due of the champion's windows, and the windows of earlier champions that wait for labels."""
    found = due_windows.candidates(
        model.monitoring.window, reign, past.first_scored, as_of, model.label.delay
    )
    waits = late_labels.waiting(model, past.judged, champion.version, reign, as_of)
    start, look_back = span(model, [*found, *(j.window for j in waits)], as_of)
    feed = reads.feed(specs, model, as_of, start, look_back, reader=reader)
    earlier = [j for j in past.judged if j.version == champion.version]
    return plan(model, reference, found, feed, earlier, past.first_scored, as_of), waits


def _judge_late(
    specs: Specs,
    model: ModelSpec,
    waits: Sequence[Judgement],
    feed: reads.WindowCounts,
    as_of: datetime,
    most: int,
) -> list[Judgement]:
    """Judge the windows of earlier champions that are due, `most` of them, the newest; returns them oldest first.

    None of them keeps the champion of now from being watched: what cannot be judged stays due and is logged.
    """
    references = cache(lambda run_id: _reference(model, run_id))
    done: list[Judgement] = []
    lost: set[str] = set()
    for before in late_labels.due(model, waits, feed.facts):
        if len(done) >= most:
            break
        if before.version in lost:
            continue
        try:
            found = _judged_again(specs, model, before, references, feed, as_of)
        except EvergreenError as error:
            lost.add(before.version)
            log.warning(
                "%s: labels came for %s, which version %s served; it cannot be judged again, and stays as it was: %s",
                model.name, before.window, before.version, error,
            )  # fmt: skip
            continue
        if found is not None:
            log.info(
                "%s: %s of version %s is %s", model.name, found.window, found.version, wording.verdict(found)
            )
            done.append(found)
    return done[::-1]


def _judged_again(
    specs: Specs,
    model: ModelSpec,
    before: Judgement,
    references: Callable[[str], Reference],
    feed: reads.WindowCounts,
    as_of: datetime,
) -> Judgement | None:
    """The next revision of a window of an earlier champion, written; None where another run has written it."""
    reference = references(str(before.mlflow_run))
    window, facts = before.window, feed.facts[before.window_start]
    with connect() as guard:
        _lock(guard, model)
        if _judged_meanwhile(guard, model, before.version, window, before.revision + 1):
            return None
        rows = measure.frame(reads.sample(specs, model, as_of, window, facts))
        found = late_labels.again(model, reference, before, facts, rows, feed.newest, as_of)
        if not found.held_back:
            found = _with_files(model, found, rows, reference, late=True)
        return judgement.insert(guard, found)


def _with_files(
    model: ModelSpec, found: Judgement, rows: pd.DataFrame, reference: Reference, *, late: bool = False
) -> Judgement:
    """The judgement with its sample in MLflow, and with its pages where it is in violation.

    `late`: only the error is new, and its page alone is drawn; without a new error the files of the revision before stand.
    """
    if late and not report.error_judged(found):
        return found
    path = report.artifact_path(found)
    file = kept_sample.FILE
    with tempfile.TemporaryDirectory(prefix="evergreen-report-") as name:
        folder = Path(name)
        kept_sample.write(rows, reference, folder / kept_sample.FILE)
        if found.status is Status.VIOLATION and not late:
            report.write(found, model.task, rows, reference, folder)
            file = report.DRIFT_FILE
        elif found.status is Status.VIOLATION:
            report.write_performance(found, model.task, rows, folder)
            file = report.PERFORMANCE_FILE
        registry.log_files(str(found.mlflow_run), folder, path)
    return replace(found, report=f"{path}/{file}")


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

    Windows that were held back do not count, so a leap stays an alarm; and a feed that shrinks does not become usual.
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
    """Whether a window that is held back needs no judgement: it has the same already, or scoring began inside it."""
    if not held:
        return False
    kinds = frozenset(v.kind.value for v in held)
    if due_windows.still_held_back(before, kinds, facts):
        return True
    began_inside = first_scored is not None and window.start < first_scored
    return began_inside and kinds == {What.UNSCORED.value}


def _measured(
    specs: Specs,
    model: ModelSpec,
    reference: Reference,
    found: Judgement,
    facts: WindowFacts,
    estimator: Callable[[], Estimator | None],
    lost: Mapping[str, str],
) -> Judgement:
    rows = measure.frame(reads.sample(specs, model, found.as_of, found.window, facts))
    wanted = model.monitoring.performance.estimate and not performance.enough_labels(model, facts)
    found, columns, worse = measured(
        model, reference, found, facts, rows, estimator() if wanted else None, lost
    )
    return _with_files(model, concluded(found, columns, worse, rows), rows, reference)


def measured(
    model: ModelSpec,
    reference: Reference,
    found: Judgement,
    facts: WindowFacts,
    rows: pd.DataFrame,
    estimator: Estimator | None = None,
    lost: Mapping[str, str] | None = None,
) -> tuple[Judgement, list[ColumnResult], tuple[Violation, ...]]:
    """Measure the rows of a window (`measure.frame`): the judgement with its metrics, columns, violations of the error.

    Where another version served most rows, neither their error nor the drift of their predictions is a violation.
    """
    # Threads for so few numbers cost more than they help, and would add them up in another order on another machine.
    with threadpool_limits(1, "blas"):
        return _measured_rows(model, reference, found, facts, rows, estimator, lost)


def _measured_rows(
    model: ModelSpec,
    reference: Reference,
    found: Judgement,
    facts: WindowFacts,
    rows: pd.DataFrame,
    estimator: Estimator | None,
    lost: Mapping[str, str] | None,
) -> tuple[Judgement, list[ColumnResult], tuple[Violation, ...]]:
    columns = measure.columns(
        model, rows, reference, labels=performance.enough_labels(model, facts), lost=lost
    )
    sample = measure.sampled(rows)
    if not performance.served_by_another(sample, found.version):
        metrics, worse = performance.judge_error(model, rows, reference, facts, estimator)
    else:
        columns = [replace(c, violated=False) if c.kind is What.PREDICTION_DRIFT else c for c in columns]
        metrics, worse = performance.of_another(model, sample, reference), ()
    return replace(found, sampled_rows=len(sample), metrics=metrics), columns, worse


def concluded(
    found: Judgement, columns: Sequence[ColumnResult], worse: Sequence[Violation], rows: pd.DataFrame
) -> Judgement:
    """The judgement of what `measured` found."""
    return found.concluded(_served_by(columns, measure.sampled(rows), found.version), worse)


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
    conn: Connection, model: ModelSpec, version: str, window: Window, revision: int
) -> bool:
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM evergreen.window_judgement WHERE model = %s AND version = %s AND window_start = %s"
            " AND revision >= %s LIMIT 1",
            (model.name, version, window.start, revision),
        )
        return cursor.fetchone() is not None
