"""Which decisions answer a question that was asked for the loop: a promotion, or a rejection after a judgement."""

from __future__ import annotations

from evergreen.ledger import Decision
from evergreen.ledger.reasons import CONCLUSIVE, DecisionKind


def conclusive(answer: Decision) -> bool:
    """Whether a decision is the answer of a training: a promotion, or a rejection of a challenger that was judged."""
    if answer.kind is DecisionKind.PROMOTED:
        return True
    return answer.kind is DecisionKind.REJECTED and answer.reason in {reason.value for reason in CONCLUSIVE}
