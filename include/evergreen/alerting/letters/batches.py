"""What is said when a batch, or rows of it, were held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.alerting.content.amounts import count
from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    Table,
    facts,
    known_links,
    numbers,
    recorded,
    show,
)
from evergreen.ledger import words
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import airflow_dag_url, airflow_run_url
from evergreen.warehouse.connection import Connection, fetch

MOST_ROWS = 15
MOST_FILES = 20
MOST_NAMED = 10
MOST_REMEDIES = 4
MOST_REASONS = 3


def quarantined(conn: Connection, known: KnownIncident) -> Letter:
    """A file that did not meet its expectations: which, how, and how to release it."""
    name = known.name
    one = _File.of(known)
    failures = one.failures
    published = known.get("rows_new")
    in_all = known.get("failures_in_all")
    known.told |= {
        "checksum",
        "quarantine",
        "dataset",
        "reason",
        "state",
        "max_bad_rows",
        "rows_new",
        "rows_changed",
        "rows_unchanged",
        "rows_duplicate",
        "failures_in_all",
        "batch",
        "held_whole",
    }
    headline = f"{name}: {one.what}"
    return Letter(
        headline=headline,
        summary=headline,
        lead=(
            f"The file {one.file} does not meet what {name} expects"
            + (", so its bad rows were held back and the good ones published." if one.partly
               else ", so nothing of it was published.") + " Mend the file and land it again.",
        ),
        tone="bad",
        numbers=numbers(
            ("Rows held back", f"{words.num(one.held)} of {words.num(one.read)}" if one.read else one.held),
            ("Worst", one.failures and one.why),
            ("Rows published", published or None),
            ("File", one.short),
        ),
        facts=facts(
            ("Dataset", name),
            ("File", known.text("path") if known.get("path") else one.file),
            ("Reason", one.reason),
            *(("And", why) for why in one.whole[1:MOST_REASONS]),
            ("As of", words.when(known.as_of)),
        ),
        small=recorded(("Checksum", known.text("checksum"))),
        tables=(
            *_failures(failures, in_all if isinstance(in_all, int) else len(failures)), *_where(failures),
        ),
        next_title="What still works, and what to do",
        steps=_steps(name, _remedies(failures)),
        links=known_links(
            ("Airflow run", airflow_run_url(known.run_id)), ("Ingest DAG", airflow_dag_url(f"ingest__{name}"))
        ),
    )  # fmt: skip


def quarantined_files(conn: Connection, known: Sequence[KnownIncident]) -> Letter:
    """Several files that did not meet their expectations, as one table; the whole of each is in the ledger."""
    first, last = known[0], known[-1]
    name = first.name
    files = [_File.of(one) for one in known]
    whole = sum(not one.partly for one in files)
    taken = _taken_in(conn, known)
    of = f"{words.num(whole)} of {count(taken, 'file')}" if taken > len(files) else count(whole, "file")
    what = f"{of} quarantined" if whole else f"rows of {count(len(files), 'file')} held back"
    if 0 < whole < len(files):
        what += f", rows of {count(len(files) - whole, 'other')} held back"
    held = sum(one.held for one in files if isinstance(one.held, int))
    read = sum(one.read for one in files if isinstance(one.read, int))
    alike: dict[str, list[_File]] = {}
    for one in files:
        alike.setdefault(one.why, []).append(one)
    shown = sorted(alike.values(), key=len, reverse=True)[:MOST_FILES]
    rows = tuple(_row(group) for group in shown)
    more = len(files) - sum(map(len, shown))
    return Letter(
        headline=f"{name}: {what}",
        summary=f"{name}: {what}",
        lead=(
            f"{len(files)} files do not meet what {name} expects. Nothing of a file that is held back as a whole was "
            "published; of the others all but the bad rows was. Mend the files and land them again.",
        ),
        tone="bad",
        numbers=numbers(
            ("Files quarantined", of if whole else None),
            ("Files of which rows are held back", len(files) - whole or None),
            ("Rows held back", f"{words.num(held)} of {words.num(read)} in these files" if read else held),
            ("Most often", f"{shown[0][0].why} ({count(len(shown[0]), 'file')})" if len(shown[0]) > 1 else None),
        ),
        facts=facts(
            ("Dataset", name),
            *((("Folder", folder),) if (folder := _folder(first)) else ()),
            ("As of", words.when(last.as_of)),
        ),
        tables=(
            Table(
                "The files", ("File", "Held back", "Why", "Such as"), rows,
                note=f"and {more} more: each has its row, with all that failed, in evergreen.batch." if more else "",
            ),
        ),
        next_title="What still works, and what to do",
        steps=_steps(name, _remedies([f for one in files for f in one.failures])),
        links=known_links(
            ("Airflow run", airflow_run_url(last.run_id)), ("Ingest DAG", airflow_dag_url(f"ingest__{name}"))
        ),
    )  # fmt: skip


def _taken_in(conn: Connection, known: Sequence[KnownIncident]) -> int:
    """How many files the runs took in that held these back."""
    runs = list({one.run_id for one in known if one.run_id})
    found = fetch(
        conn,
        "SELECT count(*)::int AS files FROM evergreen.decision WHERE subject = %s AND kind = ANY(%s) AND run_id = ANY(%s)",
        (
            known[0].subject,
            [DecisionKind.BATCH_PUBLISHED.value, DecisionKind.BATCH_QUARANTINED.value],
            runs,
        ),
    )
    return int(found[0]["files"])


def _steps(name: str, remedies: tuple[str, ...]) -> tuple[str, ...]:
    return (
        f"The data of {name} published before stays as it was; champions keep scoring on it, and training uses it.",
        *remedies,
        f"Mend the file and land it again: a file with other content is a new batch. The held rows are in "
        f"quarantine.{name} (of a large batch the first ones) with the expectations they failed.",
        f"If the data is right and the expectation is wrong, change datasets/{name}.yaml and start correct__{name} with "
        "judge_again; if it is of no use, start it with dismiss.",
    )


def _folder(known: KnownIncident) -> str:
    path, file = known.get("path"), known.get("file")
    return path.removesuffix(file) if isinstance(path, str) and isinstance(file, str) else ""


@dataclass(frozen=True)
class _File:
    """What is told of a file, from the ledger's evidence."""

    file: str
    held: Any
    read: Any
    partly: bool
    code: str
    whole: tuple[str, ...]
    failures: list[Mapping[str, Any]]

    @classmethod
    def of(cls, known: KnownIncident) -> _File:
        return cls(
            known.text("file", "path"),
            known.get("rows_held"),
            known.get("rows_read"),
            known.decision is not None
            and known.decision.kind in (DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_CORRECTED),
            words.reason(known.decision.reason if known.decision else known.get("reason")),
            tuple(map(str, known.items("held_whole"))),
            [f for f in known.items("failures") if isinstance(f, Mapping)],
        )

    @property
    def short(self) -> str:
        """Its name without folders."""
        return self.file.rpartition("/")[2]

    @property
    def what(self) -> str:
        """What became of it, for a subject, and what failed first."""
        first = f", {self._first()}" if self.failures else ""
        rows = (
            f"{words.num(self.held)} of {words.num(self.read)} rows"
            if self.read
            else f"{words.num(self.held)} rows"
        )
        if self.partly:
            return f"{rows} held back{first} ({self.short})"
        size = f", {count(self.read, 'row')}" if isinstance(self.read, int) and self.read else ""
        return f"file quarantined{size}{first} ({self.short})"

    def _first(self) -> str:
        """What failed first, in a few words."""
        one = self.failures[0]
        where, limit = _first(one, "column"), _first(one, "limit")
        rows, sample = _examples(one), _first(one, "sample")
        value = rows[0].get("value") if rows else sample[0] if isinstance(sample, list) else None
        found = f" {show(value)}" if value else f"{': ' if where else ''}{show(_first(one, 'observed'))}"
        expected = f", expected {show(limit)}" if limit else ""
        return f"{show(where) if where else ''}{found}{expected}".strip()

    @property
    def reason(self) -> str:
        """Why it, or a part of it, is held back."""
        return f"{self.code}: {self.whole[0]}" if self.whole else self.code

    @property
    def amount(self) -> str:
        """How much of it is held back."""
        if self.partly:
            return f"{words.num(self.held)} of {words.num(self.read)} rows"
        return f"all {words.num(self.read)} rows" if self.read else "the file"

    @property
    def why(self) -> str:
        """The first thing that failed, and how many others did."""
        if not self.failures:
            return self.code
        first = self.failures[0]
        where = _first(first, "column")
        more = len(self.failures) - 1
        return (
            (f"{show(where)}: " if where else "")
            + f"{_expected(first)}; found {show(_first(first, 'observed'))}"
            + (f" (and {more} more)" if more else "")
        )

    @property
    def such_as(self) -> str:
        """A value that failed, and where."""
        rows = _examples(self.failures[0]) if self.failures else []
        if rows:
            return f"{show(rows[0].get('value'))} ({_place(rows[0])})"
        sample = _first(self.failures[0], "sample") if self.failures else None
        return show(sample) if sample else ""


