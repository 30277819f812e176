"""The e-mails that monitoring owes: about drift, estimates of the error, and data that cannot be judged.

A model has at most one open incident of each: drift or estimates, windows that cannot be judged, columns that cannot be read. What goes on is no
mail, what becomes another thing or ends is one, see `evergreen.incidents.threads`; when it has ended, see
`evergreen.monitoring.alarms.recovered`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from evergreen.alert_kinds import AlertKind
from evergreen.incidents import threads
from evergreen.incidents.threads import News, Thread
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason, TriggerReason
from evergreen.monitoring.alarms import recovered
from evergreen.monitoring.alarms.recovered import MonitorRun
from evergreen.monitoring.windows.due_windows import MOST_PER_RUN
from evergreen.monitoring.windows.effects import DATA_PROBLEMS
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, fetch

NOT_JUDGED = (Status.STALE, Status.INSUFFICIENT)


def drift(model: ModelSpec, version: str, signature: str, since: datetime) -> str:
    """The incident of a drift: the same columns and champion in the same unbroken episode are the same incident.

    Args:
        model, version: the champion.
        signature: reason and columns.
        since: start of the first window of the episode; a drift that comes back after healthy windows is told again.
    """
    return f"drift:{model.name}:{version}:{signature}:{since.isoformat()}"


def gave_up(model: ModelSpec, version: str, signature: str, request: Decision) -> str:
    """The incident of a drift that retraining did not help, by the first request for it: told once.

    The signature, since a wider drift, of which a part was given up before, can have the same first request.
    """
    return f"drift:{model.name}:{version}:gave_up:{signature}:{request.id}"


def tell_drift(
    conn: Connection,
    model: ModelSpec,
    decision: Decision,
    incident: str,
    hits: Sequence[Judgement],
    more: Mapping[str, Any] | None = None,
    *,
    judgements: Sequence[Judgement] = (),
) -> bool:
    """Owe the mail of a drift; the ledger row holds the numbers, `more` joins the mail's context.

    Args:
        conn: the transaction of the decision.
        model: whose.
        decision: the request or the suppression.
        incident: its name.
        hits: the windows that fulfil the rule, oldest first.
        more: joins the context; with `gave_up` people are told whatever was told before, once for each cause.
        judgements: all windows of the champion, oldest first.

    Returns:
        False if people know already.
    """
    newest, told = hits[-1], RetrainEvidence.of(decision)
    since = told.since or hits[0].window_start
    given_up = bool(more and more.get("gave_up"))
    if given_up:
        answer = {"gave_up", *(f"gave_up:{cause}" for cause in told.causes)}
    else:
        answer = {decision.reason if decision.kind is DecisionKind.RETRAIN_SUPPRESSED else "request"}
    news = News(
        incident=incident,
        subject=model_subject(model.name),
        kind=AlertKind.DRIFT,
        decision_id=decision.id,
        context={
            "judgements": [j.id for j in hits],
            "windows": [str(j.window) for j in hits],
            "window_start": newest.window_start.isoformat(),
            "violations": _violations(newest),
            **(more or {}),
        },
        as_of=decision.as_of,
        classes=frozenset({*told.reasons, *answer}),
        details=frozenset(told.drifted),
        urgent=given_up,
        since=since,
    )
    run = MonitorRun(conn, model, judgements, decision.as_of, decision.run_id)
    return _tell(run, news, since, newest.version, decision)


def tell_estimate(
    conn: Connection,
    model: ModelSpec,
    hits: Sequence[Judgement],
    since: datetime,
    judgements: Sequence[Judgement],
    as_of: datetime,
    run_id: str,
) -> bool:
    """Owe the mail of an early alarm: a drift of which only estimates tell. No row of the ledger stands for it.

    Args:
        conn: the transaction, with the model's lock.
        model: whose.
        hits: the windows whose estimates fulfil the rule, oldest first.
        since: start of the first window of their run.
        judgements: all windows of the champion, oldest first.
        as_of, run_id: of the run.

    Returns:
        False if people know already.
    """
    newest, reason = hits[-1], TriggerReason.ESTIMATED_PERFORMANCE.value
    news = News(
        incident=f"estimate:{model.name}:{newest.version}:{since.isoformat()}",
        subject=model_subject(model.name),
        kind=AlertKind.DRIFT,
        decision_id=None,
        context={
            "reasons": [reason],
            "version": newest.version,
            "judgements": [j.id for j in hits[-MOST_PER_RUN:]],
            "windows": [str(j.window) for j in hits],
            "window_start": newest.window_start.isoformat(),
            "violations": _violations(newest),
            "as_of": as_of.isoformat(),
            "run_id": run_id,
        },
        as_of=as_of,
        classes=frozenset({reason}),
        details=frozenset(
            f"{v.kind.value}:{v.column}" for v in newest.violations if v.kind is What.ESTIMATED_PERFORMANCE
        ),
        since=since,
    )
    return _tell(MonitorRun(conn, model, judgements, as_of, run_id), news, since, newest.version)


def _tell(
    run: MonitorRun, news: News, since: datetime, version: str, decision: Decision | None = None
) -> bool:
    """Owe the mail of a drift, in the thread of the open one; `decision` is the one about it, where there is one."""
    thread = threads.newest(run.conn, news.subject, news.kind, news.as_of)
    if not _told_before(run.conn, news):
        thread = recovered.end_unnoticed(run, version, thread, since, decision)
    return threads.tell(run.conn, news, thread, recovered.relapse(run.model))


def tell_data_problems(
    conn: Connection, model: ModelSpec, judgements: Sequence[Judgement], as_of: datetime, run_id: str
) -> list[str]:
    """Owe a mail when windows could not be judged, or columns not be read, and one when they are again.

    The two are incidents of their own, so that a feed that stops again is told though a column was never readable. An
    episode is an unbroken run of windows with the same finding; a window that could not be judged says nothing about its
    columns. An episode that follows on another of an open incident is told when it is of another kind.

    Args:
        conn: the transaction of the policy's decision.
        model: whose windows.
        judgements: of the present champion, oldest first.
        as_of, run_id: of the run that met them.

    Returns:
        The incidents that were new.
    """
    lately = {j.window_start for j in judgements[-max(model.monitoring.trigger.n, MOST_PER_RUN) :]}
    told, subject = [], model_subject(model.name)
    judged = [j for j in judgements if not _status(j)]
    for finding, windows, classes, over in (
        (_status, judgements, frozenset(s.value for s in NOT_JUDGED), EndReason.DATA_BACK),
        (_unreadable, judged, frozenset({What.UNREADABLE.value}), EndReason.COLUMNS_BACK),
    ):
        for name, episode in _episodes(windows, finding):
            newest = episode[-1]
            if newest.window_start not in lately:
                continue
            status = name.partition(":")[0]
            news = News(
                incident=f"data:{model.name}:{status}:{episode[0].window_start.isoformat()}",
                subject=subject,
                kind=AlertKind.DATA_PROBLEM,
                decision_id=None,
                context={
                    "status": status,
                    "version": newest.version,
                    "judgements": [j.id for j in episode[-MOST_PER_RUN:]],
                    "window_start": newest.window_start.isoformat(),
                    "window_end": newest.window_end.isoformat(),
                    "rows": newest.rows,
                    "violations": _violations(newest),
                    "as_of": as_of.isoformat(),
                    "run_id": run_id,
                },
                as_of=as_of,
                classes=frozenset({status}),
                details=frozenset({name}),
                since=episode[0].window_start,
                seen=newest.window_end,
            )
            if _told_before(conn, news):
                continue
            if threads.tell(conn, news, _newest(conn, subject, classes, as_of), recovered.relapse(model)):
                told.append(news.incident)
        thread = _newest(conn, subject, classes, as_of)
        if thread is not None and thread.end is None:
            run = MonitorRun(conn, model, windows, as_of, run_id)
            recovered.end_data_problem(run, thread, finding, over)
    return told


def _newest(conn: Connection, subject: str, classes: frozenset[str], as_of: datetime) -> Thread | None:
    """The newest data problem of some classes, open or not."""
    found = threads.every(conn, subject, AlertKind.DATA_PROBLEM, as_of)
    return next((thread for thread in found if thread.classes & classes), None)


def _told_before(conn: Connection, news: News) -> bool:
    """Whether a mail of the same name is owed already: an episode lies among the newest windows for a while."""
    return bool(fetch(conn, "SELECT 1 FROM evergreen.mail WHERE incident = %s", (news.incident,)))


def _episodes(
    judgements: Sequence[Judgement], finding: Callable[[Judgement], str]
) -> list[tuple[str, list[Judgement]]]:
    found: list[tuple[str, list[Judgement]]] = []
    for judged in judgements:
        name = finding(judged)
        if found and found[-1][0] == name:
            found[-1][1].append(judged)
        else:
            found.append((name, [judged]))
    return [(name, episode) for name, episode in found if name]


def _status(judged: Judgement) -> str:
    return judged.status.value if judged.status in NOT_JUDGED else ""


def _unreadable(judged: Judgement) -> str:
    columns = sorted({v.column for v in judged.violations if v.kind is What.UNREADABLE})
    return f"unreadable:{'+'.join(columns)}" if columns else ""


def _violations(judged: Judgement) -> list[dict[str, Any]]:
    kept = DATA_PROBLEMS if judged.status in NOT_JUDGED else tuple(What)
    return [
        {
            "kind": v.kind.value,
            "column": v.column,
            "statistic": v.statistic,
            "value": v.value,
            "limit": v.limit,
            "detail": v.detail,
        }
        for v in judged.violations
        if v.kind in kept
    ]
