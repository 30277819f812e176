"""The folder of a replayed policy: a file for each finished step, and its versions. Each appears whole or not at all.

A step counts when its JSON file is there; its predictions and its version are written before. So whatever kills the
process leaves finished steps and perhaps a rest of the next one, which is written over.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import xgboost as xgb

from evergreen.errors import EvergreenError, TransientError
from evergreen.reference.reference import Reference
from evergreen.registry.encoding import Encoding
from evergreen.registry.models import ENCODING_FILE, MODEL_FILE, LoadedModel
from evergreen.replay.state import PREDICTED, Step

ERROR_FILE = "error.json"
PARAMS_FILE = "params.json"


class PolicyFolder:
    """One policy's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = path / "steps"
        self.studies = path / "studies"

    def finished(self) -> int:
        """How many steps are finished."""
        return sum(1 for _ in self.steps.glob("*.json")) if self.steps.is_dir() else 0

    def write(self, step: Step) -> None:
        """Keep a step."""
        self.steps.mkdir(parents=True, exist_ok=True)
        frames = step.predictions or [pd.DataFrame({name: [] for name in PREDICTED})]
        name = f"{step.number:06d}"
        rows = pd.concat(frames, ignore_index=True)[list(PREDICTED)]
        replace_whole(self.steps / f"{name}.parquet", lambda path: rows.to_parquet(path, index=False))
        write_json(self.steps / f"{name}.json", step.to_dict())

    def read(self) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Yield each finished step with its predictions, oldest first."""
        for number in range(self.finished()):
            content = json.loads((self.steps / f"{number:06d}.json").read_text(encoding="utf-8"))
            yield content, pd.read_parquet(self.steps / f"{number:06d}.parquet")

    def save_version(
        self,
        version: str,
        booster: xgb.Booster,
        encoding: Encoding,
        reference: Reference,
        params: dict[str, Any],
    ) -> None:
        """Keep a version: the model in XGBoost's format, its encoding, its reference and the parameters of its fit."""
        target = self.path / "versions" / version
        part = target.with_name(f".{version}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        booster.save_model(part / MODEL_FILE)
        (part / ENCODING_FILE).write_text(json.dumps(encoding.to_dict()), encoding="utf-8")
        write_json(part / PARAMS_FILE, params)
        reference.write(part / "reference")
        shutil.rmtree(target, ignore_errors=True)  # of a step that was not finished
        part.replace(target)

    def version(self, version: str) -> LoadedModel:
        """Load a version."""
        folder = self.path / "versions" / version
        booster = xgb.Booster()
        booster.load_model(folder / MODEL_FILE)
        content = json.loads((folder / ENCODING_FILE).read_text(encoding="utf-8"))
        return LoadedModel(version, f"replay-{version}", booster, Encoding.from_dict(content), folder)

    def reference(self, version: str) -> Reference:
        """Read the reference of a version."""
        return Reference.read(self.path / "versions" / version / "reference")

    def params(self, version: str) -> dict[str, Any]:
        """The parameters that a version was fitted with, as a spec writes them."""
        text = (self.path / "versions" / version / PARAMS_FILE).read_text(encoding="utf-8")
        return dict(json.loads(text))

    def fail(self, error: EvergreenError) -> None:
        """Keep why it cannot go on."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "message": str(error),
            "reason": error.reason.value,
            "transient": isinstance(error, TransientError),
        }
        write_json(self.path / ERROR_FILE, content)

    def failure(self) -> dict[str, Any] | None:
        """Why it could not go on; None if nothing is told."""
        path = self.path / ERROR_FILE
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def is_kept(name: str) -> bool:
    """Whether another worker needs a file of a replay's folder, by its path there, to go on: no locks, logs, fits and scratch."""
    parts = Path(name).parts
    return not (
        {"fits", "scratch", "ahead", "lock", ERROR_FILE} & set(parts)
        or any(part.startswith(".") for part in parts)
        or parts[-1].endswith((".log", ".lock"))
    )


def ends_step(name: str) -> bool:
    """Whether a file of a replay's folder says that a step is finished, so that all others of the step have to be there."""
    path = Path(name)
    return path.parent.name == "steps" and path.suffix == ".json"


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder's lock, which ends with the process however that ends; yields whether it was free."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False)
    replace_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def replace_whole(path: Path, write: Any) -> None:
    """Let `write` make a file beside its place, then put it there."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
