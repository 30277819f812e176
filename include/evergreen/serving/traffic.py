"""How much is asked, how long it takes, what fails: for Prometheus, and by the minute for pages and mails."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import Counter as Total

from evergreen.serving.spool import Minute

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STEPS = 8
"""Of a doubling: a quantile of a minute is told to within 5 %."""


@dataclass(slots=True)
class _Minute:
    requests: int = 0
    records: int = 0
    errors: int = 0
    refused: int = 0
    took: Counter[int] = field(default_factory=Counter)


class Traffic:
    """What one process counts; `model` is empty where a request names none that is served."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        by = ("model", "version")
        self._requests = Total(
            "evergreen_serving_requests", "Requests by how they ended: ok, refused (the client's mistake) or failed",
            (*by, "result"), registry=registry,
        )  # fmt: skip
        self._records = Total(
            "evergreen_serving_records", "Records that were predicted", by, registry=registry
        )
        self._took = Histogram(
            "evergreen_serving_request_seconds", "From the whole request to the answer", by, registry=registry, buckets=BUCKETS
        )  # fmt: skip
        self.missing = Total(
            "evergreen_serving_missing_values", "Values that were taken as missing: not known, or too large",
            ("model", "feature"), registry=registry,
        )  # fmt: skip
        self.lost = Total(
            "evergreen_serving_log_lost_records",
            "Records that are not in the log",
            ("model",),
            registry=registry,
        )
        self.waiting = Gauge(
            "evergreen_serving_log_files_waiting", "Files of the log that are not in the warehouse yet", registry=registry
        )  # fmt: skip
        self.in_flight = Gauge(
            "evergreen_serving_in_flight", "Requests that are being answered", registry=registry
        )
        self.lag = Gauge(
            "evergreen_serving_lag_seconds", "How late the process comes to what is due: what a request waits before it is read",
            registry=registry,
        )  # fmt: skip
        self.up = Gauge(
            "evergreen_serving_up", "Whether a part answers the companion (1) or not (0); the server goes on without", ("part",),
            registry=registry,
        )  # fmt: skip
        self.share = Gauge(
            "evergreen_serving_share", "Share of the keys that a version answers for", by, registry=registry
        )
        self.swaps = Total(
            "evergreen_serving_swaps",
            "Times that another version came to answer",
            ("model",),
            registry=registry,
        )
        self._children: dict[tuple[str, str], tuple[Total, Total, Histogram]] = {}
        self._minutes: dict[tuple[str, str], _Minute] = {}
        self._minute = _this_minute()
        self._lost: dict[str, int] = {}

    def ok(self, model: str, version: str, records: int, seconds: float) -> None:
        """A request that was answered."""
        children = self._children.get((model, version))
        if children is None:
            children = self._children[model, version] = (
                self._requests.labels(model, version, "ok"),
                self._records.labels(model, version),
                self._took.labels(model, version),
            )
        children[0].inc()
        children[1].inc(records)
        children[2].observe(seconds)
        found = self._of(model, version)
        found.requests += 1
        found.records += records
        found.took[int(math.log2(max(seconds, 1e-6) * 1e6) * STEPS)] += 1

    def refused(self, model: str) -> None:
        """A request that is wrong."""
        self._requests.labels(model, "", "refused").inc()
        found = self._of(model, "")
        found.requests += 1
        found.refused += 1

    def failed(self, model: str) -> None:
        """A request that could not be answered, though it may be right."""
        self._requests.labels(model, "", "failed").inc()
        found = self._of(model, "")
        found.requests += 1
        found.errors += 1

    def _of(self, model: str, version: str) -> _Minute:
        found = self._minutes.get((model, version))
        if found is None:
            found = self._minutes[model, version] = _Minute()
        return found

    def forget(self, kept: set[tuple[str, str]]) -> None:
        """Drop the series of versions that answer no more."""
        for gone in [pair for pair in self._children if pair not in kept]:
            del self._children[gone]
            self._requests.remove(*gone, "ok")
            self._records.remove(*gone)
            self._took.remove(*gone)

    def minutes(self, lost: dict[str, int], *, last: bool = False) -> list[Minute]:
        """What the minutes were that are over; at most once each.

        Args:
            lost: records that were lost from the log since the start, by model.
            last: the process ends: the minute that has begun, too.
        """
        now = _this_minute()
        if now == self._minute and not last:
            return []
        minute, made, self._minutes, self._minute = self._minute, self._minutes, {}, now
        new = {model: count - self._lost.get(model, 0) for model, count in lost.items()}
        self._lost = dict(lost)
        for model, count in new.items():
            if count:
                self.lost.labels(model).inc(count)
                made.setdefault((model, ""), _Minute())
        return [
            Minute(
                model, version, minute, m.requests, m.records, m.errors, m.refused,
                new.get(model, 0) if not version else 0, _quantile(m.took, 0.5), _quantile(m.took, 0.99),
            )
            for (model, version), m in made.items() if model
        ]  # fmt: skip


def _this_minute() -> float:
    return time.time() // 60 * 60


def _quantile(took: Counter[int], share: float) -> float:
    """The time (ms) below which so many requests took; 0 where there was none."""
    left = share * took.total()
    for step in sorted(took):
        left -= took[step]
        if left <= 0:
            return float(2 ** ((step + 0.5) / STEPS) / 1e3)
    return 0.0
