"""Learners of scikit-learn that are compared with XGBoost on the validation folds, and never registered.

- `linear`: ridge or logistic regression on standardised numbers and one column a category: what there is to gain from
  trees at all.
- `hist_gradient_boosting`: scikit-learn's boosting as it ships, 200 trees: whether another library, untuned, does better
  than XGBoost with the spec's parameters.

Both need their rows in memory, so they learn from at most `MOST_ROWS` of them, spread evenly over the window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from evergreen import settings
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec
from evergreen.training.fitting.local import Labelled

MOST_ROWS = 200_000
MOST_CATEGORIES = 50
TREES = 200

Predict = Callable[[np.ndarray], np.ndarray]


def learn(kind: str, model: ModelSpec, encoding: Encoding, data: Labelled) -> Predict:
    """Fit a learner and return its predictions as a function of encoded rows; the same rows give the same learner.

    Args:
        kind: one of `training.compare_with`.
        model: its task and seed count.
        encoding: of the rows.
        data: what it learns from.

    Raises:
        ValueError: scikit-learn refuses the rows.
    """
    from threadpoolctl import threadpool_limits

    made = {"linear": _linear, "hist_gradient_boosting": _boosting}[kind](model, encoding)
    x, y = _sample(data)
    threads = settings.THREADS.number()
    with threadpool_limits(threads):
        made.fit(x, y)

    def predict(rows: np.ndarray) -> np.ndarray:
        with threadpool_limits(threads):
            found = made.predict_proba(rows)[:, 1] if model.task == "binary" else made.predict(rows)
        return np.asarray(found, dtype=np.float64)

    return predict


def _linear(model: ModelSpec, encoding: Encoding) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = list(range(len(encoding.numeric)))
    categories = list(range(len(numbers), len(encoding.features)))
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES)
    filled = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    columns = ColumnTransformer(
        [("number", make_pipeline(filled, StandardScaler()), numbers), ("category", one_hot, categories)]
    )
    if model.task == "binary":
        return make_pipeline(columns, LogisticRegression(max_iter=1000))
    return make_pipeline(columns, Ridge(solver="lsqr"))


def _boosting(model: ModelSpec, encoding: Encoding) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # It takes no more categories than bins; a feature with more is a number to it.
    few = [len(encoding.categorical.get(name, ())) <= 255 for name in encoding.features]
    chosen = [
        name in encoding.categorical and fits for name, fits in zip(encoding.features, few, strict=True)
    ]
    made = HistGradientBoostingClassifier if model.task == "binary" else HistGradientBoostingRegressor
    return made(
        max_iter=TREES, early_stopping=False, random_state=model.training.seed,
        categorical_features=np.array(chosen) if any(chosen) else None,
    )  # fmt: skip


def _sample(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Every row, or every second, third, … so that at most `MOST_ROWS` are left."""
    step = max(1, -(-len(data) // MOST_ROWS))
    rows, at = [], 0
    for batch, _ in data.batches():
        rows.append(batch[-at % step :: step].copy())
        at += len(batch)
    return np.concatenate(rows), data.y[::step]
