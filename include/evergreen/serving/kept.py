"""What the companion keeps on this disk for the server: which versions answer, their files, who may ask.

The server reads nothing else, so it starts and goes on where neither PostgreSQL nor MLflow answers. `state.json` names folders that
are whole before it is written; it and they appear by a rename, so a reader meets the old or the new, never a half.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from evergreen import settings

MODEL_FILE, PROBE_FILE, VERSION_FILE = "model.ubj", "probe.npz", "version.json"

_Kept = TypeVar("_Kept")


class Version(msgspec.Struct, frozen=True):
    """A version that may answer.

    Attributes:
        version: its number, as text.
        run_id: of MLflow, which made it.
        folder: its files, in `versions_folder`.
        numeric: its numeric features, in the model's order; the categorical ones follow them.
        categorical: its categorical features with the categories that it knows.
        lows, highs: by numeric feature what it learnt from (the reference's sample).
        example: by feature a value that it learnt from, or None where that was missing.
        metrics: of its holdout.
    """

    version: str
    run_id: str
    folder: str
    numeric: tuple[str, ...]
    categorical: dict[str, tuple[str, ...]]
    lows: dict[str, float]
    highs: dict[str, float]
    example: dict[str, float | str | None]
    metrics: dict[str, float]

    @property
    def features(self) -> tuple[str, ...]:
        """Its features, in the model's order."""
        return (*self.numeric, *self.categorical)


class Model(msgspec.Struct, frozen=True):
    """A model that is served.

    Attributes:
        name: of the model.
        task: regression or binary.
        description: what is predicted.
        metric: of its gate.
        champion: the version that the ledger names.
        former: the version that answers for the rest of the keys; None: the champion answers for all.
        share: of the keys that the champion answers for.
        promoted_at: when the champion came into office (ISO, UTC).
        key: its key columns with their SQL types.
        event_time: the column.
        by_key: where features come from when only keys are given: query or latest.
        timeout_ms: of a request by key.
        sensitive: features that are never written down.
        logged: share of the requests of which the features are kept.
        drift: what the newest judged window says, for people.
        problem: why the champion of the ledger is not (yet) the one that answers; empty where it is.
        spec: a hash of its spec: another one asks for another look at the specs.
    """

    name: str
    task: str
    description: str
    metric: str
    champion: str
    former: str | None
    share: float
    promoted_at: str
    key: dict[str, str]
    event_time: str
    by_key: str
    timeout_ms: int
    sensitive: tuple[str, ...]
    logged: float
    versions: dict[str, Version]
    drift: str = ""
    problem: str = ""
    spec: str = ""


class Client(msgspec.Struct, frozen=True):
    """Who may ask: for which models (`*`: all), how many requests a second of each process."""

    name: str
    key_sha256: str
    models: tuple[str, ...]
    rate: float


class State(msgspec.Struct, frozen=True):
    """All that the server goes by; `unserved` says why a model that has a champion is not among the models."""

    models: dict[str, Model] = {}
    clients: tuple[Client, ...] = ()
    unserved: dict[str, str] = {}


def folder() -> Path:
    """Where all of it lies on this machine."""
    return settings.HOME.path() / "serving"


def versions_folder() -> Path:
    """Where the files of versions lie."""
    return folder() / "versions"


def state_file() -> Path:
    """Which versions answer."""
    return folder() / "state.json"


def health_file() -> Path:
    """What the companion last met: see `Health`."""
    return folder() / "health.json"


class Health(msgspec.Struct, frozen=True):
    """What the companion last met; a problem is empty where there is none. Times are seconds since 1970."""

    told_at: float = 0.0
    warehouse: str = ""
    warehouse_since: float = 0.0
    mlflow: str = ""
    mlflow_since: float = 0.0
    waiting: int = 0
    """Files of the log that are not in the warehouse yet."""


def read_state() -> State | None:
    """The state; None where there is none, or it is damaged (the companion writes it again)."""
    return _read(state_file(), State)


def read_health() -> Health:
    """What the companion last met."""
    return _read(health_file(), Health) or Health()


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def write(path: Path, content: msgspec.Struct) -> None:
    """Write a file, whole or not at all; only its owner can read it.

    Raises:
        OSError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=1))
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
