"""The previous champion, predicting beside a new one while it is watched; what it predicts is never served.

Whatever goes wrong with it, the champion's scoring goes on: then there is no shadow, or no more of it in this run, and
the result says why. Rows that lack their shadow get it in the next run of the period.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from evergreen import registry
from evergreen.errors import EvergreenError
from evergreen.registry.watched import Watched
from evergreen.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shadowed:
    """What the previous champion did in a scoring: its version (None: there was none), new rows, what went wrong."""

    version: str | None
    rows: int
    problem: str = ""


class Shadow:
    """A previous champion that predicts as long as it can; `problem` says why it cannot."""

    def __init__(self, model: ModelSpec, found: Watched, features: Collection[str]) -> None:
        """Load it.

        Args:
            model: its name.
            found: the watch.
            features: the columns that the rows have.
        """
        self._model, self.version, self.problem = model, found.previous, ""
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
        if missing := [name for name in loaded.encoding.features if name not in features]:
            self._stop(
                f"it needs the features {', '.join(missing)}, which the feature query does not return now"
            )
            return
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


def active(found: Watched | None, as_of: datetime) -> bool:
    """Whether a run as of a time is one in which the previous champion predicts too."""
    return found is not None and as_of <= found.shadowed_until
