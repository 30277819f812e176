"""Tries a model's XGBoost parameters on a few invented rows, so that what XGBoost refuses is known before the night."""

from __future__ import annotations

import numpy as np
import xgboost as xgb

from evergreen.errors import TerminalError
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec, Problem
from evergreen.training.fitting.fit import parameters

ROWS = 64
# Beyond these a fit takes all time and memory, and the rehearsal would, too.
MOST = {
    "num_parallel_tree": 1_000,
    "max_bin": 65_536,
    "max_depth": 1_000,
    "max_leaves": 1_000_000,
    "max_cat_to_onehot": 10**6,
}


def parameter_problems(model: ModelSpec) -> list[Problem]:
    """What is wrong with `training.params`: those that are not to be set, and what XGBoost itself refuses."""
    file = f"models/{model.name}.yaml"
    try:
        params = parameters(model)
    except TerminalError as error:
        lines = [line.removeprefix(f"{file}: ").partition(": ") for line in str(error).splitlines()]
        return [Problem(file, field, "", said) for field, _, said in lines]
    beyond = [(n, m) for n, m in MOST.items() if isinstance(params.get(n), (int, float)) and params[n] > m]
    if beyond:
        return [
            Problem(
                file,
                f"training.params.{n}",
                str(params[n]),
                f"takes more than any machine has; write at most {m:,}",
            )
            for n, m in beyond
        ]
    encoding = Encoding(model.features.numeric, {name: ("a", "b") for name in model.features.categorical})
    rng = np.random.default_rng(model.training.seed)
    rows = rng.integers(0, 2, (ROWS, len(encoding.features))).astype(np.float32)
    label = np.arange(ROWS) % 2 + (0 if model.task == "binary" else 1)
    try:
        data = xgb.QuantileDMatrix(
            rows, label, feature_names=encoding.boosted, feature_types=encoding.types, enable_categorical=True,
            max_bin=params.get("max_bin", 256),
        )  # fmt: skip
        xgb.train(params, data, 1, evals=[(data, "rows")], verbose_eval=False)
    except Exception as error:
        said = str(error).split("Stack trace")[0].strip().splitlines()
        text = " ".join(said)[:300]
        return [Problem(file, "training.params", "", f"XGBoost refuses them: {text}; mend the parameter")]
    return []
