"""How good predictions are: the one implementation, for the gate and for the watch over served predictions.

scikit-learn computes; this file decides what it may be asked. rmse, mae and pinball are in the label's unit, mape and wape
are shares, brier is a squared probability; smaller is better except for r2, roc_auc, pr_auc, accuracy and f1.

Some metrics ask for a cut besides: the threshold from which on a probability is class 1 (accuracy, f1), or the quantile that is
predicted (pinball).
"""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sk

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import THRESHOLD

# A label near zero makes a share of it overflow; then the metric says nothing, and the others still do.
SHARES = ("mape", "wape")


def compute(task: str, y_true: np.ndarray, y_pred: np.ndarray, cut: float | None = None) -> dict[str, float]:
    """Every metric of a task that these rows allow.

    Args:
        task: `regression` or `binary`.
        y_true: labels; 0 or 1 for binary.
        y_pred: predictions in the same order; probabilities of 1 for binary.
        cut: `ModelSpec.cut`. Without it a binary model's threshold is 0.5, and a regression has no pinball loss.

    Returns:
        Finite numbers by metric name. A metric that is not defined for the rows is absent, never NaN: roc_auc
        and pr_auc where only one class occurs, f1 where no label and no prediction is 1, r2 where all labels are equal, mape and
        wape where all labels are 0 (mape is of the other rows), pinball where there is no quantile.

    Raises:
        TerminalError: no rows, different lengths, a value that is not finite, a binary label that is not 0 or 1,
            a probability outside [0, 1] (BAD_METRIC).
    """
    y, p = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise _bad(
            f"{y.shape} labels and {p.shape} predictions", "one prediction for each of at least one label"
        )
    for what, values in (("labels", y), ("predictions", p)):
        if count := int((~np.isfinite(values)).sum()):
            raise _bad(f"{count} of {len(values)} {what} are not finite", "none")
    if task not in ("regression", "binary"):
        raise ValueError(f"{task!r} is no task; use regression or binary")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        found = (
            _binary(y, p, THRESHOLD if cut is None else cut) if task == "binary" else _regression(y, p, cut)
        )
    found = {name: value for name, value in found.items() if name not in SHARES or np.isfinite(value)}
    if broken := [name for name, value in found.items() if not np.isfinite(value)]:
        raise _bad(f"{', '.join(broken)} overflowed (largest label {np.abs(y).max():.3g})", "finite metrics")
    return found


def _regression(y: np.ndarray, p: np.ndarray, quantile: float | None) -> dict[str, float]:
    found = {"rmse": float(sk.root_mean_squared_error(y, p)), "mae": float(sk.mean_absolute_error(y, p))}
    if np.ptp(y) > 0:
        found["r2"] = float(sk.r2_score(y, p))
    if (known := y != 0).any():
        found["mape"] = float(np.mean(np.abs(y[known] - p[known]) / np.abs(y[known])))
        found["wape"] = float(np.abs(y - p).sum() / np.abs(y).sum())
    if quantile is not None:
        found["pinball"] = float(sk.mean_pinball_loss(y, p, alpha=quantile))
    return found


def _binary(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, float]:
    if count := int((~np.isin(y, (0.0, 1.0))).sum()):
        raise _bad(f"{count} of {len(y)} labels are neither 0 nor 1", "0 or 1")
    if p.min() < 0 or p.max() > 1:
        raise _bad(f"predictions lie in [{p.min():.4g}, {p.max():.4g}]", "probabilities in [0, 1]")
    said = (p >= threshold).astype(np.float64)
    found = {
        "log_loss": float(sk.log_loss(y, p, labels=[0.0, 1.0])),
        "brier": float(np.mean((p - y) ** 2)),
        "accuracy": float(sk.accuracy_score(y, said)),
    }
    if y.any() or said.any():
        found["f1"] = float(sk.f1_score(y, said, zero_division=0.0))
    if 0 < y.sum() < len(y):
        found["roc_auc"] = float(sk.roc_auc_score(y, p))
        found["pr_auc"] = float(sk.average_precision_score(y, p))
    return found


def _bad(found: str, wanted: str) -> TerminalError:
    return TerminalError(
        f"metrics cannot be computed: {found}, wanted {wanted}. Look at the label and at the model's predictions",
        ErrorReason.BAD_METRIC,
    )
