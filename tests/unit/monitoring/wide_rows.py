"""Rows of many features and a model on them, for tests of what a window keeps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from monitoring_scene import CUTOFF, WEEK

from evergreen.spec import ModelSpec

MANY = 10_000


def wide(seed: int, count: int, task: str) -> pd.DataFrame:
    """Rows of 20 features; two of them with gaps and a long tail."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"ts": [CUTOFF + WEEK * n / count for n in range(count)]})
    for n in range(14):
        frame[f"n{n}"] = rng.normal(100 * n, 1 + n, count) if n % 3 else rng.lognormal(0, 2, count)
    frame["count"] = rng.integers(0, 50, count).astype(float)
    frame["n1"] = frame["n1"].where(rng.random(count) > 0.03)
    for name, values in (("c0", 24), ("c1", 3)):
        frame[name] = rng.choice([f"{name}_{i}" for i in range(values)], count)
    signal = frame["n2"] - frame["n2"].mean()
    if task == "binary":
        frame["guess"] = 1 / (1 + np.exp(4 - 2 * signal))
        frame["y"] = (rng.random(count) < frame["guess"]).astype(float)
    else:
        frame["guess"] = np.float32(20 + signal)
        frame["y"] = frame["guess"] + rng.normal(0, 1, count)
    return frame


def spec(task: str) -> ModelSpec:
    """The model on rows of `wide`."""
    numeric = [*(f"n{n}" for n in range(14)), "count"]
    return ModelSpec.model_validate({
        "name": "watched", "task": task, "datasets": ["sensor"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "y", "delay": "1h"}, "query": "SELECT 1",
        "features": {"numeric": numeric, "categorical": ["c0", "c1"]}, "monitoring": {"window": "7d"},
    })  # fmt: skip
