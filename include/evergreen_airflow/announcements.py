"""What a task hands to those after it, and the events by which a DAG wakes the next one."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow.sdk import Asset, AssetAlias, task
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from evergreen_airflow.callbacks import Callbacks

log = logging.getLogger("evergreen")


def hand_on(context: dict[str, Any], news: dict[str, Any], **due: bool) -> dict[str, Any]:
    """End a task with its result, and skip those tasks after it that have nothing to do.

    What is skipped here needs no process of its own to find that out.

    Args:
        context: the task's.
        news: the result; the XCom that the tasks after it and people read.
        due: by the id of a task directly after this one, whether it has something to do.

    Raises:
        DownstreamTasksSkipped: how Airflow is told; the task succeeds.
    """
    idle = [task_id for task_id, has_work in due.items() if not has_work]
    if not idle:
        return news
    log.info("nothing to do for %s", ", ".join(idle))
    context["ti"].xcom_push(key="return_value", value=news)  # a task that raises returns nothing
    raise DownstreamTasksSkipped(tasks=idle)


def owed(asset: str, own: bool, run_as_of: datetime) -> dict[str, Any]:
    """What `announce` needs to know: whether an event is due, of this run or left by one that died, and as of when.

    Args:
        asset: see `evergreen.ledger.events.owe`.
        own: whether this run has something to tell, also if it told it in an earlier try.
        run_as_of: as-of time of this run.
    """
    from evergreen.ledger import events
    from evergreen.warehouse.connection import connect

    with connect() as conn:
        left = events.owed(conn, asset)
    newest = max(run_as_of, left.as_of) if left else run_as_of
    return {"due": own or left is not None, "upto": left.upto if left else 0, "as_of": newest.isoformat()}


def forget_event(asset: Asset, alias: AssetAlias | None = None) -> Any:
    """The callback that notes that Airflow has an event: called once the task's success, and with it the event, is stored.

    Args:
        asset: whose event it is.
        alias: through which the task emits it, where there may be none.
    """

    def forget(context: dict[str, Any]) -> None:
        from evergreen.ledger import events
        from evergreen.warehouse.connection import connect

        try:
            told = context["outlet_events"]
            extras = (
                [told[asset].extra] if alias is None else [e.extra for e in told[alias].asset_alias_events]
            )
            with connect() as conn:
                for extra in extras:
                    events.forget(conn, _owed_name(asset), int(extra["upto"]))
        except Exception:
            log.exception(
                "that %s was announced could not be noted; the next run announces it again", asset.name
            )

    return forget


def _owed_name(asset: Asset) -> str:
    return asset.name.replace("_", "/", 1)


def announce(callbacks: Callbacks, asset: Asset, *, unless: str, task_id: str = "announce") -> Any:
    """The task that emits an asset event with the as-of time.

    Args:
        callbacks: those of its DAG.
        asset: whose event it is.
        task_id: its own, and the key under which the task before it says whether there is something to announce: true or
            false, or what `owed` returned.
        unless: why there may be nothing to announce. The task before has it skipped then, see `hand_on`; a person
            who clears it nonetheless is told this.
    """

    @task(
        task_id=task_id, outlets=[asset], on_success_callback=[callbacks.report_success, forget_event(asset)]
    )
    def emit(news: dict[str, Any], outlet_events: Any = None) -> None:
        """Tell the next DAG of the loop, through its asset."""
        said = news.get(task_id)
        more = said if isinstance(said, dict) else {"due": bool(said), "upto": 0}
        if not more["due"]:
            raise AirflowSkipException(unless)
        extra = {k: v for k, v in news.items() if not k.startswith("announce")} | more
        outlet_events[asset].extra = {k: v for k, v in extra.items() if k != "due"}

    return emit
