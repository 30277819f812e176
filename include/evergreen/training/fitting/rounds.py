"""What a fit tells of its rounds while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import xgboost as xgb

from evergreen.progress import Progress

log = logging.getLogger(__name__)

# Of a fit that is told round by round: after these rounds, and from the last one on after each so many.
STEPS = (1, 10, 25, 50, 100, 200)
_told: ContextVar[str] = ContextVar("told", default="")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Tell the score of each fit inside after some of its rounds; a search makes so many fits that only the slow ones tell."""
    token = _told.set(what)
    try:
        yield
    finally:
        _told.reset(token)


class Rounds(xgb.callback.TrainingCallback):
    """Tells how far a fit is, with the newest score of the rows that it watches."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total, self._what = total, _told.get()
        self._progress = Progress(log, self._what or "a fit", total, "round")

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: dict[str, Any]) -> bool:
        """Called by XGBoost after each round; false: go on."""
        done = epoch + 1
        scores = [f"{name} {float(values[-1]):.4g}" for name, values in evals_log.get("newest", {}).items()]
        if self._what and scores and (done in STEPS or done % STEPS[-1] == 0):
            log.info("%s: round %s: %s", self._what, f"{done:,}", ", ".join(scores))
        else:
            self._progress.tell(done, "".join(f", {score}" for score in scores))
        return False
