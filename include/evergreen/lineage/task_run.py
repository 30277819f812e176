"""One try of one task, by which its lineage events are named."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class TaskRun:
    """One try of one task, as the scheduler names it; the ids of its events follow from these and nothing else.

    `due` is when the scheduler wanted the run (aware), `as_of` the cut-off of what it reads (aware).
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    due: datetime
    as_of: datetime
