"""Names that a person types: which models and datasets there are, and what was meant by one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch


class UnknownName(TerminalError):
    """There is no model or dataset of this name, neither in the specs nor in the ledger."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known[:20]) or 'none'}"
        )
        super().__init__(f"There is no {what} {name!r}; {hint}", ErrorReason.BAD_SPEC)


def in_ledger(conn: Connection, kind: str) -> list[str]:
    """The models or datasets of which the ledger tells, by name; each is looked up by the index, so a long ledger costs nothing.

    Args:
        conn: the warehouse.
        kind: `model` or `dataset`.
    """
    rows = fetch(
        conn,
        "WITH RECURSIVE s AS ((SELECT subject FROM evergreen.decision WHERE subject > %(first)s AND subject < %(after)s ORDER BY subject LIMIT 1)"
        " UNION ALL SELECT (SELECT d.subject FROM evergreen.decision AS d WHERE d.subject > s.subject AND d.subject < %(after)s"
        " ORDER BY d.subject LIMIT 1) FROM s WHERE s.subject IS NOT NULL) SELECT subject FROM s WHERE subject IS NOT NULL",
        {"first": f"{kind}/", "after": f"{kind}0"},
    )
    return [str(row["subject"]).partition("/")[2] for row in rows]


def known(conn: Connection, specs: Specs, kind: str) -> list[str]:
    """Those of the specs; where the specs have none, those of the ledger."""
    return sorted(specs.models if kind == "model" else specs.datasets) or in_ledger(conn, kind)


def require(conn: Connection, specs: Specs, kind: str, name: str) -> None:
    """Refuse a name that neither specs nor ledger know.

    Raises:
        UnknownName: with what may have been meant.
    """
    every = {*(specs.models if kind == "model" else specs.datasets), *in_ledger(conn, kind)}
    if name not in every:
        raise UnknownName(kind, name, every)
