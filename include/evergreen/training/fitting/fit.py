"""Fits a challenger: XGBoost's histogram trees with native categoricals, early stopping and a fixed seed.

The number of rounds is found on the newest 15 % of the training part (never on the holdout, which would then
judge a model that was chosen on it). Then the model is fitted again on the whole training part with that number
of rounds, because the newest rows are the ones that matter after a drift.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost as xgb

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry.encoding import Encoding, boosted_names
from evergreen.spec import ModelSpec
from evergreen.spec.model import QUANTILE
from evergreen.spec.problem import near
from evergreen.training.fitting import local
from evergreen.training.fitting.local import Boosted, Labelled
from evergreen.training.fitting.machine import Machine

EARLY_STOPPING_SHARE = 0.15
OBJECTIVES = {
    "regression": (
        "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:gamma",
        "reg:tweedie", "count:poisson", "reg:quantileerror",
    ),
    "binary": ("binary:logistic",),
}  # fmt: skip
ALLOWED = frozenset({
    "learning_rate", "eta", "max_depth", "min_child_weight", "gamma", "min_split_loss", "subsample", "sampling_method",
    "colsample_bytree", "colsample_bylevel", "colsample_bynode", "lambda", "reg_lambda", "alpha", "reg_alpha",
    "scale_pos_weight", "grow_policy", "max_leaves", "max_bin", "max_delta_step", "num_parallel_tree",
    "monotone_constraints", "interaction_constraints", "base_score", "max_cat_to_onehot", "max_cat_threshold",
    "objective", "eval_metric", "tweedie_variance_power", "huber_slope", "quantile_alpha",
})  # fmt: skip
REFUSED = {
    **dict.fromkeys(("nthread", "n_jobs"), "set EVERGREEN_THREADS; the number of threads belongs to the machine"),
    **dict.fromkeys(("seed", "random_state", "seed_per_iteration"), "write training.seed"),
    **dict.fromkeys(("num_boost_round", "n_estimators", "num_rounds"), "write training.max_rounds"),
    "early_stopping_rounds": "write training.early_stopping_rounds",
    **dict.fromkeys(("device", "gpu_id"), "write training.device (cpu or cuda)"),
    **dict.fromkeys(("tree_method", "updater", "predictor"), "fits are hist, so that the same snapshot gives the same model"),
    **dict.fromkeys(("booster", "process_type", "refresh_leaf"), "models are gbtree, each fitted from nothing"),
    **dict.fromkeys(("enable_categorical", "feature_types", "feature_names", "missing"), "the spec's features say it"),
    **dict.fromkeys(("num_class", "num_target", "multi_strategy"), "a model predicts one number"),
    **dict.fromkeys(("verbosity", "verbose_eval", "validate_parameters", "disable_default_eval_metric", "callbacks"),
                    "the training sets it"),
}  # fmt: skip
HERE = Machine()

# Fits rows again with a number of rounds, as `refit` does.
Refitting = Callable[[ModelSpec, Encoding, Labelled, int, Machine], Boosted]


@dataclass(frozen=True)
class Curve:
    """How early stopping's metric went, round after round.

    `newest` is of the rows on which it looked, `learnt` of those that were learnt meanwhile; empty where they were not scored.
    """

    newest: tuple[float, ...] = ()
    learnt: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A fitted booster, the rounds it has, and the score at which early stopping chose them.

    `learnt` are its predictions of the rows that it learnt from; None where they are not at hand. `curve` is empty without early
    stopping.
    """

    booster: xgb.Booster
    rounds: int
    stopping_metric: str | None
    stopping_score: float | None
    learnt: np.ndarray | None = None
    curve: Curve = field(default_factory=Curve)


def parameters(model: ModelSpec, device: str = "cpu") -> dict[str, Any]:
    """The full parameters of a fit on a device: the defaults, what the spec says, and what it may not change.

    Raises:
        TerminalError: a parameter that is unknown, or that would break determinism or the training's logic
            (BAD_SPEC); every such parameter is named at once.
    """
    wrong = []
    for name, value in model.training.params.items():
        if name in REFUSED:
            wrong.append(f"training.params.{name}: is not yours to set here; {REFUSED[name]}")
        elif name not in ALLOWED:
            close = difflib.get_close_matches(name, ALLOWED, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(ALLOWED))}"
            wrong.append(f"training.params.{name}: no parameter of XGBoost that is known here; {hint}")
        elif name == "objective" and value not in OBJECTIVES[model.task]:
            wrong.append(
                f"training.params.objective: {value} does not fit {model.task}; use {', '.join(OBJECTIVES[model.task])}"
            )
    constraints, unknown = _constraints(model)
    wrong += unknown
    wrong += _quantile_problems(model)
    if wrong:
        raise TerminalError(
            "\n".join(f"models/{model.name}.yaml: {line}" for line in wrong), ErrorReason.BAD_SPEC
        )
    return {
        "objective": OBJECTIVES[model.task][0],
        **model.fitted_for,
        **model.training.params,
        **constraints,
        "tree_method": "hist",
        "device": device,
        "booster": "gbtree",
        "seed": model.training.seed,
        "nthread": settings.THREADS.number(),
        "verbosity": 1,
    }


def _quantile_problems(model: ModelSpec) -> list[str]:
    """What does not fit between the quantile that is fitted and the one that is judged."""
    objective = {"objective": OBJECTIVES[model.task][0], **model.fitted_for}["objective"]
    alpha, quantile = model.training.params.get("quantile_alpha"), model.gate.quantile
    where = "training.params.quantile_alpha"
    if objective != QUANTILE:
        return [f"{where}: is of objective {QUANTILE}, this one is {objective}"] if alpha is not None else []
    if alpha is None:
        return (
            [] if quantile is not None else [f"{where}: {QUANTILE} fits a quantile; write gate.quantile: 0.9"]
        )
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1:
        return [f"{where}: {alpha} is no quantile; a model predicts one, a number between 0 and 1"]
    if quantile is not None and alpha != quantile:
        return [f"{where}: {alpha} is fitted and gate.quantile {quantile} is judged; remove one of them"]
    return []


