"""What a run came to, in words: its decisions, the rows, the mails that it owed, and why a task failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.errors import EvergreenError
from evergreen.health.dataset import rule_in_words
from evergreen.incidents.recipients import EMAIL, ways
from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import BatchEvidence, TrainedEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs, metric_name
from evergreen.stack.airflow_api import AirflowApi
from evergreen.terminal.phrases import many
from evergreen.warehouse.connection import Connection, connect, fetch

MOST_LINES = 20
MOST_FAILURES = 5
_MAILS = (
    "SELECT m.subject, m.kind, m.sent_at, m.held_by IS NOT NULL AS held, (SELECT string_agg(d.last_error, '; ') FROM evergreen.delivery AS d"
    " WHERE d.mail = m.id AND d.sent_at IS NULL) AS error FROM evergreen.mail AS m WHERE m.decision_id = ANY(%s) ORDER BY m.id"
)


@dataclass(frozen=True)
class FailedTask:
    """A task that failed: its name, after how many tries, its last error, the page of its log, and its file where it lies here."""

    task: str
    tries: int
    error: str
    page: str
    file: str | None


@dataclass(frozen=True)
class OwedMail:
    """A mail that the run owed: whose, what it tells, to whom, when it went out (None: it waits), why it did not."""

    subject: str
    kind: str
    to: tuple[str, ...]
    sent: datetime | None
    held: bool
    error: str | None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        failed: the tasks that did.
        not_needed: tasks that looked and had nothing to do, with why.
        decisions: rows of the ledger, oldest first.
        mails: that these owed.
        results: what tasks handed on that no decision tells, a line each.
        unread: why the ledger could not be read; else empty.
    """

    failed: tuple[FailedTask, ...]
    not_needed: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    mails: tuple[OwedMail, ...]
    results: tuple[str, ...]
    unread: str


def of_run(api: AirflowApi, specs: Specs, dag_id: str, run_id: str, logs: Path | None = None) -> Outcome:
    """What a run that has ended came to.

    Args:
        api: a logged-in client.
        specs: name who gets the mails.
        dag_id, run_id: of Airflow.
        logs: the folder of Airflow's logs, where it is on this machine.
    """
    tasks = api.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    ran = [task for task in tasks if task["try_number"]]  # what never ran has nothing to say
    decisions, mails, unread = decided(specs, dag_id, run_id)
    return Outcome(
        failed=tuple(failure(api, task, logs) for task in ran if task["state"] == "failed"),
        not_needed=tuple((task["task_id"], reason(api, task)) for task in ran if task["state"] == "skipped"),
        decisions=decisions,
        mails=mails,
        results=tuple(line for task in ran if task["state"] == "success" for line in result(api, task)),
        unread=unread,
    )


def failure(api: AirflowApi, task: Mapping[str, Any], logs: Path | None) -> FailedTask:
    """Why a task failed, and where that stands."""
    page = f"{api.url}/dags/{task['dag_id']}/runs/{task['dag_run_id']}/tasks/{task['task_id']}?try_number={task['try_number']}"
    file = None
    if logs is not None:
        path = (
            logs / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}" / f"task_id={task['task_id']}"
            / f"attempt={task['try_number']}.log"
        )  # fmt: skip
        file = str(path) if path.exists() else None
    return FailedTask(str(task["task_id"]), int(task["try_number"]), reason(api, task), page, file)


def reason(api: AirflowApi, task: Mapping[str, Any]) -> str:
    """Why a task failed or had nothing to do, from the end of its log."""
    path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
    try:
        answer = api.call("GET", path, params={"full_content": True}, headers={"Accept": "application/json"})
    except (EvergreenError, requests.HTTPError) as error:
        return f"its log cannot be read ({error})"
    for event in reversed(answer["content"]):
        if not isinstance(event, dict):
            continue
        if detail := event.get("error_detail"):
            return f"{detail[0]['exc_value']} ({detail[0]['exc_type']})"
        if event.get("event") == "Skipping task.":
            return str(event.get("reason", ""))
        if signal := event.get("signal_name"):
            return f"its process was killed by {signal}, mostly for want of memory"
    return "its log does not say why"


def decided(specs: Specs, dag_id: str, run_id: str) -> tuple[tuple[Decision, ...], tuple[OwedMail, ...], str]:
    """The decisions of a run, oldest first, and the mails that they owed; else why the warehouse cannot tell."""
    try:
        with connect(timeout_s=10) as conn:
            found = ledger.of_run(conn, f"{dag_id}/{run_id}")
            return tuple(found), _mails(conn, specs, [d.id or 0 for d in found]), ""
    except EvergreenError as error:
        return (), (), str(error)


def _mails(conn: Connection, specs: Specs, ids: Sequence[int]) -> tuple[OwedMail, ...]:
    found = []
    for row in fetch(conn, _MAILS, (list(ids),)) if ids else []:
        kind = AlertKind.of(row["kind"])
        try:
            to = ways(specs, row["subject"], kind)
        except EvergreenError:
            to = {}
        found.append(
            OwedMail(
                row["subject"], kind.traits.words if kind else row["kind"].replace("_", " "),
                (*to.get(EMAIL, ()), *(way for way in to if way != EMAIL)), row["sent_at"], row["held"], row["error"],
            )
        )  # fmt: skip
    return tuple(found)


