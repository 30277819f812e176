"""What the monitor found in a window, read back for the e-mails about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evergreen.alerting.content.history import number
from evergreen.alerting.content.letter import KnownIncident, Table, show
from evergreen.ledger import words
from evergreen.monitoring.windows.error_text import sentence
from evergreen.monitoring.windows.judgement import MetricResult
from evergreen.spec import metric_name
from evergreen.warehouse.connection import Connection, fetch

MOST_ROWS = 12
MOST_NAMES = 3
ERRORS = ("performance", "estimated_performance")
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


def violation_table(violations: Sequence[dict[str, Any]], title: str) -> tuple[Table, ...]:
    """Values against their limits; no table where nothing is recorded."""
    if not violations:
        return ()
    rows = []
    for v in violations[:MOST_ROWS]:
        value, limit = number(v, "value"), number(v, "limit")
        times = f"{value / limit:.1f} x" if value is not None and limit else ""
        if v["kind"] in ERRORS:
            estimated = "" if v["kind"] == "performance" else ", estimated without labels"
            column, measure = "served predictions", f"{metric_name(v.get('statistic'))}{estimated}"
        else:
            column, measure = (
                words.column_name(v.get("column")),
                words.statistic_name(v["kind"], str(v.get("statistic"))),
            )
        found = "could not be computed" if value is None else words.num(value)
        rows.append((column, measure, found, words.num(limit), times))
    more = len(violations) - MOST_ROWS
    note = f"{more} more in the ledger and the report." if more > 0 else ""
    details = [
        f"{words.column_name(v.get('column'))}: {v['detail']}"
        for v in violations[:MOST_ROWS]
        if v.get("detail")
    ]
    return (
        Table(
            title, ("What", "Measure", "Value", "Limit", "Of limit"),
            tuple(rows), note=" ".join([*([show(details)] if details else []), note]).strip(),
        ),
    )  # fmt: skip


def window_of(judgement: dict[str, Any] | None, known: KnownIncident) -> str:
    """From when to when the judged window lasts, in words."""
    start = judgement["window_start"] if judgement else known.get("window_start", "window.start")
    end = judgement["window_end"] if judgement else known.get("window_end", "window.end")
    return f"{words.when(start)} to {words.when(end)}" if start or end else words.MISSING


def error_of(judgement: dict[str, Any] | None) -> str | None:
    """The watched error of a window with its interval and the share of labels, or that it is not known yet."""
    for name, found in ((judgement or {}).get("metrics") or {}).items():
        if isinstance(found, dict) and found.get("state") not in (None, "shown"):
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
        f"judged again, revision {judgement['revision']}: {judgement['status']}; as of {words.when(before['as_of'])}, with "
        f"{before['labelled']} of {before['row_count']} labels, it was {before['status']}"
    )
