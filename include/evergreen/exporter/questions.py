"""What the exporter asks the warehouse: one snapshot, a few statements, each bounded by the number of models and not by the tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg2 import sql

from evergreen import ledger
from evergreen.alert_kinds import HELD
from evergreen.exporter import families as f
from evergreen.exporter.families import MetricFamily, Sample
from evergreen.ledger.reasons import DecisionKind, TriggerReason
from evergreen.monitoring.windows.due_windows import MOST_PER_RUN
from evergreen.monitoring.windows.judgement import Status
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch

TABLES = (
    "evergreen.begun",
    "evergreen.decision",
    "evergreen.delivery",
    "evergreen.mail",
    "evergreen.silence",
    "evergreen.window_column",
    "evergreen.window_judgement",
)
"""All that the exporter reads: a role with USAGE on the schema evergreen and SELECT on these can run it."""

Samples = dict[MetricFamily, list[Sample]]

# The newest requests of a model; a training answers all that are open, so older ones are answered.
_REQUESTS = 20
_OUTCOMES = {
    DecisionKind.BATCH_PUBLISHED: "published",
    DecisionKind.BATCH_QUARANTINED: "quarantined",
    DecisionKind.BATCH_CORRECTED: "corrected",
    DecisionKind.BATCH_WITHDRAWN: "withdrawn",
    DecisionKind.BATCH_DISMISSED: "dismissed",
    DecisionKind.KEYS_DELETED: "keys_deleted",
}
# Nobody asks the policy for these: a schedule and a person start a training without a request.
_ASKED_FOR = [r.value for r in TriggerReason if r not in (TriggerReason.SCHEDULE, TriggerReason.MANUAL)]


_SUBJECTS = sql.SQL(
    "(SELECT name AS model, 'model/' || name AS subject FROM unnest(%(models)s::text[]) AS name) AS w"
)
_NEWEST = sql.SQL(
    "(SELECT id, kind, reason, version, decided_at FROM evergreen.decision WHERE subject = w.subject AND kind = {}"
    " ORDER BY id DESC LIMIT {})"
)


def _newest(*kinds: DecisionKind) -> sql.Composed:
    """The newest decision of some kinds: a search of the index for each, where `kind = ANY` would read all rows of the subject."""
    return sql.SQL(" UNION ALL ").join(_NEWEST.format(sql.Literal(k.value), sql.Literal(1)) for k in kinds)


_MODELS = sql.SQL(
    "SELECT w.model, champion.version, champion.decided_at AS since, made.as_of AS trained, decided.kind AS verdict,"
    " decided.reason, decided.decided_at AS decided FROM {w}"
    " LEFT JOIN LATERAL (SELECT * FROM ({changes}) AS changes ORDER BY id DESC LIMIT 1) AS champion ON true"
    " LEFT JOIN LATERAL (SELECT as_of FROM evergreen.decision WHERE subject = w.subject AND kind = 'promoted'"
    " AND version = champion.version ORDER BY id DESC LIMIT 1) AS made ON true"
    " LEFT JOIN LATERAL (SELECT * FROM ({verdicts}) AS verdicts ORDER BY id DESC LIMIT 1) AS decided ON true"
).format(
    w=_SUBJECTS,
    changes=_newest(DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK),
    verdicts=_newest(DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.AWAITING_APPROVAL),
)
# A window is looked at until its labels are due and `MOST_PER_RUN` windows longer; of an older one nothing is news.
_WINDOWS = (
    "SELECT w.model, newest.id, newest.window_end, newest.status, looked.metric, looked.found, looked.window_end AS error_end"
    " FROM unnest(%(models)s::text[], %(versions)s::text[], %(reach)s::interval[]) AS w (model, version, reach)"
    " CROSS JOIN LATERAL (SELECT id, window_start, window_end, status FROM evergreen.window_judgement"
    " WHERE model = w.model AND version = w.version ORDER BY window_start DESC, revision DESC LIMIT 1) AS newest"
    " LEFT JOIN LATERAL (SELECT e.key AS metric, e.value AS found, judged.window_end FROM ("
    "SELECT DISTINCT ON (window_start) window_start, window_end, metrics FROM evergreen.window_judgement"
    " WHERE model = w.model AND version = w.version AND window_start >= newest.window_start - w.reach"
    " ORDER BY window_start DESC, revision DESC) AS judged CROSS JOIN LATERAL jsonb_each(judged.metrics) AS e"
    " WHERE e.value->>'state' IN ('judged', 'unreadable') ORDER BY judged.window_start DESC LIMIT 1) AS looked ON true"
)
_COLUMNS = (
    "SELECT judgement_id, count(DISTINCT column_name) AS columns,"
    " count(DISTINCT column_name) FILTER (WHERE violated) AS drifting"
    " FROM evergreen.window_column WHERE judgement_id = ANY(%(ids)s) GROUP BY 1"
)
# One that is beyond its limit and no violation is on the spec's list of columns to ignore.
_WORST = (
    "SELECT DISTINCT ON (judgement_id) judgement_id, column_name, statistic, value, threshold FROM evergreen.window_column"
    " WHERE judgement_id = ANY(%(ids)s) AND value IS NOT NULL AND (violated OR value <= threshold)"
    " ORDER BY judgement_id, violated DESC, value / nullif(threshold, 0) DESC NULLS LAST, column_name, kind"
)
# A feed that brings nothing new for so many files is told to have brought nothing at all.
_ROWS = (
    "SELECT w.dataset, newest.decided_at FROM unnest(%(datasets)s::text[]) AS w (dataset)"
    " CROSS JOIN LATERAL (SELECT decided_at FROM (SELECT id, decided_at, evidence FROM evergreen.decision"
    " WHERE subject = 'dataset/' || w.dataset AND kind = 'batch_published' ORDER BY id DESC LIMIT 1000) AS published"
    " WHERE (evidence->>'rows_new')::bigint > 0 OR (evidence->>'rows_changed')::bigint > 0"
    " ORDER BY id DESC LIMIT 1) AS newest"
)
_MAILS = (
    "SELECT coalesce(sum(silenced::int), 0) AS silenced, coalesce(sum((NOT silenced)::int), 0) AS waiting,"
    " min(created_at) FILTER (WHERE NOT silenced) AS oldest FROM (SELECT created_at, kind = ANY(%(held)s) AND EXISTS"
    " (SELECT 1 FROM evergreen.silence AS s WHERE s.subject = m.subject AND s.until > clock_timestamp()) AS silenced"
    " FROM evergreen.mail AS m WHERE sent_at IS NULL) AS unsent"
)
_DELIVERIES = (
    "SELECT d.channel, count(*) AS letters FROM evergreen.delivery AS d JOIN evergreen.mail AS m ON m.id = d.mail"
    " WHERE m.sent_at IS NULL AND d.sent_at IS NULL GROUP BY 1"
)
_BEGUN = (
    "SELECT split_part(split_part(run_id, '/', 1), '__', 1) AS step, count(*) AS tasks, min(begun_at) AS oldest"
    " FROM evergreen.begun GROUP BY 1"
)


def read(conn: Connection, specs: Specs) -> Samples:
    """Everything but the counts, from the warehouse.

    Args:
        conn: the warehouse; the transaction reads one snapshot.
        specs: whose models and datasets; of others nothing is told.
    """
    (size,) = fetch(conn, "SELECT pg_database_size(current_database()) AS bytes")
    found: Samples = {f.SIZE: [((), float(size["bytes"]))]}
    _mails(conn, found)
    _tasks(conn, found)
    _datasets(conn, specs, found)
    champions = _models(conn, specs, found)
    _requests(conn, specs, found)
    _windows(conn, specs, champions, found)
    return found


def counted(specs: Specs, decisions: dict[tuple[str, str], int], held: dict[str, int]) -> Samples:
    """The counts as samples; a kind or outcome that never occurred is 0, so that its first one shows as an increase."""
    kinds = {kind.value: 0 for kind in DecisionKind}
    for (_, kind), number in decisions.items():
        kinds[kind] = kinds.get(kind, 0) + number
    return {
        f.DECISIONS: [((kind,), float(number)) for kind, number in sorted(kinds.items())],
        f.BATCHES: [
            ((name, outcome), float(decisions.get((name, kind.value), 0)))
            for name in sorted(specs.datasets)
            for kind, outcome in _OUTCOMES.items()
        ],
        f.ROWS_HELD: [((name,), float(held.get(name, 0))) for name in sorted(specs.datasets)],
    }


def _mails(conn: Connection, found: Samples) -> None:
    (row,) = fetch(conn, _MAILS, {"held": HELD})
    found[f.MAILS] = [((), float(row["waiting"]))]
    found[f.DELIVERIES] = [((r["channel"],), float(r["letters"])) for r in fetch(conn, _DELIVERIES)]
    found[f.MAILS_SILENCED] = [((), float(row["silenced"]))]
    found[f.OLDEST_MAIL] = [((), _seconds(row["oldest"]))] if row["oldest"] else []


def _tasks(conn: Connection, found: Samples) -> None:
    rows = fetch(conn, _BEGUN)
    found[f.RUNNING] = [((row["step"],), float(row["tasks"])) for row in rows]
    found[f.OLDEST_TASK] = [((row["step"],), _seconds(row["oldest"])) for row in rows]


def _datasets(conn: Connection, specs: Specs, found: Samples) -> None:
    rows = fetch(conn, _ROWS, {"datasets": sorted(specs.datasets)})
    found[f.LAST_ROWS] = [((row["dataset"],), _seconds(row["decided_at"])) for row in rows]
    limits: dict[str, float] = {}
    for model in specs.models.values():
        if "freshness" in model.monitoring.model_fields_set:
            for name in model.datasets:
                limit = model.monitoring.freshness.total_seconds()
                limits[name] = min(limit, limits.get(name, limit))
    found[f.FRESHNESS] = [((name,), limit) for name, limit in sorted(limits.items())]


def _models(conn: Connection, specs: Specs, found: Samples) -> dict[str, str]:
    """Champion and newest training of each model; returns the champions' versions."""
    champions: dict[str, str] = {}
    for row in fetch(conn, _MODELS, {"models": sorted(specs.models)}):
        name = row["model"]
        if row["version"] is not None:
            champions[name] = row["version"]
            _add(found, f.CHAMPION, (name, row["version"]), 1.0)
            _add(found, f.SINCE, (name,), _seconds(row["since"]))
        if row["trained"]:
            _add(found, f.TRAINED, (name,), _seconds(row["trained"]))
        if row["decided"]:
            _add(found, f.LAST_TRAINING, (name,), _seconds(row["decided"]))
            _add(found, f.VERDICT, (name, row["verdict"], row["reason"]), 1.0)
    for name, model in sorted(specs.models.items()):
        _add(found, f.WINDOW, (name,), model.monitoring.window.total_seconds())
        _add(found, f.LABEL_DELAY, (name,), model.label.delay.total_seconds())
        if model.monitoring.max_age is not None:
            _add(found, f.AGE_LIMIT, (name,), model.monitoring.max_age.total_seconds())
    return champions


