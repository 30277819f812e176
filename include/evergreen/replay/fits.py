"""Fits that are done once: the same rows and the same settings give the same booster, whatever policy asks for it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from evergreen.registry.encoding import Encoding
from evergreen.replay.checkpoint import replace_whole, write_json
from evergreen.spec import ModelSpec
from evergreen.training.fitting import fit
from evergreen.training.fitting.fit import Fitted
from evergreen.training.fitting.local import Boosted, Labelled
from evergreen.training.fitting.machine import Machine


class Fits:
    """The fits of one training, out of a folder that all policies of a replay share.

    Attributes:
        seconds: what they took, when they were done.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self.seconds = 0.0

    def fit(
        self, model: ModelSpec, encoding: Encoding, data: Labelled, times: np.ndarray, machine: Machine
    ) -> Fitted:
        """As `fit.fit`."""

        def anew() -> tuple[xgb.Booster, dict[str, Any]]:
            found = fit.fit(model, encoding, data, times, machine)
            told = {"rounds": found.rounds, "metric": found.stopping_metric, "score": found.stopping_score}
            return found.booster, told

        booster, told = self._once(("fit", len(data)), model, encoding, machine, anew)
        return Fitted(booster, told["rounds"], told["metric"], told["score"])

    def refit(
        self, model: ModelSpec, encoding: Encoding, data: Labelled, rounds: int, machine: Machine
    ) -> Boosted:
        """As `fit.refit`."""
        booster, _ = self._once(
            ("refit", len(data), rounds), model, encoding, machine,
            lambda: (fit.refit(model, encoding, data, rounds, machine).booster, {}),
        )  # fmt: skip
        return Boosted(booster)

    def _once(
        self,
        what: tuple[Any, ...],
        model: ModelSpec,
        encoding: Encoding,
        machine: Machine,
        anew: Callable[[], tuple[xgb.Booster, dict[str, Any]]],
    ) -> tuple[xgb.Booster, dict[str, Any]]:
        asked = [
            self._fingerprint, what, fit.parameters(model, machine.device), model.training.model_dump(mode="json"),
            encoding.to_dict(),
        ]  # fmt: skip
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:40]
        path, about = self._folder / f"{name}.ubj", self._folder / f"{name}.json"
        if not about.is_file():  # written last
            self._folder.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            booster, told = anew()
            took = time.perf_counter() - began
            # XGBoost reads the format off the name's end.
            replace_whole(path, lambda part: part.write_bytes(booster.save_raw("ubj")))
            write_json(about, {**told, "seconds": took})
        told = json.loads(about.read_text(encoding="utf-8"))
        booster = xgb.Booster()
        booster.load_model(path)
        self.seconds += told["seconds"]
        return booster, told
