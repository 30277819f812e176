"""What the trigger policy says: to ask for a training, to suppress the request, or nothing; and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import Hold, TriggerReason
from evergreen.monitoring.trigger.reopen_rule import Again
from evergreen.monitoring.windows.judgement import Judgement


class Action(StrEnum):
    """What the policy does."""

    REQUEST = "request"
    SUPPRESS = "suppress"
    NONE = "none"


class Quiet(StrEnum):
    """Why the rule is not fulfilled."""

    NO_WINDOWS = "no_windows"
    NEWEST_NOT_JUDGED = "newest_not_judged"
    NEWEST_WITHOUT_EFFECT = "newest_without_effect"


@dataclass(frozen=True)
class TriggerVerdict:
    """What the policy says.

    Attributes:
        action: request, suppress or none.
        reason: a `TriggerReason` for a request, a `Hold` for a suppression, a `Quiet` for none.
        evidence: numbers and limits, as the ledger keeps them.
        signature: reason and columns of a drift; else what names the occasion (`reason:basis`); empty for none.
        hits: the judgements in violation that fulfil the rule, oldest first; empty where no drift asks.
        covered_by: the earlier decision that was about the same thing; its e-mail has told of this one too.
        since: start of the first window of the unbroken episode of drift; None where no drift asks.
        gave_up: the answered requests of a drift that retraining did not help; empty otherwise.
        again: when that drift is asked for again, where nothing but new rows can reopen it now; else None.
    """

    action: Action
    reason: TriggerReason | Hold | Quiet
    evidence: RetrainEvidence = field(default_factory=RetrainEvidence)
    signature: str = ""
    hits: tuple[Judgement, ...] = ()
    covered_by: Decision | None = None
    since: datetime | None = None
    gave_up: tuple[Decision, ...] = ()
    again: Again | None = None
