"""The metrics of each task; the first is the default."""

from __future__ import annotations

from typing import Literal

Metric = Literal["rmse", "mae", "r2", "roc_auc", "pr_auc", "log_loss", "brier"]
METRICS: dict[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier"),
}
LARGER_IS_BETTER = frozenset({"r2", "roc_auc", "pr_auc"})
