"""Where a fit runs: the engine and the device that the spec asks for, or the CPU where no GPU can be used."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xgboost as xgb

from evergreen.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """The engine (`local`, `dask`) and the device (`cpu`, `cuda`) of a fit; `note` says what was asked for in vain."""

    engine: str = "local"
    device: str = "cpu"
    note: str = ""


def choose(model: ModelSpec) -> Machine:
    """The machine for a model's fits.

    Raises:
        TerminalError: the engine is dask and no scheduler is named (BAD_SPEC).
        TransientError: the scheduler does not answer.
    """
    engine, device = model.training.engine, model.training.device
    if device == "cpu":
        return Machine(engine)
    if engine == "dask":
        # Dask is imported only where a spec asks for it.
        from evergreen.training import cluster

        reason = cluster.why_no_cuda()
    else:
        reason = why_no_cuda()
    if not reason:
        return Machine(engine, device)
    note = f"device: cuda asked for, none usable: {reason}"
    log.warning("%s: %s; the fit runs on the CPU", model.name, note)
    return Machine(engine, "cpu", note)


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
