"""What is wrong with the text of a feature query, for the person who has to mend it: where it stands, and what is near."""

from __future__ import annotations

import re
from collections.abc import Iterable

import adbc_driver_manager

from evergreen.errors import ErrorReason, TerminalError
from evergreen.program import typed
from evergreen.spec import ModelSpec, Problem, Specs, sql_text
from evergreen.spec.problem import near
from evergreen.warehouse.features.repeatable import Objection

# SQLSTATEs of what is not about the text: the connection, resources, other sessions, the server.
_ELSEWHERE = ("08", "40", "53", "55P", "57", "58", "XX")
_UNKNOWN_TABLE, _UNKNOWN_COLUMN, _NO_RIGHT, _SYNTAX = ("42P01", "3F000"), "42703", "42501", "42601"
_SEE = "see docs/feature-sql.md"
_NAME = re.compile(r'(?:"[^"]+"|[^\W\d]\w*)(?:\s*\.\s*(?:"[^"]+"|[^\W\d]\w*))*')
_IN_SCHEMA = re.compile(r'"?\b(?:data|evergreen|staging|quarantine)"?\s*\.\s*"?(\w+)"?', re.IGNORECASE)


class UnusableQuery(TerminalError):
    """A feature query that cannot be used; `problems` has every mistake, each with its line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)), ErrorReason.BAD_QUERY)


def problem_of(
    error: adbc_driver_manager.Error, specs: Specs, model: ModelSpec, *, before: int
) -> Problem | None:
    """What PostgreSQL says about a query's text; None where the error is about something else.

    Args:
        error: of the statement that gave PostgreSQL the text.
        specs: all specs, for the names of other datasets.
        model: whose query.
        before: how many characters stand before the text in that statement.
    """
    code = error.sqlstate or ""
    if not code or code.startswith(_ELSEWHERE):
        return None
    said = {_text(key): _text(value) for key, value in error.details or ()}
    message = " ".join(said.get("PG_DIAG_MESSAGE_PRIMARY", str(error)).split())
    hint = " ".join(said.get("PG_DIAG_MESSAGE_HINT", "").split())
    given = said.get("PG_DIAG_STATEMENT_POSITION")
    place = max(int(given) - 1 - before, 0) if given else None
    line = model.query.count("\n", 0, place) + 1 if place is not None else None
    found = _NAME.match(model.query, place) if place is not None else None
    name = re.sub(r'[\s"]', "", found[0]).rpartition(".")[2] if found else ""
    if code == _NO_RIGHT:
        return _forbidden(message, model)
    if code == _SYNTAX and line is None:
        return _problem(model, f"has more than one statement ({message})", None, "; keep one SELECT")
    if code in _UNKNOWN_TABLE:
        hint = _near_table(name, specs, model)
    elif code == _UNKNOWN_COLUMN:
        close = near(name, dict.fromkeys(c for d in specs.datasets_of(model) for c in d.columns))
        hint = close if close.startswith("did") or not hint else hint
    shown = f" ({hint})" if hint else ""
    return _problem(
        model, f"does not run: {message}", line, f"{shown}; mend the query and run {typed('check')}"
    )


def objected(objection: Objection, model: ModelSpec) -> Problem:
    """What speaks against a query that would run."""
    wrong, separator, remedy = objection.text.partition("; ")
    line = _line_of(model.query, objection.word)
    return _problem(model, wrong, line, f"{separator}{remedy}; {_SEE}")


def _forbidden(message: str, model: ModelSpec) -> Problem:
    found = _IN_SCHEMA.search(sql_text.blank(model.query, texts=True))
    line = model.query.count("\n", 0, found.start()) + 1 if found else None
    if found and found[1].lower() in model.datasets:
        rule = f"write {found[1]} for {found[0]}: by its bare name the dataset is seen as it was known"
    else:
        rule = f"it reads {', '.join(model.datasets)} by their bare names, and nothing else; {_SEE}"
    return _problem(model, f"reads what it may not ({message})", line, f"; {rule}")


def _near_table(name: str, specs: Specs, model: ModelSpec) -> str:
    add = f"add it to datasets in models/{model.name}.yaml"
    if name in specs.datasets:
        return f"the model does not name this dataset; {add}"
    hint = near(name, model.datasets)
    if hint.startswith("known") and (others := near(name, specs.datasets)).startswith("did"):
        return f"{others} Then {add}, too"
    return hint


def _problem(model: ModelSpec, wrong: str, line: int | None, remedy: str) -> Problem:
    """A mistake with its line, told after what is wrong and before what to do."""
    at = f", line {line}" if line else ""
    return Problem(f"models/{model.name}.sql", "", "", f"{wrong}{at}{remedy}")


def _line_of(text: str, word: str) -> int | None:
    """The first line that has a word outside of comments and quoted texts."""
    bare = sql_text.blank(text, texts=True)
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", bare, re.IGNORECASE) if word else None
    return text.count("\n", 0, found.start()) + 1 if found else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
