"""A task that failed for good: its ledger row, its e-mail, and the e-mail for when not even that can be written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

from evergreen import settings
from evergreen.alert_kinds import AlertKind
from evergreen.errors import ErrorReason
from evergreen.incidents import threads, unfinished_tasks
from evergreen.incidents.outbox import raise_incident, redact
from evergreen.incidents.recipients import fleet
from evergreen.ledger import Decision, append
from evergreen.ledger.evidence import FailedRunEvidence, RecoveredEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason
from evergreen.links import runbook
from evergreen.program import typed
from evergreen.warehouse.connection import Connection, connect, fetch

# Decisions that tell of trouble, or of a drift that was seen: after them nothing has worked that had failed.
NOTHING_WORKED = (
    DecisionKind.RUN_FAILED, DecisionKind.MAIL_FAILED, DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.RECOVERED, DecisionKind.SILENCED,
)  # fmt: skip
# A task that fails again so soon after it was told to run again is the same trouble.
RELAPSE = timedelta(hours=24)

# The task of each kind of DAG whose success shows that a run which hit its time limit can end.
MAIN = {
    "ingest": "land", "correct": "correct", "train": "settle", "score": "score", "monitor": "judge", "rollback": "roll_back",
}  # fmt: skip

# Reasons that name a cause outside of the task, such as a champion that is gone from MLflow: whatever runs for the model meets it.
SHARED = frozenset({
    ErrorReason.REGISTRY_MISMATCH, ErrorReason.PROBE_FAILED, ErrorReason.BAD_QUERY, ErrorReason.NO_ROLE, ErrorReason.UNREACHABLE, ErrorReason.BUSY,
    ErrorReason.NO_SPACE,
})  # fmt: skip
# The kinds of DAG that meet it: they run by themselves, and use the champion. A rollback or an approval is of another version,
# and a person waits for it.
MEET = ("train", "score", "monitor")

_VARIABLE = re.compile(r"0x[0-9a-f]+|[0-9a-f]{12,}|\d+", re.IGNORECASE)


def record(  # noqa: PLR0913  # what Airflow knows of a failed task, by name; it travels no further
    subject: str,
    run_id: str,
    task_id: str,
    try_number: int,
    error: str,
    log_url: str,
    as_of: datetime,
    reason: ErrorReason | None = None,
) -> Decision:
    """Write a failed task into the ledger and owe its e-mail, in one transaction; does not send.

    Equal failures of a task in one ISO week (UTC) of their as-of times are one incident until a decision about the
    subject shows that something works: a DAG that fails every hour is told once, and told again when something had
    worked in between, when it fails differently, and at latest in the next week. Without the week an outage would
    be silent if an equal one was told months before and nothing was decided since. Until the task has succeeded (see
    `worked`) its mails are one thread; a failure within RELAPSE of that success is not mailed.

    What several tasks of a model meet (the same reason of SHARED, in DAGs of MEET) is one incident, of the task that met it
    first: as long as it is open the others are told once a week at most, by whichever fails first then. One that still
    fails when the first has succeeded is told for itself.

    Args:
        subject: `model/NAME` or `dataset/NAME`.
        run_id: `dag_id/run_id`.
        task_id: which task failed.
        try_number: its last try.
        error: the exception's text; passwords in it are blotted out.
        log_url: Airflow's page of the log.
        as_of: the run's as-of time.
        reason: the code of the error, where it has one.

    Raises:
        TransientError: the warehouse does not answer.
    """
    dag_id, error = run_id.partition("/")[0], redact(error)
    week = f"{as_of.astimezone(UTC):%G-W%V}"
    # Numbers and ids differ between two failures of the same kind.
    signature = hashlib.sha256(_VARIABLE.sub("#", error).encode()).hexdigest()[:12]
    with connect() as conn:
        unfinished_tasks.ended(conn, run_id, task_id)
        decision = append(
            conn,
            Decision(
                as_of=as_of,
                subject=subject,
                kind=DecisionKind.RUN_FAILED,
                reason=f"{dag_id}.{task_id}"[:200],
                run_id=run_id,
                dedupe_key=f"failed:{run_id}:{task_id}:{try_number}",
                evidence=FailedRunEvidence(
                    dag_id=dag_id, task_id=task_id, try_number=try_number, error=error, log_url=log_url,
                    reason=reason.value if reason else None,
                ),
            ),
        )  # fmt: skip
        prefix = f"failed:{dag_id}.{task_id}:"
        known = threads.newest(conn, subject, AlertKind.RUN_FAILED, prefix=prefix)
        ended = known.end if known else None
        if ended is not None and timedelta(0) <= as_of - ended.as_of < RELAPSE:
            return decision
        settled = fetch(
            conn,
            "SELECT coalesce(max(id), 0) AS id FROM evergreen.decision WHERE subject = %s AND (kind <> ALL(%s) OR id = %s)",
            (subject, [kind.value for kind in NOTHING_WORKED], ended.id if ended else None),
        )[0]["id"]
        incident = f"{prefix}{settled}:{week}:{signature}"
        more: dict[str, Any] = {}
        first = known if known and not ended else None
        if reason in SHARED and dag_id.partition("__")[0] in MEET:
            more["classes"] = [reason.value]
            own, first = first, first or _met(conn, subject, reason)
            if first and not _news(conn, first, incident, week, own is not None):
                return decision
        thread = first.incident if first else incident
        if first and thread != incident:
            more["update_of"] = first.opened.isoformat()
        raise_incident(conn, incident, subject, AlertKind.RUN_FAILED, decision.id, more, thread=thread)
    return decision


def _met(conn: Connection, subject: str, reason: ErrorReason) -> threads.Thread | None:
    """The open incident of the other tasks that have met the same cause; the oldest, if there are several."""
    met = [
        thread
        for kind in MEET
        for thread in threads.open_ones(conn, subject, AlertKind.RUN_FAILED, prefix=f"failed:{kind}__")
        if reason.value in thread.classes
    ]
    return min(met, key=lambda thread: thread.opened, default=None)


def _news(conn: Connection, thread: threads.Thread, incident: str, week: str, own: bool) -> bool:
    """Whether a failure of a cause that is told is told again: nothing was this week, or its own task fails otherwise."""
    rows = fetch(
        conn,
        "SELECT incident FROM evergreen.mail WHERE coalesce(thread, incident) = %s AND kind = %s",
        (thread.incident, AlertKind.RUN_FAILED),
    )
    told = [str(row["incident"]).rsplit(":", 2)[1:] for row in rows]
    signature = incident.rpartition(":")[2]
    return not any(w == week for w, _ in told) or (own and not any(s == signature for _, s in told))


def recorded_tasks(run_id: str, tries: Mapping[str, int], since: datetime | None) -> set[str]:
    """The tasks of a run whose failure is in the ledger.

    Args:
        run_id: `dag_id/run_id`.
        tries: the last try of a task, where it is known: then only the failure of that try counts.
        since: when the run began or was cleared, aware; for the other tasks failures count that were recorded since then.

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT evidence->>'task_id' AS task, (evidence->>'try_number')::int AS try, decided_at"
            " FROM evergreen.decision WHERE kind = %s AND run_id = %s",
            (DecisionKind.RUN_FAILED.value, run_id),
        )
    return {
        r["task"]
        for r in rows
        if (r["try"] == tries[r["task"]] if r["task"] in tries else since is None or r["decided_at"] >= since)
    }


