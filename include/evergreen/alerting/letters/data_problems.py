"""What is said when the monitor could not judge: rows that are late, too few or not scored, unreadable columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evergreen.alerting.content.history import number
from evergreen.alerting.content.judgements import (
    limit_of,
    names_of,
    newest_judgement,
    violation_table,
    violations_of,
    window_of,
)
from evergreen.alerting.content.letter import KnownIncident, Letter, facts, known_links, numbers
from evergreen.ledger import words
from evergreen.links import airflow_dag_url, airflow_run_url
from evergreen.warehouse.connection import Connection

PROBLEMS = {
    "stale": "data is stale",
    "volume": "unusual number of rows",
    "unscored": "rows were not scored",
    "unreadable": "could not be judged",
}


def data_problem(conn: Connection, known: KnownIncident) -> Letter:
    """A window, or a column of it, that could not be judged: late, too few or unscored rows, unreadable values."""
    judgement = newest_judgement(conn, known)
    status = str(known.get("status") or (judgement or {}).get("status") or words.MISSING)
    found = violations_of(judgement, known)
    unreadable = [v for v in found if v["kind"] == "unreadable"]
    violations = (
        unreadable if status == "unreadable" else [v for v in found if v["kind"] in PROBLEMS] or found
    )
    kind = next((v["kind"] for v in violations if v["kind"] in PROBLEMS), status)
    what = PROBLEMS.get(kind, "not enough to judge")
    if kind == "unreadable":
        what = f"{names_of(unreadable) or 'a column'} {what}"
    worst = next((v for v in violations if v["kind"] == kind), {})
    rows = known.get("rows") if judgement is None else judgement["row_count"]
    short = _short(worst, rows)
    version = known.version or (judgement or {}).get("version")
    datasets = known.model.datasets if known.model else ()
    since = known.get("since")
    known.told |= {
        "judgements", "judgement", "windows", "window", "violations", "window_start", "window_end", "version",
        "rows", "run_id", "as_of",
    }  # fmt: skip
    return Letter(
        headline=f"{known.name}: {what}{short}",
        summary=f"{known.name}: {what}{short}",
        lead=(
            f"The monitor could not tell whether {known.name} is still right: {what}. "
            "That is not taken for healthy, and no drift is claimed either. Look at the data first.",
        ),
        tone="bad",
        numbers=numbers(
            *_beyond(worst),
            ("Rows in the window", rows),
            ("Since", words.when(since) if since else None),
            ("Cannot be read", names_of(unreadable) or None),
            ("Columns that cannot be read", len(unreadable) if len(unreadable) > 1 else None),
        ),
        facts=facts(
            ("Model", f"{known.name}, version {version or words.MISSING}"),
            ("Window", window_of(judgement, known)),
            ("As of", words.when(known.as_of or known.get("as_of") or (judgement or {}).get("as_of"))),
        ),
        tables=violation_table(violations, "What was found"),
        next_title="What to do",
        steps=_problem_steps(known, kind, datasets),
        links=known_links(
            ("Monitoring run", airflow_run_url(known.run_id)),
            *((f"Ingest of {d}", airflow_dag_url(f"ingest__{d}")) for d in datasets),
            ("Scoring DAG", airflow_dag_url(f"score__{known.name}") if kind == "unscored" else None),
        ),
    )


def _short(violation: dict[str, Any], rows: Any) -> str:
    """How bad it is, for the subject: `, newest row 60 h old, at most 36 h`."""
    value, limit = number(violation, "value"), limit_of(violation)
    if value is None or not limit:
        return ""
    if violation["kind"] == "stale":
        return f", newest row {words.num(value, 3)} h old, {limit}"
    if violation["kind"] == "unscored" and isinstance(rows, int):
        return f", {words.num(rows - round(value))} of {words.num(rows)}"
    return f", {words.num(round(value))}, {limit}"


def _beyond(violation: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    value, limit = number(violation, "value"), limit_of(violation)
    label = {"stale": "Age of the newest row", "volume": "Rows", "unscored": "Rows with a prediction"}
    kind = str(violation.get("kind"))
    if value is None or kind not in label:
        return ()
    return (
        (
            label[kind],
            f"{words.num(value, 3)} h, {limit}" if kind == "stale" else f"{words.num(round(value))}, {limit}",
        ),
    )


def _problem_steps(known: KnownIncident, kind: str, datasets: Sequence[str]) -> tuple[str, ...]:
    ingests = " and ".join(f"ingest__{d}" for d in datasets) or "the ingest DAG of its dataset"
    if kind == "unreadable":
        return (
            "Look at the column's values in the newest window; the model keeps scoring with what it gets.",
            f"Mend them at the source and land them again ({ingests}), or list the column under "
            f"monitoring.drift.ignore in models/{known.name}.yaml. The other columns are judged as usual.",
        )
    again = "Once the rows are in, the next monitoring run judges the window; nothing needs to be reset."
    if kind == "unscored":
        return (f"Run score__{known.name}, and look at why it did not score the window.", again)
    return (
        f"Look at the data first: did files land, and does {ingests} run? A retraining does not help here.",
        again,
    )
