"""The e-mails that monitoring owes: one for a drift, one for an episode of data that cannot be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from evergreen.alerting.outbox import raise_incident
from evergreen.ledger import Decision, model_subject
from evergreen.monitoring.judgement import HELD_BACK, Judgement, Status, What
from evergreen.monitoring.windows import MOST_PER_RUN
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection

NOT_JUDGED = (Status.STALE, Status.INSUFFICIENT)


def drift(model: ModelSpec, version: str, signature: str, since: datetime) -> str:
    """The incident of a drift: the same columns and champion in the same unbroken episode are the same incident.

    Args:
        model, version: the champion.
        signature: reason and columns.
        since: start of the first window of the episode; a drift that comes back after healthy windows is told again.
    """
    return f"drift:{model.name}:{version}:{signature}:{since.isoformat()}"


def gave_up(model: ModelSpec, version: str, request: Decision) -> str:
    """The incident of a drift that retraining did not help, by the first request for it: told once."""
    return f"drift:{model.name}:{version}:gave_up:{request.id}"


def tell_drift(
    conn: Connection,
    model: ModelSpec,
    decision: Decision,
    incident: str,
    hits: Sequence[Judgement],
    more: Mapping[str, Any] | None = None,
) -> bool:
    """Owe the mail of a drift; the ledger row holds the numbers, `more` joins the mail's context.

    False if people know already.
    """
    newest = hits[-1]
    context = {
        "judgements": [j.id for j in hits],
        "windows": [str(j.window) for j in hits],
        "window_start": newest.window_start.isoformat(),
        "violations": _violations(newest),
        **(more or {}),
    }
    return raise_incident(conn, incident, model_subject(model.name), "drift", decision.id, context)


def tell_data_problems(
    conn: Connection, model: ModelSpec, judgements: Sequence[Judgement], as_of: datetime, run_id: str
) -> list[str]:
    """Owe a mail for each episode of windows that could not be judged, or of columns that could not be read.

    An episode is an unbroken run of windows with the same finding and is told once, when it is first met.

    Args:
        conn: the transaction of the policy's decision.
        model: whose windows.
        judgements: of the present champion, oldest first.
        as_of, run_id: of the run that met them.

    Returns:
        The incidents that were new.
    """
    lately = {j.window_start for j in judgements[-max(model.monitoring.trigger.n, MOST_PER_RUN) :]}
    told = []
    for finding in (_status, _unreadable):
        for name, episode in _episodes(judgements, finding):
            newest = episode[-1]
            if newest.window_start not in lately:
                continue
            incident = f"data:{model.name}:{name.partition(':')[0]}:{episode[0].window_start.isoformat()}"
            context = {
                "status": name.partition(":")[0],
                "version": newest.version,
                "judgements": [j.id for j in episode[-MOST_PER_RUN:]],
                "window_start": newest.window_start.isoformat(),
                "window_end": newest.window_end.isoformat(),
                "since": episode[0].window_start.isoformat(),
                "rows": newest.rows,
                "violations": _violations(newest),
                "as_of": as_of.isoformat(),
                "run_id": run_id,
            }
            if raise_incident(conn, incident, model_subject(model.name), "data_problem", None, context):
                told.append(incident)
    return told


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
    kept = (*HELD_BACK, What.UNREADABLE) if judged.status in NOT_JUDGED else tuple(What)
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
