"""What the monitor found in a window, read back for the e-mails about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evergreen.alerting.content import amounts
from evergreen.alerting.content.history import number
from evergreen.alerting.content.letter import KnownIncident, Table, show
from evergreen.ledger import words
from evergreen.monitoring.windows.error_text import sentence
from evergreen.monitoring.windows.judgement import MetricResult
from evergreen.spec import LARGER_IS_BETTER, metric_name
from evergreen.warehouse.connection import Connection, fetch

MOST_ROWS = 12
MOST_NAMES = 3
ERRORS = ("performance", "estimated_performance")
# Violations whose value and limit are shares of the rows, with what they are a share of.
SHARES = {"missing": "more missing values", "new_category": "unknown categories"}
# Those of a window as a whole, which have no column.
WINDOWS = {
    "stale": ("newest row", "age"),
    "volume": ("window", "rows"),
    "unscored": ("window", "rows with a prediction"),
}
STATUSES = {
    "ok": "nothing was beyond its limit",
    "violation": "something was beyond its limit",
    "insufficient": "there was not enough to judge",
    "stale": "its data was stale",
}
_JUDGEMENT = (
    "SELECT id, model, version, window_start, window_end, revision, as_of, row_count, sampled_rows, labelled, status, violations, metrics,"
    " report, mlflow_run FROM evergreen.window_judgement"
)


def newest_judgement(conn: Connection, known: KnownIncident) -> dict[str, Any] | None:
    """The judgement that an incident is about: the newest that it names, else the newest as of the decision."""
    ids = [i for i in known.items("judgements") if isinstance(i, int)]
    if ids:
        found = fetch(
            conn, f"{_JUDGEMENT} WHERE id = ANY(%s) ORDER BY window_start DESC, id DESC LIMIT 1", (ids,)
        )
        if found:
            return found[0]
    if known.as_of is None:
        return None
    found = fetch(
        conn,
        f"{_JUDGEMENT} WHERE model = %(model)s AND (%(version)s IS NULL OR version = %(version)s)"
        " AND as_of <= %(as_of)s ORDER BY window_start DESC, as_of DESC, revision DESC LIMIT 1",
        {"model": known.name, "version": known.version, "as_of": known.as_of},
    )
    return found[0] if found else None


def violations_of(judgement: dict[str, Any] | None, known: KnownIncident) -> list[dict[str, Any]]:
    """What violated its limit in a judgement (else: what the incident names), the worst first."""
    found = judgement["violations"] if judgement else known.items("violations")
    return sorted((v for v in found if isinstance(v, dict) and v.get("kind")), key=_excess, reverse=True)


def _excess(violation: dict[str, Any]) -> float:
    value, limit = number(violation, "value"), number(violation, "limit")
    if violation["kind"] in ERRORS:
        return float("inf")
    return -1.0 if value is None else abs(value / limit) if limit else 0.0


def names_of(violations: Sequence[dict[str, Any]]) -> str:
    """The columns of some violations, the worst first, as a short enumeration."""
    found = (v["column"] for v in violations if v["kind"] not in ERRORS and v.get("column"))
    names = list(dict.fromkeys(map(words.column_name, found)))
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[: MOST_NAMES - 1])} and {len(names) - MOST_NAMES + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def told(violation: dict[str, Any]) -> str:
    """One violation in a few words for a subject: `temp 3.1 × its limit`, `RMSE 71 above its limit 55`."""
    value, limit = number(violation, "value"), number(violation, "limit")
    kind = violation["kind"]
    if kind in ERRORS:
        said = amounts.beyond(str(violation.get("statistic")), value, limit)
        return said if kind == "performance" else f"estimated {said}"
    name = words.column_name(violation.get("column"))
    if value is None:
        return f"{name} could not be read"
    if kind in SHARES:
        return f"{name} {words.num(100 * value, 3)} % {SHARES[kind]}"
    far = amounts.times(value, limit)
    return f"{name} {far} {'their' if name in words.OWN_COLUMNS.values() else 'its'} limit" if far else name


def beyond(violation: dict[str, Any]) -> tuple[str, str]:
    """The same as a label and a value with its limit."""
    value, limit = number(violation, "value"), number(violation, "limit")
    label, measure = named(violation)
    if violation["kind"] in ERRORS:
        side = amounts.limit(str(violation.get("statistic")), limit)
        return measure, f"{words.num(value)}{f', {side}' if side else ''}"
    if value is None:
        return label, "could not be computed"
    far = amounts.times(value, limit)
    return label, f"{far} its limit" if far else _value(violation, value)


def named(violation: dict[str, Any]) -> tuple[str, str]:
    """What was measured of what: a column and its measure."""
    kind, statistic = violation["kind"], str(violation.get("statistic"))
    if kind in ERRORS:
        estimated = "" if kind == "performance" else ", estimated without labels"
        return "served predictions", f"{metric_name(statistic)}{estimated}"
    if kind in WINDOWS:
        return WINDOWS[kind]
    return words.column_name(violation.get("column")), words.statistic_name(kind, statistic)


def _value(violation: dict[str, Any], value: float) -> str:
    kind = violation["kind"]
    if kind in SHARES:
        return f"{words.num(100 * value, 3)} %"
    return f"{words.num(value, 3)} h" if kind == "stale" else words.num(value)


def limit_of(violation: dict[str, Any]) -> str:
    """A violation's limit in its own direction; empty where it has none that means something."""
    value, limit = number(violation, "value"), number(violation, "limit")
    if limit is None or violation["kind"] == "unreadable":
        return ""
    if violation["kind"] in ERRORS:
        return amounts.limit(str(violation.get("statistic")), limit)
    # A value on the limit counts as beyond it.
    side = "least" if value is not None and value < limit else "most"
    if violation["kind"] in ("volume", "unscored"):
        limit = float(math.ceil(limit) if side == "least" else math.floor(limit))
    return f"at {side} {_value(violation, limit)}"