def worked(subject: str, run_id: str, task_id: str, as_of: datetime) -> bool:
    """End the incident of a task that had failed and has succeeded now; whether a mail is owed for that.

    Args:
        subject, run_id, task_id: see `record`.
        as_of: the as-of time of the run that succeeded.

    Raises:
        TransientError: the warehouse does not answer.
    """
    dag_id = run_id.partition("/")[0]
    prefixes = [f"failed:{dag_id}.{task_id}:"]
    if dag_id.partition("__")[0] in MAIN and task_id == MAIN[dag_id.partition("__")[0]]:
        prefixes.append(f"failed:{dag_id}.(run):")
    with connect() as conn:
        unfinished_tasks.ended(conn, run_id, task_id)
        found = [
            t for p in prefixes for t in threads.open_ones(conn, subject, AlertKind.RUN_FAILED, prefix=p)
        ]
        evidence = RecoveredEvidence(dag_id=dag_id, task=task_id)
        return any(
            [
                threads.end(conn, t, threads.Ending(EndReason.WORKS_AGAIN, evidence), as_of, run_id)
                for t in found
            ]
        )


def bare_message(
    subject: str, run_id: str, task_id: str, error: str, log_url: str, second: BaseException | None = None
) -> EmailMessage:
    """The e-mail of a failure that could not be recorded: needs neither the warehouse nor a spec.

    Args:
        subject: `model/NAME` or `dataset/NAME`.
        run_id: `dag_id/run_id`.
        task_id: which task failed.
        error: why.
        log_url: Airflow's page of the log.
        second: why the failure could not be recorded; None where the ledger has no subject for it.
    """
    message = EmailMessage()
    message["From"] = " ".join(settings.MAIL_FROM.read().split())
    message["To"] = ", ".join(fleet())
    message["Subject"] = " ".join(f"[Evergreen] {run_id.partition('/')[0]} failed in {task_id}".split())[:140]
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid("evergreen", "localhost")
    message["Auto-Submitted"] = "auto-generated"
    text = f"{run_id} failed in task {task_id}.\n\nError: {redact(error)}\n\nLog: {log_url}\n"
    where, address = runbook(AlertKind.RUN_FAILED)
    text += f"Runbook: {address or where}\n"
    if second is not None:
        unwritten = redact(f"{type(second).__name__}: {second}")
        text += (
            f"\nThe failure of {subject} could not be written into the ledger either ({unwritten}), so this e-mail was "
            f"sent directly and may repeat. Check the warehouse first ({typed('status')} for the embedded stack).\n"
        )
    message.set_content(text)
    return message
