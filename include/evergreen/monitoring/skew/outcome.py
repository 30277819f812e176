"""What a comparison came to: the reason and the evidence of its row in the ledger; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import words
from evergreen.ledger.evidence import DifferingClient, DifferingColumn, DifferingPrediction, SkewEvidence
from evergreen.ledger.reasons import SkewReason
from evergreen.monitoring.skew.compare import Compared

FEWEST = 50
"""Of fewer records nothing is said: two of them alone would be 5 %."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        since, until: the records that were asked for in between.
        rows: how many were compared with their row.
        differing: how many of them differ from what a batch predicts.
        closely: those of them that were looked at closely, with how they differ; see `check`.
        other_numbers: records whose own features give another prediction in a batch.
        left_out: versions that could not predict, and why; empty: none.
    """

    since: datetime
    until: datetime
    rows: int
    differing: int
    closely: tuple[Compared, ...]
    other_numbers: tuple[Compared, ...]
    left_out: str = ""

    @property
    def share(self) -> float:
        """Of the records, how many differ."""
        return self.differing / self.rows if self.rows else 0.0


def reason(found: Comparison, limit: float) -> SkewReason | None:
    """What it came to; None: too few records to say anything.

    Another number of the same features must never be, so a single one counts, however few records there are.
    """
    if found.other_numbers:
        return SkewReason.NUMBERS
    if found.rows < FEWEST:
        return None
    if found.share < limit:
        return SkewReason.ALIKE
    return SkewReason.FEATURES if any(one.columns for one in found.closely) else SkewReason.UNEXPLAINED


def evidence(found: Comparison, why: SkewReason, limit: float) -> SkewEvidence:
    """The numbers, and the outcome in a sentence."""
    shown = found.other_numbers if why is SkewReason.NUMBERS else found.closely
    worst = max(shown, key=lambda one: one.far, default=None)
    told = SkewEvidence(
        since=found.since, until=found.until, rows=found.rows, differing=found.differing, share=found.share, limit=limit,
        largest=worst.far if worst else None, closely=len(found.closely) or None, other_numbers=len(found.other_numbers) or None,
        columns=_columns(found.closely), clients=_clients(shown),
        example=DifferingPrediction(key=worst.record.key, version=worst.record.version, answered=worst.record.prediction, batch=worst.batch)
        if worst else None,
        left_out=found.left_out or None,
    )  # fmt: skip
    return told.joined(SkewEvidence(message=_message(told, why)))


def often(told: SkewEvidence) -> tuple[str, ...]:
    """The columns in which at least half of the closely looked at records differ."""
    return tuple(one.column for one in told.columns if one.column and (one.share or 0) >= 0.5)


def _message(told: SkewEvidence, why: SkewReason) -> str:
    if why is SkewReason.NUMBERS:
        number = told.other_numbers or 0
        return f"the features of {number:,} record{'s' if number > 1 else ''} give another prediction in a batch than was answered"
    share = f"{told.differing:,} of {told.rows:,} online predictions ({words.percent(told.share or 0)})"
    if why is SkewReason.ALIKE:
        return (
            f"{told.rows:,} online predictions are those that a batch makes"
            if not told.differing
            else f"{share} differ from those that a batch makes, fewer than {words.percent(told.limit or 0)}"
        )
    if why is SkewReason.UNEXPLAINED:
        return f"{share} differ from those that a batch makes; their features were not kept, so nobody can tell where"
    named = ", ".join(one.column or "" for one in told.columns[:3])
    return (
        f"{share} differ from those that a batch makes: the requests have another {named} than the warehouse"
    )


def _columns(closely: Sequence[Compared]) -> tuple[DifferingColumn, ...]:
    counts = Counter(name for one in closely for name in one.columns)
    found = []
    for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMED]:
        example = next(one for one in closely if name in one.columns)
        sent, there = example.columns[name]
        found.append(
            DifferingColumn(
                column=name,
                rows=number,
                share=number / len(closely),
                key=example.record.key,
                sent=sent,
                found=there,
            )
        )
    return tuple(found)


def _clients(shown: Sequence[Compared]) -> tuple[DifferingClient, ...]:
    counts = Counter(one.record.client for one in shown)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(DifferingClient(client=name, rows=number) for name, number in ordered[:MOST_NAMED])
