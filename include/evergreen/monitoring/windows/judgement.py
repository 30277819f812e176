"""What is found about a window, as data, and the two tables that keep it.

A window has one judgement per champion version and revision. Nothing is overwritten: a window that is judged
again, because labels or rows came in, gets the next revision beside the earlier ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any

from psycopg2.extras import execute_values

from evergreen.monitoring.windows.due_windows import EarlierJudgement
from evergreen.reference.calendar import Window
from evergreen.warehouse.connection import Connection, fetch


class Status(StrEnum):
    """How a window came out. Only `ok` means that nothing was found; the last two mean: could not tell."""

    OK = "ok"
    VIOLATION = "violation"
    INSUFFICIENT = "insufficient"
    STALE = "stale"


class What(StrEnum):
    """What a value says something about; the kinds of violation."""

    DATA_DRIFT = "data_drift"
    PREDICTION_DRIFT = "prediction_drift"
    MISSING = "missing"
    NEW_CATEGORY = "new_category"
    UNREADABLE = "unreadable"
    PERFORMANCE = "performance"
    ESTIMATED_PERFORMANCE = "estimated_performance"
    VOLUME = "volume"
    UNSCORED = "unscored"
    STALE = "stale"


LOOKED_AT = ("judged", "unreadable", "another_version")
HELD_BACK = (What.VOLUME, What.UNSCORED, What.STALE)
# Why a result is shown and not judged: the end of its detail.
LABELS, IGNORED = "labels are shown, their error is judged", "shown only: monitoring.drift.ignore"
_WHYS = (LABELS, IGNORED)
# What the detail of a row of `evergreen.window_column` is LIKE that is only shown.
ONLY_SHOWN = [pattern for why in _WHYS for pattern in (why, f"% ({why})")]


@dataclass(frozen=True)
class Violation:
    """One value on the wrong side of its limit. A value of None could not be computed."""

    kind: What
    column: str
    statistic: str
    value: float | None
    limit: float | None
    detail: str = ""


@dataclass(frozen=True)
class ColumnResult:
    """One statistic of one column of a window; value None (could not be computed) counts as a violation."""

    column: str
    kind: What
    statistic: str
    value: float | None
    limit: float
    violated: bool
    detail: str = ""

    @property
    def violation(self) -> Violation:
        """The same as an entry of the judgement's violations."""
        return Violation(self.kind, self.column, self.statistic, self.value, self.limit, self.detail)


def with_reason(detail: str, why: str) -> str:
    """A detail that ends with why the result is only shown."""
    return f"{detail} ({why})" if detail else why


def not_judged(detail: str) -> str:
    """Why a result with this detail is shown only and never a violation; empty where it is judged."""
    return next((why for why in _WHYS if detail == why or detail.endswith(f" ({why})")), "")


def of_limit(value: float | None, limit: float) -> float:
    """How many times its limit a value is: 0 where it is below nothing, infinite where it could not be computed or its limit is 0."""
    if value is None:
        return math.inf
    above = max(0.0, value)
    return above / limit if limit else math.inf if above else 0.0


def worst_first(column: ColumnResult) -> tuple[bool, bool, bool, float, str]:
    """The key by which columns are ordered: violations, the farthest beyond its limit first of all; then those within; then those only
    shown, at the end what is only shown and could not be computed."""
    shown = bool(not_judged(column.detail))
    far = of_limit(column.value, column.limit)
    return shown, shown and column.value is None, not column.violated, -far, column.column


