"""The kinds of alerts, each with what holds for it. Every list of kinds is made of this one, in Python and in SQL.

A kind is stored as its text in `evergreen.mail`. A row of a kind that is not here, of a later release, is owed all the same:
it is neither held nor joined, and goes out as its raw facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import total_ordering


@total_ordering
class Severity(Enum):
    """How much an alert matters, the least first: nothing to do, look at it soon, something stands still or harms."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def __lt__(self, other: Severity) -> bool:
        order = list(Severity)
        return order.index(self) < order.index(other)


@dataclass(frozen=True)
class Traits:
    """What holds for a kind of alert. None has a default: who adds a kind decides on each.

    Attributes:
        words: what it tells of.
        severity: that entries of `alerts` go by; the end of an incident has that of the incident.
        held: a silence of its subject keeps it back.
        joined: those of one subject that wait together are one letter.
        begins: it begins an incident, whose end is told.
        ends: it tells of the end of an incident.
        asks: it names a page with a question, and waits until a run asks there.
        addressed: its context names who gets it.
    """

    words: str
    severity: Severity
    held: bool
    joined: bool
    begins: bool
    ends: bool
    asks: bool
    addressed: bool


class AlertKind(StrEnum):
    """A kind of alert."""

    traits: Traits

    def __new__(cls, value: str, traits: Traits | None = None) -> AlertKind:
        """A member: its text, with the traits beside it. A call such as `AlertKind("drift")` finds one and does not come here."""
        if traits is None:
            raise TypeError(f"the kind {value} has no traits")
        member = str.__new__(cls, value)
        member._value_ = value
        member.traits = traits
        return member

    DRIFT = "drift", Traits(
        "drift", Severity.WARNING, held=True, joined=True, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    DATA_PROBLEM = "data_problem", Traits(
        "data that cannot be judged", Severity.WARNING, held=True, joined=True, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    SERVING_SKEW = "serving_skew", Traits(
        "online predictions that differ from batch ones", Severity.WARNING, held=True, joined=True, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    BATCH_QUARANTINED = "batch_quarantined", Traits(
        "batches held back", Severity.WARNING, held=True, joined=True, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    BATCH_CORRECTED = "batch_corrected", Traits(
        "a correction by hand", Severity.INFO, held=False, joined=False, begins=False, ends=False, asks=False, addressed=False
    )  # fmt: skip
    CHAMPION_CHANGED = "champion_changed", Traits(
        "a new champion", Severity.INFO, held=False, joined=False, begins=False, ends=False, asks=False, addressed=False
    )  # fmt: skip
    CHALLENGER_REJECTED = "challenger_rejected", Traits(
        "a rejected challenger", Severity.WARNING, held=True, joined=False, begins=False, ends=False, asks=False, addressed=False
    )  # fmt: skip
    APPROVAL = "approval", Traits(
        "a challenger that waits for approval", Severity.WARNING, held=False, joined=False, begins=False, ends=False, asks=True, addressed=False
    )  # fmt: skip
    ROLLED_BACK = "rolled_back", Traits(
        "a rollback", Severity.CRITICAL, held=False, joined=False, begins=False, ends=False, asks=False, addressed=False
    )  # fmt: skip
    ALIAS_REPAIRED = "alias_repaired", Traits(
        "an alias that was moved in MLflow", Severity.WARNING, held=False, joined=False, begins=False, ends=False, asks=False, addressed=False
    )  # fmt: skip
    RUN_FAILED = "run_failed", Traits(
        "a task fails", Severity.CRITICAL, held=True, joined=False, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    SPEC_UNUSABLE = "spec_unusable", Traits(
        "a spec that cannot be used", Severity.CRITICAL, held=False, joined=True, begins=True, ends=False, asks=False, addressed=False
    )  # fmt: skip
    RECOVERED = "recovered", Traits(
        "the end of an incident", Severity.INFO, held=True, joined=True, begins=False, ends=True, asks=False, addressed=False
    )  # fmt: skip
    DIGEST = "digest", Traits(
        "the weekly digest", Severity.INFO, held=False, joined=False, begins=False, ends=False, asks=False, addressed=True
    )  # fmt: skip

    @classmethod
    def of(cls, text: str) -> AlertKind | None:
        """The kind of a stored row; None for one that this release does not know."""
        return cls(text) if text in cls._value2member_map_ else None


def _those(has: Callable[[Traits], bool]) -> list[str]:
    return [kind.value for kind in AlertKind if has(kind.traits)]


# As psycopg2 takes a list of texts.
HELD = _those(lambda traits: traits.held)
JOINED = _those(lambda traits: traits.joined)
BEGINNING = _those(lambda traits: traits.begins)
ENDING = _those(lambda traits: traits.ends)
ASKING = _those(lambda traits: traits.asks)