def _row(files: list[_File]) -> tuple[str, str, str, str]:
    """What is told of files that failed alike: the words once, and each file's name."""
    first, count = files[0], len(files)
    if count == 1:
        return first.short, first.amount, first.why, first.such_as
    names = ", ".join(one.short for one in files[:MOST_NAMED]) + (
        f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
    )
    amounts = [*dict.fromkeys(one.amount for one in files)]
    held = (
        f"{amounts[0]} of each" if len(amounts) == 1 else "; ".join(one.amount for one in files[:MOST_NAMED])
    )
    return f"{count} files: {names}", held, first.why, first.such_as


def _failures(failures: list[Mapping[str, Any]], in_all: int) -> tuple[Table, ...]:
    if not failures:
        return ()
    sampled = any(_sample(f) for f in failures[:MOST_ROWS])
    rows = tuple(
        (
            show(_first(f, "column", "columns") or "whole file"),
            _expected(f),
            show(_first(f, "observed", "observed_value", "value")),
            words.num(rows_) if (rows_ := _first(f, "failed_rows", "unexpected_count")) is not None else "",
            *((_sample(f),) if sampled else ()),
        )
        for f in failures[:MOST_ROWS]
    )
    more = in_all - len(rows)
    note = f"{more} more in evergreen.batch." if more > 0 else ""
    columns = ("Column", "Expected", "Found", "Rows", *(("Such as",) if sampled else ()))
    return (Table("What failed", columns, rows, note=note),)


def _sample(failure: Mapping[str, Any]) -> str:
    """Values of a failure that names no rows, such as those of an earlier release."""
    sample = _first(failure, "sample", "samples", "examples")
    return "" if sample is None or _examples(failure) else show(sample)


def _where(failures: list[Mapping[str, Any]]) -> tuple[Table, ...]:
    """The rows that failed: each different value once, with its place and its key."""
    rows = [
        (show(_first(f, "column") or "row"), show(row.get("value")), _place(row), str(row.get("key") or ""))
        for f in failures
        for row in _examples(f)
    ]
    if not rows:
        return ()
    more = len(rows) - MOST_ROWS
    return (
        Table(
            "Where it stands", ("Column", "Value", "Where", "Key"), tuple(rows[:MOST_ROWS]),
            note=f"{more} more in evergreen.batch." if more > 0 else "",
        ),
    )  # fmt: skip


def _examples(failure: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = failure.get("rows")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _place(row: Mapping[str, Any]) -> str:
    line = row.get("line")
    return f"line {line}" if line else f"row {row.get('row')}"


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
