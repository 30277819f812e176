"""The ranges of a snapshot's columns, from what Parquet keeps beside each group of rows: no row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from evergreen.ledger.words import num
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec

MOST_VALUES = 6


@dataclass(frozen=True)
class ColumnRange:
    """One column: what it is to the model, what its values are, and the share of rows without one (0 to 1)."""

    name: str
    role: str
    values: str
    missing: float | None


def column_ranges(model: ModelSpec, encoding: Encoding, path: Path) -> tuple[ColumnRange, ...]:
    """The label and the features of a snapshot, the label first.

    Args:
        model: the spec.
        encoding: of the version, for its categories.
        path: the snapshot's file.
    """
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        places = {metadata.schema.column(c).path: c for c in range(metadata.num_columns)}
        kept = {name: [g.column(c).statistics for g in groups] for name, c in places.items()}
        rows = metadata.num_rows
    found = []
    for name, role in (
        ("_label", "label"),
        *((n, "number") for n in encoding.numeric),
        *((n, "category") for n in encoding.categorical),
    ):
        told = kept.get(name, [])
        known = bool(told) and all(s is not None and s.has_null_count for s in told)
        missing = sum(s.null_count for s in told) / rows if known and rows else None
        values = _categories(encoding.categorical[name]) if role == "category" else _range(told)
        found.append(ColumnRange(model.label.column if name == "_label" else name, role, values, missing))
    return tuple(found)


def _range(told: Sequence[pq.Statistics | None]) -> str:
    some = [s for s in told if s is not None and s.has_min_max]
    if not some:
        return "not known"
    # Parquet keeps the zero with which a range begins as -0.0.
    low, high = (float(end) + 0.0 for end in (min(s.min for s in some), max(s.max for s in some)))
    return f"{num(low)} to {num(high)}"


def _categories(values: Sequence[str]) -> str:
    shown = ", ".join(values[:MOST_VALUES])
    more = f" and {len(values) - MOST_VALUES:,} more" if len(values) > MOST_VALUES else ""
    return f"{len(values):,}: {shown}{more}"
