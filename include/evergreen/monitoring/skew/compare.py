"""What was answered, held against what the same version predicts the batch way; pure functions.

Two numbers are alike within a relative `TOLERANCE`. Online and batch predictions of the same features are equal to the last bit on one
machine; another processor or release of XGBoost may differ in the last bits of a float32, far below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen.monitoring.skew.sample import Record
from evergreen.registry.models import LoadedModel

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Compared:
    """A record against its row.

    Attributes:
        record: as it was answered.
        batch: what the version predicts of the row.
        columns: the features that were sent otherwise than the row has them, by name: sent and found, as text. Of features that
            were not kept nothing is known.
    """

    record: Record
    batch: float
    columns: dict[str, tuple[str, str]]

    @property
    def far(self) -> float:
        """How far the two predictions are apart, relative to the larger one."""
        return apart(self.record.prediction, self.batch)

    @property
    def differs(self) -> bool:
        """Whether the answer is another one."""
        return self.far > TOLERANCE


def apart(one: float, other: float) -> float:
    """How far two numbers are apart, relative to the larger one."""
    largest = max(abs(one), abs(other))
    return abs(one - other) / largest if largest else 0.0


def against_rows(loaded: LoadedModel, records: Sequence[Record], rows: pa.Table) -> dict[str, Compared]:
    """The records whose row is there, by key.

    Args:
        loaded: the version that answered all of them.
        records: with a key each.
        rows: `_key` and the features of the version.
    """
    place = {key: index for index, key in enumerate(rows["_key"].to_pylist())}
    there = [record for record in records if record.key in place]
    if not there:
        return {}
    rows = rows.take([place[record.key] for record in there])
    encoded = loaded.encode(rows)
    batch = loaded.predict_encoded(encoded)
    sent = loaded.encode(_table(loaded, there)).matrix
    names, found = loaded.encoding.features, rows.to_pylist()
    other = ~np.isclose(sent, encoded.matrix, rtol=TOLERANCE, atol=0, equal_nan=True)
    return {
        record.key: Compared(
            record,
            float(batch[i]),
            {
                name: (_text(record.features[name]), _text(found[i][name]))
                for j, name in enumerate(names)
                if other[i, j] and record.features is not None and name in record.features
            },
        )
        for i, record in enumerate(there)
    }


def against_themselves(loaded: LoadedModel, records: Sequence[Record]) -> list[Compared]:
    """The records whose own features give another prediction now; of those alone whose features were kept whole."""
    names = loaded.encoding.features
    whole = [r for r in records if r.features is not None and all(name in r.features for name in names)]
    if not whole:
        return []
    again = loaded.predict(_table(loaded, whole))
    found = [Compared(record, float(value), {}) for record, value in zip(whole, again, strict=True)]
    return [one for one in found if one.differs]


def _table(loaded: LoadedModel, records: Sequence[Record]) -> pa.Table:
    """The features as they were sent, as the feature query would give them; what was not kept is missing."""
    kept: list[Mapping[str, Any]] = [record.features or {} for record in records]
    columns: dict[str, pa.Array] = {}
    for name in loaded.encoding.numeric:
        columns[name] = pa.array([_number(one.get(name)) for one in kept], pa.float64())
    for name in loaded.encoding.categorical:
        columns[name] = pa.array([_category(one.get(name)) for one in kept], pa.string())
    return pa.table(columns)


def _number(value: Any) -> float | None:
    """A whole number in JSON may be larger than any float: it is missing to the model, as one beyond float32 is."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def _category(value: Any) -> str | None:
    """As PostgreSQL writes it."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return (
        f"{value:.6g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)[:80]
    )