def _of_limit(violation: dict[str, Any]) -> str:
    value, limit = number(violation, "value"), number(violation, "limit")
    if violation["kind"] in WINDOWS or str(violation.get("statistic")) in LARGER_IS_BETTER:
        return ""
    return amounts.times(value, limit)


def violation_table(violations: Sequence[dict[str, Any]], title: str) -> tuple[Table, ...]:
    """Values against their limits; no table where nothing is recorded."""
    if not violations:
        return ()
    rows: list[tuple[str, ...]] = []
    for v in violations[:MOST_ROWS]:
        value = number(v, "value")
        column, measure = named(v)
        found = "could not be computed" if value is None else _value(v, value)
        rows.append((column, measure, found, limit_of(v) or "–", _of_limit(v)))
    more = len(violations) - MOST_ROWS
    note = f"{more} more in the ledger and the report." if more > 0 else ""
    details = [
        f"{column}: {v['detail']}" if (column := named(v)[0]) else str(v["detail"])
        for v in violations[:MOST_ROWS]
        if v.get("detail")
    ]
    columns: tuple[str, ...] = ("What", "Measure", "Value", "Limit", "Of limit")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return (
        Table(
            title, columns, tuple(rows), note=" ".join([*([show(details)] if details else []), note]).strip()
        ),
    )


def window_of(judgement: dict[str, Any] | None, known: KnownIncident) -> str:
    """From when to when the judged window lasts, in words."""
    start = judgement["window_start"] if judgement else known.get("window_start", "window.start")
    end = judgement["window_end"] if judgement else known.get("window_end", "window.end")
    return f"{words.when(start)} to {words.when(end)}" if start or end else words.MISSING


def error_of(judgement: dict[str, Any] | None) -> str | None:
    """The watched error of a window with its interval and the share of labels, or that it is not known yet."""
    for name, found in ((judgement or {}).get("metrics") or {}).items():
        if isinstance(found, dict) and found.get("state") not in (None, "shown"):
            limit = found.get("limit")
            if not amounts.means_something(name, limit):
                found = {**found, "limit": None}
            result = MetricResult(**{"value": None, "limit": None, "reference": None, **found})
            return sentence(name, result)
    return None


def revised(conn: Connection, judgement: dict[str, Any] | None) -> str | None:
    """How a window came out before it was judged again; None for one that was judged once."""
    if not judgement or judgement["revision"] < 2:
        return None
    found = fetch(
        conn,
        "SELECT b.status, b.labelled, b.row_count, b.as_of FROM evergreen.window_judgement AS n"
        " JOIN evergreen.window_judgement AS b USING (model, version, window_start)"
        " WHERE n.id = %s AND b.revision < n.revision ORDER BY b.revision DESC LIMIT 1",
        (judgement["id"],),
    )
    if not found:
        return None
    before = found[0]
    return (
        f"judged again, revision {judgement['revision']}: {_status(judgement)}; as of {words.when(before['as_of'])}, with "
        f"{words.num(before['labelled'])} of {words.num(before['row_count'])} labels, {_status(before)}"
    )


def _status(judgement: dict[str, Any]) -> str:
    return STATUSES.get(str(judgement["status"]), str(judgement["status"]))
