"""Who stands behind the champion: the line of versions to which rollbacks return, read from the ledger's changes of champion."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind


def succession(changes: Sequence[Decision]) -> list[str]:
    """The line of champions that stands behind the present one, oldest first; the last one is champion now.

    A promotion adds a version. A rollback takes away every version after the one it returns to, so that the
    next rollback goes one further back and not forth again. A rollback to a version that an earlier one had
    taken away (asked for by number) adds it like a promotion.

    Args:
        changes: the ledger's promotions and rollbacks, newest first.
    """
    line: list[str] = []
    for change in reversed(changes):
        version = change.version or ""
        if change.kind is DecisionKind.ROLLED_BACK and version in line:
            del line[len(line) - line[::-1].index(version) :]
        elif not line or line[-1] != version:
            line.append(version)
    return line