def _constraints(model: ModelSpec) -> tuple[dict[str, Any], list[str]]:
    """The constraints of the spec with XGBoost's names of the features, and what is wrong with them."""
    names = dict(zip(model.features.all, boosted_names(model.features.all), strict=True))
    params, found = model.training.params, dict[str, Any]()
    used: list[tuple[str, str]] = []
    monotone, interaction = params.get("monotone_constraints"), params.get("interaction_constraints")
    if isinstance(monotone, dict):
        used += [("monotone_constraints", name) for name in monotone]
        found["monotone_constraints"] = {names.get(name, name): sign for name, sign in monotone.items()}
    if isinstance(interaction, list) and all(isinstance(group, list) for group in interaction):
        used += [("interaction_constraints", str(name)) for group in interaction for name in group]
        found["interaction_constraints"] = [
            [names.get(name, name) for name in group] for group in interaction
        ]
    return found, [
        f"training.params.{param}: no feature {name!r}; {near(name, names)}"
        for param, name in used
        if name not in names
    ]


def fit(
    model: ModelSpec, encoding: Encoding, data: Labelled, times: np.ndarray, machine: Machine = HERE
) -> Fitted:
    """Find the number of rounds, then fit on all the rows; without early stopping the number is `max_rounds`.

    Args:
        model: its training section counts.
        encoding: of the rows.
        data: the training rows, oldest first.
        times: their event times (any integer unit), so that rows of one moment stay together.
        machine: where it runs.

    Raises:
        TerminalError: parameters (BAD_SPEC), no two moments to split (TOO_FEW_ROWS), a score that is not
            finite (BAD_METRIC).
        TransientError: the cluster that the spec asks for does not answer.
    """
    spec = model.training
    if spec.early_stopping_rounds is None:
        whole = refit(model, encoding, data, spec.max_rounds, machine)
        return Fitted(whole.booster, spec.max_rounds, None, None, whole.learnt)
    cut = int(np.searchsorted(times, times[int(len(times) * (1 - EARLY_STOPPING_SHARE))], "left"))
    if not 0 < cut < len(times):
        raise TerminalError(
            f"{model.name}: the {len(times)} training rows have too few different event times to set the newest "
            "15 % aside for early stopping; land more history",
            ErrorReason.TOO_FEW_ROWS,
        )
    probe = _boost(
        model, encoding, data.part(0, cut), spec.max_rounds, machine, data.part(cut), spec.early_stopping_rounds
    )  # fmt: skip
    metric = list(probe.scores)[-1]
    score = float(probe.booster.best_score)
    if not np.isfinite(score):
        raise TerminalError(
            f"{model.name}: {metric} of early stopping is {score}; with one class in the newest 15 % of the training part "
            "an AUC does not exist. Remove training.params.eval_metric, or make training.window longer",
            ErrorReason.BAD_METRIC,
        )
    rounds = probe.booster.best_iteration + 1
    whole = refit(model, encoding, data, rounds, machine)
    curve = Curve(tuple(probe.scores[metric]), tuple(probe.learnt_scores.get(metric, ())))
    return Fitted(whole.booster, rounds, metric, score, whole.learnt, curve)


def refit(
    model: ModelSpec, encoding: Encoding, data: Labelled, rounds: int, machine: Machine = HERE
) -> Boosted:
    """Fit on encoded rows with a number of rounds that is already known; raises as `fit` does."""
    return _boost(model, encoding, data, rounds, machine)


def gains(booster: xgb.Booster, encoding: Encoding) -> dict[str, float]:
    """Average gain of the splits on each feature, largest first; 0 for one that no tree uses."""
    found = booster.get_score(importance_type="gain")
    pairs = zip(encoding.features, encoding.boosted, strict=True)
    values = {name: float(np.mean(found.get(boosted, 0.0))) for name, boosted in pairs}
    return dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))


def gain_shares(booster: xgb.Booster, encoding: Encoding) -> dict[str, float]:
    """Each feature's share of the gain of all splits; empty for a model without a split."""
    found = booster.get_score(importance_type="total_gain")
    pairs = zip(encoding.features, encoding.boosted, strict=True)
    values = {name: float(np.sum(found.get(boosted, 0.0))) for name, boosted in pairs}
    total = sum(values.values())
    return {name: value / total for name, value in values.items()} if total > 0 else {}


def _boost(
    model: ModelSpec,
    encoding: Encoding,
    data: Labelled,
    rounds: int,
    machine: Machine,
    watched: Labelled | None = None,
    patience: int | None = None,
) -> Boosted:
    boost = local.boost
    if machine.engine == "dask":
        # Dask is imported only where a spec asks for it.
        from evergreen.training.fitting import dask

        boost = dask.boost
    try:
        return boost(parameters(model, machine.device), encoding, data, rounds, watched, patience)
    except (xgb.core.XGBoostError, ValueError, TypeError) as error:
        raise _refused(error, model.name) from error


def _refused(error: Exception, name: str) -> TerminalError:
    told = str(error).split("Stack trace")[0].split("\n")[0].strip()
    return TerminalError(
        f"models/{name}.yaml: training.params: XGBoost refuses them: {told[:300]}; mend the parameter",
        ErrorReason.BAD_SPEC,
    )
