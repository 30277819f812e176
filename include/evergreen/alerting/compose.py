"""Makes an e-mail from a row of the outbox: gathers what is known, lets the incident's kind say it, lays it out.

The message has a plain-text part and an HTML part with the picture inline; both come from one `Letter`. Its
Message-ID is the same in every attempt, so that a mail that was sent twice can be told.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache
from typing import Any

import jinja2

from evergreen import settings
from evergreen.alerting import approvals, batches, challengers, data_problems, drift, failures, words
from evergreen.alerting.letter import Known, Letter, Table, facts, known_links, show
from evergreen.alerting.links import airflow_run_url
from evergreen.ledger import find
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection

LONGEST_SUBJECT = 140
TEXT_WIDTH = 76
LONG_WORD = 20


def other(conn: Connection, known: Known) -> Letter:
    """An incident of a kind that no letter is written for: the recorded facts, as they are."""
    return Letter(
        headline=f"{known.name}: {known.kind.replace('_', ' ')}",
        summary=f"{known.name}: {known.kind.replace('_', ' ')}",
        lead=("Evergreen reports an incident. What was recorded about it follows.",),
        facts=facts(
            ("Subject", known.subject), ("As of", words.when(known.as_of)), ("Incident", known.incident)
        ),
        links=known_links(("Airflow run", airflow_run_url(known.run_id))),
    )


KINDS: dict[str, Callable[[Connection, Known], Letter]] = {
    "drift": drift.drifted,
    "data_problem": data_problems.data_problem,
    "batch_quarantined": batches.quarantined,
    "champion_changed": challengers.promoted,
    "challenger_rejected": challengers.rejected,
    "approval": approvals.waiting,
    "rolled_back": challengers.rolled_back,
    "run_failed": failures.run_failed,
}


def compose(conn: Connection, specs: Specs, row: dict[str, Any]) -> EmailMessage:
    """The e-mail of an outbox row.

    Args:
        conn: reads the ledger and the judgements.
        specs: name the recipients and the owner; a subject whose spec is bad or gone gets the default ones.
        row: of `evergreen.mail`.
    """
    known = gather(conn, specs, row)
    letter = KINDS.get(row["kind"], other)(conn, known)
    message = envelope(specs, row, letter.summary)
    message_id = message["Message-ID"].strip("<>")
    cid = f"picture.{message_id}" if letter.picture else None
    footer = _footer(known)
    leftovers = known.leftovers()
    parts = {"letter": letter, "footer": footer, "leftovers": leftovers, "cid": cid}
    message.set_content(_templates().get_template("letter.txt").render(**parts), cte="quoted-printable")
    html = _templates().get_template("letter.html").render(**parts)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    if letter.picture:
        page = message.get_body(("html",))
        assert isinstance(page, EmailMessage)
        page.add_related(
            letter.picture.png,
            "image",
            "png",
            cid=f"<{cid}>",
            filename=f"{known.kind}.png",
            disposition="inline",
        )
    return _sealed(message)


def plain(specs: Specs, row: dict[str, Any], error: str) -> EmailMessage:
    """The raw facts of an outbox row as text, for when it could not be laid out; needs no database."""
    summary = f"{row['subject'].partition('/')[2] or row['subject']}: {row['kind'].replace('_', ' ')}"
    message = envelope(specs, row, summary)
    lines = [
        summary,
        "",
        f"This e-mail could not be laid out ({error}); these are its raw facts.",
        "",
        *(f"{label}: {show(row.get(key))}" for label, key in (
            ("subject", "subject"), ("kind", "kind"), ("incident", "incident"),
            ("ledger decision", "decision_id"), ("raised", "created_at"), ("context", "context"),
        )),
    ]  # fmt: skip
    message.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return _sealed(message)


def envelope(specs: Specs, row: dict[str, Any], summary: str) -> EmailMessage:
    """A message with its headers and no content yet."""
    message = EmailMessage()
    sender = settings.MAIL_FROM.read()
    identity = hashlib.sha256(f"{row['incident']}|{row['created_at'].isoformat()}".encode()).hexdigest()[:32]
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    message["From"] = _line(sender)
    message["To"] = ", ".join(recipients(specs, row["subject"]))
    message["Subject"] = _line(f"[Evergreen] {summary}", LONGEST_SUBJECT)
    message["Date"] = format_datetime(row.get("now") or row["created_at"])
    message["Message-ID"] = f"<{identity}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Evergreen-Incident"] = _line(row["incident"], 200)
    return message


def recipients(specs: Specs, subject: str) -> list[str]:
    """Who is told about `model/NAME` or `dataset/NAME`: the spec's `alerts`, or EVERGREEN_MAIL_TO."""
    kind, _, name = subject.partition("/")
    spec = specs.models.get(name) if kind == "model" else specs.datasets.get(name)
    named = list(spec.alerts) if spec and spec.alerts else settings.MAIL_TO.read().split(",")
    return [address for address in map(_line, named) if address]


def gather(conn: Connection, specs: Specs, row: dict[str, Any]) -> Known:
    """Everything known about an outbox row."""
    told = find(conn, ids=[row["decision_id"]]) if row.get("decision_id") is not None else []
    context = row.get("context")
    return Known(
        incident=row["incident"],
        kind=row["kind"],
        subject=row["subject"],
        specs=specs,
        created_at=row["created_at"],
        decision=told[0] if told else None,
        evidence=told[0].evidence if told and isinstance(told[0].evidence, dict) else {},
        context=context if isinstance(context, dict) else {"context": context},
    )


def _sealed(message: EmailMessage) -> EmailMessage:
    # Python puts a subject of more than 68 characters whole onto the line after its name, and readers then see a
    # leading space. Done when the contents are in, because their encoding takes its width from the policy too.
    if message["Subject"].isascii():
        message.policy = message.policy.clone(max_line_length=LONGEST_SUBJECT + len("Subject: "))
    return message


def _footer(known: Known) -> str:
    ledger = f"ledger decision {known.number}" if known.decision else "no ledger decision"
    return f"Evergreen · {known.subject} · owner {known.owner} · {ledger} · incident {known.incident}"


def _line(text: str, longest: int | None = None) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evergreen.alerting", "templates"),
        autoescape=jinja2.select_autoescape(("html",), default_for_string=True, default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fold"] = _fold
    environment.filters["columns"] = _columns
    environment.filters["wrapping"] = _wrapping
    return environment


def _fold(text: Any, width: int, indent: int = 0) -> str:
    lines = textwrap.wrap(str(text), width, subsequent_indent=" " * indent, break_long_words=False) or [""]
    return "\n".join(lines)


def _wrapping(text: Any) -> str:
    # Breaking words anywhere keeps a narrow screen from scrolling, but it squeezes cells of short words.
    return "anywhere" if max(map(len, str(text).split()), default=0) > LONG_WORD else "break-word"


def _columns(table: Table) -> str:
    rows: Sequence[Sequence[str]] = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    if sum(widths) + 2 * len(widths) > TEXT_WIDTH:
        # Too wide for a mail of plain text: a block of lines for each row.
        blocks = []
        for row in table.rows:
            pairs = (f"{c}: {v}" for c, v in zip(table.columns, row, strict=True))
            blocks.append("\n".join(f"  {_fold(pair, TEXT_WIDTH - 2, 4)}" for pair in pairs))
        return "\n\n".join(blocks)
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [f"  {lines[0]}", "  " + "  ".join("-" * w for w in widths), *(f"  {x}" for x in lines[1:])]
    )
