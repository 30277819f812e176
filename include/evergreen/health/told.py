"""A decision as a person reads it: one sentence, the numbers beside their names, and tables; never JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evergreen.alerting.content.letter import Table, show
from evergreen.alerting.letters.approvals import PROVENANCE
from evergreen.ledger import Decision, find, words
from evergreen.ledger.evidence import VERSION_KEY
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import metric_name
from evergreen.warehouse.connection import Connection, fetch

PAGE = 100
# What tells a computer which thing it is; for a person it is small print.
PRINT = frozenset({
    "fingerprint", "spec_hash", "training_hash", "champion_training_hash", "digest", "mlflow_run", "checksum", "path", "batch", "judgements",
    "requests", "request", "champion_decision", "awaiting", "incident", "signature", "spent", "asked_before", "training_run", "basis", "run_id",
    "log_url", "mail", "promotion", "replaces", "spec", "blocked", "seen",
})  # fmt: skip
# The sentence says it, or it says nothing to a person.
_LEFT_OUT = frozenset({VERSION_KEY, "message", "dry_run", "model", "as_of", "version"})
_NAMES = {
    "metric": "metric", "trigger": "why it was trained", "previous_version": "champion before", "trained_until": "learnt rows until", "refitted": "fitted again on all rows",
    "compared_with": "compared with version", "answered_by": "answered by", "answered_at": "answered at", "asked_because": "asked by hand because",
    "effective_from": "in force from", "rows_read": "rows read", "rows_new": "new rows", "rows_changed": "changed rows", "rows_unchanged": "rows as before",
    "rows_duplicate": "equal rows dropped", "rows_held": "rows held back", "of": "kind", "why": "because", "by": "by", "until": "until", "log_url": "log",
    "error_limit": "watch on its error", "champion_below_baseline": "champion and baseline", "superseded_by": "replaced by version", "next_free": "next one free from",
    "former": "champion before", "share": "share of the keys", "before": "share before", "for": "lasts", "failures_in_all": "things that failed", "other_numbers": "same features, another number", "closely": "looked at closely", "left_out": "not compared", "held_whole": "held as a whole because", "max_bad_rows": "largest share of bad rows", "gate": "what the gate said",
}  # fmt: skip
_CODES = frozenset({"trigger", "gate", "reasons", "asks", "reason", "classes"})


@dataclass(frozen=True)
class LedgerRow:
    """A row of the ledger in short: id, when by the clock and as of, subject, kind and reason as codes and in words, version, a sentence, whose run."""

    id: int
    decided_at: datetime
    as_of: datetime
    subject: str
    kind: str
    what: str
    reason: str
    version: str | None
    sentence: str
    run_id: str


@dataclass(frozen=True)
class Told:
    """A decision with its evidence.

    Attributes:
        row: the decision in short.
        facts: label and value.
        tables: the lists of the evidence.
        small_print: hashes, ids and paths, as label and value.
        answers: the decisions that it settles.
        answered_by: the decisions that settle it.
    """

    row: LedgerRow
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    small_print: tuple[tuple[str, str], ...]
    answers: tuple[LedgerRow, ...]
    answered_by: tuple[LedgerRow, ...]


def rows(
    conn: Connection,
    subject: str,
    *,
    kinds: Sequence[str] = (),
    reasons: Sequence[str] = (),
    since: datetime | None = None,
    before: int | None = None,
    limit: int = PAGE,
) -> list[LedgerRow]:
    """Rows of the ledger about a subject, newest first.

    Args:
        conn: the warehouse.
        subject: `model/NAME` or `dataset/NAME`.
        kinds: only of these; codes that the ledger does not know are left out.
        reasons: only with these codes.
        since: only as of this time or later.
        before: only those with a smaller id.
        limit: most rows.
    """
    found = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE subject = %(subject)s AND (cardinality(%(kinds)s::text[]) = 0 OR kind = ANY(%(kinds)s))"
        " AND (cardinality(%(reasons)s::text[]) = 0 OR reason = ANY(%(reasons)s)) AND (%(since)s::timestamptz IS NULL OR as_of >= %(since)s)"
        " AND (%(before)s IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {
            "subject": subject,
            "kinds": list(kinds),
            "reasons": list(reasons),
            "since": since,
            "before": before,
            "limit": limit,
        },
    )
    return [in_short(d) for d in find(conn, ids=[row["id"] for row in found])] if found else []


def kinds_of(conn: Connection, subject: str) -> list[str]:
    """The kinds of decisions that a subject has, in the order of the ledger's list."""
    found = {
        row["kind"]
        for row in fetch(conn, "SELECT DISTINCT kind FROM evergreen.decision WHERE subject = %s", (subject,))
    }
    return [kind.value for kind in DecisionKind if kind.value in found]


