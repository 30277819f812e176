"""What suppresses a request whatever asks for it: the cool-down, the budget, too few new rows.

`already_open`, `already_answered` and `too_few_violations` are decided where it is known what asks: `drift_request`, `drift_rule`, `upkeep_rule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import Hold
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.spec import ModelSpec, format_duration

BUDGET_PERIOD = timedelta(days=7)


@dataclass(frozen=True)
class SuppressedRequest:
    """Why a request is suppressed.

    Attributes:
        hold: the reason code.
        message: the same in a sentence, with numbers and limits.
        request: the earlier request because of which it is; None where there is none.
        evidence: further numbers.
    """

    hold: Hold
    message: str
    request: Decision | None = None
    evidence: RetrainEvidence = field(default_factory=RetrainEvidence)


def too_often(model: ModelSpec, requests: Sequence[Decision], as_of: datetime) -> SuppressedRequest | None:
    """The cool-down after the last request, or the budget of `BUDGET_PERIOD`; None where neither holds.

    Args:
        model: the trigger's settings.
        requests: all of the model up to `as_of`, oldest first.
        as_of: ages are measured between as-of times.
    """
    trigger = model.monitoring.trigger
    if requests and as_of - requests[-1].as_of < trigger.cooldown:
        last = requests[-1]
        return SuppressedRequest(
            Hold.COOLDOWN,
            f"the last request, {last.id}, was {format_duration(as_of - last.as_of)} before; "
            f"the cool-down is {format_duration(trigger.cooldown)}, until {last.as_of + trigger.cooldown:%Y-%m-%d %H:%M} UTC",
            last,
        )
    spent = [d for d in requests if as_of - d.as_of < BUDGET_PERIOD]
    if len(spent) < trigger.budget:
        return None
    free = spent[-trigger.budget].as_of + BUDGET_PERIOD
    told = ", ".join(f"{d.id} of {d.as_of:%Y-%m-%d %H:%M}" for d in spent)
    return SuppressedRequest(
        Hold.BUDGET_SPENT,
        f"{len(spent)} requests within {format_duration(BUDGET_PERIOD)} ({told} UTC) spend monitoring.trigger.budget, which "
        f"is {trigger.budget}; the next one is free from {free:%Y-%m-%d %H:%M} UTC on",
        spent[-1],
        RetrainEvidence(
            budget=trigger.budget, spent=tuple(d.id for d in spent if d.id is not None), next_free=free
        ),
    )


def too_few_rows(model: ModelSpec, facts: ChampionFacts) -> SuppressedRequest | None:
    """Training on the rows that the champion knows cannot help; None where enough have come, or nobody counted."""
    if facts.new_rows is None:
        return None
    needed = least_rows(model, facts)
    if facts.new_rows >= needed:
        return None
    share = model.monitoring.trigger.min_new_rows
    least = f" ({share:.0%} of the {facts.trained_rows} that it knew)" if needed > 1 else ""
    return SuppressedRequest(
        Hold.TOO_LITTLE_NEW_DATA,
        f"{facts.new_rows} rows with a mature label have come since the champion's training, {needed} are needed{least}; "
        "training on the same rows cannot help",
        evidence=RetrainEvidence(new_rows=facts.new_rows, needed=needed),
    )


def least_rows(model: ModelSpec, facts: ChampionFacts) -> int:
    """How many new labelled rows a drift needs: `trigger.min_new_rows` of the champion's, and at least one."""
    return max(1, math.ceil(model.monitoring.trigger.min_new_rows * (facts.trained_rows or 0)))


def open_message(request: Decision) -> str:
    """That an open request is enough."""
    return f"request {named(request)} is still open, its training answers this too"


def named(request: Decision) -> str:
    """A request as people read it."""
    return f"{request.id} of {request.as_of:%Y-%m-%d %H:%M} UTC"