def lines(found: Outcome) -> list[str]:
    """What came out as lines for a terminal; those that belong to the one before begin with spaces."""
    told: list[str] = []
    for task in found.failed:
        told.append(
            f"{task.task} failed{f' after {task.tries} tries' if task.tries > 1 else ''}: {task.error}"
        )
        if task.file:
            told.append(f"  Log: {task.file}")
        told.append(f"  {'Page' if task.file else 'Log'}: {task.page}")
        told.append("  Mend what the error names, then run it again, or clear the task on its page.")
    if found.unread:
        told.append(f"The ledger cannot be read: {found.unread}")
    of_ledger = [line for decision in found.decisions for line in said(decision)]
    told += of_ledger[:MOST_LINES]
    if len(of_ledger) > MOST_LINES:
        told.append(f"and {len(of_ledger) - MOST_LINES} more lines in evergreen.decision")
    told += found.results[:MOST_LINES]
    # One that others followed was not the end of the run.
    told += [f"Nothing to do in {task}: {why}" for task, why in found.not_needed]
    return told + [mail_said(mail) for mail in found.mails[:MOST_LINES]]


def said(decision: Decision) -> list[str]:
    """One decision as lines: what was decided and why, its numbers against their limits."""
    if decision.kind in (DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_QUARANTINED):
        return _batch(decision)
    if decision.kind is DecisionKind.RUN_FAILED:
        return []  # the task's own error stands above
    name = decision.subject.partition("/")[2]
    version = f" v{decision.version}" if decision.version else ""
    told = words.sentence(decision.kind.value, decision.reason, decision.evidence)
    found = [f"{name}: {words.kind(decision.kind.value)}{version}: {told}"]
    if isinstance(decision.evidence, TrainedEvidence) and (metric := decision.evidence.metric):
        values = {
            who: value
            for who in ("challenger", "champion", "baseline")
            if (value := decision.evidence.metrics.get(who, {}).get(metric)) is not None
        }
        if values:
            shown = ", ".join(f"{who} {words.num(value)}" for who, value in values.items())
            found.append(f"  {metric_name(metric)} on the same rows: {shown}")
    return found


def _batch(decision: Decision) -> list[str]:
    batch = BatchEvidence.shown(decision)
    held = f", {batch.rows_held:,} held back" if batch.rows_held else ""
    counts = (
        f"{many(batch.rows_read, 'row')} read, {batch.rows_new:,} new, {batch.rows_changed:,} changed{held}"
    )
    if decision.kind is DecisionKind.BATCH_PUBLISHED:
        found = [f"{batch.file}: published: {counts}"]
    else:
        found = [f"{batch.file}: held back, {words.reason(decision.reason)}: {counts}"]
    for failure in batch.failures[:MOST_FAILURES]:
        where = f"{failure.column}: " if failure.column else ""
        remedy = f". {failure.remedy[:1].upper()}{failure.remedy[1:]}" if failure.remedy else ""
        found.append(
            f"  {where}must {rule_in_words(failure.expectation)}: {failure.limit}; found {failure.observed}{remedy}"
        )
    return found


def mail_said(mail: OwedMail) -> str:
    """What became of a mail."""
    name = mail.subject.partition("/")[2] or mail.subject
    to = f", to {', '.join(mail.to)}" if mail.to else ""
    if mail.sent:
        return f"Mail sent: {mail.kind} ({name}){to}"
    if mail.held:
        return f"Mail kept back by a silence: {mail.kind} ({name})"
    return f"Mail waits: {mail.kind} ({name}){to}{f'; {mail.error}' if mail.error else ''}"


def result(api: AirflowApi, task: Mapping[str, Any]) -> list[str]:
    """What a task that lands, scores, judges or replays handed on, which no decision tells."""
    if task["task_id"] not in ("land", "score", "judge", "replay"):
        return []
    path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/xcomEntries/return_value"
    try:
        value = api.call("GET", path)["value"]
    except (EvergreenError, requests.HTTPError):
        return []
    if not isinstance(value, dict):
        return []
    if task["task_id"] == "land":
        waits = list((value.get("waiting") or {}).items())
        more = [f"and {len(waits) - MOST_LINES} more files wait"] if len(waits) > MOST_LINES else []
        return [
            f"{file}: waits, {why}; the next run takes it when it is finished"
            for file, why in waits[:MOST_LINES]
        ] + more
    if task["task_id"] == "score":
        return [
            f"{many(int(value['rows']), 'prediction')} by v{value['version']}, of rows known by {words.when(value['as_of'])}"
        ]
    if task["task_id"] == "judge":
        windows = value.get("windows") or []
        asked = value.get("request")
        told = [f"window {w}" for w in windows[:MOST_LINES]] or ["no window was due"]
        return [
            *told,
            f"a retraining is asked for (request {asked})" if asked else "no retraining is asked for",
        ]
    return [f"{name}: {path}" for name, path in value.get("files", {}).items()]
