"""A task that failed for good: its ledger row, its incident, and the bare mail for when even the ledger is away."""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage

from evergreen import ledger, settings
from evergreen.alerting.outbox import raise_incident
from evergreen.warehouse.connection import connect, fetch


def record(
    subject: str, run_id: str, task_id: str, try_number: int, error: str, log_url: str, as_of: datetime
) -> None:
    """Append RUN_FAILED and raise its incident; a failure of the same DAG before its next decision is the same one.

    Args:
        subject: `dataset/NAME` or `model/NAME`.
        run_id: "dag_id/run_id".
        task_id: the task that failed.
        try_number: which try it was.
        error: its message, one line.
        log_url: address of its log.
        as_of: the run's as-of time.

    Raises:
        TransientError: the warehouse cannot be reached.
    """
    dag_id = run_id.partition("/")[0]
    evidence = {
        "dag_id": dag_id,
        "task_id": task_id,
        "try_number": try_number,
        "error": error,
        "log_url": log_url,
    }
    with connect() as conn:
        decision = ledger.append(
            conn,
            ledger.Decision(
                as_of=as_of,
                subject=subject,
                kind=ledger.Kind.RUN_FAILED,
                reason=f"{dag_id}.{task_id}"[:200],
                run_id=run_id,
                dedupe_key=f"failed:{run_id}:{task_id}:{try_number}",
                evidence=evidence,
            ),
        )
        settled = fetch(
            conn,
            "SELECT coalesce(max(id), 0) AS id FROM evergreen.decision WHERE subject = %s AND kind <> ALL(%s)",
            (subject, [ledger.Kind.RUN_FAILED.value, ledger.Kind.MAIL_FAILED.value]),
        )[0]["id"]
        raise_incident(
            conn,
            f"failed:{dag_id}.{task_id}:{settled}",
            subject,
            "run_failed",
            decision.id,
            {**evidence, "run_id": run_id},
        )


def bare_message(
    subject: str, run_id: str, task_id: str, error: str, log_url: str, second: Exception
) -> EmailMessage:
    """The mail about a failure that could not be recorded, because recording it failed with `second`."""
    message = EmailMessage()
    message["From"] = settings.MAIL_FROM.read()
    message["To"] = settings.MAIL_TO.read()
    message["Subject"] = f"[Evergreen] {subject}: {task_id} failed, and the ledger cannot be reached"
    message.set_content(
        f"Run: {run_id}\nTask: {task_id}\nError: {error}\nLog: {log_url}\n\n"
        f"This failure is not in the ledger, because: {' '.join(str(second).split())[:500]}\n"
        "Next step: `make status`; when the warehouse is back, clear the task.\n"
    )
    return message
