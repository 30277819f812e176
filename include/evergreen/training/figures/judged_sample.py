"""The judged rows as the figures show them: labels, predictions and features, a sample where there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from evergreen.reference.past_windows import sample_of
from evergreen.training.gate.evaluate import EvaluatedChallenger

MOST_ROWS = 100_000
WHO = ("challenger", "champion", "baseline")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JudgedSample:
    """Judged rows, oldest first; of more than `MOST_ROWS` those whose key has the smallest hash, so always the same.

    Attributes:
        times: event times, microseconds since 1970 (UTC).
        y: labels.
        by: predictions of those of `WHO` that were compared, in that order.
        features: some columns of the rows, as the feature query gives them.
        rows: how many rows were judged.
    """

    times: npt.NDArray[np.int64]
    y: Floats
    by: Mapping[str, Floats]
    features: Mapping[str, pa.ChunkedArray]
    rows: int


def judged_sample(judged: EvaluatedChallenger, features: Sequence[str]) -> JudgedSample:
    """The judged rows of a training with some of its features.

    Args:
        judged: the training's evaluation.
        features: names of columns.
    """
    holdout = judged.split.holdout
    every = np.flatnonzero(judged.judged)
    chosen = every[sample_of(holdout.hashes[every], MOST_ROWS)]
    table = holdout.take(chosen, list(features)) if features else pa.table({})
    return JudgedSample(
        holdout.times[chosen],
        holdout.labels[chosen],
        {who: judged.compared[who][chosen] for who in WHO if who in judged.compared},
        {name: table[name] for name in features},
        len(every),
    )
