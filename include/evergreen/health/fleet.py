"""What is asked of all models and datasets at once: a few statements, each bounded by the number of models and not by the tables.

Pages, the terminal and the exporter ask the same; the tables are those of `exporter.questions.TABLES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg2 import sql

from evergreen import ledger
from evergreen.alert_kinds import HELD
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.due_windows import MOST_PER_RUN
from evergreen.monitoring.windows.judgement import ONLY_SHOWN
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, fetch

# The newest requests of a model; a training answers all that are open, so older ones are answered.
_REQUESTS = 20
# How far back the newest served error is looked for where no spec says it.
UNKNOWN_REACH = timedelta(days=365)

_SUBJECTS = sql.SQL(
    "(SELECT name AS model, 'model/' || name AS subject FROM unnest(%(models)s::text[]) AS name) AS w"
)
_NEWEST = sql.SQL(
    "(SELECT id, kind, reason, version, decided_at, as_of, evidence->>'effective_from' AS effective_from"
    " FROM evergreen.decision WHERE subject = w.subject AND kind = {} ORDER BY id DESC LIMIT {})"
)


def _newest(*kinds: DecisionKind) -> sql.Composed:
    """The newest decision of some kinds: a search of the index for each, where `kind = ANY` would read all rows of the subject."""
    return sql.SQL(" UNION ALL ").join(_NEWEST.format(sql.Literal(k.value), sql.Literal(1)) for k in kinds)


_MODELS = sql.SQL(
    "SELECT w.model, champion.version, champion.decided_at AS since, champion.kind AS change,"
    " champion.as_of AS changed, champion.effective_from, made.as_of AS trained, decided.kind AS verdict,"
    " decided.reason, decided.decided_at AS decided, decided.version AS decided_version, decided.id AS decided_id,"
    " shared.share FROM {w}"
    " LEFT JOIN LATERAL (SELECT * FROM ({changes}) AS changes ORDER BY id DESC LIMIT 1) AS champion ON true"
    " LEFT JOIN LATERAL (SELECT as_of FROM evergreen.decision WHERE subject = w.subject AND kind = 'promoted'"
    " AND version = champion.version ORDER BY id DESC LIMIT 1) AS made ON true"
    " LEFT JOIN LATERAL (SELECT * FROM ({verdicts}) AS verdicts ORDER BY id DESC LIMIT 1) AS decided ON true"
    " LEFT JOIN LATERAL (SELECT evidence->'share' AS share FROM evergreen.decision WHERE subject = w.subject AND kind = 'canary'"
    " AND id > champion.id AND evidence->'promotion' = to_jsonb(champion.id) ORDER BY as_of DESC, id DESC LIMIT 1) AS shared ON true"
).format(
    w=_SUBJECTS,
    changes=_newest(DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK),
    verdicts=_newest(DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.AWAITING_APPROVAL),
)
_SKEW = sql.SQL(
    "SELECT w.model, newest.share FROM {} CROSS JOIN LATERAL (SELECT decided_at, evidence->'share' AS share FROM evergreen.decision"
    " WHERE subject = w.subject AND kind = 'serving_compared' ORDER BY id DESC LIMIT 1) AS newest WHERE newest.decided_at > now() - interval '3 days'"
).format(_SUBJECTS)
# A window is looked at until its labels are due and `MOST_PER_RUN` windows longer; of an older one nothing is news.
_WINDOWS = (
    "SELECT w.model, newest.id, newest.window_start, newest.window_end, newest.status, newest.row_count, newest.violations, newest.judged_at,"
    " looked.metric, looked.found, looked.window_start AS error_start, looked.window_end AS error_end"
    " FROM unnest(%(models)s::text[], %(versions)s::text[], %(reach)s::interval[]) AS w (model, version, reach)"
    " CROSS JOIN LATERAL (SELECT id, window_start, window_end, status, row_count, violations, judged_at FROM evergreen.window_judgement"
    " WHERE model = w.model AND version = w.version ORDER BY window_start DESC, revision DESC LIMIT 1) AS newest"
    " LEFT JOIN LATERAL (SELECT e.key AS metric, e.value AS found, judged.window_start, judged.window_end FROM ("
    "SELECT DISTINCT ON (window_start) window_start, window_end, metrics FROM evergreen.window_judgement"
    " WHERE model = w.model AND version = w.version AND window_start >= newest.window_start - w.reach"
    " ORDER BY window_start DESC, revision DESC) AS judged CROSS JOIN LATERAL jsonb_each(judged.metrics) AS e"
    " WHERE e.value->>'state' IN ('judged', 'unreadable') ORDER BY judged.window_start DESC LIMIT 1) AS looked ON true"
)
_COLUMNS = (
    "SELECT judgement_id, count(DISTINCT column_name) AS columns,"
    " count(DISTINCT column_name) FILTER (WHERE violated) AS drifting"
    " FROM evergreen.window_column WHERE judgement_id = ANY(%(ids)s) AND detail NOT LIKE ALL(%(only_shown)s) GROUP BY 1"
)
_WORST = (
    "SELECT DISTINCT ON (judgement_id) judgement_id, column_name, kind, statistic, value, threshold, violated FROM evergreen.window_column"
    " WHERE judgement_id = ANY(%(ids)s) AND value IS NOT NULL AND detail NOT LIKE ALL(%(only_shown)s)"
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

Rows = list[dict[str, Any]]


def champions_and_trainings(conn: Connection, models: Sequence[str]) -> Rows:
    """A row for each model: champion and since when (by the clock, and in force), its training's cut-off, the newest verdict, and the
    share of the keys for which it answers online, as the ledger's JSON has it (None: it never shared them).
    """
    return fetch(conn, _MODELS, {"models": list(models)})


def shared(share: Any) -> float | None:
    """The share of such a row as a number; None: the champion answers for all. One of a damaged row is as if it were absent."""
    return float(share) if isinstance(share, int | float) and 0 <= share < 1 else None


def served_skew(conn: Connection, models: Sequence[str]) -> Rows:
    """Of each model with online predictions that were compared the share that differed when they last were in three days, as the ledger's JSON has it."""
    return fetch(conn, _SKEW, {"models": list(models)})


