"""How the DAGs send alerts: one e-mail through Airflow's SMTP connection, and what waits in the outbox, on all its ways."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowNotFoundException

from evergreen_airflow.project import Project

log = logging.getLogger("evergreen")


def send(message: Any) -> None:
    """Send one e-mail through the Airflow connection `evergreen_smtp`, or `smtp_default` where there is none.

    Raises:
        SMTPRecipientsRefused: the mail server refused those whom it names; the others have got it.
    """
    from smtplib import SMTPRecipientsRefused

    from airflow.providers.smtp.hooks.smtp import SmtpHook
    from airflow.sdk import BaseHook

    conn_id = "evergreen_smtp"
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        conn_id = "smtp_default"
    with SmtpHook(smtp_conn_id=conn_id) as hook:
        client: Any = hook._smtp_client
        refused = client.send_message(message)
    if refused:
        raise SMTPRecipientsRefused(refused)


def tell_fleet(message: Any) -> None:
    """Send a mail that is in no outbox, and its text to the channels of EVERGREEN_MAIL_TO.

    Raises:
        Exception: one of them did not take it; the others were told all the same.
    """
    from evergreen.alerting import channels

    channels.tell_fleet(message, send)


def deliver(project: Project, subject: str) -> None:
    """Send the e-mails of a subject that wait.

    Raises:
        TransientError: some could not be sent; they wait in `evergreen.mail`, and the next run tries again.
    """
    from evergreen.alerting.delivery import deliver as deliver_outbox
    from evergreen.errors import TransientError

    result = deliver_outbox(project.subject(subject), send, subject=subject)
    log.info("%s: %s", subject, result.sentence())
    if result.failed:
        raise TransientError(
            f"{result.failed} alert(s) of {subject} could not be sent ({'; '.join(result.errors)}); decisions stand, the mails wait "
            "in evergreen.mail and are tried again on the ways that failed. Check the Airflow connection evergreen_smtp (or smtp_default), and "
            "the URLs of the channels"
        )


def deliver_all(project: Project) -> list[str]:
    """Send what waits for any subject; one that cannot be sent does not hold up the others.

    Returns:
        The subjects for which something waited.

    Raises:
        TransientError: some could not be sent.
    """
    from evergreen.alerting.delivery import subjects_waiting
    from evergreen.errors import TransientError
    from evergreen.warehouse.connection import connect

    with connect() as conn:
        subjects = subjects_waiting(conn)
    errors = []
    for subject in subjects:
        try:
            deliver(project, subject)
        except TransientError as error:
            errors.append(str(error))
    if errors:
        raise TransientError("\n".join(errors))
    return subjects


def mails_wait(subject: str) -> bool:
    """Whether e-mails of a subject wait, be it that an earlier run could not send them."""
    from evergreen.alerting.delivery import waiting
    from evergreen.warehouse.connection import connect

    with connect() as conn:
        return waiting(conn, subject) > 0


def notify(project: Project, subject: str) -> Any:
    """The task that sends what waits for a subject; a failing mail server turns it red, and only it."""

    @task(task_id="notify", on_failure_callback=None, on_success_callback=None, retries=3)
    def send_waiting() -> None:
        """Send the e-mails that wait for this subject."""
        deliver(project, subject)

    return send_waiting()
