"""When a drift that trainings have answered is asked for again: after a time, or with enough new rows.

What two challengers could not mend on the data of then, a later one may: the new world has more rows, or the champion has
aged. So no answer holds for ever. Each further answer asks for twice as many new rows, so that a short training window, which
is renewed within days, does not train in vain every few days.

Where the last challenger was promoted and the drift came back all the same, time alone changes nothing that the champion did
not have: then only new rows reopen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import Decision, answers
from evergreen.ledger.evidence import AskedAgain, SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import ModelSpec

# Of the rows that the last training knew: half as many new ones make a training set that is another.
SHARE = 0.5
FEWEST = 2


@dataclass(frozen=True)
class Again:
    """When a drift is asked for again.

    Attributes:
        answer: the newest answer of a training to it; new rows are those that this training could not know.
        at: from when on; None where time alone does not reopen it.
        rows: with how many new labelled rows; None where it is not known how many the training had.
    """

    answer: Decision
    at: datetime | None
    rows: int | None

    def because(self, as_of: datetime, rows: int | None) -> str:
        """Why it is asked for again at a time, with so many new rows; empty while it is not."""
        if self.at is not None and as_of >= self.at:
            return (
                f"the last training that answered this drift was as of {self.answer.as_of:%Y-%m-%d %H:%M} UTC"
            )
        if self.rows is not None and rows is not None and rows >= self.rows:
            return f"{self.rows:,} rows or more have come since the last training that answered this drift"
        return ""

    def sentence(self) -> str:
        """When it is asked for again."""
        return sentence(self.evidence())

    def evidence(self) -> AskedAgain:
        """The same, as the ledger keeps it."""
        return AskedAgain(at=self.at, rows=self.rows, answer=self.answer.id)


def of(
    model: ModelSpec,
    requests: Sequence[Decision],
    decisions: Sequence[Decision],
    trained_rows: int | None,
) -> Again:
    """When a drift is asked for again whose requests were answered.

    Args:
        model: `monitoring.trigger.again`; null: neither time nor rows reopen it.
        requests: all that trainings answered, at least one.
        decisions: of the model, the answers among them.
        trained_rows: of the champion's training; stands in where an answer does not say how many rows it had.
    """
    given = [d for d in decisions if answers.conclusive(d) and {r.id for r in requests} & set(d.answers)]
    newest = max(given, key=lambda d: (d.as_of, d.id or 0))
    trigger = model.monitoring.trigger
    if trigger.again is None:
        return Again(newest, None, None)
    known = SettledEvidence.of(newest).rows.get("all")
    had = known if known is not None else trained_rows
    doubled = 2.0 ** max(0, len(requests) - FEWEST)
    return Again(
        newest,
        None if newest.kind is DecisionKind.PROMOTED else newest.as_of + max(trigger.again, trigger.cooldown),
        max(1, math.ceil(SHARE * doubled * had)) if had else None,
    )


def sentence(told: AskedAgain) -> str:
    """When a drift is asked for again, from what the ledger keeps of it."""
    ways = [
        *([f"from {told.at:%Y-%m-%d} on"] if told.at is not None else []),
        *([f"with {told.rows:,} new rows"] if told.rows is not None else []),
    ]
    if not ways:
        return "it is not asked for again while it lasts"
    return f"if it lasts, it is asked for again {', or '.join(ways)}"
