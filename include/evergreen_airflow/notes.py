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
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return
    newest = (
        select(XComModel)
        .where(XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == KEY)
        .order_by(XComModel.timestamp.desc())
        .limit(1)
    )
    try:
        # The scheduler's own transaction: it holds the run's row, and nothing of it may be lost for a note.
        with session.begin_nested():
            found = session.scalars(newest).first()
            there = dag_run.dag_run_note
            if found is None or (there is not None and there.user_id is not None):
                return
            dag_run.note = str(XComModel.deserialize_value(found))[:MOST_CHARACTERS]
    except SQLAlchemyError:
        log.warning("the note of %s %s could not be written", dag_run.dag_id, dag_run.run_id, exc_info=True)
