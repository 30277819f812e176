"""What is told about the past of a model: its judged windows, its champions, and the marks on its time line.

Everything comes from the ledger and the judgements; nothing here decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from evergreen.ledger import Decision, champions, dataset_subject, find, model_subject
from evergreen.ledger.reasons import DecisionKind
from evergreen.ledger.words import sentence
from evergreen.spec import passable
from evergreen.warehouse.connection import Connection, fetch

TOLD = (
    DecisionKind.BATCH_QUARANTINED, DecisionKind.BATCH_CORRECTED, DecisionKind.BATCH_WITHDRAWN, DecisionKind.KEYS_DELETED, DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.PROMOTED, DecisionKind.REJECTED,
    DecisionKind.AWAITING_APPROVAL, DecisionKind.ROLLED_BACK, DecisionKind.WATCH_ENDED, DecisionKind.CANARY, DecisionKind.RUN_FAILED, DecisionKind.MAIL_FAILED,
)  # fmt: skip
REPEATED = (DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.REJECTED)


@dataclass(frozen=True)
class JudgedWindow:
    """One judged window: the served error in it, and the limit it was held against (None: not measured, or none that alarms).

    `estimated`: the value is an estimate, its labels are not in. `few_rows`: chance on so few rows reaches as far as the limit
    can be, or farther. `baseline`: what the naive baseline got on the same rows, where it is known.
    """

    start: datetime
    end: datetime
    version: str
    status: str
    value: float | None
    limit: float | None
    estimated: bool = False
    few_rows: bool = False
    baseline: float | None = None


@dataclass(frozen=True)
class Tenure:
    """The time in which one version was champion; `end` is None for the champion of now."""

    version: str
    start: datetime
    end: datetime | None


class TimelineRow(NamedTuple):
    """One line of the closing table: when (as-of, UTC), what happened, to which version, why."""

    as_of: datetime
    what: str
    version: str
    why: str


def windows(
    conn: Connection, model: str, metric: str, *, until: datetime | None = None
) -> list[JudgedWindow]:
    """Every judged window of a model, oldest first, each by its newest judgement.

    Args:
        conn: the warehouse.
        model: its name.
        metric: which of the judgement's metrics is read.
        until: leave out judgements made as of a later time.
    """
    rows = fetch(
        conn,
        "SELECT DISTINCT ON (window_start) window_start, window_end, version, status, metrics -> %(metric)s AS metric"
        " FROM evergreen.window_judgement WHERE model = %(model)s AND (%(until)s IS NULL OR as_of <= %(until)s)"
        " ORDER BY window_start, as_of DESC, revision DESC, id DESC",
        {"model": model, "metric": metric, "until": until},
    )
    return [_judged(row, metric) for row in rows]


def trends(
    conn: Connection, metrics: Mapping[str, str], since: Mapping[str, datetime]
) -> dict[str, list[JudgedWindow]]:
    """The newest judged windows of several models at once, as `windows` gives those of one.

    Args:
        conn: the warehouse.
        metrics: by model, which of the judgement's metrics is read; `since` has the same models.
        since: by model, windows that begin at this time or later.
    """
    names = list(metrics)
    rows = fetch(
        conn,
        "SELECT w.model, j.* FROM unnest(%(models)s::text[], %(metrics)s::text[], %(since)s::timestamptz[]) AS w (model, name, since)"
        " CROSS JOIN LATERAL (SELECT DISTINCT ON (window_start) window_start, window_end, version, status, metrics -> w.name AS metric"
        " FROM evergreen.window_judgement WHERE model = w.model AND window_start >= w.since"
        " ORDER BY window_start, as_of DESC, revision DESC, id DESC) AS j ORDER BY w.model, j.window_start",
        {"models": names, "metrics": [metrics[n] for n in names], "since": [since[n] for n in names]},
    )
    found: dict[str, list[JudgedWindow]] = {name: [] for name in names}
    for row in rows:
        found[row["model"]].append(_judged(row, metrics[row["model"]]))
    return found


def _judged(row: dict[str, Any], metric: str) -> JudgedWindow:
    found = row["metric"]
    return JudgedWindow(
        row["window_start"], row["window_end"], row["version"], row["status"],
        number(found, "value"), passable_limit(metric, found),
        (found or {}).get("state") == "estimated", _cannot_alarm(metric, found),
        number(found, "baseline"),
    )  # fmt: skip


def passable_limit(metric: str, found: dict[str, Any] | None) -> float | None:
    """The limit, if a value can pass it: another is no place in a picture, and would flatten it."""
    limit = number(found, "limit")
    return limit if limit is not None and passable(metric, limit) else None


def _cannot_alarm(metric: str, found: dict[str, Any] | None) -> bool:
    limit = number(found, "limit")
    return bool((found or {}).get("note")) or (limit is not None and not passable(metric, limit))


def tenures(conn: Connection, model: str) -> list[Tenure]:
    """The champions of a model, oldest first, by the as-of times from which their promotions and rollbacks were in force."""
    changes = sorted(champions(conn, model), key=lambda d: d.id or 0)
    ends = {index - 1: change.effective_shown for index, change in enumerate(changes)}
    return [
        Tenure(change.version or "?", change.effective_shown, ends.get(index))
        for index, change in enumerate(changes)
    ]


def marks(conn: Connection, model: str, datasets: Sequence[str]) -> list[Decision]:
    """The decisions worth telling about a model and its datasets, in the order in which they came into force."""
    told = find(conn, model_subject(model), TOLD)
    for name in datasets:
        told += find(conn, dataset_subject(name), TOLD)
    return sorted(told, key=lambda d: (d.effective_shown, d.id or 0))


def timeline_rows(conn: Connection, model: str, datasets: Sequence[str]) -> list[TimelineRow]:
    """What happened to a model and its datasets, from the ledger, oldest first.

    Decisions that repeat without another one in between (a challenger rejected every night for the same
    reason) are one row with their number.
    """
    rows: list[TimelineRow] = []
    previous: Decision | None = None
    repeated = 1
    for mark in marks(conn, model, datasets):
        same = (
            previous is not None
            and mark.kind in REPEATED
            and (mark.kind, mark.reason, mark.subject) == (previous.kind, previous.reason, previous.subject)
        )
        repeated = repeated + 1 if same else 1
        why = sentence(mark.kind.value, mark.reason, mark.evidence)
        row = TimelineRow(mark.effective_shown, _what(mark), mark.version or "", why)
        if same:
            many = f"{why} ({repeated} times, last {mark.effective_shown:%Y-%m-%d})"
            rows[-1] = row._replace(as_of=rows[-1].as_of, version=rows[-1].version, why=many)
        else:
            rows.append(row)
        previous = mark
    return rows


def timeline_text(rows: Sequence[TimelineRow], width: int = 110) -> str:
    """The rows as a table of plain text, at most `width` characters wide; long reasons go on below."""
    import textwrap

    head = TimelineRow._fields
    lines = [(f"{r.as_of:%Y-%m-%d %H:%M}", r.what, r.version, r.why) for r in rows]
    sizes = [
        max(len(x) for x in column)
        for column in zip(("as of", *head[1:3]), *(r[:3] for r in lines), strict=True)
    ]
    room = max(20, width - sum(sizes) - 6)
    out = []
    for cells in (("as of", *head[1:]), tuple("-" * s for s in (*sizes, room)), *lines):
        first, *rest = textwrap.wrap(cells[3], room, break_on_hyphens=False) or [""]
        out.append("  ".join((*(c.ljust(s) for c, s in zip(cells, sizes, strict=False)), first)).rstrip())
        out += [" " * (sum(sizes) + 6) + text for text in rest]
    return "\n".join(out)


def number(record: Any, key: str) -> float | None:
    """A finite number of a JSON record, or None: absent, null and infinite are all 'not measured'."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _what(mark: Decision) -> str:
    text = mark.kind.value.replace("_", " ")
    return f"{text} ({mark.subject.partition('/')[2]})" if mark.subject.startswith("dataset/") else text
