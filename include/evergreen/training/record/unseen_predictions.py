"""Predictions for past rows by models that had not learnt them: how hard each part of the history is.

The rows before the holdout are cut into a few consecutive parts; each part is predicted by a small fit on the others,
with the challenger's parameters and rounds, and the holdout by one on all of them. Whole parts are left out, because rows
next to each other are alike (blocked cross-validation: Bergmeir and Benitez 2012, Information Sciences 191, 192). The fits
see the reference's sample only, so that they cost a second whatever the table's size; they say how the error moves, not
how large it is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xgboost as xgb

from evergreen import settings
from evergreen.reference.past_windows import sample_of
from evergreen.registry.models import predict
from evergreen.spec import ModelSpec
from evergreen.training.fitting.fit import parameters
from evergreen.training.gate.evaluate import EvaluatedChallenger

PARTS = 4
MOST_ROWS = 20_000
LEAST_ROWS = 200
# More trees make a small fit better by little, and it is the movement that is asked for.
MOST_ROUNDS = 200
# Nor do finer histograms: of so few rows they cost more than all else.
MOST_BINS = 64


def outside(model: ModelSpec, judged: EvaluatedChallenger) -> np.ndarray:
    """A prediction for each row of the snapshot by a model that had not learnt it, NaN where there is none.

    `model` says how many rows are sampled; the fits' parameters are those that were chosen, as their rounds are.

    Rows of the reference's sample have one, unless those before the holdout are too few or of one class: then the holdout's
    are the challenger's own, and there are no others.
    """
    parts = judged.split
    found, held = np.full(len(parts.rows), np.nan), len(parts.rows) - len(parts.holdout)
    sample = sample_of(parts.rows.hashes, min(model.monitoring.sample_rows, MOST_ROWS))
    chosen, newest = sample[sample < len(parts.training)], sample[sample >= held]
    if len(chosen) < LEAST_ROWS or (model.task == "binary" and len(np.unique(parts.rows.labels[chosen])) < 2):
        found[held:] = judged.prediction
        return found
    x, y = _taken(judged, chosen), parts.rows.labels[chosen]
    # A fit of so few rows is not faster with two threads, so the fits share them.
    params = {**parameters(judged.choice.model), "nthread": 1}
    params["max_bin"] = min(params.get("max_bin", MOST_BINS), MOST_BINS)
    rounds = min(judged.fitted.rounds, MOST_ROUNDS)

    def fill(begin: int, end: int) -> None:
        learnt = np.ones(len(chosen), dtype=bool)
        learnt[begin:end] = False
        asked, rows = (chosen[begin:end], x[begin:end]) if end > begin else (newest, _taken(judged, newest))
        if model.task == "binary" and len(np.unique(y[learnt])) < 2:
            return
        data = xgb.QuantileDMatrix(
            x[learnt],
            y[learnt],
            feature_names=judged.encoding.boosted,
            feature_types=judged.encoding.types,
            enable_categorical=True,
            max_bin=params["max_bin"],
            nthread=1,
        )
        found[asked] = predict(xgb.train(params, data, rounds), rows)

    edges = np.linspace(0, len(chosen), PARTS + 1).astype(np.intp)
    with ThreadPoolExecutor(settings.THREADS.number()) as pool:
        # The last fit leaves none out.
        list(pool.map(fill, edges, (*edges[1:], len(chosen))))
    return found


def _taken(judged: EvaluatedChallenger, positions: np.ndarray) -> np.ndarray:
    """The encoded rows at ascending positions."""
    taken, at = [], 0
    for batch in judged.matrix.batches():
        first, last = np.searchsorted(positions, (at, at + len(batch)))
        taken.append(batch[positions[first:last] - at])
        at += len(batch)
    return np.concatenate(taken)
