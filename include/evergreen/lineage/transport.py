"""The way of a step's events to the lineage server: beside the step, which waits a few seconds for it and no longer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

    from evergreen.lineage.steps import StepFacts
    from evergreen.lineage.task_run import TaskRun

log = logging.getLogger(__name__)

WAIT_S = 5.0
"""How long the end of a step waits for its events to be taken; what has not gone out by then is lost."""
_THREAD = "evergreen-lineage"


class _Quiet(logging.Filter):
    """Leaves out what urllib3 says of each attempt of this module's threads: they tell once that it failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is of another thread."""
        return record.threadName != _THREAD


_QUIET = _Quiet()


class Sending:
    """The events of one step: START now, COMPLETE or FAIL by `end`. Nothing here raises, and it warns once."""

    def __init__(self, run: TaskRun) -> None:
        """Send START, in a thread of its own."""
        self._run, self._warned = run, False
        self._client: OpenLineageClient | None = None
        logging.getLogger("urllib3.connectionpool").addFilter(_QUIET)
        self._first = self._beside(self._start, datetime.now(UTC))

    def end(self, facts: Callable[[], StepFacts], error: BaseException | None = None) -> None:
        """Send the last event and wait up to `WAIT_S` for it.

        Args:
            facts: what the step read and wrote; called in the thread. Where it raises, the event goes out without.
            error: why the step failed; None: it did not.
        """
        last = self._beside(self._finish, datetime.now(UTC), facts, error)
        if last.is_alive():
            last.join(WAIT_S)
        if last.is_alive():
            self._warn(f"the lineage server took no event within {WAIT_S:g} s")

    def _beside(self, do: Callable[..., None], *given: Any) -> threading.Thread:
        # A daemon: the process does not wait for it at its end.
        thread = threading.Thread(target=self._guarded, args=(do, *given), name=_THREAD, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no thread left
            self._warn(str(error))
        return thread

    def _guarded(self, do: Callable[..., None], *given: Any) -> None:
        try:
            do(*given)
        except Exception as error:
            self._warn(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _start(self, at: datetime) -> None:
        from evergreen.lineage import events

        self._emit(events.started(self._run, at))

    def _finish(self, at: datetime, facts: Callable[[], StepFacts], error: BaseException | None) -> None:
        from evergreen.lineage import events, steps

        if self._first.is_alive():
            self._first.join()
        try:
            found = facts()
        except Exception as problem:
            self._warn(
                f"what was read and written cannot be told ({' '.join(str(problem).split())[:300]})",
                "one goes out without its datasets",
            )
            found = steps.StepFacts()
        self._emit(events.ended(self._run, at, found, error))
        # A transport that sends later sends now.
        if self._client is not None and not self._client.close(WAIT_S):
            self._warn(f"the lineage server took not all of them within {WAIT_S:g} s")

    def _emit(self, event: Any) -> None:
        from evergreen.lineage import events

        if self._client is None:
            self._client = events.client()
        self._client.emit(event)

    def _warn(self, why: str, so: str = "one or more are lost") -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "lineage events of %s.%s: %s: %s. The task is none the worse for it; docs/lineage.md has the settings",
                self._run.dag_id, self._run.task_id, so, why,
            )  # fmt: skip
