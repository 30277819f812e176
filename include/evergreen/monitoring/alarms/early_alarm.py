"""The early alarm: estimates of the error that are beyond the limit before the labels are in.

The same rule as the trigger policy's (m of the last n judged windows, and the newest), but all it does is to tell people.
A retraining is asked for by the policy, and only where the spec says `estimate_requests`; then its mail tells.

It is an incident like a drift, and joins the one that is open: see `raised.tell_estimate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evergreen import ledger, registry
from evergreen.monitoring.alarms import raised
from evergreen.monitoring.windows import judgement
from evergreen.monitoring.windows.effects import estimated, first_of_run, m_of_n
from evergreen.monitoring.windows.judgement import Judgement, Status
from evergreen.registry.in_office import in_office_since
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import connect


def tell(model: ModelSpec, as_of: datetime, run_id: str) -> bool:
    """Owe the mail of an early alarm, unless people know of it.

    Args:
        model: whose champion was judged.
        as_of: of the run; judgements of a later time do not count.
        run_id: `dag_id/run_id`.

    Returns:
        Whether a mail is owed.
    """
    performance = model.monitoring.performance
    if not performance.estimate or performance.estimate_requests:
        return False
    with connect() as conn:
        ledger.lock(conn, model.name)
        champion = registry.champion(conn, model.name, repair=False, as_of=as_of)
        if champion is None:
            return False
        since = in_office_since(conn, model, champion, as_of)
        judgements = judgement.newest(
            conn, model.name, champion.version, ends_after=since, as_of=as_of, limit=1000
        )
        hits = alarm(model, judgements)
        if not hits:
            return False
        began = first_of_run(judgements, hits[0], estimated, _fine).window_start
        return raised.tell_estimate(conn, model, hits, began, judgements, as_of, run_id)


def alarm(model: ModelSpec, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The windows whose estimates fulfil the rule, oldest first; none where they do not.

    Args:
        model: its trigger's settings.
        judgements: the newest revision of each window of the champion, oldest first.
    """
    judged = [j for j in judgements if j.status in (Status.OK, Status.VIOLATION)]
    return m_of_n(model, judged, estimated)


def _fine(judged: Judgement) -> bool:
    return judged.status is Status.OK
