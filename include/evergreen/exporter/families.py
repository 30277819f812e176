"""Every metric of the exporter: its name, its labels and its meaning. docs/metrics.md repeats this table, and a test compares the two.

Of what lies back the time is told and not the age, as Prometheus asks for: `time() - evergreen_..._timestamp_seconds` is the age,
also of a value that was read a while ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric


@dataclass(frozen=True)
class MetricFamily:
    """One metric: `name` as it stands in a scrape, with the suffix of its unit or kind; times are seconds since 1970 (UTC)."""

    name: str
    labels: tuple[str, ...]
    meaning: str
    kind: Literal["gauge", "counter", "info"] = "gauge"


UP = MetricFamily(
    "evergreen_warehouse_up",
    (),
    "1: the warehouse answered every question; 0: it did not, and nothing else is told",
)
READ = MetricFamily("evergreen_warehouse_read_seconds", (), "how long the questions took")
SIZE = MetricFamily("evergreen_warehouse_size_bytes", (), "size of the warehouse's database")
MISTAKES = MetricFamily(
    "evergreen_spec_mistakes",
    (),
    "mistakes in the specs that the exporter reads; what such a file describes is switched off and has no series",
)
DECISIONS = MetricFamily("evergreen_decisions_total", ("kind",), "decisions in the ledger", "counter")
MAILS = MetricFamily(
    "evergreen_mails_waiting",
    (),
    "alerts that are owed and have not gone out on all their ways; without those that a silence keeps",
)
DELIVERIES = MetricFamily(
    "evergreen_deliveries_waiting",
    ("channel",),
    "alerts that were tried or are about to be and that a channel has not taken: email, or channel:NAME",
)
MAILS_SILENCED = MetricFamily("evergreen_mails_silenced", (), "alerts that a silence in force keeps back")
OLDEST_MAIL = MetricFamily(
    "evergreen_mail_oldest_waiting_timestamp_seconds",
    (),
    "since when the oldest alert of the waiting ones is owed",
)
RUNNING = MetricFamily(
    "evergreen_tasks_running",
    ("step",),
    "tasks that have begun and not told how they ended, by the kind of DAG; one that was killed stays until the DAG mail has asked Airflow",
)
OLDEST_TASK = MetricFamily(
    "evergreen_task_oldest_begun_timestamp_seconds", ("step",), "when the oldest of the running tasks began"
)
FREE = MetricFamily(
    "evergreen_store_free_bytes",
    ("store",),
    "free space for the folder: home (EVERGREEN_HOME), landing, snapshots; none where the exporter does not see it",
)
STORE = MetricFamily(
    "evergreen_store_size_bytes", ("store",), "size of the file system in which the folder lies"
)

LAST_ROWS = MetricFamily(
    "evergreen_dataset_last_rows_timestamp_seconds",
    ("dataset",),
    "when new or changed rows were last published",
)
FRESHNESS = MetricFamily(
    "evergreen_dataset_freshness_limit_seconds",
    ("dataset",),
    "how old the newest row may be: the smallest `monitoring.freshness` of the models that read the dataset; none where no spec sets it, "
    "since the feed's usual silence counts on top then",
)
BATCHES = MetricFamily(
    "evergreen_dataset_batches_total",
    ("dataset", "outcome"),
    "decisions on landed files, by outcome: published, quarantined, corrected, withdrawn, dismissed, keys_deleted",
    "counter",
)
ROWS_HELD = MetricFamily(
    "evergreen_dataset_rows_held_total",
    ("dataset",),
    "rows that were held back when their file landed: bad ones, or all of a quarantined file",
    "counter",
)

CHAMPION = MetricFamily(
    "evergreen_champion_info", ("model", "version"), "1: this version is champion", "info"
)
SINCE = MetricFamily(
    "evergreen_champion_since_timestamp_seconds",
    ("model",),
    "when it became champion, by a promotion or a rollback",
)
SHARE = MetricFamily(
    "evergreen_champion_share",
    ("model",),
    "share of the keys that it answers for online, while the champion before it answers for the rest; 1: for all",
)
SKEW = MetricFamily(
    "evergreen_model_served_skew_ratio",
    ("model",),
    "share (0 to 1) of the online predictions of the newest comparison that are not those that a batch makes of the same rows; none where nothing was compared in the last three days",
)
SKEW_LIMIT = MetricFamily(
    "evergreen_model_served_skew_limit_ratio",
    ("model",),
    "smallest such share that people are told of (`serving.skew`); none where the spec has nothing compared",
)
TRAINED = MetricFamily(
    "evergreen_champion_trained_timestamp_seconds",
    ("model",),
    "as of when it was trained: it has learnt nothing newer",
)
AGE_LIMIT = MetricFamily(
    "evergreen_model_training_age_limit_seconds",
    ("model",),
    "age of the newest training from which another is asked for (`monitoring.trigger.max_age`); none where the spec asks for none",
)
LAST_TRAINING = MetricFamily(
    "evergreen_model_last_training_timestamp_seconds", ("model",), "when a training was last decided on"
)
VERDICT = MetricFamily(
    "evergreen_model_last_training_info",
    ("model", "verdict", "reason"),
    "1: that decision was promoted, rejected or awaiting_approval, for this reason",
    "info",
)
REQUESTS = MetricFamily(
    "evergreen_model_open_requests", ("model", "reason"), "retrain requests that no decision has answered"
)
OLDEST_REQUEST = MetricFamily(
    "evergreen_model_oldest_open_request_timestamp_seconds", ("model",), "when the oldest of them was opened"
)
ERROR = MetricFamily(
    "evergreen_model_served_error",
    ("model", "metric"),
    "served error of the champion's newest window whose error was judged, in the unit of the metric",
)
ERROR_LIMIT = MetricFamily(
    "evergreen_model_served_error_limit", ("model", "metric"), "the limit that this window was judged by"
)
ERROR_HOLDOUT = MetricFamily(
    "evergreen_model_served_error_holdout",
    ("model", "metric"),
    "the same metric on the holdout of the champion's training",
)
ERROR_VIOLATED = MetricFamily(
    "evergreen_model_served_error_violated",
    ("model", "metric"),
    "1: it is beyond its limit, whichever side is the wrong one, or could not be computed; 0: it is not",
)
ERROR_END = MetricFamily(
    "evergreen_model_served_error_window_end_timestamp_seconds",
    ("model",),
    "event time at which that window ends",
)
STATUS = MetricFamily(
    "evergreen_model_window_status",
    ("model", "status"),
    "1 for the status of the champion's newest window: ok, violation, insufficient or stale; the last two mean: could not tell",
)
WINDOW_END = MetricFamily(
    "evergreen_model_window_end_timestamp_seconds", ("model",), "event time at which the newest window ends"
)
WINDOW = MetricFamily(
    "evergreen_model_window_seconds",
    ("model",),
    "how long a window is (`monitoring.window`); for each model of the specs",
)
LABEL_DELAY = MetricFamily(
    "evergreen_model_label_delay_seconds",
    ("model",),
    "after how long a label is due (`label.delay`); for each model of the specs",
)
DRIFTING = MetricFamily(
    "evergreen_model_drifting_columns_ratio",
    ("model",),
    "share (0 to 1) of the judged columns of the newest window, the prediction among them, that violate a limit; none where it could not be judged",
)
WORST = MetricFamily(
    "evergreen_model_worst_column_drift",
    ("model", "column", "statistic"),
    "the statistic of the judged column that is farthest beyond its limit, or nearest to it, in the newest window",
)
WORST_LIMIT = MetricFamily(
    "evergreen_model_worst_column_drift_limit",
    ("model", "column", "statistic"),
    "the limit of that statistic",
)

FAMILIES = (
    UP, READ, SIZE, MISTAKES, DECISIONS, MAILS, DELIVERIES, MAILS_SILENCED, OLDEST_MAIL, RUNNING, OLDEST_TASK, FREE, STORE,
    LAST_ROWS, FRESHNESS, BATCHES, ROWS_HELD,
    CHAMPION, SINCE, SHARE, SKEW, SKEW_LIMIT, TRAINED, AGE_LIMIT, LAST_TRAINING, VERDICT, REQUESTS, OLDEST_REQUEST,
    ERROR, ERROR_LIMIT, ERROR_HOLDOUT, ERROR_VIOLATED, ERROR_END, STATUS, WINDOW_END, WINDOW, LABEL_DELAY, DRIFTING, WORST, WORST_LIMIT,
)  # fmt: skip

Sample = tuple[tuple[str, ...], float]
"""Values of a family's labels in their order, and the value."""


def exposed(samples: Mapping[MetricFamily, list[Sample]]) -> Iterator[Metric]:
    """The families that have a sample, as prometheus_client writes them."""
    for family in FAMILIES:
        found = samples.get(family)
        if not found:
            continue
        names = list(family.labels)
        if family.kind == "info":
            # The first label says whose it is, the others are what is said.
            info = InfoMetricFamily(family.name.removesuffix("_info"), family.meaning, labels=names[:1])
            for labels, _ in found:
                info.add_metric(labels[:1], dict(zip(names[1:], labels[1:], strict=True)))
            yield info
            continue
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        written = kind(family.name.removesuffix("_total"), family.meaning, labels=names)
        for labels, value in found:
            written.add_metric(labels, value)
        yield written
