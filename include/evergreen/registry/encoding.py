"""Feature rows as the model's numbers: the one way, for training, evaluation, scoring and probes.

Numeric features become float32, which is what XGBoost computes with; infinite values and values beyond float32
become missing. A categorical feature becomes the position of its value among the categories of the training
rows; a category that was not among them becomes missing. Both are counted, so that nothing is lost unseen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import ModelSpec

_REFUSED = re.compile(r"[\[\]<]")
_SAFE = str.maketrans({"[": "(", "]": ")", "<": "lt"})
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Encoding:
    """The model's columns in order: numeric features, then categorical ones with their categories."""

    numeric: tuple[str, ...]
    categorical: dict[str, tuple[str, ...]]

    @property
    def features(self) -> list[str]:
        """Names of the columns."""
        return [*self.numeric, *self.categorical]

    @property
    def boosted(self) -> list[str]:
        """The names that XGBoost knows the columns by, see `boosted_names`."""
        return boosted_names(self.features)

    @property
    def types(self) -> list[str]:
        """XGBoost's feature types of the columns."""
        return ["float"] * len(self.numeric) + ["c"] * len(self.categorical)

    def with_more(self, other: Encoding) -> Encoding:
        """This encoding with the categories of another one of the same model too."""
        return Encoding(
            self.numeric,
            {n: tuple(sorted({*c, *other.categorical[n]})) for n, c in self.categorical.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it, with the model's version."""
        return {
            "numeric": list(self.numeric),
            "categorical": {n: list(c) for n, c in self.categorical.items()},
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Encoding:
        """What `to_dict` gave."""
        return Encoding(tuple(content["numeric"]), {n: tuple(c) for n, c in content["categorical"].items()})


@dataclass(frozen=True)
class Encoded:
    """Encoded rows (float32, NaN is missing), and by feature how many values were not known or not finite."""

    matrix: np.ndarray
    unseen: dict[str, int]
    infinite: dict[str, int]


@dataclass(frozen=True)
class Survey:
    """What there is in rows: the encoding that they teach, and the features that have one value in all of them."""

    encoding: Encoding
    constant: tuple[str, ...]


def boosted_names(features: Sequence[str]) -> list[str]:
    """Names of features as XGBoost takes them, in the same order: none holds [, ] or <, and no two are alike."""
    names: list[str] = []
    taken = {name for name in features if not _REFUSED.search(name)}
    for name in features:
        safe = name
        if _REFUSED.search(name):
            safe = name.translate(_SAFE)
            while safe in taken:
                safe += "_"
            taken.add(safe)
        names.append(safe)
    return names


def survey(model: ModelSpec, batches: Iterable[pa.RecordBatch]) -> Survey:
    """Look through rows for the encoding of a model: its features, and the categories that occur, sorted."""
    categories: dict[str, set[str]] = {name: set() for name in model.features.categorical}
    lows = dict.fromkeys(model.features.numeric, math.inf)
    highs = dict.fromkeys(model.features.numeric, -math.inf)
    rows, missing = 0, dict.fromkeys(model.features.all, 0)
    for batch in batches:
        rows += batch.num_rows
        for name in model.features.all:
            missing[name] += batch.column(name).null_count
        for name, found in categories.items():
            found.update(pc.drop_null(pc.unique(batch.column(name))).to_pylist())
        for name in model.features.numeric:
            span = pc.min_max(batch.column(name)).as_py()
            if span["min"] is not None:
                lows[name] = min(lows[name], span["min"])
                highs[name] = max(highs[name], span["max"])
    one_value = {n for n in model.features.numeric if lows[n] == highs[n]}
    one_value |= {n for n, found in categories.items() if len(found) == 1}
    constant = (n for n in model.features.all if missing[n] == rows or (not missing[n] and n in one_value))
    encoding = Encoding(model.features.numeric, {n: tuple(sorted(c)) for n, c in categories.items()})
    return Survey(encoding, tuple(constant))


def encode(encoding: Encoding, table: pa.Table) -> Encoded:
    """Encode feature rows; columns of the table that are no features are left out.

    Raises:
        TerminalError: a feature is not among the columns (REGISTRY_MISMATCH).
    """
    missing = [name for name in encoding.features if name not in table.column_names]
    if missing:
        raise TerminalError(
            f"the model needs the features {', '.join(missing)}, which the feature query does not return now; keep them "
            "in the spec and the SQL until a model without them is champion",
            ErrorReason.REGISTRY_MISMATCH,
        )
    matrix = np.empty((table.num_rows, len(encoding.features)), dtype=np.float32, order="C")
    infinite, unseen = {}, {}
    for index, name in enumerate(encoding.numeric):
        values = table[name].cast(pa.float64()).to_numpy()
        bad = np.abs(values) > LARGEST
        if count := int(bad.sum()):
            infinite[name] = count
            values = np.where(bad, np.nan, values)
        matrix[:, index] = values
    for index, (name, categories) in enumerate(encoding.categorical.items(), len(encoding.numeric)):
        column = table[name]
        codes = pc.index_in(column, value_set=pa.array(categories, pa.string()))
        if count := codes.null_count - column.null_count:
            unseen[name] = count
        matrix[:, index] = codes.cast(pa.float64()).to_numpy()
    return Encoded(matrix, unseen, infinite)
