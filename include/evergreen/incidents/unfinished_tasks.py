"""Which tasks have begun and have not told how they ended: what is left here by a killed process tells of itself to nobody.

A task writes its row when it begins and deletes it when it has told how it ended, be it that it works or that it failed. A
process that was killed leaves its row. Airflow calls the run's callback then, in the DAG processor; where that is killed too,
nobody is told, and the row is what is left. The DAG `mail` asks Airflow about the rows that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from evergreen.warehouse.connection import Connection, connect, fetch

# Between a failure and what the run's callback tells of it, on a machine that is busy.
GRACE_S = 120.0


@dataclass(frozen=True)
class UnfinishedTask:
    """A task that has begun.

    Attributes:
        run_id: `dag_id/run_id`.
        task_id: which task.
        try_number: its newest try.
        log_url: Airflow's page of its log.
        as_of: as-of time of the run.
        doubtful: it was seen to have failed, untold, longer than the grace ago.
    """

    run_id: str
    task_id: str
    try_number: int
    log_url: str
    as_of: datetime
    doubtful: bool


class End(Enum):
    """How a task ended of which nobody has told."""

    NOT_YET = "it goes on"
    NOTHING_TO_TELL = "it did not fail, or is gone from Airflow"
    FAILED = "it failed"
    CUT_OFF = "it was running when its run was ended"


# Airflow's states of a task that is over without having failed; None, and what is not here, goes on.
_OVER = frozenset({"success", "skipped", "upstream_failed", "removed"})


def end_of(state: str | None, *, there: bool, run_failed: bool) -> End:
    """How a task ended, by Airflow's state of it.

    Args:
        state: as Airflow names it; None: it waits.
        there: whether Airflow knows the task of this run.
        run_failed: whether its run failed. A task that skips itself says so (`ended`), so one that is skipped here and whose run
            failed was running when the run's time was over.
    """
    if state == "failed":
        return End.FAILED
    if state == "skipped" and run_failed:
        return End.CUT_OFF
    return End.NOTHING_TO_TELL if not there or state in _OVER else End.NOT_YET


def begin(run_id: str, task_id: str, try_number: int, log_url: str, as_of: datetime) -> None:
    """Note that a try of a task begins; see `UnfinishedTask`.

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.begun (run_id, task_id, try_number, log_url, as_of) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (run_id, task_id) DO UPDATE SET try_number = EXCLUDED.try_number, log_url = EXCLUDED.log_url,"
            " as_of = EXCLUDED.as_of, begun_at = clock_timestamp(), failed_at = NULL",
            (run_id, task_id, try_number, log_url, as_of),
        )


def ended(conn: Connection, run_id: str, task_id: str) -> None:
    """Forget a task: how it ended is told, or Airflow knows nothing more to tell."""
    with conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.begun WHERE run_id = %s AND task_id = %s", (run_id, task_id))


def doubt(conn: Connection, run_id: str, task_id: str) -> None:
    """Note that Airflow says that a task has failed, though nobody has told; its run may be about to."""
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.begun SET failed_at = coalesce(failed_at, clock_timestamp())"
            " WHERE run_id = %s AND task_id = %s",
            (run_id, task_id),
        )


def left(conn: Connection, grace_s: float = GRACE_S) -> list[UnfinishedTask]:
    """The tasks that have begun and not told how they ended, oldest first: those that run, and those that were killed."""
    rows = fetch(
        conn,
        "SELECT run_id, task_id, try_number, log_url, as_of,"
        " coalesce(failed_at <= clock_timestamp() - make_interval(secs => %s), false) AS doubtful"
        " FROM evergreen.begun ORDER BY begun_at, run_id, task_id",
        (grace_s,),
    )
    return [UnfinishedTask(**row) for row in rows]
