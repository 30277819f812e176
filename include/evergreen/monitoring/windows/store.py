"""What judging reads and writes, live or replayed, so that one loop judges in both."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pandas as pd

from evergreen.monitoring.windows import reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.registry import Champion
from evergreen.spec import ModelSpec


@dataclass(frozen=True)
class Watched:
    """What of a champion's rows can be watched now.

    Attributes:
        model: the spec with those features of the champion that the query gives.
        lost: the champion's other features, each with why the query does not give it.
        counts: rows, labels and predictions of the windows.
    """

    model: ModelSpec
    lost: dict[str, str]
    counts: reads.WindowCounts


@dataclass(frozen=True)
class Past:
    """What was decided and judged before.

    Attributes:
        champion: of that time.
        since: from when on it answers for what is watched.
        judged: the newest revision of each window of each version, oldest window first.
        first_scored: event time of the model's first prediction; None before it.
    """

    champion: Champion
    since: datetime
    judged: list[Judgement]
    first_scored: datetime | None


class Turn(Protocol):
    """The right to judge one window: while it is held, nobody else does."""

    def keep(
        self, found: Judgement, rows: pd.DataFrame | None, reference: Reference, *, late: bool
    ) -> Judgement:
        """Keep a judgement, with what its pages are drawn from; returns it with its id.

        Args:
            found: the judgement.
            rows: what was measured (`measure.frame`); None of a window that could not be judged.
            reference: that it was held against.
            late: only its served error is new.
        """


class WindowStore(Protocol):
    """The windows of a model as of a time: who is champion, what was judged, what the rows are."""

    def past(self, ends_after: datetime) -> Past | None:
        """What was decided and judged by that time, of windows that end later than another; None before the first champion."""

    def reference(self, version: str, run_id: str) -> Reference:
        """The reference of a version, which an MLflow run made.

        Raises:
            TerminalError: it is missing or damaged, or is of another task.
        """

    def watched(self, reference: Reference, start: datetime, look_back: datetime) -> Watched:
        """What can be watched from a time on; the newest row is looked for as far back as `look_back`.

        Raises:
            TerminalError: the feature query does not run, or gives nothing that the champion was trained on.
        """

    def estimator(self, model: ModelSpec, reference: Reference, version: str) -> Estimator | None:
        """What estimates a version's error without labels; None where nothing can."""

    def turn(self, version: str, window: Window, revision: int) -> AbstractContextManager[Turn | None]:
        """The turn to judge a window; None where another run has judged it meanwhile."""

    def rows(self, model: ModelSpec, window: Window, facts: WindowFacts) -> pd.DataFrame:
        """The rows of a window as `measure.frame` gives them, with what was served for them."""
