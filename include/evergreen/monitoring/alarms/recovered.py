"""When a drift, or an episode of data that could not be judged, has ended.

A drift has ended when no retrain request is open and the newest judged windows are ok: the first one of a champion that
came after the drift, else as many in a row as the trigger needs to open a request (`trigger.m`). Where the served error
was part of the drift, it must have been judged in as many windows, and be within its limit: a window whose labels are not
in says nothing about it. Where estimates of the error were part of it, the error must have been estimated or judged
likewise. Windows that could not be judged have ended when the newest one was judged, whatever came out; columns that cannot be
read, when they are read in the newest window that was judged.

A drift that was away in between, such as in every second window, has ended only after more windows than it was away. What
ended and came back lately needs twice as many, see `evergreen.incidents.threads.findings_to_end`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.incidents import threads
from evergreen.incidents.threads import Ending, Thread
from evergreen.ledger import Decision
from evergreen.ledger.evidence import NewChampion, RecoveredEvidence, RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason, TriggerReason
from evergreen.monitoring.windows.effects import effects, estimated
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, fetch

JUDGED = (Status.OK, Status.VIOLATION)
LATELY_WINDOWS = 30
FEWEST_WINDOWS = 6


@dataclass(frozen=True)
class MonitorRun:
    """A run of the monitor for a model.

    Attributes:
        conn: its transaction, with the model's lock.
        model: whose.
        judgements: the newest revision of each window of the champion, oldest first.
        as_of, run_id: of the run.
    """

    conn: Connection
    model: ModelSpec
    judgements: Sequence[Judgement]
    as_of: datetime
    run_id: str


def relapse(model: ModelSpec) -> timedelta:
    """How soon after its end a drift or data problem that comes back is the same incident."""
    windows = max(2 * model.monitoring.trigger.n, FEWEST_WINDOWS)
    return max(model.monitoring.trigger.cooldown, windows * model.monitoring.window)


def end_drift(
    conn: Connection,
    model: ModelSpec,
    version: str,
    judgements: Sequence[Judgement],
    as_of: datetime,
    run_id: str,
) -> bool:
    """End the open drift of a model in the ledger, with its mail, if it is over; in the caller's transaction.

    Args:
        conn: the transaction, with the model's lock.
        model: whose.
        version: the champion.
        judgements: the newest revision of each window of the champion, oldest first.
        as_of, run_id: of the run.

    Returns:
        Whether a mail is owed.
    """
    thread = threads.newest(conn, ledger.model_subject(model.name), AlertKind.DRIFT, as_of)
    if thread is None or thread.end is not None or not judgements:
        return False
    if _request_open(conn, model, as_of):
        return False
    found = _healthy(model, judgements, _needed(conn, model, version, thread, as_of), _told_by(thread))
    if not found or judgements[-1] is not found[-1]:
        return False
    return threads.end(conn, thread, _ending(conn, model, version, thread, found, as_of), as_of, run_id)


def end_unnoticed(
    run: MonitorRun,
    version: str,
    thread: Thread | None,
    since: datetime,
    decision: Decision | None = None,
) -> Thread | None:
    """End an open drift that was over long before another one began, and nobody looked; without a mail.

    So it is after a pause of the monitor: the drift of now is then no continuation. One that was over for less than
    `relapse` goes on.

    Args:
        run: which met the drift of now.
        version: the champion.
        thread: the newest drift.
        since: start of the first window of the drift of now.
        decision: about it; None where only estimates tell of it.

    Returns:
        The newest drift, as it is then.
    """
    conn, model, as_of = run.conn, run.model, run.as_of
    if thread is None or thread.end is not None or _request_open(conn, model, as_of, but=decision):
        return thread
    before = [j for j in run.judgements if j.window_end > thread.opened and j.window_start < since]
    needed = _needed(conn, model, version, thread, as_of, but=decision, before=since)
    begun = (before[: end + 1] for end in range(len(before)))
    found = next((ok for past in begun if (ok := _healthy(model, past, needed, _told_by(thread)))), ())
    if not found or since - found[-1].window_end < relapse(model):
        return thread
    ending = _ending(conn, model, version, thread, found, as_of)
    threads.end(conn, thread, ending, as_of, run.run_id, mail=False)
    return threads.newest(conn, thread.subject, thread.kind, as_of)


def end_data_problem(
    run: MonitorRun, thread: Thread, finding: Callable[[Judgement], str], reason: EndReason
) -> bool:
    """End an open data problem, with its mail, if the newest windows do not have it.

    Args:
        run: of the monitor; its judgements are those of the windows that can have the problem.
        thread: the data problem.
        finding: names it in a window; empty where it is not.
        reason: code of its end.
    """
    needed = threads.findings_to_end(run.conn, thread, 1, LATELY_WINDOWS * run.model.monitoring.window)
    found = run.judgements[-needed:]
    if len(found) < needed or any(map(finding, found)):
        return False
    ending = Ending(reason, _recovered_evidence(found), found[-1].version, found[0].window_start)
    return threads.end(run.conn, thread, ending, run.as_of, run.run_id)


def _request_open(conn: Connection, model: ModelSpec, as_of: datetime, but: Decision | None = None) -> bool:
    """Whether a request about a drift is open; one for another reason keeps no drift from being over."""
    requests = [d for d in ledger.open_requests(conn, model.name) if RetrainEvidence.of(d).windows]
    return any(d.as_of <= as_of and (but is None or d.id != but.id) for d in requests)


def _needed(
    conn: Connection,
    model: ModelSpec,
    version: str,
    thread: Thread,
    as_of: datetime,
    but: Decision | None = None,
    before: datetime | None = None,
) -> int:
    """How many windows in a row must be ok: more than ever lay between two windows in violation of this drift.

    `but` is the decision about the drift of now, which is not yet known to be the same; `before` the start of its first
    window.
    """
    about = [
        d
        for d in ledger.find(
            conn,
            thread.subject,
            (DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED),
            as_of=as_of,
        )
        if d.as_of >= thread.opened and RetrainEvidence.of(d).windows and (but is None or d.id != but.id)
    ]
    estimates = _estimated(conn, model, thread, before or as_of, as_of)
    watched = {d.version for d in about} | {watched for watched, _ in estimates}
    base = model.monitoring.trigger.m if version in watched else 1
    starts = {window.start for d in about for window in RetrainEvidence.of(d).windows}
    hits = sorted(starts | {start for _, start in estimates})
    apart = max((b - a for a, b in pairwise(hits)), default=timedelta(0))
    patience = threads.findings_to_end(conn, thread, base, LATELY_WINDOWS * model.monitoring.window)
    return max(patience, apart // model.monitoring.window)


def _estimated(
    conn: Connection, model: ModelSpec, thread: Thread, before: datetime, as_of: datetime
) -> set[tuple[str, datetime]]:
    """The windows whose estimates are of this incident: the version that was watched, and the start.

    No row of the ledger names them. A window counts though its labels said later that it was fine: so do those of a
    request.
    """
    if TriggerReason.ESTIMATED_PERFORMANCE.value not in thread.classes:
        return set()
    rows = fetch(
        conn,
        "SELECT DISTINCT version, window_start FROM evergreen.window_judgement WHERE model = %s"
        " AND window_start >= %s AND window_start < %s AND as_of <= %s AND violations @> %s::jsonb",
        (model.name, thread.since, before, as_of, f'[{{"kind": "{What.ESTIMATED_PERFORMANCE.value}"}}]'),
    )
    return {(row["version"], row["window_start"]) for row in rows}


def _told_by(thread: Thread) -> tuple[str, ...]:
    """By which states of a window's error a drift can be seen to be over; none where the error was no part of it."""
    if TriggerReason.PERFORMANCE.value in thread.classes:
        return ("judged",)
    if TriggerReason.ESTIMATED_PERFORMANCE.value in thread.classes:
        return ("judged", "estimated")
    return ()


