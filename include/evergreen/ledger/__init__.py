"""The ledger: every decision is a row, appended once, never changed.

State is derived from it: an open retrain request is one that no later decision answers; the champion is the
version of the newest promotion or rollback.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2 import sql

from evergreen.ledger import events, evidence
from evergreen.ledger.evidence import AwaitingEvidence, Evidence, SettledEvidence
from evergreen.ledger.reasons import ANNOUNCED, ANSWERING, DecisionKind
from evergreen.warehouse.connection import Connection, fetch

_ASKED = sql.SQL(
    "(SELECT id, reason, version, decided_at FROM evergreen.decision WHERE subject = w.subject AND kind = %(kind)s"
    " ORDER BY id DESC LIMIT %(newest)s)"
)
# What is answered is gathered for each model by itself; a join of the two would read the whole ledger.
_UNANSWERED = sql.SQL(
    "SELECT asked.id, w.model, asked.reason, asked.version, asked.decided_at"
    " FROM (SELECT name AS model, 'model/' || name AS subject FROM unnest(%(models)s::text[]) AS name) AS w"
    " CROSS JOIN LATERAL (SELECT min(id) AS id FROM {asked} AS newest) AS oldest"
    " CROSS JOIN LATERAL (SELECT coalesce(array_agg(answer), '{{}}') AS answers FROM evergreen.decision AS a"
    " CROSS JOIN LATERAL unnest(a.answers) AS answer WHERE a.subject = w.subject AND a.kind = ANY(%(answering)s)"
    " AND a.id > oldest.id) AS answered"
    " CROSS JOIN LATERAL {asked} AS asked WHERE asked.id <> ALL(answered.answers)"
).format(asked=_ASKED)


@dataclass(frozen=True)
class Decision:
    """One decision with its reason and evidence.

    `dedupe_key` names the decision itself: appending the same key again changes nothing and returns the
    first row, so that a step which runs twice decides once. `evidence` is of the type that `evidence.TYPES` has for the
    kind; the JSON of a row becomes that.

    Raises:
        TypeError: the evidence is that of another kind.
    """

    as_of: datetime
    subject: str
    kind: DecisionKind
    reason: str
    run_id: str
    dedupe_key: str
    evidence: Evidence = field(default_factory=Evidence)
    version: str | None = None
    answers: tuple[int, ...] = ()
    id: int | None = None
    decided_at: datetime | None = None

    def __post_init__(self) -> None:
        wanted = evidence.TYPES[self.kind]
        if isinstance(self.evidence, wanted):
            return
        if isinstance(self.evidence, Evidence) and type(self.evidence) is not Evidence:
            raise TypeError(
                f"a decision of kind {self.kind.value} has {wanted.__name__}, not {type(self.evidence).__name__}"
            )
        row: Any = {} if isinstance(self.evidence, Evidence) else self.evidence
        object.__setattr__(self, "evidence", evidence.read(self.kind, row))

    @property
    def effective_from(self) -> datetime:
        """From when on a change of champion is in force, in as-of terms: later than `as_of` where its version waited.

        Raises:
            TerminalError: the row is damaged (DAMAGED_LEDGER).
        """
        return (SettledEvidence.of(self).effective_from if self._settles else None) or self.as_of

    @property
    def effective_shown(self) -> datetime:
        """The same for people: a version of a damaged row did not wait."""
        return (SettledEvidence.shown(self).effective_from if self._settles else None) or self.as_of

    @property
    def _settles(self) -> bool:
        return isinstance(self.evidence, SettledEvidence)


def model_subject(name: str) -> str:
    """The ledger's subject of a model."""
    return f"model/{name}"


def dataset_subject(name: str) -> str:
    """The ledger's subject of a dataset."""
    return f"dataset/{name}"


def append(conn: Connection, decision: Decision) -> Decision:
    """Append a decision, or return the one that already has its key; a new one of `ANNOUNCED` owes an asset event.

    Returns:
        The decision as it stands in the ledger, with id and decided_at. Compare `run_id` with your own to
        learn whether it is yours or an earlier run's.
    """
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, version, evidence, answers, run_id, dedupe_key)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (dedupe_key) DO NOTHING",
            (
                decision.as_of, decision.subject, decision.kind.value, decision.reason, decision.version,
                json.dumps(decision.evidence.to_json(), allow_nan=False), list(decision.answers),
                decision.run_id, decision.dedupe_key,
            ),
        )  # fmt: skip
        if cursor.rowcount and decision.kind in ANNOUNCED:
            events.owe(conn, decision.subject, decision.effective_from, decision.run_id)
    return find(conn, dedupe_key=decision.dedupe_key)[0]


