"""Windows as they are judged live: in the warehouse, with references, samples and pages in MLflow.

A judgement and what is kept of its window do not part: the sample, and the pages of a window in
violation, are in MLflow before the numbers are in the warehouse, so a failure between the two leaves files that the next
try writes again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows import (
    estimate,
    judgement,
    kept_sample,
    measure,
    reads,
    report,
    window_text,
)
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judge import judge_due
from evergreen.monitoring.windows.judgement import Judgement, Status
from evergreen.monitoring.windows.store import Past, Watched
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.registry.in_office import in_office_since
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import arrow, feature_query, views

REFERENCE_PATH = "reference"
MOST_JUDGEMENTS = 10_000

log = logging.getLogger(__name__)


def judge_windows(specs: Specs, model: ModelSpec, as_of: datetime) -> list[Judgement]:
    """Judge every window that is due as of a time, see `judge.judge_due`, and write the judgements.

    Two calls at once judge each window once. Each window is one transaction. Rows, predictions and decisions of a later time
    do not count; the champion is the one of that time.
    """
    with arrow.sharing():
        return judge_due(LiveWindows(specs, model, as_of), model, as_of)


class LiveWindows:
    """See `store.WindowStore`."""

    def __init__(self, specs: Specs, model: ModelSpec, as_of: datetime) -> None:
        self._specs, self._model, self._as_of = specs, model, as_of

    def past(self, ends_after: datetime) -> Past | None:
        model, as_of = self._model, self._as_of
        with connect() as conn:
            # The alias is put right by those who promote, score and roll back; watching needs only the ledger.
            champion = registry.champion(conn, model.name, repair=False, as_of=as_of)
            if champion is None:
                return None
            since = in_office_since(conn, model, champion, as_of)
            judged = judgement.newest(
                conn, model.name, None, ends_after=ends_after, as_of=as_of, limit=MOST_JUDGEMENTS
            )
            return Past(champion, since, judged, reads.first_scored(conn, model, as_of))

    def reference(self, version: str, run_id: str) -> Reference:
        return _reference(self._model, run_id)

    def watched(self, reference: Reference, start: datetime, look_back: datetime) -> Watched:
        with views.reading(self._specs, self._model, self._as_of) as reader:
            model, lost = _watched_features(reader, self._model, reference)
            counts = reads.feed(self._specs, self._model, self._as_of, start, look_back, reader=reader)
        return Watched(model, lost, counts)

    def estimator(self, model: ModelSpec, reference: Reference, version: str) -> Estimator | None:
        return estimate.fit(model, reference)

    @contextmanager
    def turn(self, version: str, window: Window, revision: int) -> Iterator[LiveTurn | None]:
        with connect() as guard:
            _lock(guard, self._model)
            meanwhile = _judged_meanwhile(guard, self._model, version, window, revision)
            yield None if meanwhile else LiveTurn(guard, self._model)

    def rows(self, model: ModelSpec, window: Window, facts: WindowFacts) -> pd.DataFrame:
        return measure.frame(reads.sample(self._specs, model, self._as_of, window, facts))


class LiveTurn:
    """See `store.Turn`: a transaction that holds the model's lock."""

    def __init__(self, conn: Connection, model: ModelSpec) -> None:
        self._conn, self._model = conn, model

    def keep(
        self, found: Judgement, rows: pd.DataFrame | None, reference: Reference, *, late: bool
    ) -> Judgement:
        if rows is not None:
            found = _with_files(self._model, found, rows, reference, late=late)
        found = judgement.insert(self._conn, found)
        level = logging.INFO if found.status is Status.OK else logging.WARNING
        log.log(level, "%s: %s", self._model.name, window_text.line(found))
        return found


def _reference(model: ModelSpec, run_id: str) -> Reference:
    found, metric = (
        Reference.read(registry.local_copy(model.name, run_id, REFERENCE_PATH)),
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


def _watched_features(
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


def _with_files(
    model: ModelSpec, found: Judgement, rows: pd.DataFrame, reference: Reference, *, late: bool
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
