"""Challengers that wait for a person: `gate.approval: manual`, or the gate could not evaluate the champion.

A challenger that passed the gate gets a row `awaiting_approval` instead of a promotion. While it waits, the retrain
requests that it answers stay open, and no other training takes them up. The wait ends once, by one decision:

- `approved`: it is champion, if the champion is still the one that the gate compared with; where that one could not be
  evaluated, the promotion's reason is `champion_cannot_be_evaluated`, and its evidence says who approved;
- `refused`: a person said no; the requests are answered;
- `approval_timed_out`: nobody answered in `gate.approval_timeout`; the requests are answered. An approval that comes later
  does not count: what it approves was measured too long ago;
- `champion_changed_meanwhile`: it was approved, but the gate compared with another champion; the requests stay open;
- `superseded`: a challenger of the same or newer data passed; it takes over the requests.

How the person is asked, and by whom, is the caller's business: Airflow's human-in-the-loop task in `dags/promote.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

from evergreen import ledger, registry
from evergreen.alert_kinds import AlertKind
from evergreen.errors import ErrorReason, TerminalError
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.evidence import (
    ApprovalAskedEvidence,
    AwaitingEvidence,
    GateAnswer,
    GateCheck,
    SettledEvidence,
)
from evergreen.ledger.reasons import NEEDS_A_PERSON, DecisionKind, RulingReason
from evergreen.promotion.ruling import Ruling, Waited, check_version, follow, named, rule, settled, write
from evergreen.spec import ModelSpec, format_duration
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.connection import Connection, connect

# An answer of the last minute may be on its way for so long before the wait is ended without it.
GRACE = timedelta(hours=1)


@dataclass(frozen=True)
class Answer:
    """What was said about a challenger: when (aware), by whom (None: nobody answered), and why."""

    approved: bool
    by: str | None
    at: datetime
    comment: str = ""


def waiting(conn: Connection, model: ModelSpec, version: str | None) -> Decision | None:
    """The row by which a version waits, whether or not that wait has ended; None if it never waited."""
    rows = ledger.find(conn, ledger.model_subject(model.name), (DecisionKind.AWAITING_APPROVAL,))
    return next((row for row in rows if row.version == version), None)


def waiting_for(conn: Connection, model: ModelSpec, found: TrainingOutcome) -> Decision | None:
    """The row by which the challenger of a training waits, see `waiting`."""
    row = waiting(conn, model, found.version)
    return row if row is not None and AwaitingEvidence.of(row).mlflow_run == found.mlflow_run else None


def until(waiting: Decision) -> datetime:
    """When the wait of a challenger ends without an answer (UTC)."""
    assert waiting.decided_at is not None
    return waiting.decided_at + allowed(waiting)


def allowed(waiting: Decision) -> timedelta:
    """How long a challenger waits for an answer."""
    seconds = AwaitingEvidence.of(waiting).approval_timeout_s
    assert seconds is not None
    return timedelta(seconds=seconds)


def wait(
    conn: Connection,
    model: ModelSpec,
    found: TrainingOutcome,
    ruling: Ruling,
    run_id: str,
    *,
    because: str,
) -> Decision:
    """Let a challenger wait, and owe the e-mail that asks for the answer. The caller holds the model's lock."""
    decision = ledger.append(
        conn,
        Decision(
            as_of=found.as_of,
            subject=ledger.model_subject(model.name),
            kind=DecisionKind.AWAITING_APPROVAL,
            reason=ruling.reason.value,
            run_id=run_id,
            dedupe_key=f"await:{model.name}:run:{found.mlflow_run}",
            version=found.version,
            evidence=_waiting_evidence(found).joined(
                AwaitingEvidence(
                    message=ruling.message,
                    previous_version=ruling.champion.version if ruling.champion else None,
                    approval_timeout_s=model.gate.approval_timeout.total_seconds(),
                    asked_because=because,
                )
            ),
        ),
    )
    raise_incident(
        conn, f"approval:{model.name}:{found.version}", decision.subject, AlertKind.APPROVAL, decision.id, {}
    )
    return decision


def newer_than(conn: Connection, model: ModelSpec, found: TrainingOutcome) -> Decision | None:
    """A challenger of newer data that waits already; None if there is none."""
    elder = ledger.awaiting_approval(conn, model.name)
    return elder if elder is not None and elder.as_of > found.as_of else None


def superseded(ruling: Ruling, by: str | None) -> Ruling:
    """The ruling on a challenger whose place another one takes."""
    message = f"{named(by)}, of data that is not older, passed the gate too and takes its place"
    return replace(ruling, passed=False, reason=RulingReason.SUPERSEDED, message=message, answers=False)


def supersede(conn: Connection, model: ModelSpec, found: TrainingOutcome, run_id: str) -> TrainingOutcome:
    """End the wait of an earlier challenger in favour of one that has passed now.

    The caller holds the model's lock.

    Returns:
        The outcome of the newer one, which answers the requests of both.
    """
    elder = ledger.awaiting_approval(conn, model.name)
    if elder is None:
        return found
    before = outcome(elder)
    ruling = superseded(rule(conn, model, before), found.version)
    write(
        conn,
        model,
        before,
        ruling,
        run_id,
        more=SettledEvidence(superseded_by=found.version),
        waited=Waited(elder),
    )
    return replace(found, requests=tuple(sorted({*before.requests, *found.requests})))