def find(
    conn: Connection,
    subject: str | None = None,
    kinds: Sequence[DecisionKind] = (),
    *,
    dedupe_key: str | None = None,
    ids: Sequence[int] = (),
    limit: int | None = None,
    as_of: datetime | None = None,
) -> list[Decision]:
    """Decisions that match, newest first; with `as_of` only those whose own as-of time is not after it."""
    rows = fetch(
        conn,
        "SELECT id, decided_at, as_of, subject, kind, reason, version, evidence, answers, run_id, dedupe_key"
        " FROM evergreen.decision WHERE (%(subject)s IS NULL OR subject = %(subject)s)"
        " AND (cardinality(%(kinds)s::text[]) = 0 OR kind = ANY(%(kinds)s::text[]))"
        " AND (%(key)s IS NULL OR dedupe_key = %(key)s)"
        " AND (cardinality(%(ids)s::bigint[]) = 0 OR id = ANY(%(ids)s::bigint[]))"
        " AND (%(as_of)s::timestamptz IS NULL OR as_of <= %(as_of)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {
            "subject": subject,
            "kinds": [k.value for k in kinds],
            "key": dedupe_key,
            "ids": list(ids),
            "limit": limit,
            "as_of": as_of,
        },
    )
    return [
        Decision(**{**row, "kind": DecisionKind(row["kind"]), "answers": tuple(row["answers"])})
        for row in rows
    ]


def of_run(conn: Connection, run_id: str) -> list[Decision]:
    """The decisions that a run made, oldest first; `run_id` as `dag_id/run_id`."""
    rows = fetch(conn, "SELECT id FROM evergreen.decision WHERE run_id = %s", (run_id,))
    ids = [row["id"] for row in rows]
    return sorted(find(conn, ids=ids), key=lambda d: d.id or 0) if ids else []


def open_requests(conn: Connection, model: str) -> list[Decision]:
    """Retrain requests of a model that no decision has answered, oldest first."""
    return _whole(conn, unanswered(conn, (model,), DecisionKind.RETRAIN_REQUESTED))


def awaiting_approval(conn: Connection, model: str) -> Decision | None:
    """The challenger of a model that waits for a person; None if none does. A newer one ends the wait of an older."""
    found = _whole(conn, unanswered(conn, (model,), DecisionKind.AWAITING_APPROVAL))
    return found[-1] if found else None


def unclaimed_requests(conn: Connection, model: str) -> list[Decision]:
    """Open requests that need a training, oldest first: not those whose challenger waits for approval."""
    waiting = awaiting_approval(conn, model)
    claimed = AwaitingEvidence.of(waiting).requests if waiting else ()
    return [request for request in open_requests(conn, model) if request.id not in claimed]


@dataclass(frozen=True)
class Unanswered:
    """A request or a wait that no decision has answered; `decided_at` is when it was written, aware."""

    id: int
    model: str
    reason: str
    version: str | None
    decided_at: datetime


def unanswered(
    conn: Connection, models: Sequence[str], kind: DecisionKind, newest: int | None = None
) -> list[Unanswered]:
    """The decisions of a kind that no later one of `ANSWERING` answers, in no order.

    Args:
        conn: the warehouse.
        models: whose.
        kind: `RETRAIN_REQUESTED` or `AWAITING_APPROVAL`.
        newest: look only at so many of each model, so that the statement costs the same however long the ledger is.
    """
    rows = fetch(
        conn,
        _UNANSWERED,
        {
            "models": list(models),
            "kind": kind.value,
            "newest": newest,
            "answering": [answering.value for answering in ANSWERING],
        },
    )
    return [Unanswered(**row) for row in rows]


def _whole(conn: Connection, found: Sequence[Unanswered]) -> list[Decision]:
    """The decisions with their evidence, oldest first."""
    ids = [one.id for one in found]
    return sorted(find(conn, ids=ids), key=lambda d: d.id or 0) if ids else []


def champions(conn: Connection, model: str, as_of: datetime | None = None) -> list[Decision]:
    """Every change of champion of a model, newest first; the first one names the champion.

    Args:
        conn: the warehouse.
        model: its name.
        as_of: only changes decided as of this time or earlier, so that a run as of the past meets the champion of
            that time; None for the champion of now.
    """
    return find(conn, model_subject(model), (DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK), as_of=as_of)


def promotion(version: str | None, decisions: Sequence[Decision]) -> Decision | None:
    """The decision that made a version champion first, also where a rollback has brought it back since."""
    return next((d for d in decisions if d.kind is DecisionKind.PROMOTED and d.version == version), None)


def lock(conn: Connection, model: str) -> None:
    """Hold the model's lock until the transaction ends: one change of champion at a time."""
    with conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"evergreen.model.{model}",))
