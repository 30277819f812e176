"""Makes an e-mail from rows of the outbox: gathers what is known, lets each incident's kind say it, lays it out.

The message has a plain-text part and an HTML part with the pictures inline; both come from the same `Letter`s, one for
each row. Its Message-ID is the same in every attempt, so that a mail that was sent twice can be told; In-Reply-To and
References name the earlier mails of the same incidents, so that mail programs show them together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, NamedTuple

from evergreen import settings
from evergreen.alert_kinds import AlertKind, Severity
from evergreen.alerting import services
from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    known_links,
    numbers,
    recorded,
    show,
)
from evergreen.alerting.content.notice import Notice, text_of
from evergreen.alerting.layout import layouts
from evergreen.alerting.letters import (
    approvals,
    batches,
    bundle,
    challengers,
    corrections,
    data_problems,
    digest,
    drift,
    recovered,
    rollbacks,
    skew,
    spec_problems,
    task_failed,
)
from evergreen.incidents.recipients import EMAIL, unreadable, ways_of
from evergreen.ledger import find, words
from evergreen.ledger.evidence import VERSION_KEY, RetrainEvidence
from evergreen.links import airflow_run_url, runbook, subject_url
from evergreen.spec import Specs
from evergreen.spec.alerts import PREFIX, addresses
from evergreen.warehouse.connection import Connection, fetch

LONGEST_SUBJECT = 140
LONGEST_LINE = 400
LONGEST_ENCODED = 75
ENCODED_WORD = re.compile(r"=\?[^?]*\?[bq]\?[^?]*\?=", re.IGNORECASE)


class _Section(NamedTuple):
    """A letter with what is recorded beside it, and the content id of its picture."""

    letter: Letter
    leftovers: list[tuple[str, str]]
    cid: str | None


def other(conn: Connection, known: KnownIncident) -> Letter:
    """An incident of a kind that no letter is written for: the recorded facts, as they are."""
    return Letter(
        headline=f"{known.name}: {known.kind.replace('_', ' ')}",
        summary=f"{known.name}: {known.kind.replace('_', ' ')}",
        lead=("Evergreen reports an incident. What was recorded about it follows.",),
        numbers=numbers(("About", known.name), ("As of", words.when(known.as_of))),
        small=recorded(("Subject", known.subject)),
        links=known_links(("Airflow run", airflow_run_url(known.run_id))),
    )


LETTERS: dict[str, Callable[[Connection, KnownIncident], Letter]] = {
    AlertKind.DRIFT: drift.drifted,
    AlertKind.DATA_PROBLEM: data_problems.data_problem,
    AlertKind.SERVING_SKEW: skew.skew,
    AlertKind.BATCH_QUARANTINED: batches.quarantined,
    AlertKind.BATCH_CORRECTED: corrections.corrected,
    AlertKind.CHAMPION_CHANGED: challengers.promoted,
    AlertKind.CHALLENGER_REJECTED: challengers.rejected,
    AlertKind.APPROVAL: approvals.mailed,
    AlertKind.ROLLED_BACK: rollbacks.rolled_back,
    AlertKind.ALIAS_REPAIRED: rollbacks.alias_repaired,
    AlertKind.RUN_FAILED: task_failed.run_failed,
    AlertKind.SPEC_UNUSABLE: spec_problems.unusable,
    AlertKind.RECOVERED: recovered.recovered,
    AlertKind.DIGEST: digest.digest,
}
# What `evergreen.incidents.threads` keeps in the context for itself.
OWN_CONTEXT = frozenset({"classes", "details", "update_of", VERSION_KEY})
MOST_REFERENCES = 10
MOST_NAMED = 8


def compose(conn: Connection, specs: Specs, row: Mapping[str, Any]) -> EmailMessage:
    """The e-mail of one outbox row; see `letter`."""
    return letter(conn, specs, [row])


def letter(conn: Connection, specs: Specs, rows: Sequence[Mapping[str, Any]]) -> EmailMessage:
    """The e-mail of outbox rows of one subject.

    Args:
        conn: reads the ledger and the judgements.
        specs: name the recipients and the owner; a subject whose spec is bad or gone gets the default ones.
        rows: of `evergreen.mail`, oldest first; one letter with a section for each where they are several.
    """
    known, cover, shown = _units(conn, specs, rows)
    message = envelope(specs, rows, (cover or shown[0].letter).summary)
    _thread(message, earlier(conn, rows, known))
    message_id = message["Message-ID"].strip("<>")
    sections = [
        _Section(
            one.letter, one.leftovers(), f"picture{index or ''}.{message_id}" if one.letter.picture else None
        )
        for index, one in enumerate(shown)
    ]
    parts = {
        "cover": cover,
        "sections": sections,
        "title": (cover or shown[0].letter).headline,
        "footer": _footer(specs, rows, known),
    }
    message.set_content(layouts().get_template("letter.txt").render(**parts), cte="quoted-printable")
    html = layouts().get_template("letter.html").render(**parts)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    page = message.get_body(("html",))
    assert isinstance(page, EmailMessage)
    for section, what in zip(sections, shown, strict=True):
        if section.letter.picture:
            page.add_related(
                section.letter.picture.png,
                "image",
                "png",
                cid=f"<{section.cid}>",
                filename=f"{what.known[0].kind}.png",
                disposition="inline",
            )
    return _sealed(message)


def notice(conn: Connection, specs: Specs, rows: Sequence[Mapping[str, Any]]) -> Notice:
    """The same for a channel that is no e-mail; arguments as of `letter`."""
    known, cover, shown = _units(conn, specs, rows)
    texts = [text_of(cover)] if cover else []
    for one in shown:
        head = [one.letter.headline] if cover else []
        texts.append("\n\n".join([*head, text_of(one.letter, one.leftovers())]))
    return replace(
        _notice(rows, (cover or shown[0].letter).summary, [*texts, _footer(specs, rows, known)]),
        pictures=tuple(one.letter.picture for one in shown if one.letter.picture),
    )


def plain_notice(rows: Sequence[Mapping[str, Any]], error: str) -> Notice:
    """The raw facts of outbox rows for a channel, as `plain` has them for a mail."""
    summary, text = _raw(rows, error)
    return _notice(rows, summary, [text])


def _notice(rows: Sequence[Mapping[str, Any]], summary: str, texts: Sequence[str]) -> Notice:
    kinds = [AlertKind.of(row["kind"]) for row in rows]
    key = str(rows[0].get("thread") or rows[0]["incident"])
    return Notice(
        title=_line(f"[Evergreen] {summary}", LONGEST_SUBJECT),
        text="\n\n".join(texts),
        severity=max(kind.traits.severity if kind else Severity.WARNING for kind in kinds),
        over=all(kind is not None and kind.traits.ends for kind in kinds),
        key=hashlib.sha256(key.encode()).hexdigest()[:32],
    )


def plain(specs: Specs, rows: Sequence[Mapping[str, Any]], error: str) -> EmailMessage:
    """The raw facts of outbox rows as text, for when they could not be laid out; needs no database."""
    summary, text = _raw(rows, error)
    message = envelope(specs, rows, summary)
    message.set_content(text + "\n", cte="quoted-printable")
    return _sealed(message)


def _raw(rows: Sequence[Mapping[str, Any]], error: str) -> tuple[str, str]:
    first = rows[0]
    what = ", ".join(dict.fromkeys(row["kind"].replace("_", " ") for row in rows))
    summary = f"{first['subject'].partition('/')[2] or first['subject']}: {what}"
    lines = [summary, "", f"This e-mail could not be laid out ({error}); these are its raw facts."]
    for row in rows:
        lines += ["", *(f"{label}: {show(row.get(key))}" for label, key in (
            ("subject", "subject"), ("kind", "kind"), ("incident", "incident"),
            ("ledger decision", "decision_id"), ("raised", "created_at"), ("context", "context"),
        ))]  # fmt: skip
        if AlertKind.of(row["kind"]):
            where, address = runbook(row["kind"])
            lines.append(f"runbook: {address or where}")
    return summary, "\n".join(lines)


def _units(
    conn: Connection, specs: Specs, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[KnownIncident], Letter | None, list[bundle.Unit]]:
    """What is known of some rows, what stands above them, and the sections that are told in full."""
    known = [gather(conn, specs, row) for row in rows]
    units = bundle.units(conn, known, lambda one: _said(conn, one), _together)
    cover = bundle.cover(conn, units, rows)
    return known, cover, units if cover is None else units[: bundle.MOST_SECTIONS]


def envelope(specs: Specs, rows: Sequence[Mapping[str, Any]], summary: str) -> EmailMessage:
    """A message with its headers and no content yet."""
    message = EmailMessage()
    sender = settings.MAIL_FROM.read()
    names = "|".join(f"{row['incident']}|{row['created_at'].isoformat()}" for row in rows)
    identity = hashlib.sha256(names.encode()).hexdigest()[:32]
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    message["From"] = _line(sender)
    message["To"] = ", ".join(_to(specs, rows[0]))
    message["Subject"] = _line(f"[Evergreen] {summary}", LONGEST_SUBJECT)
    message["Date"] = format_datetime(rows[0].get("now") or rows[0]["created_at"])
    message["Message-ID"] = f"<{identity}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    for row in rows:
        message["X-Evergreen-Incident"] = _line(row["incident"], 200)
    return message


def earlier(conn: Connection, rows: Sequence[Mapping[str, Any]], known: Sequence[KnownIncident]) -> list[str]:
    """The Message-IDs of the mails that a letter answers, the first ones first: those of the same incidents that went out,
    and those of the drift that a new champion or a rejected challenger answers.
    """
    answered = [i for one in known if one.decision for i in one.decision.answers]
    asked = [d.evidence for d in find(conn, ids=answered)] if answered else []
    incidents = [known.incident for known in asked if isinstance(known, RetrainEvidence) and known.incident]
    found = fetch(
        conn,
        "SELECT d.message_id FROM evergreen.mail AS m JOIN evergreen.delivery AS d ON d.mail = m.id"
        " WHERE d.message_id IS NOT NULL AND d.channel = %s AND coalesce(m.thread, m.incident) IN"
        " (SELECT coalesce(thread, incident) FROM evergreen.mail WHERE incident = ANY(%s) UNION SELECT unnest(%s::text[]))"
        " AND m.id <> ALL(%s) GROUP BY d.message_id ORDER BY min(d.sent_at), d.message_id LIMIT %s",
        (
            EMAIL,
            incidents,
            [row["thread"] for row in rows if row.get("thread")],
            [row["id"] for row in rows],
            MOST_REFERENCES,
        ),
    )
    return [row["message_id"] for row in found]


def _thread(message: EmailMessage, ids: Sequence[str]) -> None:
    if ids:
        message["In-Reply-To"] = ids[0]
        message["References"] = " ".join(ids)


def _said(conn: Connection, known: KnownIncident) -> Letter:
    said = _linked(LETTERS.get(known.kind, other)(conn, known), known)
    opened = known.context.get("update_of")
    if not opened:
        return said
    return replace(
        said, lead=(f"An update: the first mail about this was as of {words.when(opened)}.", *said.lead)
    )


def _together(conn: Connection, known: Sequence[KnownIncident]) -> Letter:
    return _linked(batches.quarantined_files(conn, known), known[-1])


def _linked(said: Letter, known: KnownIncident) -> Letter:
    """With what every letter has: the page of its model or dataset as the last link, and the runbook's section."""
    of = known.subject.partition("/")[0]
    label = f"The page of {known.name}" if of in ("model", "dataset") else "All models and datasets"
    return replace(
        said,
        links=(*said.links, *known_links((label, subject_url(known.subject)))),
        runbook=runbook(known.kind) if AlertKind.of(known.kind) else None,
    )


