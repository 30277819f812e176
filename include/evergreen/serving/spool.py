"""The log of requests on its way to the warehouse: gathered in memory, written to this disk twice a second, fetched there by the companion.

Nothing here waits for the warehouse. What there is no room for, in memory or on the disk, is lost, counted and told; an answer never
waits for it. A server that is killed loses what it gathered in the last half second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from evergreen.serving import kept

log = logging.getLogger(__name__)

MOST_GATHERED = 32 << 20
"""Bytes in memory between two writes: some 200,000 records with ten features each."""
MOST_BYTES = 1 << 30
"""What may wait on the disk: some three million requests of one record with ten features, as many as come in 15 minutes of full load."""
SUFFIX = ".json"
TELL_S = 60.0
_ENCODE = msgspec.json.Encoder().encode


class Made(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of a record.

    Attributes:
        version: that answered.
        prediction: its answer.
        key, event_time: which row it is (ISO, UTC); None: the request named none.
        features: their values, in the order of `Answered.features`; None: not sampled.
        beside: the version that predicted it too, and was not answered; None: none did.
        beside_prediction: what that one said.
    """

    version: str
    prediction: float
    key: str | None = None
    event_time: str | None = None
    features: tuple[Any, ...] | None = None
    beside: str | None = None
    beside_prediction: float | None = None


class Answered(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that was answered; `at` is in seconds since 1970, `features` names those that are written down."""

    id: str
    model: str
    client: str
    at: float
    source: str
    features: tuple[str, ...]
    records: list[Made]


class Minute(msgspec.Struct, array_like=True, frozen=True):
    """A minute of a model and version in this process; `minute` is its beginning in seconds since 1970."""

    model: str
    version: str
    minute: float
    requests: int
    records: int
    errors: int
    refused: int
    lost: int
    p50_ms: float
    p99_ms: float


class Segment(msgspec.Struct, frozen=True):
    """A file of the log; `alive` is when the process said that it lives, in seconds since 1970 (0: it did not)."""

    instance: str
    answered: list[Answered]
    minutes: list[Minute]
    alive: float = 0.0


def folder() -> Path:
    """Where the files wait."""
    return kept.folder() / "spool"


class Spool:
    """The server's end of the log."""

    def __init__(self, instance: str) -> None:
        """Begin; `instance` names this process."""
        self.instance = instance
        self.lost: dict[str, int] = {}
        """Records that were lost, by model, since the start."""
        self._answered: list[msgspec.Raw] = []
        self._records: dict[str, int] = {}
        self._size = 0
        self._minutes: list[Minute] = []
        self._alive = 0.0
        self._number = 0
        self._told_at = 0.0
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, answered: Answered) -> None:
        """Keep a request, or count it as lost where too much waits already."""
        # Encoded now: many requests at the next write would hold up those that are asked meanwhile, and objects cost more memory than text.
        text = _ENCODE(answered)
        model, count = answered.model, len(answered.records)
        if self._size + len(text) > MOST_GATHERED:
            self._lose(model, count)
            return
        self._size += len(text)
        self._records[model] = self._records.get(model, 0) + count
        self._answered.append(msgspec.Raw(text))

    def add_minute(self, minute: Minute) -> None:
        """Keep what a minute was."""
        self._minutes.append(minute)

    def live(self) -> None:
        """Have the next file say that this process lives, whether anything was asked or not."""
        self._alive = time.time()

    def flush(self) -> None:
        """Write what was gathered to the disk; what there is no room for is lost."""
        if not (self._answered or self._minutes or self._alive):
            return
        content = _ENCODE(
            {
                "instance": self.instance,
                "answered": self._answered,
                "minutes": self._minutes,
                "alive": self._alive,
            }
        )
        records = self._records
        self._answered, self._records, self._size, self._minutes, self._alive = [], {}, 0, [], 0.0
        try:
            if _bytes() + len(content) > MOST_BYTES:
                raise OSError(f"{MOST_BYTES >> 20} MB wait already")
            self._write(content)
        except OSError as error:
            for model, count in records.items():
                self._lose(model, count)
            if time.monotonic() - self._told_at > TELL_S or not self._told_at:
                self._told_at = time.monotonic()
                log.error(
                    "requests cannot be logged and are lost from the log (%s in all); they are answered all the same. %s: %s",
                    sum(self.lost.values()), folder(), error,
                )  # fmt: skip

    def _write(self, content: bytes) -> None:
        self._number += 1
        name = f"{time.time_ns():020d}-{self.instance}-{self._number}{SUFFIX}"
        draft = folder() / f".{name}"
        try:
            draft.write_bytes(content)
            draft.chmod(0o600)
            draft.rename(folder() / name)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _lose(self, model: str, count: int) -> None:
        self.lost[model] = self.lost.get(model, 0) + count


def waiting() -> list[Path]:
    """The files that wait, the oldest first."""
    try:
        return sorted(p for p in folder().iterdir() if p.name.endswith(SUFFIX) and not p.name.startswith("."))
    except FileNotFoundError:
        return []


def read(path: Path) -> Segment:
    """A file of the log.

    Raises:
        OSError: it cannot be read.
        msgspec.DecodeError, msgspec.ValidationError: it is damaged.
    """
    return msgspec.json.decode(path.read_bytes(), type=Segment)


def _bytes() -> int:
    return sum(_sizes())


def _sizes() -> Iterator[int]:
    with os.scandir(folder()) as entries:
        for entry in entries:
            try:
                yield entry.stat().st_size
            except FileNotFoundError:
                continue
