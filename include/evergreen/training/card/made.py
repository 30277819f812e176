"""All that a model card is written from: what a training knew when it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.ledger import Decision
from evergreen.registry.encoding import Encoding
from evergreen.spec import DatasetSpec, ModelSpec
from evergreen.training.figures.figures import Figures
from evergreen.training.gate.evaluate import EvaluatedChallenger
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.features.snapshot import Snapshot


@dataclass(frozen=True)
class Made:
    """A training, and what it came to.

    Attributes:
        model: the spec.
        datasets: that the feature query reads.
        snapshot: the rows; its file is read for the columns' ranges.
        judged: the evaluation.
        encoding: of the registered model.
        figures: that were drawn.
        outcome: with the version's number.
        decisions: those of the ledger on the model that were known, newest first.
        commit: of the specs.
    """

    model: ModelSpec
    datasets: Sequence[DatasetSpec]
    snapshot: Snapshot
    judged: EvaluatedChallenger
    encoding: Encoding
    figures: Figures
    outcome: TrainingOutcome
    decisions: Sequence[Decision]
    commit: str