def _to(specs: Specs, row: Mapping[str, Any]) -> list[str]:
    """The recipients of a mail that have not got it yet."""
    everyone = ways_of(specs, row).get(EMAIL, [])
    return [to for to in everyone if addresses(to)[0].addr_spec not in (row.get("taken_by") or ())]


def gather(conn: Connection, specs: Specs, row: Mapping[str, Any]) -> KnownIncident:
    """Everything known about an outbox row."""
    told = find(conn, ids=[row["decision_id"]]) if row.get("decision_id") is not None else []
    context = row.get("context")
    return KnownIncident(
        incident=row["incident"],
        kind=row["kind"],
        subject=row["subject"],
        specs=specs,
        created_at=row["created_at"],
        decision=told[0] if told else None,
        evidence=told[0].evidence.to_json() if told else {},
        context=context if isinstance(context, dict) else {"context": context},
        told=set(OWN_CONTEXT),
        thread=row.get("thread"),
    )


def _sealed(message: EmailMessage) -> EmailMessage:
    # Python puts a subject of more than 68 characters whole onto the line after its name, and readers then see a
    # leading space. Done when the contents are in, because their encoding takes its width from the policy too.
    # Where a subject needs encoding, the space before a fold would be shown twice; an encoded word has at most 75 characters.
    whole = message.policy.clone(max_line_length=LONGEST_LINE)
    words_of_it = ENCODED_WORD.findall(whole.fold("Subject", message["Subject"]))
    if max(map(len, words_of_it), default=0) <= LONGEST_ENCODED:
        message.policy = whole
    return message


def _footer(specs: Specs, rows: Sequence[Mapping[str, Any]], known: Sequence[KnownIncident]) -> str:
    first = known[0]
    decisions = [one.number for one in known if one.decision]
    ledger = f"ledger decision {_some(decisions)}" if decisions else "no ledger decision"
    incidents = _some([one.incident for one in known])
    wrong = (
        f" · not sent to {_some(unreadable())}: no e-mail address (EVERGREEN_MAIL_TO)" if unreadable() else ""
    )
    channels = dict.fromkeys(
        c.removeprefix(PREFIX) for row in rows for c in ways_of(specs, row) if c != EMAIL
    )
    for name in channels:
        if why := services.unusable(name):
            wrong += f" · not sent to {PREFIX}{name}: {why}"
    return f"Evergreen · {first.subject} · owner {first.owner} · {ledger} · incident {incidents}{wrong}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _line(text: str, longest: int | None = None) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"
