"""Asks at a scrape, holds the answer for a few seconds, and says so where there is none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from psycopg2.extensions import make_dsn

from evergreen import settings
from evergreen.errors import TransientError
from evergreen.exporter import families as f
from evergreen.exporter import questions, stores
from evergreen.exporter.counts import DecisionCounts
from evergreen.exporter.questions import Samples
from evergreen.health.specs import SpecsFolder
from evergreen.warehouse.connection import connect

log = logging.getLogger(__name__)

HOLD_S = 5.0
"""So long an answer is given again: two Prometheus servers, or a person who looks, cost the warehouse nothing more."""
STATEMENT_S = 2
COUNTING_S = 1.0
"""So long a scrape goes on counting a ledger that is not counted yet."""
# A server that is gone is noticed before Prometheus gives up waiting.
PATIENCE = {"connect_timeout": 3, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2}


class WarehouseCollector(Collector):
    """All metrics of `families`, read when they are asked for; may be asked by several threads at once."""

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._lock = threading.Lock()
        self._samples: Samples = {}
        self._until = 0.0
        self._counts = DecisionCounts()
        self._specs = SpecsFolder(settings.specs_folder())
        self._up: bool | None = None

    def collect(self) -> Iterable[Metric]:
        """The metrics of now, or of a few seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._samples = self._read()
                self._until = time.monotonic() + self._hold_s
            return list(f.exposed(self._samples))

    def _read(self) -> Samples:
        began = time.monotonic()
        try:
            specs = self._specs.read()
            url = make_dsn(settings.WAREHOUSE.read(), **PATIENCE)
            with connect(url, timeout_s=STATEMENT_S) as conn:
                conn.set_session(isolation_level="REPEATABLE READ", readonly=True)
                found = questions.read(conn, specs)
                numbers = self._counts.read(conn, time.monotonic() + COUNTING_S)
        except Exception as error:
            # Whatever it is: not to know is not to be healthy, and the next scrape asks again.
            self._log_change(up=False, why=error)
            return {f.UP: [((), 0.0)]}
        if numbers:
            found |= questions.counted(specs, *numbers)
        self._log_change(up=True)
        return {
            **found,
            **stores.read(),
            f.MISTAKES: [((), float(len(specs.problems)))],
            f.UP: [((), 1.0)],
            f.READ: [((), time.monotonic() - began)],
        }

    def _log_change(self, *, up: bool, why: Exception | None = None) -> None:
        """Log a change, once."""
        if up == self._up:
            return
        self._up = up
        if why is None:
            log.info("the warehouse answers")
        elif isinstance(why, TransientError):
            log.warning("%s", why)
        else:
            log.error("the metrics could not be read", exc_info=why)
