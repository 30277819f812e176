"""Windows as a replay judges them: rows out of the warehouse, all else out of the memory of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows import estimate, reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.monitoring.windows.store import Past, Watched
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.registry.in_office import begun
from evergreen.replay.checkpoint import PolicyFolder
from evergreen.replay.known import KnownRows
from evergreen.replay.state import ReplayState, Step
from evergreen.replay.training import Trainer
from evergreen.spec import ModelSpec

MOST_REFERENCES = 4


class Versions:
    """The versions of a policy: loaded to predict, with their references and what estimates their errors."""

    def __init__(self, model: ModelSpec, folder: PolicyFolder, trainer: Trainer) -> None:
        self._model, self._folder, self._trainer = model, folder, trainer
        self._references: dict[str, Reference] = {}
        self._estimators: dict[str, Estimator | None] = {}

    def load(self, version: str) -> registry.LoadedModel:
        """A version, ready to predict."""
        return self._trainer.load(self._model, version)

    def reference(self, version: str) -> Reference:
        """What a version learnt from; the last ones stay in memory."""
        if version not in self._references:
            recent = list(self._references.items())[-MOST_REFERENCES + 1 :]
            found = self._folder.reference(version).for_window(self._model)
            self._references = dict([*recent, (version, found)])
        return self._references[version]

    def estimator(self, version: str) -> Estimator | None:
        """What estimates a version's error without labels; learnt where it is first asked for, once a version."""
        if version not in self._estimators:
            self._estimators = {version: estimate.fit(self._model, self.reference(version))}
        return self._estimators[version]


def predictions(version: registry.LoadedModel, rows: pa.Table) -> pd.DataFrame:
    """What a version predicts for rows, as `ReplayState.predict` keeps it.

    Raises:
        TerminalError: a prediction is not finite (BAD_METRIC).
    """
    predicted = version.predict(rows)
    if bad := int((~np.isfinite(predicted)).sum()):
        raise TerminalError(
            f"version {version.version}: {bad} of {len(predicted)} predictions are not finite",
            ErrorReason.BAD_METRIC,
        )
    table = rows.select(["_key", "_time"]).to_pandas()
    return table.assign(prediction=predicted, version=version.version)


class ReplayedWindows:
    """See `monitoring.windows.store.WindowStore`.

    Args:
        model: the policy's spec.
        state: what the policy has decided, judged and predicted.
        step: of now; judgements and predictions go to it.
        there: the rows that were known.
        counts: of the windows, from the oldest on that may be asked for.
        versions: the policy's.
    """

    def __init__(
        self,
        model: ModelSpec,
        state: ReplayState,
        step: Step,
        there: KnownRows,
        counts: reads.Counted,
        versions: Versions,
    ) -> None:
        self._model, self._state, self._step = model, state, step
        self._there, self._counts, self._versions = there, counts, versions

    def past(self, ends_after: datetime) -> Past | None:
        champion = self._state.champion(self._model.name)
        since = begun(champion, self._state.changes()[0])
        return Past(champion, since, self._state.newest(None, ends_after), self._state.first_scored)

    def reference(self, version: str, run_id: str) -> Reference:
        return self._versions.reference(version)

    def watched(self, reference: Reference, start: datetime, look_back: datetime) -> Watched:
        facts = {
            begin: self._facts(begin, *held) for begin, held in self._counts.windows.items() if begin >= start
        }
        return Watched(self._model, {}, reads.WindowCounts(facts, self._counts.newest))

    def estimator(self, model: ModelSpec, reference: Reference, version: str) -> Estimator | None:
        return self._versions.estimator(version)

    @contextmanager
    def turn(self, version: str, window: Window, revision: int) -> Iterator[ReplayedWindows]:
        yield self

    def keep(
        self, found: Judgement, rows: pd.DataFrame | None, reference: Reference, *, late: bool
    ) -> Judgement:
        return self._state.judge(self._step, found)

    def rows(self, model: ModelSpec, window: Window, facts: WindowFacts) -> pd.DataFrame:
        """The rows of a window as the watch measures them, with what was served for them.

        Rows that are there for their label alone were served with the others; which ones they are is known only now, so the
        version that predicted most of the others predicts them now.
        """
        state = self._state
        rows, done = self._there.sample(window, facts), state.predicted(window.start)
        if reads.BEYOND in rows.column_names and len(done):
            serving = self._versions.load(str(done["version"].mode()[0]))
            fresh = ~np.isin(rows["_key"].to_numpy(zero_copy_only=False), done.index.to_numpy())
            fresh &= rows[reads.BEYOND].to_numpy(zero_copy_only=False)
            unseen = predictions(serving, rows.filter(pa.array(fresh)))
            state.predict(self._step, window, unseen, shadow=False)
        return self._there.frame(rows, state.predicted(window.start), facts.rows)

    def _facts(self, begin: datetime, rows: int, labelled: int) -> WindowFacts:
        model = self._model
        done, most = len(self._state.predicted(begin)), model.monitoring.sample_rows
        # Of a window of more rows only a sample is predicted; it stands for all of them.
        scored = min(done, rows) if rows <= most else rows * min(done, most) // most
        due = self._step.as_of >= begin + model.monitoring.window + model.label.delay
        return WindowFacts(rows, labelled, scored, due)
