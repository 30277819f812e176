"""What the ledger keeps of a training that was asked for, or not asked for although something spoke for it."""

from __future__ import annotations

from pydantic import Field

from evergreen.ledger.evidence.base import Evidence, Part, Time, rare


class Effect(Part):
    """One thing that was beyond its limit in a window; see `monitoring.windows.judgement.Violation`."""

    kind: str
    column: str | None = None
    statistic: str | None = None
    value: float | None = None
    limit: float | None = None


class AskingWindow(Part):
    """A window that speaks for a training.

    Attributes:
        start, end: of the window, in event time (UTC); a window of a decay has its start alone.
        revision: which judgement of it, counted from 0.
        rows: how many rows it had.
        error: its served error, in words.
        effects: what was beyond its limit.
        report: where the drawn report lies; None where none was drawn.
        mlflow_run: the run of the judgement in MLflow.
        value: of a decay: the served error.
        decayed: of a decay: from which error on it counts.
        limit: of a decay: from which error on people are alarmed.
    """

    start: Time
    end: Time | None = None
    revision: int | None = None
    rows: int | None = None
    error: str | None = None
    effects: tuple[Effect, ...] = ()
    report: str | None = None
    mlflow_run: str | None = None
    value: float | None = None
    decayed: float | None = None
    limit: float | None = None


class AskedAgain(Part):
    """When a drift is asked for again that trainings have answered; see `monitoring.trigger.reopen_rule`.

    Attributes:
        at: from when on, in as-of terms; None where time alone does not reopen it.
        rows: with how many new labelled rows; None where that is not known.
        answer: id of the decision that was the newest answer.
        because: of a request: why it is asked for again now.
        told_with: of a request: id of the earlier request with whose mail a rejection is told.
    """

    at: Time | None = Field(None, alias="from")
    rows: int | None = None
    answer: int | None = None
    because: str | None = None
    told_with: int | None = None


class TrainingEnding(Part):
    """How the training of a request ended: id of the request, kind, reason and version of the decision that answered it."""

    request: int | None = None
    kind: str | None = None
    reason: str | None = None
    version: str | None = None


class RetrainEvidence(Evidence):
    """Of a retraining that was requested or suppressed.

    Attributes of all:
        message: the decision in a sentence.
        request: of a suppression: id of the earlier request because of which it is suppressed.
        training_hash: of the spec of now, where another spec asks.

    Attributes of a drift:
        since: start of the first window of its unbroken episode (UTC).
        reasons: reason codes, the most important one first.
        causes: of the newest windows, as `kind:column`.
        drifted: of all windows that fulfil the rule, as `kind:column`.
        rule: the rule and how it is fulfilled, in a sentence.
        judgements: ids of the judged windows.
        windows: those windows, oldest first; of a decay likewise.
        window: the newest window, where it alone is in violation.
        signature: reason and columns.
        alternates: a healthy window lies between those in violation.
        incident: the name of the mail that tells it.
        endings: how trainings ended that did not help.
        again: when it is asked for again.
        asked_before: ids of the earlier requests of the same drift.

    Attributes of a hold:
        budget: how many requests a week may have.
        spent: ids of those that it had.
        next_free: from when on the next one is free, in as-of terms.
        new_rows: labelled rows that have come since the champion's training; where new rows ask, since the newest training.
        needed: how many are needed.

    Attributes of upkeep:
        basis: what it is measured from; the same basis is asked for once.
        asks: of a suppression: the reason code of the request that it would have been.
        champion_training_hash: of the spec that made the champion.
        trained_rows: how many labelled rows the champion's training knew.
        limit: of new rows their share; of an old champion its age, as `14d`.
        metric: of a decay: which.
        holdout: of a decay: its value on the holdout.
        trained_as_of: of an old champion: the cut-off of the newest training.
    """

    message: str = ""
    request: int | None = None
    training_hash: str | None = None
    since: Time | None = None
    reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    drifted: tuple[str, ...] = ()
    rule: str | None = None
    judgements: tuple[int, ...] = ()
    windows: tuple[AskingWindow, ...] = ()
    window: AskingWindow | None = None
    signature: str | None = None
    alternates: bool = rare(False)
    incident: str | None = None
    endings: tuple[TrainingEnding, ...] = ()
    again: AskedAgain | None = None
    asked_before: tuple[int, ...] = ()
    budget: int | None = None
    spent: tuple[int, ...] = ()
    next_free: Time | None = None
    new_rows: int | None = None
    needed: int | None = None
    basis: str | None = None
    asks: str | None = None
    champion_training_hash: str | None = None
    trained_rows: int | None = None
    limit: float | str | None = None
    metric: str | None = None
    holdout: float | None = None
    trained_as_of: Time | None = None
