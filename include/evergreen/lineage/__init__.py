"""Lineage by OpenLineage: each step of the loop tells a lineage server what it read and what it wrote.

It is on where the OpenLineage client finds a place to send to, by its own settings; else nothing of it is imported. A step
goes on and ends as it would without, whatever becomes of its events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from evergreen import settings
from evergreen.lineage.task_run import TaskRun

if TYPE_CHECKING:
    from evergreen.lineage.steps import StepFacts
    from evergreen.monitoring.monitor import Run
    from evergreen.scoring.score import ScoreResult
    from evergreen.spec import DatasetSpec, ModelSpec, Specs
    from evergreen.training.record.outcome import TrainingOutcome
    from evergreen.validation.outcome import BatchOutcome
    from evergreen.warehouse.features.snapshot import Snapshot

_T = TypeVar("_T")


@dataclass
class StepOutcome(Generic[_T]):
    """What a step came to; None until it is known, and where the step fails."""

    outcome: _T | None = None


def switched_on() -> bool:
    """Whether the client would find a place to send to: an address, a transport, or its file."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if settings.LINEAGE.read() or any(
        value and name.startswith("OPENLINEAGE__TRANSPORT") for name, value in os.environ.items()
    ):
        return True
    places = (os.environ.get("OPENLINEAGE_CONFIG"), "openlineage.yml", "~/.openlineage/openlineage.yml")
    return any(_is_file(place) for place in places if place)


def _is_file(place: str) -> bool:
    try:
        return Path(place).expanduser().is_file()
    except (OSError, RuntimeError):  # a folder that may not be read, a user without a home
        return False


def ingest(run: TaskRun, dataset: DatasetSpec) -> AbstractContextManager[StepOutcome[list[BatchOutcome]]]:
    """Tell of an ingest, which runs inside: landed files → the dataset's table."""

    def facts(outcomes: list[BatchOutcome] | None) -> StepFacts:
        from evergreen.lineage import steps

        return steps.ingested(dataset, run.as_of, outcomes)

    return _step(run, facts)


def train(
    run: TaskRun, specs: Specs, model: ModelSpec, snapshot: Snapshot
) -> AbstractContextManager[StepOutcome[TrainingOutcome]]:
    """Tell of a training, which runs inside: the tables of the feature query and the snapshot → a model version."""

    def facts(outcome: TrainingOutcome | None) -> StepFacts:
        from evergreen.lineage import steps

        return steps.trained(specs, model, run.as_of, snapshot, outcome)

    return _step(run, facts)


def score(run: TaskRun, specs: Specs, model: ModelSpec) -> AbstractContextManager[StepOutcome[ScoreResult]]:
    """Tell of a scoring, which runs inside: a model version and the tables → predictions."""

    def facts(result: ScoreResult | None) -> StepFacts:
        from evergreen.lineage import steps

        return steps.scored(specs, model, run.as_of, result)

    return _step(run, facts)


def monitor(run: TaskRun, specs: Specs, model: ModelSpec) -> AbstractContextManager[StepOutcome[Run]]:
    """Tell of a run of the monitor, which goes inside: predictions and the tables → judgements."""

    def facts(done: Run | None) -> StepFacts:
        from evergreen.lineage import steps

        return steps.monitored(specs, model, run.as_of, done)

    return _step(run, facts)


@contextmanager
def _step(run: TaskRun, facts: Callable[[Any], StepFacts]) -> Iterator[StepOutcome[Any]]:
    told: StepOutcome[Any] = StepOutcome()
    if not switched_on():
        yield told
        return
    from evergreen.lineage.transport import Sending

    sending = Sending(run)
    try:
        yield told
    except BaseException as error:  # a time-out is no Exception
        sending.end(lambda: facts(None), error)
        raise
    sending.end(lambda: facts(told.outcome))
