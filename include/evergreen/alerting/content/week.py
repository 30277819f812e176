"""What the weekly digest is made of: a week of a model and of a dataset, as of a time, from ledger and judgements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.alerting.content import online
from evergreen.alerting.content.history import JudgedWindow, windows
from evergreen.alerting.content.online import Traffic
from evergreen.incidents.threads import Thread, open_ones
from evergreen.ledger import champions, dataset_subject, model_subject, promotion
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, fetch

LENGTH = timedelta(days=7)
TREND_WINDOWS = 16
TOLD = (
    DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.ROLLED_BACK, DecisionKind.WATCH_ENDED, DecisionKind.CANARY,
    DecisionKind.RUN_FAILED, DecisionKind.MAIL_FAILED, DecisionKind.RECOVERED, DecisionKind.BATCH_QUARANTINED, DecisionKind.SILENCED,
    DecisionKind.BATCH_CORRECTED, DecisionKind.BATCH_WITHDRAWN, DecisionKind.BATCH_DISMISSED, DecisionKind.KEYS_DELETED,
)  # fmt: skip


@dataclass(frozen=True)
class Decided:
    """Equal decisions of a week: kind, reason, how many, of which newest version."""

    kind: str
    reason: str
    times: int
    version: str | None


@dataclass(frozen=True)
class ModelWeek:
    """A week of a model.

    Attributes:
        name: the model.
        champion, since: its version and as of when it came into office; None without one.
        judged: windows that were judged in the week, by their newest judgement.
        violations: those in violation.
        by_estimate: those of them in which nothing but an estimate of the error is beyond its limit.
        by_earlier: those of them in which another version is in violation than the champion, such as one whose labels came late.
        not_judged: those that could not be judged (stale, too few or unscored rows).
        not_yet: those whose served error could not be judged yet, because labels are missing; also where it is estimated.
        metric: the served metric that is watched.
        trend: the newest windows, oldest first, with that metric.
        error_limit: why the watch on the champion's error can hardly alarm, and what could, as its training found; else empty.
        below_baseline: what the newest training of the champion's week found, where the naive baseline beats it; else empty.
        decided: what was decided in the week.
        open: incidents that have not ended.
        online: what was asked online in the week; None: nothing.
    """

    name: str
    champion: str | None
    since: datetime | None
    judged: int
    violations: int
    by_estimate: int
    by_earlier: int
    not_judged: int
    not_yet: int
    metric: str
    trend: tuple[JudgedWindow, ...]
    error_limit: str
    below_baseline: str
    decided: tuple[Decided, ...]
    open: tuple[Thread, ...]
    online: Traffic | None = None


@dataclass(frozen=True)
class DatasetWeek:
    """A week of a dataset: batches and rows that were published, batches and rows that were held back, the newest batch."""

    name: str
    published: int
    quarantined: int
    rows_new: int
    rows_changed: int
    rows_held: int
    newest: datetime | None
    open: tuple[Thread, ...]
    decided: tuple[Decided, ...]


def model_week(conn: Connection, model: ModelSpec, as_of: datetime) -> ModelWeek:
    """The week of a model that ends with `as_of`."""
    subject, metric = model_subject(model.name), model.performance_metric
    changes = champions(conn, model.name, as_of)
    champion = changes[0].version if changes else None
    made = promotion(champion, changes)
    counts = fetch(
        conn,
        "SELECT count(*)::int AS judged, count(*) FILTER (WHERE status = 'violation')::int AS violations,"
        " count(*) FILTER (WHERE status = 'violation' AND NOT jsonb_path_exists("
        "violations, '$[*] ? (@.kind <> \"estimated_performance\")'))::int AS by_estimate,"
        " count(*) FILTER (WHERE status = 'violation' AND version <> %(champion)s)::int AS by_earlier,"
        " count(*) FILTER (WHERE status IN ('stale', 'insufficient'))::int AS not_judged,"
        " count(*) FILTER (WHERE metrics -> %(metric)s ->> 'state' IN ('not_yet', 'estimated'))::int AS not_yet"
        " FROM (SELECT DISTINCT ON (window_start) version, status, metrics, violations, as_of FROM evergreen.window_judgement"
        " WHERE model = %(model)s AND as_of <= %(as_of)s AND as_of > %(since)s"
        " ORDER BY window_start, as_of DESC, revision DESC, id DESC) AS newest",
        {
            "model": model.name,
            "metric": metric,
            "champion": champion,
            "as_of": as_of,
            "since": as_of - LENGTH,
        },
    )[0]
    return ModelWeek(
        name=model.name,
        champion=champion,
        since=changes[0].effective_shown if changes else None,
        metric=metric,
        trend=tuple(windows(conn, model.name, metric, until=as_of)[-TREND_WINDOWS:]),
        error_limit=SettledEvidence.shown(made).error_limit if made else "",
        below_baseline=_below_baseline(conn, subject, champion, as_of),
        decided=_decided(conn, subject, as_of),
        open=tuple(open_ones(conn, subject, as_of=as_of)),
        online=online.week(conn, model.name, as_of),
        **counts,
    )


def dataset_week(conn: Connection, name: str, as_of: datetime) -> DatasetWeek:
    """The week of a dataset that ends with `as_of`."""
    found = fetch(
        conn,
        "SELECT count(*) FILTER (WHERE state = 'published')::int AS published,"
        " count(*) FILTER (WHERE state = 'quarantined')::int AS quarantined,"
        " coalesce(sum(rows_new), 0)::bigint AS rows_new, coalesce(sum(rows_changed), 0)::bigint AS rows_changed,"
        " coalesce(sum(rows_held), 0)::bigint AS rows_held, max(as_of) AS newest FROM evergreen.batch"
        " WHERE dataset = %s AND as_of > %s AND as_of <= %s",
        (name, as_of - LENGTH, as_of),
    )[0]
    subject = dataset_subject(name)
    return DatasetWeek(
        name=name,
        open=tuple(open_ones(conn, subject, as_of=as_of)),
        decided=_decided(conn, subject, as_of),
        **found,
    )


def last_values(week: ModelWeek) -> tuple[JudgedWindow | None, JudgedWindow | None]:
    """The newest window whose served error was measured, and the newest after it of which only an estimate is known."""
    known = [w for w in reversed(week.trend) if w.value is not None]
    measured = next((w for w in known if not w.estimated), None)
    return measured, known[0] if known and known[0].estimated else None


def _below_baseline(conn: Connection, subject: str, champion: str | None, as_of: datetime) -> str:
    """What the week's newest ruling on a challenger says of the champion and the naive baseline; empty where it beats it."""
    rows = fetch(
        conn,
        "SELECT kind, evidence ->> 'champion_below_baseline' AS told FROM evergreen.decision WHERE subject = %s"
        " AND as_of > %s AND as_of <= %s AND (kind = %s AND evidence ->> 'compared_with' = %s OR kind = %s AND version = %s)"
        " ORDER BY id DESC LIMIT 1",
        (
            subject,
            as_of - LENGTH,
            as_of,
            DecisionKind.REJECTED.value,
            champion,
            DecisionKind.PROMOTED.value,
            champion,
        ),
    )
    return (rows[0]["told"] or "") if rows else ""


def _decided(conn: Connection, subject: str, as_of: datetime) -> tuple[Decided, ...]:
    rows = fetch(
        conn,
        "SELECT kind, reason, count(*)::int AS times, (array_agg(version ORDER BY id DESC))[1] AS version"
        " FROM evergreen.decision WHERE subject = %s AND kind = ANY(%s) AND as_of > %s AND as_of <= %s"
        " GROUP BY kind, reason ORDER BY min(id)",
        (subject, [kind.value for kind in TOLD], as_of - LENGTH, as_of),
    )
    return tuple(Decided(**row) for row in rows)