def in_short(decision: Decision) -> LedgerRow:
    """A decision as a row of a list."""
    assert decision.id is not None
    assert decision.decided_at is not None
    return LedgerRow(
        decision.id, decision.decided_at, decision.as_of, decision.subject, decision.kind.value, words.kind(decision.kind.value),
        words.reason(decision.reason), decision.version, words.sentence(decision.kind.value, decision.reason, decision.evidence),
        decision.run_id,
    )  # fmt: skip


def told(conn: Connection, decision_id: int) -> Told | None:
    """A decision with its evidence; None where there is none of this id."""
    found = find(conn, ids=[decision_id])
    if not found:
        return None
    decision = found[0]
    facts: list[tuple[str, str]] = []
    small: list[tuple[str, str]] = []
    tables: list[Table] = []
    for key, value in decision.evidence.to_json().items():
        if key in _LEFT_OUT or value in (None, "", [], {}, ()):
            continue
        if key in PRINT:
            small.append((_name(key), show(value)))
        elif table := _table(key, value):
            tables.append(table)
        elif isinstance(value, Mapping):
            nested = [(k, v) for k, v in value.items() if v not in (None, "", [], {})]
            facts += [(f"{_name(key)}: {_name(k)}", _value(k, v)) for k, v in nested if k not in PRINT]
        else:
            facts.append((_name(key), _value(key, value)))
    later = fetch(
        conn, "SELECT id FROM evergreen.decision WHERE subject = %s AND id > %s AND %s = ANY(answers)",
        (decision.subject, decision.id, decision.id),
    )  # fmt: skip
    return Told(
        in_short(decision), tuple(facts), tuple(tables), tuple(small),
        _those(conn, decision.answers), _those(conn, [row["id"] for row in later]),
    )  # fmt: skip


def _those(conn: Connection, ids: Sequence[int]) -> tuple[LedgerRow, ...]:
    return tuple(in_short(d) for d in find(conn, ids=ids)) if ids else ()


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))


def _value(key: str, value: Any) -> str:
    if key == "metric":
        return metric_name(value)
    if key in _CODES:
        return ", ".join(map(words.reason, value)) if isinstance(value, list) else words.reason(value)
    if isinstance(value, str) and len(value) >= 16 and value[4:5] == "-" and value[10:11] == "T":
        return words.when(value)
    if key in ("causes", "drifted") and isinstance(value, list):
        return ", ".join(dict.fromkeys(words.column_name(str(v).partition(":")[2]) for v in value))
    return show(value)


def _table(key: str, value: Any) -> Table | None:
    """What of the evidence is a table: the checks of the gate, metrics by who, any list of objects."""
    if key == "verdict" and isinstance(value, Mapping):
        value, key = value.get("checks"), "checks"
    if key == "checks" and _objects(value):
        return _checks(value)
    if (
        key == "metrics"
        and isinstance(value, Mapping)
        and all(isinstance(v, Mapping) for v in value.values())
    ):
        names = list(dict.fromkeys(name for who in value.values() for name in who))
        cells = tuple((metric_name(n), *(words.num(who.get(n)) for who in value.values())) for n in names)
        return Table("On the same rows", ("Metric", *map(str, value)), cells)
    if _objects(value):
        heads = [
            h for h in dict.fromkeys(k for item in value for k in item) if h not in PRINT and h != "remedy"
        ]
        heads = [h for h in heads if any(item.get(h) not in (None, "", [], {}) for item in value)]
        filled = tuple(
            tuple("" if item.get(h) in (None, "", [], {}) else _cell(h, item[h]) for h in heads)
            for item in value
        )
        return Table(_name(key).capitalize(), tuple(_name(h).capitalize() for h in heads), filled)
    return None


def _checks(checks: Sequence[Mapping[str, Any]]) -> Table:
    """What says something about the model, and what failed; that the numbers are of this training is counted."""
    about = [c for c in checks if not str(c.get("check")).endswith(PROVENANCE) or not c.get("passed")]
    rest = len(checks) - len(about)
    return Table(
        "What the gate checked",
        ("Check", "Result"),
        tuple(
            (
                str(c.get("sentence") or words.reason(c.get("check"))),
                "passed" if c.get("passed") else "failed",
            )
            for c in about
        ),
        tuple(not c.get("passed") for c in about),
        f"{rest} more checks of where the numbers come from: all passed." if rest else "",
    )


def _cell(key: str, value: Any) -> str:
    if key in ("effects", "rows") and _objects(value):
        return "; ".join(_object(item) for item in value)
    return _value(key, value)


def _object(item: Mapping[str, Any]) -> str:
    if item.get("kind"):
        column = words.column_name(item.get("column"))
        return f"{column}: {words.statistic_name(str(item['kind']), str(item.get('statistic')))} {words.num(item.get('value'))}, limit {words.num(item.get('limit'))}"
    if item.get("row") is not None:
        where = f"line {item['line']}" if item.get("line") else f"row {item['row']}"
        return f"{item.get('value')} ({where})"
    return show(item)


def _objects(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )
