"""Windows that the present champion does not answer for, judged again when their labels come.

A label tells of the version that served its row, whoever is champion when it comes. So a window keeps the version under
which it was judged: more labels give that version's next revision, held against that version's own reference. Who reads
the windows of the present champion since it came to office (the trigger policy, the early alarm, the end of a drift)
does not meet them.

Only the served error is new. What was found about the columns stands as it was found: the features of the spec may have
changed with the champion, and labels say nothing about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pandas as pd

from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows import due_windows, measure, performance, readiness
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, in_short
from evergreen.reference import calendar
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec

UNSETTLED = ("not_yet", "estimated")
SETTLED = "another_version"


def waiting(
    model: ModelSpec, judgements: Sequence[Judgement], champion: str, begun: datetime, as_of: datetime
) -> list[Judgement]:
    """The windows of earlier champions whose served error may still change; a pure function.

    Left out are windows that could not be judged, that another version served, that have all their labels, and that are too
    old, see `due_windows.oldest`: what they say is final.

    Args:
        model: its window and label's delay.
        judgements: the newest revision of each window of each version, as judged by `as_of`.
        champion: the version in office; its windows before it came into office, as there are after a rollback, are an earlier
            champion's.
        begun: since when it answers for what is watched.
        as_of: the cut-off of the run.

    Returns:
        Their newest revisions, in the order given.
    """
    length = model.monitoring.window
    earliest = due_windows.oldest(length, as_of, model.label.delay)
    return [
        j
        for j in judgements
        if (j.version != champion or j.window_end <= begun)
        and j.window_start >= earliest
        # The spec's windows may have been of another length then; their rows are not counted any more.
        and j.window == calendar.window_of(j.window_start, length)
        and not j.held_back
        and _open(j)
    ]


def _open(judged: Judgement) -> bool:
    states = {m.state for m in judged.metrics.values()}
    return SETTLED not in states and (judged.labelled < judged.rows or bool(states & {*UNSETTLED}))


def due(
    model: ModelSpec, waits: Sequence[Judgement], facts: Mapping[datetime, WindowFacts]
) -> list[Judgement]:
    """Those of the waiting windows whose error the labels that came can change, newest first; a pure function.

    Args:
        model: its `performance.min_labels`.
        waits: see `waiting`.
        facts: the counts of the windows now, by their start.
    """
    least = model.monitoring.performance.min_labels
    found = (
        j
        for j in waits
        if due_windows.labels_tell_more(
            in_short(j, model.label.delay), facts.get(j.window_start, WindowFacts()), least
        )
    )
    return sorted(found, key=lambda j: j.window, reverse=True)


def again(
    model: ModelSpec,
    reference: Reference,
    before: Judgement,
    facts: WindowFacts,
    rows: pd.DataFrame,
    newest: datetime | None,
    as_of: datetime,
) -> Judgement:
    """The next revision of a window: its served error by the labels of now; what was found about its columns stands.

    Args:
        model: the settings of now.
        reference: of the version that the window was judged under.
        before: the newest revision.
        facts: the window's counts now.
        rows: its sample (`measure.frame`).
        newest: newest event time that had arrived; None if there is no row.
        as_of: the cut-off of the run.

    Returns:
        The judgement, still without an id; it names the pages of the revision before. Where the rows of the window have
        vanished so far that it could not be judged now, it says so.

    Raises:
        TerminalError: the version's holdout does not have the metric that is watched now (BAD_METRIC).
    """
    sample = measure.sampled(rows)
    found = replace(
        before,
        id=None,
        revision=before.revision + 1,
        as_of=as_of,
        rows=facts.rows,
        labelled=facts.labelled,
        scored=facts.scored,
        sampled_rows=len(sample),
        before=before.status,
    )
    if held := readiness.check(model, reference, facts, before.window, newest, as_of):
        return readiness.held_back(replace(found, metrics={}, columns=(), sampled_rows=0, report=None), held)
    if performance.served_by_another(sample, before.version):
        return replace(found, metrics=performance.of_another(model, sample, reference)).concluded(
            before.columns, ()
        )
    metric = model.performance_metric
    if metric not in reference.holdout_metrics:
        raise TerminalError(
            f"{model.name}: {metric} is watched, and the holdout of version {before.version} has "
            f"{', '.join(sorted(reference.holdout_metrics)) or 'no metric'}: it was trained for another task",
            ErrorReason.BAD_METRIC,
        )
    metrics, worse = performance.judge_error(model, rows, reference, facts)
    return replace(found, metrics=metrics).concluded(before.columns, worse)
