"""Fits in this process: rows go to XGBoost in batches, and to its external memory where they would not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost as xgb

from evergreen import settings
from evergreen.registry.encoding import Encoding
from evergreen.training.data.matrix import Matrix
from evergreen.training.fitting.rounds import Rounds

# A second thread does not make a fit of fewer values (rows times features) faster, and takes a core from the tasks beside
# it: with 17 features 10,000 rows take 0.4 s with one thread and 0.6 s with two, and 50,000 rows a thread pay for it. The
# trees are the same.
VALUES_A_THREAD = 850_000
# Of more rows their own score is not asked for after each round; nor of a metric that sorts them, which takes as long as a tree.
MOST_SCORED = 100_000
SORTING = ("auc", "aucpr", "ndcg", "map")


@dataclass(frozen=True)
class Labelled:
    """Encoded rows with their labels, oldest first."""

    matrix: Matrix
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def part(self, begin: int, end: int | None = None) -> Labelled:
        """The rows from one position to another."""
        return Labelled(self.matrix.part(begin, end), self.y[begin:end])

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and labels in batches of bounded size."""
        at = 0
        for batch in self.matrix.batches():
            yield batch, self.y[at : at + len(batch)]
            at += len(batch)


@dataclass(frozen=True)
class Boosted:
    """A booster, and what its fit knows besides.

    Attributes:
        booster: the trees.
        scores: of the watched rows by metric and round; empty if none were watched.
        learnt: predictions of the rows that it learnt from (float64); None where they are not at hand.
        learnt_scores: as `scores`, of the rows that it learnt from; empty where they were not scored.
    """

    booster: xgb.Booster
    scores: dict[str, list[float]] = field(default_factory=dict)
    learnt: np.ndarray | None = None
    learnt_scores: dict[str, list[float]] = field(default_factory=dict)


def threads(matrix: Matrix, most: int) -> int:
    """How many threads a fit of these rows takes."""
    return max(1, min(most, matrix.rows * matrix.columns // VALUES_A_THREAD))


def boost(
    params: dict[str, Any],
    encoding: Encoding,
    data: Labelled,
    rounds: int,
    watched: Labelled | None = None,
    patience: int | None = None,
) -> Boosted:
    """Fit a booster.

    Args:
        params: XGBoost's.
        encoding: of the rows.
        data: what it learns from.
        rounds: at most so many.
        watched: rows on which early stopping looks.
        patience: so many rounds without a better score stop.

    Raises:
        XGBoostError, ValueError, TypeError: XGBoost refuses the parameters.
    """
    params = {**params, "nthread": threads(data.matrix, params["nthread"])}
    quantised = _quantised(params, encoding, data, "learnt")
    if watched is None:
        kept = KeptPredictions(quantised)
        booster = xgb.train(params, quantised, rounds, verbose_eval=False, callbacks=[kept, Rounds(rounds)])
        return Boosted(booster, learnt=kept.prediction)
    log: dict[str, Any] = {}
    # Early stopping goes by the last one.
    seen = [(_quantised(params, encoding, watched, "watched", quantised), "newest")]
    if _scored(params, data):
        seen.insert(0, (quantised, "learnt"))
    booster = xgb.train(
        params, quantised, rounds, evals=seen, early_stopping_rounds=patience, evals_result=log, verbose_eval=False,
        callbacks=[Rounds(rounds)],
    )  # fmt: skip
    newest, learnt = (
        {name: list(map(float, values)) for name, values in log.get(part, {}).items()}
        for part in ("newest", "learnt")
    )
    return Boosted(booster, newest, learnt_scores=learnt)


def _scored(params: dict[str, Any], data: Labelled) -> bool:
    """Whether the rows that are learnt are scored after each round, for the learning curve."""
    asked = params.get("eval_metric", ())
    names = [asked] if isinstance(asked, str) else asked
    return len(data) <= MOST_SCORED and not any(str(n).partition("@")[0] in SORTING for n in names)


def _quantised(
    params: dict[str, Any],
    encoding: Encoding,
    data: Labelled,
    name: str,
    reference: xgb.DMatrix | None = None,
) -> xgb.DMatrix:
    more = {
        "enable_categorical": True,
        "max_bin": params.get("max_bin", 256),
        "nthread": params["nthread"],
        "ref": reference,
    }
    limit = settings.TRAINING_MEMORY_MB.number() << 20
    # A GPU has its own memory, and XGBoost's external memory for it another kind of input.
    if params["device"] == "cpu" and data.matrix.quantised_bytes > limit:
        return xgb.ExtMemQuantileDMatrix(
            Batches(encoding, data, str(data.matrix.path.with_name(f"{name}-pages"))), **more
        )
    return xgb.QuantileDMatrix(Batches(encoding, data), **more)


class KeptPredictions(xgb.callback.TrainingCallback):
    """The predictions of the rows that a booster learns from: XGBoost has them until the fit ends, then drops them."""

    prediction: np.ndarray

    def __init__(self, data: xgb.DMatrix) -> None:
        super().__init__()
        self._data = data

    def after_training(self, model: xgb.Booster) -> xgb.Booster:
        """Copy them."""
        self.prediction = model.predict(self._data).astype(np.float64)
        return model


class Batches(xgb.DataIter):
    """Labelled rows as XGBoost takes them; with `cache_prefix`, it keeps what it makes of them in files."""

    def __init__(self, encoding: Encoding, data: Labelled, cache_prefix: str | None = None) -> None:
        super().__init__(cache_prefix)
        self._encoding, self._data = encoding, data
        self._left = data.batches()

    def next(self, input_data: Any) -> bool:
        """Hand over the next batch; false after the last one."""
        batch = next(self._left, None)
        if batch is None:
            return False
        input_data(
            data=batch[0],
            label=batch[1],
            feature_names=self._encoding.boosted,
            feature_types=self._encoding.types,
        )
        return True

    def reset(self) -> None:
        """Begin again."""
        self._left = self._data.batches()
