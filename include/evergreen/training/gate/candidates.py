"""What the gate is shown beside the evidence: how each candidate did on the judged rows, and which training asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evergreen.training.gate.past_holdouts import Realised


@dataclass(frozen=True)
class Evaluation:
    """How one candidate did: its metrics, and by what and when they were measured.

    Args:
        metrics: by name; empty where the candidate could not be evaluated.
        rows: number of holdout rows.
        keys: digest of those rows' keys, in order.
        fingerprint: of the snapshot they are from.
        run_id: the training that evaluated.
        as_of: the as-of time of that training.
        problem: why there are no metrics.
    """

    metrics: dict[str, float]
    rows: int
    keys: str
    fingerprint: str
    run_id: str
    as_of: datetime
    problem: str | None = None


@dataclass(frozen=True)
class JudgedChampion:
    """The champion that a challenger is held against.

    Attributes:
        evaluation: on the same rows, or with the problem that kept it from being evaluated; None only where there is no
            champion yet.
        as_of: its training's cut-off; None only where there is no champion yet.
        recorded: its metrics on the holdout of its own training.
    """

    evaluation: Evaluation | None = None
    as_of: datetime | None = None
    recorded: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedTraining:
    """The training that asks the gate.

    Attributes:
        run_id: of it, the same in all its tries.
        as_of: its cut-off, aware.
        fingerprint: its snapshot's.
        answers_drift: whether it answers a drift, so that gate.on_drift holds, see `plan.answers_drift`.
        realised: what the newest promotions came to; None where too few are known.
    """

    run_id: str
    as_of: datetime
    fingerprint: str
    answers_drift: bool = False
    realised: Realised | None = None
