"""Judges the champion on every window that is due: freshness, volume, then drift and the served error.

Runs after scoring and on the spec's own schedule. In this order, because each step is only worth something if the
one before held: data that stopped arriving or rows that are too few, or unscored, are never called fine and
their drift is not judged.

Labels come after champions have gone: the windows of earlier champions whose labels come late are judged again too, each under the version
that it was judged under (`late_labels`).

The same loop judges live (`live_windows`) and in a replay: what it reads and writes is behind `store.WindowStore`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

import pandas as pd
from threadpoolctl import threadpool_limits

from evergreen.errors import EvergreenError
from evergreen.monitoring.windows import due_windows, late_labels, measure, performance, readiness
from evergreen.monitoring.windows.due_windows import MOST_PER_RUN, WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judgement import ColumnResult, Judgement, Status, Violation, What
from evergreen.monitoring.windows.plan import plan, span
from evergreen.monitoring.windows.reads import WindowCounts
from evergreen.monitoring.windows.store import WindowStore
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec

log = logging.getLogger(__name__)


def judge_due(store: WindowStore, model: ModelSpec, as_of: datetime) -> list[Judgement]:
    """Judge every window that is due as of a time, and keep the judgements.

    A window is due when it is complete, ended after the champion came to office, and was not judged for this
    version, or when labels, rows or predictions came in that can change its judgement (revision + 1). A
    feed that stopped is found before its window is over: then the open window is judged `stale`.
    A window of an earlier champion is due when labels came in that can change its served error. It stays as it was
    judged, with a line in the log, where the version's reference is not to be had (any more).

    Args:
        store: of the model, as of that time.
        model: whose champion is judged.
        as_of: the cut-off, aware.

    Returns:
        The judgements that this call made, those of earlier champions first, then oldest window first; none before the first
        champion.

    Raises:
        TerminalError: the champion's reference cannot be used, or the feature query does not run.
        TransientError: what is behind the store does not answer; the windows not yet judged stay due.
    """
    length, delay = model.monitoring.window, model.label.delay
    past = store.past(due_windows.oldest(length, as_of, delay))
    if past is None:
        return []
    version, run = past.champion.version, past.champion.run_id
    reference = store.reference(version, run)
    found = due_windows.candidates(length, past.since, past.first_scored, as_of, delay)
    waits = late_labels.waiting(model, past.judged, version, past.since, as_of)
    watched = store.watched(reference, *span(model, [*found, *(j.window for j in waits)], as_of))
    counts = watched.counts
    earlier = [j for j in past.judged if j.version == version]
    due = plan(model, reference, found, counts, earlier, past.first_scored, as_of)
    # Learnt at most once in a run, and only where a window asks for it.
    estimator = cache(lambda: store.estimator(watched.model, reference, version))
    done = []
    for window, revision in due.windows:
        facts, held, rows = counts.facts.get(window.start, WindowFacts()), due.held[window.start], None
        with store.turn(version, window, revision) as turn:
            if turn is None:
                continue
            one = Judgement(
                model.name, version, window.start, window.end, revision, as_of, Status.OK, facts.rows, 0, facts.labelled,
                mlflow_run=run, scored=facts.scored,
            )  # fmt: skip
            if held:
                one = readiness.held_back(one, held)
            else:
                rows = store.rows(watched.model, window, facts)
                wanted = model.monitoring.performance.estimate and not performance.enough_labels(model, facts)
                one, columns, worse = measured(
                    watched.model, reference, one, facts, rows, estimator() if wanted else None, watched.lost
                )
                one = concluded(one, columns, worse, rows)
            one = replace(one, before=due.before.get(window.start))
            done.append(turn.keep(one, rows, reference, late=False))
    return [*_judge_late(store, model, waits, counts, as_of, MOST_PER_RUN - len(due.windows)), *done]


def _judge_late(
    store: WindowStore,
    model: ModelSpec,
    waits: Sequence[Judgement],
    counts: WindowCounts,
    as_of: datetime,
    most: int,
) -> list[Judgement]:
    """Judge the windows of earlier champions that are due, `most` of them, the newest; returns them oldest first.

    None of them keeps the champion of now from being watched: what cannot be judged stays due and is logged.
    """
    references = cache(store.reference)
    done: list[Judgement] = []
    lost: set[str] = set()
    for before in late_labels.due(model, waits, counts.facts):
        if len(done) >= most:
            break
        if before.version in lost:
            continue
        try:
            reference = references(before.version, str(before.mlflow_run))
            with store.turn(before.version, before.window, before.revision + 1) as turn:
                if turn is None:
                    continue
                facts = counts.facts[before.window_start]
                rows = store.rows(model, before.window, facts)
                found = late_labels.again(model, reference, before, facts, rows, counts.newest, as_of)
                done.append(turn.keep(found, None if found.held_back else rows, reference, late=True))
        except EvergreenError as error:
            lost.add(before.version)
            log.warning(
                "%s: labels came for %s, which version %s served; it cannot be judged again, and stays as it was: %s",
                model.name, before.window, before.version, error,
            )  # fmt: skip
    return done[::-1]


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
