"""What the ledger keeps of what people are told: failures, mails, the end of an incident, silences, specs."""

from __future__ import annotations

from pydantic import Field

from evergreen.ledger.evidence.base import Evidence, Part, Time, rare


class FailedRunEvidence(Evidence):
    """Of a task that failed.

    Attributes:
        dag_id, task_id: of Airflow.
        try_number: its last try, counted from 1.
        error: the exception's text without passwords.
        log_url: Airflow's page of the log.
        reason: the code of the error, where it has one.
        message: of a training in a replay: why it failed.
    """

    dag_id: str | None = None
    task_id: str | None = None
    try_number: int | None = None
    error: str | None = None
    log_url: str | None = None
    reason: str | None = rare(None)
    message: str = rare("")


class FailedMailEvidence(Evidence):
    """Of a mail that could not be sent: after how many attempts, why, of which incident, its id in evergreen.mail, and the
    channel where it was no e-mail.
    """

    attempts: int | None = None
    error: str | None = None
    incident: str | None = None
    mail: int | None = None
    channel: str | None = rare(None)


class NewChampion(Part):
    """The change of champion after which a drift was over: id, kind, version and as-of time of the decision."""

    decision: int | None = None
    kind: str | None = None
    version: str | None = None
    as_of: Time | None = None


class RecoveredEvidence(Evidence):
    """Of an incident that has ended.

    Attributes:
        incident: the name of its first mail.
        kind: of that mail.
        classes: what it was told as.
        since: when it began (UTC).
        opened: as of when it was first told.
        ended: when it ended.
        message: of batches: what ended it, in a sentence.
        removed_files: of batches: held back ones whose file is no longer there.
        still_held: of batches, in rows of an earlier release: how many were not published yet.
        dag_id, task: of failures: the task that succeeded.
        windows: of windows: those that show that it is over, as text.
        judgements: ids of their judgements.
        promotion: the change of champion since it was told.
        files: of specs: those that can be used again.
    """

    incident: str | None = None
    kind: str | None = Field(None, alias="of")
    classes: tuple[str, ...] = ()
    since: Time | None = None
    opened: Time | None = None
    ended: Time | None = None
    message: str = rare("")
    removed_files: tuple[str, ...] = ()
    still_held: int | None = rare(None)
    dag_id: str | None = None
    task: str | None = None
    windows: tuple[str, ...] = ()
    judgements: tuple[int, ...] = ()
    promotion: NewChampion | None = rare(None)
    files: tuple[str, ...] = ()


class SilenceEvidence(Evidence):
    """Of a silence, or its end: until when (UTC, by the clock), why, and by whom."""

    until: Time | None = None
    why: str = ""
    by: str = ""


class Mistake(Part):
    """One mistake in a file of specs: where, which value, and what to do."""

    field: str
    value: str | None = None
    remedy: str = ""


class SpecEvidence(Evidence):
    """Of a file of specs that cannot be used.

    Attributes:
        file: which.
        problems: its mistakes.
        message: the first one in a sentence.
        switched_off: the files that cannot be used because of it.
    """

    file: str | None = None
    problems: tuple[Mistake, ...] = ()
    message: str = ""
    switched_off: tuple[str, ...] = ()