def conclude(model: ModelSpec, version: str, answer: Answer, run_id: str) -> Decision:
    """End the wait of a challenger by an answer, once; who comes later gets the decision that stands.

    An approval counts if it came in time, the champion is still the one that the gate compared with, and the version in
    MLflow is the one that was judged, with the files that were registered. Everything else rejects.

    Args:
        model: whose challenger.
        version: which.
        answer: of the person, or that there was none.
        run_id: `dag_id/run_id` that brings it.

    Raises:
        TerminalError: this version never waited; or it was approved and MLflow has it no more, or another one
            (REGISTRY_MISMATCH). It goes on waiting then, until it is answered otherwise or its time is over.
        TransientError: warehouse or MLflow do not answer. If the decision was already written, it stands.
    """
    with connect() as conn:
        asked = waiting(conn, model, version)
    if asked is None:
        raise TerminalError(
            f"{model.name}: version {version} does not wait for approval; see the ledger for what was decided",
            ErrorReason.REGISTRY_MISMATCH,
        )
    found = outcome(asked)
    with connect() as conn:
        standing = settled(conn, model, found)
    in_time = answer.by is not None and answer.at <= until(asked)
    registered = None
    if standing is None and answer.approved and in_time:
        registered = check_version(model, found)
        registry.load(model, version)
    with connect() as conn:
        ledger.lock(conn, model.name)
        decision = settled(conn, model, found)
        if decision is None:
            ruling = _answered(rule(conn, model, found), asked, answer, in_time)
            more = _evidence(asked, answer)
            decision = write(conn, model, found, ruling, run_id, more=more, waited=Waited(asked, registered))
    return follow(model, decision)


def expire(model: ModelSpec, now: datetime, run_id: str) -> Decision | None:
    """Reject a challenger whose time has been over for GRACE, as nobody seems to ask about it any more.

    Args:
        model: whose challenger.
        now: the time by the clock: people wait by it.
        run_id: `dag_id/run_id`.

    Returns:
        The decision; None if nothing waits, or there is still time.
    """
    with connect() as conn:
        asked = ledger.awaiting_approval(conn, model.name)
    if asked is None or now <= until(asked) + GRACE:
        return None
    return conclude(model, str(asked.version), Answer(False, None, now), run_id)


def asking(conn: Connection, waiting: Decision) -> Decision | None:
    """The row of the run that asks about a challenger; None if none does yet."""
    rows = ledger.find(conn, waiting.subject, (DecisionKind.APPROVAL_ASKED,))
    return next((row for row in rows if row.version == waiting.version), None)


def ask(conn: Connection, waiting: Decision, run_id: str, instead_of: Decision | None) -> bool:
    """Take it upon this run to ask about a challenger; of two runs at once one does.

    Args:
        conn: the warehouse.
        waiting: the challenger's row.
        run_id: `dag_id/run_id`.
        instead_of: the row of a run that asks no more, or None for the first one.

    Returns:
        Whether this run is the one.
    """
    taken = ledger.append(
        conn,
        Decision(
            as_of=waiting.as_of,
            subject=waiting.subject,
            kind=DecisionKind.APPROVAL_ASKED,
            reason=waiting.reason,
            run_id=run_id,
            dedupe_key=f"asked:{waiting.id}:{instead_of.id if instead_of else 'first'}",
            version=waiting.version,
            evidence=ApprovalAskedEvidence(awaiting=waiting.id, until=until(waiting)),
        ),
    )
    return taken.run_id == run_id


def outcome(waiting: Decision) -> TrainingOutcome:
    """The outcome of the training whose challenger waits, as its row keeps it."""
    kept = AwaitingEvidence.of(waiting)
    known = kept.to_json()
    return TrainingOutcome.from_dict(
        {f.name: known[f.name] for f in fields(TrainingOutcome) if f.name in known}
    )


def _waiting_evidence(found: TrainingOutcome) -> AwaitingEvidence:
    """The outcome of a training as the row of a wait keeps it; see `outcome`."""
    verdict = GateAnswer(
        passed=found.verdict.passed,
        reason=found.verdict.reason.value,
        checks=tuple(GateCheck(**vars(check)) for check in found.verdict.checks),
    )
    return AwaitingEvidence(**{**vars(found), "verdict": verdict})


def _answered(ruling: Ruling, asked: Decision, answer: Answer, in_time: bool) -> Ruling:
    """The ruling with a person's answer, or that there was none in time."""
    if not in_time:
        late = f"; {answer.by} answered at {answer.at:%Y-%m-%d %H:%M} UTC" if answer.by else ""
        message = f"nobody answered within {format_duration(allowed(asked))}, by {until(asked):%Y-%m-%d %H:%M} UTC{late}"
        return replace(
            ruling, passed=False, reason=RulingReason.APPROVAL_TIMED_OUT, message=message, answers=True
        )
    if not answer.approved:
        message = f"{answer.by} refused it{f': {answer.comment}' if answer.comment else ''}"
        return replace(ruling, passed=False, reason=RulingReason.REFUSED, message=message, answers=True)
    if ruling.passed and ruling.reason not in NEEDS_A_PERSON:
        return replace(ruling, reason=RulingReason.APPROVED)
    return ruling


def _evidence(asked: Decision, answer: Answer) -> SettledEvidence:
    return SettledEvidence(
        gate=asked.reason,
        awaiting=asked.id,
        answered_by=answer.by,
        answered_at=answer.at if answer.by else None,
        comment=answer.comment,
        asked_because=AwaitingEvidence.of(asked).asked_because,
    )
