"""The page in Airflow on which a challenger is approved or refused: what the e-mail says, as Markdown."""

from __future__ import annotations

from typing import Any

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.compose import gather
from evergreen.alerting.content.letter import Letter
from evergreen.alerting.letters import approvals
from evergreen.ledger import Decision
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection


def page(conn: Connection, specs: Specs, waiting_row: Decision) -> tuple[str, str]:
    """Subject and Markdown body of the page on which a challenger is approved: the e-mail's content."""
    letter = evaluation(conn, specs, waiting_row)
    return letter.headline, markdown(letter)


def evaluation(conn: Connection, specs: Specs, waiting_row: Decision) -> Letter:
    """The same as it is before it has a layout."""
    row: dict[str, Any] = {
        "incident": f"approval:{waiting_row.subject}:{waiting_row.version}",
        "kind": AlertKind.APPROVAL,
        "subject": waiting_row.subject,
        "decision_id": waiting_row.id,
        "created_at": waiting_row.decided_at,
        "context": {},
    }
    return approvals.waiting(conn, gather(conn, specs, row))


def markdown(letter: Letter) -> str:
    """A letter as Markdown; what others wrote (names, comments) cannot become markup."""
    parts = [_safe(text) for text in letter.lead]
    parts.append(
        "\n".join(
            f"- **{_safe(label)}**: {_safe(value)}" for label, value in (*letter.numbers, *letter.facts)
        )
    )
    for table in letter.tables:
        lines = ["| " + " | ".join(map(_safe, table.columns)) + " |", "| " + "--- | " * len(table.columns)]
        lines += ["| " + " | ".join(map(_safe, cells)) + " |" for cells in table.rows]
        parts += [f"**{_safe(table.title)}**", "\n".join(lines), *([_safe(table.note)] if table.note else [])]
    parts.append("\n".join(f"- {_safe(step)}" for step in letter.steps))
    parts.append("\n".join(f"- {_safe(label)}: {_safe(value)}" for label, value in letter.small))
    # An address with a bracket would end the link; none of Airflow's or MLflow's has one.
    parts.append(
        " · ".join(f"[{_safe(label)}]({url})" for label, url in letter.links if url and ")" not in url)
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _safe(text: object) -> str:
    """Text that Markdown shows as it is."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#~!" else c for c in plain)
