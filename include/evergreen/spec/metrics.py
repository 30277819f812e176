"""The metrics of each task; the first is the default."""

from __future__ import annotations

from typing import Literal

Metric = Literal[
    "rmse", "mae", "r2", "mape", "wape", "pinball", "roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1"
]
METRICS: dict[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2", "mape", "wape", "pinball"),
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1"),
}
LARGER_IS_BETTER = frozenset({"r2", "roc_auc", "pr_auc", "accuracy", "f1"})
# As people write them.
_NAMES = {
    "rmse": "RMSE", "mae": "MAE", "r2": "R²", "roc_auc": "ROC AUC", "pr_auc": "PR AUC", "log_loss": "log loss",
    "brier": "Brier score", "mape": "MAPE", "wape": "WAPE", "pinball": "pinball loss", "accuracy": "accuracy", "f1": "F1",
}  # fmt: skip
# Those that scale with the label.
IN_LABEL_UNITS = frozenset({"rmse", "mae", "pinball"})
# Those that depend on `ModelSpec.cut`: the threshold of a binary model, the quantile of a regression's.
BY_CUT = frozenset({"accuracy", "f1", "pinball"})
# Class 1 from this probability on, where nothing else is said.
THRESHOLD = 0.5

# The worst value that a metric can take, where there is one. Better than perfect is none of them.
_WORST = {"roc_auc": 0.0, "pr_auc": 0.0, "brier": 1.0, "accuracy": 0.0, "f1": 0.0}


def metric_name(metric: object) -> str:
    """A metric as it is written in a sentence: `roc_auc` is ROC AUC; what is no metric stays as it is."""
    return _NAMES.get(str(metric), str(metric))


def best(metric: str) -> float:
    """The value of a perfect prediction."""
    return 1.0 if metric in LARGER_IS_BETTER else 0.0


def worse(metric: str, value: float, limit: float) -> bool:
    """Whether a value of a metric is worse than a limit."""
    return value < limit if metric in LARGER_IS_BETTER else value > limit


def passable(metric: str, limit: float) -> bool:
    """Whether a value of a metric can be worse than a limit; where none can, the limit never alarms."""
    worst = _WORST.get(metric)
    if worst is None:
        return True
    return limit > worst if metric in LARGER_IS_BETTER else limit < worst
