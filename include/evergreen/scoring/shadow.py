"""The previous champion, predicting beside a new one while it is watched; what it predicts is never served.

Whatever goes wrong with it, the champion's scoring goes on: then there is no shadow, or no more of it in this run, and
the result says why. Rows that lack their shadow get it in the next run of the period.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from evergreen import registry
from evergreen.errors import EvergreenError
from evergreen.registry.encoding import Encoding
from evergreen.registry.under_watch import WatchedChampion
from evergreen.spec import ModelSpec
from evergreen.warehouse.features import feature_query

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shadowed:
    """What the previous champion did in a scoring: its version (None: there was none), new rows, what went wrong."""

    version: str | None
    rows: int
    problem: str = ""


class Shadow:
    """A previous champion that predicts as long as it can; `problem` says why it cannot."""

    def __init__(
        self, model: ModelSpec, found: WatchedChampion, seen: ModelSpec, types: Mapping[str, str]
    ) -> None:
        """Load it.

        Args:
            model: its name.
            found: the watch.
            seen: the spec with the features that the champion reads.
            types: the columns of the feature query, see `feature_query.types`.
        """
        self._model, self.version, self.problem = model, found.previous, ""
        self.seen = seen
        """The spec with the features that both read."""
        self._loaded: registry.LoadedModel | None = None
        if self.version is None:
            self.problem = found.alone
            log.info("%s: no shadow: %s", model.name, self.problem)
            return
        try:
            loaded = registry.load(model, self.version)
        except EvergreenError as error:
            self._stop(str(error))
            return
        lacks = feature_query.lacking(loaded.seen_by(model), types, loaded.categories)
        if lacks := lacks | _otherwise(loaded.encoding, seen):
            self._stop(
                f"it needs the features {', '.join(lacks)}, which it cannot read ({_lacks_text(lacks)})"
            )
            return
        theirs = loaded.encoding
        self.seen = seen.seeing(
            dict.fromkeys((*seen.features.numeric, *theirs.numeric)),
            dict.fromkeys((*seen.features.categorical, *theirs.categorical)),
        )
        self._loaded = loaded

    @property
    def there(self) -> bool:
        """Whether it can still predict."""
        return self._loaded is not None

    def predict(self, rows: pa.Table) -> np.ndarray | None:
        """Its predictions of feature rows (float64); None where it cannot, now and for the rest of the run."""
        if self._loaded is None:
            return None
        try:
            found = self._loaded.predict(rows)
        # Of any kind: a column's type may have changed since it was trained, and the champion must not suffer for that.
        except Exception as error:
            self._stop(f"{type(error).__name__}: {error}")
            return None
        if bad := int((~np.isfinite(found)).sum()):
            self._stop(f"{bad} of {len(found)} predictions are not finite")
            return None
        return found

    def result(self, rows: int) -> Shadowed:
        """What it came to, with the number of rows that were written."""
        return Shadowed(self.version, rows, self.problem)

    def _stop(self, problem: str) -> None:
        self._loaded, self.problem = None, problem
        log.warning(
            "%s: the previous champion, version %s, does not predict in the shadow: %s. Without it the new champion "
            "cannot be compared",
            self._model.name, self.version, problem,
        )  # fmt: skip


def _otherwise(theirs: Encoding, seen: ModelSpec) -> dict[str, str]:
    """Which features it would read as another kind than the champion does, each with why that cannot be."""
    lacks: dict[str, str] = {}
    for mine, other, kind in (
        (theirs.numeric, seen.features.categorical, "a category"),
        (theirs.categorical, seen.features.numeric, "a number"),
    ):
        lacks |= {name: f"to the champion it is {kind}" for name in mine if name in other}
    return lacks


def _lacks_text(lacks: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in lacks.items())


def active(found: WatchedChampion | None, as_of: datetime) -> bool:
    """Whether a run as of a time is one in which the previous champion predicts too."""
    return found is not None and as_of <= found.shadowed_until