def open_requests(conn: Connection, models: Sequence[str]) -> list[ledger.Unanswered]:
    """The open retrain requests of the models."""
    return ledger.unanswered(conn, models, DecisionKind.RETRAIN_REQUESTED, newest=_REQUESTS)


def waiting_challengers(conn: Connection, models: Sequence[str]) -> list[ledger.Unanswered]:
    """The challenger of each model that waits for a person; its version is set."""
    return ledger.unanswered(conn, models, DecisionKind.AWAITING_APPROVAL, newest=1)


def newest_windows(conn: Connection, champions: Mapping[str, str], specs: Mapping[str, ModelSpec]) -> Rows:
    """The newest window of each champion, and the newest served error.

    Args:
        conn: the warehouse.
        champions: version by model.
        specs: of the models; how far back the error of one is looked for that has none, see UNKNOWN_REACH.
    """
    reach = [
        MOST_PER_RUN * spec.monitoring.window + spec.label.delay if spec else UNKNOWN_REACH
        for spec in (specs.get(name) for name in champions)
    ]
    return fetch(
        conn, _WINDOWS, {"models": list(champions), "versions": list(champions.values()), "reach": reach}
    )


def judged_columns(conn: Connection, judgements: Sequence[int]) -> Rows:
    """How many columns of a judgement count, and how many of them are in violation."""
    return fetch(conn, _COLUMNS, {"ids": list(judgements), "only_shown": ONLY_SHOWN})


def worst_columns(conn: Connection, judgements: Sequence[int]) -> Rows:
    """The column of each judgement that is nearest to its limit or farthest beyond it; none that is only shown."""
    return fetch(conn, _WORST, {"ids": list(judgements), "only_shown": ONLY_SHOWN})


def newest_rows(conn: Connection, datasets: Sequence[str]) -> Rows:
    """When each dataset got its newest rows, by the clock; none of those that never got any."""
    return fetch(conn, _ROWS, {"datasets": list(datasets)})


def mails(conn: Connection) -> dict[str, Any]:
    """How many mails wait, since when, and how many a silence keeps back."""
    return fetch(conn, _MAILS, {"held": HELD})[0]


def warehouse_bytes(conn: Connection) -> int:
    """The size of the warehouse's database."""
    return int(fetch(conn, "SELECT pg_database_size(current_database()) AS bytes")[0]["bytes"])