@dataclass(frozen=True)
class MetricResult:
    """The served error of a window against the champion's holdout.

    `state` is `judged`, `estimated` (too few labels: what is expected without them, see `estimate.py`), `not_yet` (too few
    labels: says nothing about the error), `another_version` (it served most rows: their error is not this champion's),
    `unreadable` (violated) or `shown` (a metric that is not the watched one, without a limit).

    `low` and `high` are the ends of its interval with that `confidence`, None where the rows do not tell. `coverage` is the
    share of the window's rows that surely have a label and a prediction, `rows` how many of them were measured. `note` says
    so where the limit can hardly alarm, or not at all, on so few rows. `baseline` is the naive baseline's
    value on the same rows, None where it has none or an earlier release judged; it is the `limit` of a window that is surely
    worse than it and within the learnt one. `limit_set` says that the limit is the spec's (`performance.limit`). `decayed` is the value that is `performance.max_worse` worse
    than the holdout's: from there on the champion has decayed, be it within the limit; None where an earlier release judged.
    """

    value: float | None
    limit: float | None
    reference: float | None
    state: str
    violated: bool = False
    detail: str = ""
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    coverage: float | None = None
    rows: int | None = None
    note: str = ""
    baseline: float | None = None
    limit_set: bool = False
    decayed: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A judged window of one champion version. Times are UTC; `rows` are event rows, `sampled_rows` those measured.

    `labelled` and `scored` are how many of the event rows had a label, and a served prediction (see `due_windows.EXACT`; None:
    not known, an earlier release judged).
    `report` is the file of its page in the MLflow run, or of its kept sample where no page was drawn (`draw.py` draws it).
    `before` is the outcome of the revision before, where the run that judged knows it; it is not kept, the earlier
    revision's own row has it.
    """

    model: str
    version: str
    window_start: datetime
    window_end: datetime
    revision: int
    as_of: datetime
    status: Status
    rows: int
    sampled_rows: int
    labelled: int
    violations: tuple[Violation, ...] = ()
    metrics: dict[str, MetricResult] = field(default_factory=dict)
    columns: tuple[ColumnResult, ...] = ()
    report: str | None = None
    mlflow_run: str | None = None
    scored: int | None = None
    id: int | None = None
    before: Status | None = None

    @property
    def window(self) -> Window:
        """Its range of event time."""
        return Window(self.window_start, self.window_end)

    @property
    def held_back(self) -> frozenset[str]:
        """The kinds of violation that kept the window from being judged."""
        return frozenset(v.kind.value for v in self.violations if v.kind in HELD_BACK)

    def concluded(self, columns: Sequence[ColumnResult], worse: Sequence[Violation]) -> Judgement:
        """The same with its columns and the verdict that follows from them and from the violations of the error."""
        violations = (*(c.violation for c in columns if c.violated), *worse)
        return replace(
            self,
            status=Status.VIOLATION if violations else Status.OK,
            violations=violations,
            columns=tuple(columns),
        )


def insert(conn: Connection, judgement: Judgement) -> Judgement:
    """Write a judgement with its columns in the caller's transaction; returns it with its id.

    Raises:
        psycopg2.errors.UniqueViolation: this revision is there already.
    """
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.window_judgement (model, version, window_start, window_end, revision, as_of,"
            " row_count, sampled_rows, labelled, scored, status, violations, metrics, report, mlflow_run)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                judgement.model, judgement.version, judgement.window_start, judgement.window_end, judgement.revision,
                judgement.as_of, judgement.rows, judgement.sampled_rows, judgement.labelled, judgement.scored,
                judgement.status.value,
                json.dumps([_plain(asdict(v)) for v in judgement.violations], allow_nan=False),
                json.dumps({n: _plain(asdict(m)) for n, m in judgement.metrics.items()}, allow_nan=False),
                judgement.report, judgement.mlflow_run,
            ),
        )  # fmt: skip
        ((identifier,),) = cursor.fetchall()
        execute_values(
            cursor,
            "INSERT INTO evergreen.window_column (judgement_id, column_name, kind, statistic, value, threshold,"
            " violated, detail) VALUES %s",
            [
                (
                    identifier,
                    c.column,
                    c.kind.value,
                    c.statistic,
                    finite(c.value),
                    c.limit,
                    c.violated,
                    c.detail,
                )
                for c in judgement.columns
            ],
        )
    return replace(judgement, id=identifier)


def newest(
    conn: Connection, model: str, version: str | None, *, ends_after: datetime, as_of: datetime, limit: int
) -> list[Judgement]:
    """The newest revision of each window of a version, as judged by `as_of`, oldest window first.

    Args:
        conn: a warehouse connection.
        model, version: whose windows; None for those of every version, each version's own.
        ends_after: windows that end later than this.
        as_of: judgements made for this time or earlier.
        limit: most windows, the newest.
    """
    rows = fetch(
        conn,
        "SELECT * FROM (SELECT DISTINCT ON (window_start, version) id, model, version, window_start, window_end, revision,"
        " as_of, status, row_count AS rows, sampled_rows, labelled, scored, violations, metrics, report, mlflow_run"
        " FROM evergreen.window_judgement WHERE model = %s AND (%s IS NULL OR version = %s) AND window_end > %s"
        " AND as_of <= %s ORDER BY window_start DESC, version, revision DESC LIMIT %s) AS newest"
        " ORDER BY window_start, version",
        (model, version, version, ends_after, as_of, limit),
    )
    return _with_columns(conn, rows)


def at(conn: Connection, model: str, when: datetime, *, version: str | None = None) -> Judgement | None:
    """The last judgement of the window in which a moment lies: the newest version's newest revision; None if there is none.

    Args:
        conn: a warehouse connection.
        model: whose window.
        when: any moment of it, aware.
        version: the judgement under this version; None: under whichever judged it last.
    """
    rows = fetch(
        conn,
        "SELECT id, model, version, window_start, window_end, revision, as_of, status, row_count AS rows, sampled_rows,"
        " labelled, scored, violations, metrics, report, mlflow_run FROM evergreen.window_judgement"
        " WHERE model = %s AND window_start <= %s AND window_end > %s AND (%s IS NULL OR version = %s)"
        " ORDER BY as_of DESC, id DESC LIMIT 1",
        (model, when, when, version, version),
    )
    return next(iter(_with_columns(conn, rows)), None)


def _with_columns(conn: Connection, rows: Sequence[dict[str, Any]]) -> list[Judgement]:
    found = fetch(
        conn,
        "SELECT judgement_id, column_name, kind, statistic, value, threshold, violated, detail"
        " FROM evergreen.window_column WHERE judgement_id = ANY(%s) ORDER BY judgement_id, kind, column_name",
        ([r["id"] for r in rows],),
    )
    return [_judgement(row, [c for c in found if c["judgement_id"] == row["id"]]) for row in rows]


def history(judgements: Sequence[Judgement], label_delay: timedelta) -> dict[datetime, EarlierJudgement]:
    """What `due_windows.due` needs to know of earlier judgements."""
    return {j.window_start: in_short(j, label_delay) for j in judgements}


def in_short(judged: Judgement, label_delay: timedelta) -> EarlierJudgement:
    """What decides whether a window is judged again; `label_delay` is the spec's `label.delay`."""
    return EarlierJudgement(
        judged.revision,
        judged.rows,
        judged.labelled,
        judged.rows if judged.scored is None else judged.scored,
        any(m.state in LOOKED_AT for m in judged.metrics.values()),
        judged.held_back,
        judged.as_of >= judged.window_end + label_delay,
    )


def finite(value: float | None) -> float | None:
    """A number as JSON and the tables take it: NaN and infinities become None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        k: finite(v) if isinstance(v, float) else v.value if isinstance(v, Enum) else v
        for k, v in values.items()
    }


def _judgement(row: dict[str, Any], columns: list[dict[str, Any]]) -> Judgement:
    return Judgement(
        **{
            **row,
            "status": Status(row["status"]),
            "violations": tuple(Violation(**{**v, "kind": What(v["kind"])}) for v in row["violations"]),
            "metrics": {n: MetricResult(**m) for n, m in row["metrics"].items()},
            "columns": tuple(
                ColumnResult(
                    c["column_name"],
                    What(c["kind"]),
                    c["statistic"],
                    c["value"],
                    c["threshold"],
                    c["violated"],
                    c["detail"],
                )
                for c in columns
            ),
        }
    )
