"""A challenger that waits for a person, with its evaluation and the run that asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.alerting.approval_page import evaluation
from evergreen.alerting.content.letter import Letter
from evergreen.ledger import Decision, awaiting_approval, find, model_subject
from evergreen.ledger.evidence import ApprovalAskedEvidence, AwaitingEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Question:
    """A challenger about which a person is asked.

    Attributes:
        waiting: the row by which it waits.
        letter: the evaluation, as the e-mail about it says it.
        until: when the wait ends without an answer, which rejects it; None where the row does not say.
        run_id: `promote__NAME/run` of the run that asks; None: none has asked yet.
    """

    waiting: Decision
    letter: Letter
    until: datetime | None
    run_id: str | None


def question(conn: Connection, specs: Specs, model: str) -> Question | None:
    """The challenger of a model that waits for a person; None if none does."""
    waiting = awaiting_approval(conn, model)
    if waiting is None or waiting.decided_at is None:
        return None
    seconds = AwaitingEvidence.shown(waiting).approval_timeout_s
    asked = [
        d
        for d in find(conn, model_subject(model), (DecisionKind.APPROVAL_ASKED,), limit=20)
        if ApprovalAskedEvidence.shown(d).awaiting == waiting.id
    ]
    return Question(
        waiting, evaluation(conn, specs, waiting), waiting.decided_at + timedelta(seconds=seconds) if seconds else None,
        asked[0].run_id if asked else None,
    )  # fmt: skip
