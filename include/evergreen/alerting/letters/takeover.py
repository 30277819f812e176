"""What the mails about a champion say of its share of the keys online: how it begins, and how far a rolled back one had come."""

from __future__ import annotations

from evergreen.alerting.content import amounts
from evergreen.alerting.content.letter import KnownIncident
from evergreen.ledger import Decision, champions, find, model_subject, words
from evergreen.ledger.evidence import CanaryEvidence, SettledEvidence
from evergreen.ledger.reasons import CanaryReason, DecisionKind
from evergreen.warehouse.connection import Connection, fetch

_ONLINE = (
    "SELECT count(*)::int AS keys FROM evergreen.prediction WHERE model = %s AND version = %s AND event_time >= %s"
    " AND as_of <= %s AND run_id LIKE 'online/%%'"
)


def begun(conn: Connection, known: KnownIncident) -> tuple[str, ...]:
    """How the new champion begins online, in a sentence; nothing where it answers for all at once."""
    if known.decision is None:
        return ()
    rows = [row for row in _rows(conn, known, known.decision) if row.reason == CanaryReason.STARTED.value]
    return tuple(f"{_first_large(row.evidence.sentence())}." for row in rows)


def answered(conn: Connection, known: KnownIncident) -> tuple[str, ...]:
    """For how many keys the champion that was rolled back had answered online; nothing where it never shared them."""
    changes = champions(conn, known.name)
    left = next((d for d in changes if known.decision and (d.id or 0) < (known.decision.id or 0)), None)
    if left is None or known.decision is None or left.kind is not DecisionKind.PROMOTED:
        return ()
    rows = [row for row in _rows(conn, known, left) if row.as_of <= known.decision.as_of]
    told = [CanaryEvidence.shown(row) for row in sorted(rows, key=lambda row: (row.as_of, row.id or 0))]
    if not told or told[-1].share is None:
        return ()
    learnt = SettledEvidence.shown(left).trained_until or left.as_of
    keys = fetch(conn, _ONLINE, (known.name, left.version, learnt, known.decision.as_of))[0]["keys"]
    share = words.percent(told[-1].share) if told[-1].share < 1 else "all"
    return (
        f"Online version {left.version} had come to {share} of the keys, and had answered {amounts.count(keys, 'key')}; version "
        f"{known.version} answers for all of them again.",
    )


def _rows(conn: Connection, known: KnownIncident, promotion: Decision) -> list[Decision]:
    found = find(conn, model_subject(known.name), (DecisionKind.CANARY,))
    return [row for row in found if CanaryEvidence.shown(row).promotion == promotion.id]


def _first_large(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
