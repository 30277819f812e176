"""What is said when a batch, or rows of it, were held back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen.alerting import words
from evergreen.alerting.letter import Known, Letter, Table, facts, known_links, show
from evergreen.alerting.links import airflow_dag_url, airflow_run_url
from evergreen.ledger import Kind
from evergreen.warehouse.connection import Connection

MOST_ROWS = 15
MOST_REMEDIES = 4
MOST_REASONS = 3


def quarantined(conn: Connection, known: Known) -> Letter:
    """A file that did not meet its expectations: which, how, and how to release it."""
    name = known.name
    file = known.text("file", "path", "batch.file")
    failures = [f for f in known.items("failures", "failed", "expectations") if isinstance(f, Mapping)]
    held = known.get("rows_held", "held")
    read = known.get("rows_read", "rows")
    published = known.get("rows_published", "rows_new")
    code = known.decision.reason if known.decision else known.get("reason")
    partly = known.decision is not None and known.decision.kind is Kind.BATCH_PUBLISHED
    in_all = known.get("failures_in_all")
    known.told |= {"checksum", "quarantine", "dataset", "reason", "state"}
    what = f"{words.num(held)} rows held back" if partly else "batch quarantined"
    return Letter(
        headline=f"{name}: {what}",
        summary=f"{name}: {what} ({file.rpartition('/')[2]})",
        lead=(
            f"The file {file} does not meet what {name} expects"
            + (", so its bad rows were held back and the good ones published." if partly
               else ", so nothing of it was published.") + " Mend the file and land it again.",
        ),
        tone="bad",
        facts=facts(
            ("Dataset", name),
            ("File", file),
            ("Reason", words.reason(code)),
            *(("Why the whole file", why) for why in known.items("held_whole")[:MOST_REASONS]),
            ("Rows read", read),
            ("Rows held", held),
            *((("Rows published", published),) if published else ()),
            ("As of", words.when(known.as_of)),
            ("Checksum", known.text("checksum")),
        ),
        tables=_failures(failures, in_all if isinstance(in_all, int) else len(failures)),
        next_title="What still works, and what to do",
        steps=(
            f"The data of {name} published before stays as it was; champions keep scoring on it, and training uses it.",
            *_remedies(failures),
            f"Mend the file and land it again: a file with other content is a new batch. The held rows are in "
            f"quarantine.{name} (of a large batch the first ones) with the expectations they failed.",
            f"If the data is right and the expectation is wrong, change datasets/{name}.yaml and start ingest__{name} "
            "by hand with Force.",
        ),
        links=known_links(
            ("Airflow run", airflow_run_url(known.run_id)), ("Ingest DAG", airflow_dag_url(f"ingest__{name}"))
        ),
    )  # fmt: skip


def _failures(failures: list[Mapping[str, Any]], in_all: int) -> tuple[Table, ...]:
    if not failures:
        return ()
    rows = tuple(
        (
            show(_first(f, "column", "columns") or "whole file"),
            _expected(f),
            show(_first(f, "observed", "observed_value", "value")),
            words.num(rows_)
            if (rows_ := _first(f, "failed_rows", "unexpected_count", "rows")) is not None
            else "",
            show(_first(f, "sample", "samples", "examples"))
            if _first(f, "sample", "samples", "examples")
            else "",
        )
        for f in failures[:MOST_ROWS]
    )
    more = in_all - len(rows)
    note = f"{more} more in evergreen.batch." if more > 0 else ""
    return (Table("What failed", ("Column", "Expected", "Found", "Rows", "Such as"), rows, note=note),)


def _expected(failure: Mapping[str, Any]) -> str:
    name = str(_first(failure, "expectation", "type", "check", "rule") or words.MISSING)
    limit = _first(failure, "limit", "kwargs")
    told = name.removeprefix("expect_").removeprefix("column_").replace("_", " ")
    return f"{told}: {show(limit)}" if limit else told


def _remedies(failures: list[Mapping[str, Any]]) -> tuple[str, ...]:
    told = dict.fromkeys(
        f"{show(f.get('column'))}: {f['remedy']}." if f.get("column") else f"{f['remedy']}."
        for f in failures
        if isinstance(f.get("remedy"), str) and f["remedy"]
    )
    return tuple(told)[:MOST_REMEDIES]


def _first(record: Mapping[str, Any], *keys: str) -> Any:
    return next((record[k] for k in keys if record.get(k) not in (None, "", [])), None)