def _requests(conn: Connection, specs: Specs, found: Samples) -> None:
    requests = ledger.unanswered(conn, sorted(specs.models), DecisionKind.RETRAIN_REQUESTED, newest=_REQUESTS)
    number = {(name, reason): 0 for name in sorted(specs.models) for reason in _ASKED_FOR}
    oldest: dict[str, datetime] = {}
    for request in requests:
        labels = (request.model, request.reason)
        number[labels] = number.get(labels, 0) + 1
        oldest[request.model] = min(request.decided_at, oldest.get(request.model, request.decided_at))
    found[f.REQUESTS] = [(labels, float(count)) for labels, count in number.items()]
    found[f.OLDEST_REQUEST] = [((name,), _seconds(time)) for name, time in oldest.items()]


def _windows(conn: Connection, specs: Specs, champions: dict[str, str], found: Samples) -> None:
    """The newest window of each champion: its status, its columns, and the newest served error."""
    models = [specs.models[name] for name in champions]
    reach = [MOST_PER_RUN * model.monitoring.window + model.label.delay for model in models]
    rows = fetch(
        conn, _WINDOWS, {"models": list(champions), "versions": list(champions.values()), "reach": reach}
    )
    judged: dict[int, str] = {}
    for row in rows:
        name, status = row["model"], row["status"]
        found.setdefault(f.STATUS, []).extend(((name, s.value), float(s.value == status)) for s in Status)
        _add(found, f.WINDOW_END, (name,), _seconds(row["window_end"]))
        if status in (Status.OK.value, Status.VIOLATION.value):
            judged[row["id"]] = name
        if row["metric"] is not None:
            _error(found, name, row["metric"], row["found"], row["error_end"])
    for row in fetch(conn, _COLUMNS, {"ids": list(judged)}):
        _add(found, f.DRIFTING, (judged[row["judgement_id"]],), row["drifting"] / row["columns"])
    for row in fetch(conn, _WORST, {"ids": list(judged)}):
        labels = (judged[row["judgement_id"]], row["column_name"], row["statistic"])
        _add(found, f.WORST, labels, row["value"])
        _add(found, f.WORST_LIMIT, labels, row["threshold"])


def _error(found: Samples, name: str, metric: str, result: dict[str, Any], end: datetime) -> None:
    for family, value in (
        (f.ERROR, result.get("value")),
        (f.ERROR_LIMIT, result.get("limit")),
        (f.ERROR_HOLDOUT, result.get("reference")),
    ):
        if value is not None:
            _add(found, family, (name, metric), float(value))
    violated = result.get("violated", False) or result.get("state") == "unreadable"
    _add(found, f.ERROR_VIOLATED, (name, metric), float(violated))
    _add(found, f.ERROR_END, (name,), _seconds(end))


def _add(found: Samples, family: MetricFamily, labels: tuple[str, ...], value: float) -> None:
    found.setdefault(family, []).append((labels, value))


def _seconds(time: datetime) -> float:
    return time.astimezone(UTC).timestamp()
