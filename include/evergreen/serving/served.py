"""A model as the server holds it: the versions that answer, tried before they do, and which of them answers for which key."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from evergreen.errors import ErrorReason, TerminalError
from evergreen.serving import kept
from evergreen.serving.booster import FastBooster
from evergreen.serving.kept import Model, Version
from evergreen.serving.records import Encoder, Identifier, Row

SLICE = 100
"""So many records are predicted at once; between two slices other requests are answered."""
WARM = 50
_SHARES = 1 << 32


class Loaded:
    """A version in memory that has given the predictions which were kept with it."""

    def __init__(self, model: Model, version: Version) -> None:
        """Load and try it; takes as long as reading its file.

        Raises:
            TerminalError: it does not give what it gave when it was registered (PROBE_FAILED).
            OSError, xgboost.core.XGBoostError: its files cannot be read.
        """
        self.version, self.encoder = version, Encoder(version)
        self._file = kept.versions_folder() / version.folder / kept.MODEL_FILE
        self._booster = FastBooster(self._file, len(version.features), SLICE)
        self._explains: FastBooster | None = None
        self._explaining = threading.Lock()
        _probe(model, version, self._booster)

    def predict(self, rows: np.ndarray) -> list[float]:
        """Predictions of at most `SLICE` encoded records: the label's unit, or the probability of class 1."""
        count = len(rows)
        self._booster.rows[:count] = rows
        return self._booster.predict(count)

    def explain(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """What each feature adds to the margin of each record; waits for who explains at the same time."""
        features = self.version.features
        with self._explaining:
            if self._explains is None:
                self._explains = FastBooster(self._file, len(features), 1)
            found = self._explains.contributions(rows, len(self.version.numeric)).astype(float)
        return [
            {
                "bias": float(row[-1]),
                "contributions": dict(zip(features, map(float, row[:-1]), strict=True)),
                "margin": float(row.sum()),
            }
            for row in found
        ]

    def close(self) -> None:
        """Give back what the garbage collector does not."""
        self._booster.close()
        if self._explains is not None:
            self._explains.close()


def _probe(model: Model, version: Version, booster: FastBooster) -> None:
    """See that a version predicts here, to the last bit, what it predicted where it was fetched; warms it up by the way."""
    with np.load(kept.versions_folder() / version.folder / kept.PROBE_FILE, allow_pickle=False) as file:
        rows, wanted = file["rows"], file["predictions"]
    found: list[float] = []
    for begin in range(0, len(rows), SLICE):
        part = rows[begin : begin + SLICE]
        booster.rows[: len(part)] = part
        found += booster.predict(len(part))
    if not len(rows) or not np.array_equal(np.array(found), wanted):
        raise TerminalError(
            f"version {version.version} of {model.name} does not predict here what it predicted when it was fetched; "
            f"delete {kept.versions_folder() / version.folder} and start the service again",
            ErrorReason.PROBE_FAILED,
        )
    for _ in range(WARM):
        booster.predict(1)


@dataclass(frozen=True)
class Served:
    """What answers for a model: replaced as a whole, between two requests.

    Attributes:
        model: as the companion keeps it.
        champion: answers for `model.share` of the keys.
        former: answers for the rest; None: there is none.
        identifier: says which row a record is.
        allowed: the fields that a record may have.
    """

    model: Model
    champion: Loaded
    former: Loaded | None
    identifier: Identifier
    allowed: frozenset[str]

    def choose(self, records: Sequence[Mapping[str, Any]], rows: Sequence[Row | None]) -> list[bool] | None:
        """Whether the champion answers for each record; None: for all of them.

        The same key always meets the same version, as long as the share is the same, and one that has met the champion meets it
        again when the share is larger. A record without a key is known by what it says.
        """
        if self.former is None or self.model.share >= 1:
            return None
        limit = self.model.share * _SHARES
        told = (
            msgspec.json.encode(record, order="sorted") if row is None else row[0].encode()
            for record, row in zip(records, rows, strict=True)
        )
        return [zlib.crc32(text) < limit for text in told]

    @cached_property
    def logged(self) -> tuple[str, ...]:
        """The features that may be written down."""
        return tuple(n for n in self.champion.version.features if n not in self.model.sensitive)

    @cached_property
    def _values(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        names = self.logged
        if len(names) > 1:
            return itemgetter(*names)
        return lambda record: tuple(record[name] for name in names)

    def written_down(self, records: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Any, ...]]:
        """The values of each record that may be written down, in the order of `logged`."""
        return map(self._values, records)

    def loaded(self) -> list[Loaded]:
        """Its versions."""
        return [self.champion] if self.former is None else [self.champion, self.former]


class Shelf:
    """The versions in memory, each loaded once; to be used by one thread at a time."""

    def __init__(self) -> None:
        """Empty."""
        self._loaded: dict[tuple[str, str], Loaded] = {}

    def serve(self, model: Model) -> Served:
        """A model with its versions loaded; those that are there already are used again.

        Raises:
            Exception: what `Loaded` raises; what was served before can go on.
        """
        champion = self._load(model, model.champion)
        former = self._load(model, model.former) if model.former is not None and model.share < 1 else None
        allowed = {*model.key, model.event_time, *champion.version.features}
        allowed.update(former.version.features if former is not None else ())
        return Served(model, champion, former, Identifier(model), frozenset(allowed))

    def _load(self, model: Model, number: str) -> Loaded:
        version = model.versions[number]
        found = self._loaded.get((model.name, version.folder))
        if found is None:
            found = self._loaded[model.name, version.folder] = Loaded(model, version)
        return found

    def keep(self, served: Sequence[Served]) -> list[Loaded]:
        """Forget the versions that none of these has; returns them, to be closed when nobody uses them any more."""
        used = {(s.model.name, loaded.version.folder) for s in served for loaded in s.loaded()}
        return [self._loaded.pop(key) for key in [k for k in self._loaded if k not in used]]
