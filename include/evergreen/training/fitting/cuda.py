"""Whether XGBoost can fit on a GPU, here or on the workers of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import xgboost as xgb


def trial() -> Callable[[], str]:
    """A function that says why XGBoost cannot fit on a GPU in the process that calls it; empty if it can.

    Made here, so that Dask sends its code and not its name: workers need not have Evergreen.
    """

    def why() -> str:
        if not xgb.build_info().get("USE_CUDA"):
            return "this XGBoost is built without CUDA; install xgboost in place of xgboost-cpu"
        try:
            rows = np.arange(16, dtype=np.float32).reshape(8, 2)
            params = {"device": "cuda", "tree_method": "hist", "max_depth": 1, "verbosity": 0}
            booster = xgb.train(params, xgb.QuantileDMatrix(rows, rows[:, 0]), 1)
            # Without a visible GPU XGBoost falls back to the CPU by itself.
            used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
        except xgb.core.XGBoostError as error:
            return f"a trial fit failed: {str(error).strip().splitlines()[0][:200]}"
        return "" if str(used).startswith("cuda") else "no GPU is visible to XGBoost"

    return why


why_no_cuda = trial()
"""For this process."""
