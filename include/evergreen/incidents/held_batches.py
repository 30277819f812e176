"""Batches of which something is held back, and that nobody has mended or dismissed: read from the mails that told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.alert_kinds import AlertKind
from evergreen.incidents.threads import Thread
from evergreen.warehouse.connection import Connection, fetch


@dataclass(frozen=True)
class HeldBatch:
    """A batch of which something was held back: its id, file, the bytes and time of last change of the file."""

    id: int
    file: str
    size: int | None
    mtime_ns: int | None


def of_spells(conn: Connection, spells: Sequence[Thread]) -> dict[str, list[HeldBatch]]:
    """The batches of some spells, by the name of the incident.

    Those that were neither judged again and published, nor followed by one of their name, nor dismissed; the first one first.
    """
    rows = fetch(
        conn,
        "SELECT DISTINCT t.incident, b.id, b.file, b.file_size AS size, b.file_mtime_ns AS mtime_ns"
        " FROM unnest(%(incidents)s::text[], %(subjects)s::text[]) AS t (incident, subject)"
        " JOIN evergreen.mail AS m ON m.kind = %(kind)s AND coalesce(m.thread, m.incident) = t.incident"
        " JOIN evergreen.decision AS held ON held.id = m.decision_id"
        " JOIN evergreen.batch AS b ON b.id = (held.evidence->>'batch')::bigint"
        " WHERE (b.state = 'quarantined' OR (b.state = 'published' AND b.rows_held > 0))"
        " AND NOT EXISTS (SELECT 1 FROM evergreen.batch AS o WHERE o.dataset = b.dataset AND o.file = b.file"
        "  AND o.id > b.id AND o.state = 'published' AND o.rows_held = 0)"
        " AND NOT EXISTS (SELECT 1 FROM evergreen.decision AS d WHERE d.subject = t.subject"
        "  AND d.kind = 'batch_dismissed' AND (d.evidence->>'batch')::bigint = b.id) ORDER BY b.id",
        {
            "kind": AlertKind.BATCH_QUARANTINED,
            "incidents": [spell.incident for spell in spells],
            "subjects": [spell.subject for spell in spells],
        },
    )
    found: dict[str, list[HeldBatch]] = {spell.incident: [] for spell in spells}
    for row in rows:
        found[row.pop("incident")].append(HeldBatch(**row))
    return found