def _healthy(
    model: ModelSpec, judgements: Sequence[Judgement], needed: int, told_by: Sequence[str]
) -> tuple[Judgement, ...]:
    """The newest windows, `needed` of them, if they show that a drift is over; else none."""
    found = tuple(j for j in judgements if j.status in JUDGED)[-needed:]
    if len(found) < needed or any(j.status is not Status.OK for j in found):
        return ()
    if told_by:
        seen = [j for j in judgements if any(m.state in told_by for m in j.metrics.values())][-needed:]
        if len(seen) < needed or any(effects(model, j, (What.PERFORMANCE,)) or estimated(j) for j in seen):
            return ()
    return found


def _ending(
    conn: Connection,
    model: ModelSpec,
    version: str,
    thread: Thread,
    found: Sequence[Judgement],
    as_of: datetime,
) -> Ending:
    changes = ledger.champions(conn, model.name, as_of)
    change = changes[0] if changes and changes[0].as_of >= thread.opened else None
    evidence = _recovered_evidence(found)
    if change is not None:
        promotion = NewChampion(
            decision=change.id,
            kind=change.kind.value,
            version=change.version,
            as_of=change.as_of,
        )
        evidence = evidence.joined(RecoveredEvidence(promotion=promotion))
    ended = max(found[0].window_start, thread.since)
    return Ending(EndReason.NEW_CHAMPION if change else EndReason.WINDOWS_OK, evidence, version, ended)


def _recovered_evidence(found: Sequence[Judgement]) -> RecoveredEvidence:
    return RecoveredEvidence(
        windows=tuple(f"{j.window_start:%Y-%m-%d %H:%M} to {j.window_end:%Y-%m-%d %H:%M}" for j in found),
        judgements=tuple(j.id for j in found if j.id is not None),
    )
