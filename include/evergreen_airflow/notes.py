"""What a run came to, as a sentence: its note in Airflow, under its name in every list of runs.

A task may not write the note of its run: neither the Task SDK nor the API that tasks are served by has a way. So the task leaves the
sentence as an XCom, and the scheduler, which may write, makes it the note when the run ends.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

from evergreen import dag_kinds

log = logging.getLogger("evergreen")

KEY = "note"
MOST_CHARACTERS = 1000  # of a note, in Airflow's table


def tell(context: dict[str, Any], sentence: str) -> str:
    """Leave what the run came to; the last sentence of a run counts. Returns it."""
    context["ti"].xcom_push(key=KEY, value=sentence)
    return sentence


class Notes:
    """Called where a run's state changes: in the scheduler, and in the API server where a person marks the run."""

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        """A run has succeeded."""
        _write(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """A run has failed; what its tasks had come to before counts all the same."""
        _write(dag_run)


def _write(dag_run: Any) -> None:
    """Make the newest sentence of a run its note; what a person wrote there stays."""
    if dag_run.dag_id.partition("__")[0] not in dag_kinds.FILES:
        return
    from airflow.models.dagrun import DagRunNote
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select, update
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return
    newest = (
        select(XComModel.value)
        .where(XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == KEY)
        .order_by(XComModel.timestamp.desc())
        .limit(1)
    )
    mine = DagRunNote.dag_run_id == dag_run.id
    # The scheduler's own transaction: nothing of it may be lost for a note, so there is a savepoint. It is the connection's, as the
    # scheduler, which holds locks, lets nobody commit its session, not even to a savepoint.
    connection = session.connection()
    try:
        with connection.begin_nested():
            row = connection.execute(newest).first()
            if row is None:
                return
            content = str(XComModel.deserialize_value(row))[:MOST_CHARACTERS]
            there = connection.execute(select(DagRunNote.user_id).where(mine)).first()
            if there is None:
                connection.execute(insert(DagRunNote).values(dag_run_id=dag_run.id, content=content))
            elif there.user_id is None:
                connection.execute(update(DagRunNote).where(mine).values(content=content))
    except SQLAlchemyError:
        log.warning("the note of %s %s could not be written", dag_run.dag_id, dag_run.run_id, exc_info=True)
