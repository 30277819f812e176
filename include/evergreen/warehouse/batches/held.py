"""Which rows that were held back are still missing: their keys are kept, and looked for among what is published since."""

from __future__ import annotations

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.warehouse.batches import staging
from evergreen.warehouse.batches.publish import HELD
from evergreen.warehouse.batches.staging import Staged
from evergreen.warehouse.connection import Connection, fetch

KEPT_KEYS = 10_000


def note(conn: Connection, dataset: DatasetSpec, staged: Staged | None, batch: int, *, whole: bool) -> None:
    """Keep the keys of the rows of a batch that are held back, the first KEPT_KEYS of the file.

    Args:
        conn: the transaction that decides the batch, after `publish.mark_held`.
        dataset: whose key it is.
        staged: the batch, with its raw table; None for a file of which no row was read.
        batch: its id.
        whole: all of its rows are held, and not only those that are marked.
    """
    forget(conn, batch)
    if staged is None or dataset.generated:  # a row without a key of its own comes again as another one
        return
    which = sql.SQL("true") if whole else sql.SQL("_row IN (SELECT _row FROM {})").format(HELD)
    with staging.local_time(conn, dataset), conn.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "INSERT INTO evergreen.held_key (batch, row_number, key)"
                " SELECT {}, _row, key FROM ({}) AS keys WHERE {} ORDER BY _row LIMIT {}"
            ).format(
                sql.Literal(batch), staging.keys(dataset, staged), which, sql.Literal(KEPT_KEYS)
            )
        )  # fmt: skip


def forget(conn: Connection, batch: int) -> None:
    """Drop the keys of a batch of which nothing is held any more."""
    with conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.held_key WHERE batch = %s", (batch,))


def missing(conn: Connection, dataset: str, batch: int) -> int | None:
    """How many of the rows of a batch that were held back were not published by a later one.

    Args:
        conn: the warehouse.
        dataset: its name.
        batch: the id of the batch.

    Returns:
        None where it cannot be told: no row was read, or the dataset's tables are not there.
    """
    columns = fetch(
        conn,
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_index JOIN pg_attribute"
        " ON attrelid = indrelid AND attnum = ANY(indkey) WHERE indisprimary AND indrelid = to_regclass(%s)",
        (f"data.{dataset}",),
    )
    if not columns or not fetch(conn, "SELECT 1 FROM evergreen.held_key WHERE batch = %s LIMIT 1", (batch,)):
        return None
    same = sql.SQL(" AND ").join(
        sql.SQL("d.{} = (k.key->>{})::{}").format(
            sql.Identifier(c["attname"]), sql.Literal(c["attname"]), sql.SQL(c["type"])
        )
        for c in columns
    )
    (row,) = fetch(
        conn,
        sql.SQL(
            "SELECT count(*) AS n FROM evergreen.held_key AS k WHERE k.batch = {batch} AND NOT EXISTS ("
            " SELECT 1 FROM {current} AS d WHERE {same} AND d._batch > {batch})"
        ).format(batch=sql.Literal(batch), current=sql.Identifier("data", dataset), same=same),
    )
    return int(row["n"])
