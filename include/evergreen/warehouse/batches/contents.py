"""What a dataset held up to a time, as a number of rows and a digest: other rows give another digest.

Everything that any as-of time up to then can see counts, and nothing else: a row that arrives later changes nothing, nor
does one that is corrected later, whose version moves into the history. A version that ends when it begins is never seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.migrate import ensure_dataset


@dataclass(frozen=True)
class Contents:
    """The versions of rows that had arrived by a time: how many, and a digest of their values and times."""

    versions: int
    digest: str


def contents(conn: Connection, dataset: DatasetSpec, until: datetime) -> Contents:
    """Digest what a dataset held up to a time.

    PostgreSQL hashes each version of a row and adds the hashes up, so that no order and no sort is needed; it takes about
    twice the time of counting the rows.

    Args:
        conn: the warehouse.
        dataset: its columns count; a dataset that never landed is an empty table.
        until: versions that had arrived by then count, and by when another one was known in their stead; aware.
    """
    ensure_dataset(conn, dataset)
    columns = sql.SQL(", ").join(map(sql.Identifier, dataset.columns))
    query = sql.SQL(
        "SELECT count(*) AS versions, coalesce(sum(hash_record_extended(ROW({columns}, _arrived_at,"
        " CASE WHEN _superseded_at <= {until} THEN _superseded_at END), 0)), 0)::text AS digest FROM ("
        "SELECT {columns}, _arrived_at, NULL::timestamptz AS _superseded_at FROM {current}"
        " UNION ALL SELECT {columns}, _arrived_at, _superseded_at FROM {history}"
        ") AS _versions WHERE _arrived_at <= {until} AND _superseded_at IS DISTINCT FROM _arrived_at"
    ).format(
        columns=columns,
        until=sql.Literal(until),
        current=sql.Identifier("data", dataset.name),
        history=sql.Identifier("data", f"{dataset.name}__history"),
    )
    (row,) = fetch(conn, query)
    return Contents(row["versions"], hashlib.sha256(row["digest"].encode()).hexdigest()[:16])
