"""Which champion is under watch after its promotion, against which one, and until when: read from the ledger.

Every promotion begins a watch when it is in force; the next change of champion, whoever makes it, ends it. A rollback
begins none: the champion that it brings back was compared when it was new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import Decision
from evergreen.ledger.reasons import NEEDS_A_PERSON, DecisionKind
from evergreen.ledger.succession import succession
from evergreen.spec import ModelSpec


@dataclass(frozen=True)
class WatchedChampion:
    """A promotion under watch.

    Attributes:
        promotion: the decision; runs as of its time or later compare. The period counts from its `effective_from`.
        previous: the version that was champion before; None where there was none, or the gate could not evaluate it: then it
            cannot predict beside the new one, or predicts something else.
        shadowed_until: runs as of this time or earlier let the previous champion predict too.
        judged_until: from then on the labels of those rows are mature, and the comparison ends.
    """

    promotion: Decision
    previous: str | None
    shadowed_until: datetime
    judged_until: datetime

    @property
    def alone(self) -> str:
        """Why there is no previous champion, as a sentence."""
        version = self.promotion.version
        if self.promotion.reason in NEEDS_A_PERSON:
            return (
                f"the champion before version {version} could not be evaluated, so the two cannot be compared"
            )
        return f"there was no champion before version {version}"


def champion_under_watch(model: ModelSpec, changes: Sequence[Decision]) -> WatchedChampion | None:
    """The watch that the newest change of champion began; None where it began none, or the spec asks for none.

    Whether it is over is for the caller to say, who knows the as-of time.

    Args:
        model: its `watch` section and the label's delay.
        changes: `ledger.champions` as of a time, newest first.
    """
    period = model.watch.period
    if not period or not changes or changes[0].kind is not DecisionKind.PROMOTED:
        return None
    line = succession(list(changes))
    previous = line[-2] if len(line) > 1 else None
    if changes[0].reason in NEEDS_A_PERSON:
        previous = None
    # Windows and feeds that come once a window would else be over before a row was predicted twice.
    until = changes[0].effective_from + max(period, model.monitoring.window)
    return WatchedChampion(changes[0], previous, until, until + model.label.delay)
