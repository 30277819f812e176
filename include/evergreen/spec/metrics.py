"""The metrics of each task; the first is the default."""

from __future__ import annotations

from typing import Literal

Metric = Literal["rmse", "mae", "r2", "roc_auc", "pr_auc", "log_loss", "brier"]
METRICS: dict[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier"),
}
LARGER_IS_BETTER = frozenset({"r2", "roc_auc", "pr_auc"})

# The worst value that a metric can take, where there is one. Better than perfect is none of them.
_WORST = {"roc_auc": 0.0, "pr_auc": 0.0, "brier": 1.0}


def passable(metric: str, limit: float) -> bool:
    """Whether a value of a metric can be worse than a limit; where none can, the limit never alarms."""
    worst = _WORST.get(metric)
    if worst is None:
        return True
    return limit > worst if metric in LARGER_IS_BETTER else limit < worst
