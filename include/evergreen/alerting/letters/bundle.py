"""What stands above several alerts that go out as one letter: because they wait together, or a silence has ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.alert_kinds import BEGINNING, AlertKind
from evergreen.alerting.content.letter import KnownIncident, Letter, Table, facts, numbers
from evergreen.incidents import threads
from evergreen.ledger import Decision, find, words
from evergreen.ledger.evidence import SilenceEvidence
from evergreen.warehouse.connection import Connection

MOST_SECTIONS = 6
MOST_LINES = 40


@dataclass(frozen=True)
class Unit:
    """What has a section of its own: an alert, or all batches that were held back, which share one."""

    known: tuple[KnownIncident, ...]
    letter: Letter

    def leftovers(self) -> list[tuple[str, str]]:
        """What is recorded and not told; of several batches the ledger has it."""
        return self.known[0].leftovers() if len(self.known) == 1 else []


def units(
    conn: Connection,
    known: Sequence[KnownIncident],
    said: Callable[[KnownIncident], Letter],
    together: Callable[[Connection, Sequence[KnownIncident]], Letter],
) -> list[Unit]:
    """Alerts as sections, in their order; the batches stand where the last of them would.

    Args:
        conn: reads the ledger.
        known: the alerts, the oldest first.
        said: lays one out.
        together: lays out several batches that were held back.
    """
    held = [one for one in known if one.kind == AlertKind.BATCH_QUARANTINED]
    if len(held) < 2:
        return [Unit((one,), said(one)) for one in known]
    found = []
    for one in known:
        if one.kind != AlertKind.BATCH_QUARANTINED:
            found.append(Unit((one,), said(one)))
        elif one is held[-1]:
            found.append(Unit(tuple(held), together(conn, held)))
    return found


def cover(conn: Connection, parts: Sequence[Unit], rows: Sequence[Mapping[str, Any]]) -> Letter | None:
    """The first section of a letter of several sections; None for a single one that nothing has held.

    Args:
        conn: reads the ledger.
        parts: the sections.
        rows: of the alerts, the oldest first.
    """
    held = [row["held_by"] for row in rows if row.get("held_by") is not None]
    if not held and len(parts) == 1:
        return None
    letters = [part.letter for part in parts]
    name = parts[0].known[0].name
    said = [_without(name, one.summary) for one in letters]
    lines = [
        (words.when(one.as_of or one.get("as_of")), text, words.yes_no(_open(conn, one)))
        for one, text in zip((part.known[-1] for part in parts), said, strict=True)
    ]
    more = len(lines) - MOST_LINES
    left_out = len(letters) - MOST_SECTIONS
    table = Table(
        "In this mail",
        ("As of", "What", "Still so"),
        tuple(lines[-MOST_LINES:]),
        note=" ".join(
            [
                *([f"{more} earlier ones are in evergreen.mail."] if more > 0 else []),
                *([f"The first {MOST_SECTIONS} are told in full below."] if left_out > 0 else []),
            ]
        ),
    )
    tone = "bad" if any(one.tone == "bad" for one in letters) else letters[0].tone
    still = sum(line[2] == words.yes_no(True) for line in lines)
    if held:
        return _after_silence(find(conn, ids=held[-1:]), name, len(rows), still, table, tone)
    return Letter(
        headline=f"{name}: {len(letters)} alerts",
        summary=f"{name}: {'; '.join(dict.fromkeys(said))}",
        lead=(f"{len(letters)} things about {name} came together; each has its section below.",),
        tone=tone,
        numbers=numbers(
            *dict.fromkeys(
                (AlertKind(part.known[-1].kind).traits.words.capitalize(), text)
                for part, text in zip(parts, said, strict=True)
            )
        ),
        tables=(table,),
    )


def _after_silence(
    found: Sequence[Decision], name: str, count: int, still: int, table: Table, tone: str
) -> Letter:
    silence = found[0] if found else None
    told = SilenceEvidence.shown(silence) if silence else SilenceEvidence()
    alerts = "one alert was" if count == 1 else f"{count} alerts were"
    so = f", {still} still so" if still else ""
    return Letter(
        headline=f"{name}: the silence has ended, {alerts} held{so}",
        summary=f"{name}: silence ended, {alerts} held{so}",
        lead=(f"{name} was silenced. While it was, {alerts} kept back; this is what they said.",),
        tone=tone,
        numbers=numbers(
            ("Alerts held", count), ("Still so", still), ("Until at most", words.when(told.until))
        ),
        facts=facts(
            ("Silenced by", told.by),
            ("Because", told.why),
            ("From", words.when(silence.as_of) if silence else None),
        ),
        tables=(table,),
    )


def _open(conn: Connection, known: KnownIncident) -> bool | None:
    """Whether the incident of an alert is still open; None for one that has no end of its own."""
    if known.kind not in BEGINNING:
        return None
    return threads.is_open(conn, known.thread or known.incident)


def _without(name: str, summary: str) -> str:
    return re.sub(rf"^{re.escape(name)}(?: v\S+)?: ", "", summary)
