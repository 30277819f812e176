"""Equal rows of one file: numbered, where a row has no key of its own, and one of them kept, where the spec says so.

What makes rows equal is the content of their columns in their types: 1.0 and 1.00 are equal, and so is one time in two
zones. An empty value is left out of it, so that a column that the spec gains later makes no old row a new one.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.spec.dataset import ROW_ID
from evergreen.warehouse.batches.staging import Staged, beside, table
from evergreen.warehouse.connection import Connection

_HASH = "left(encode(sha256(convert_to(jsonb_strip_nulls(to_jsonb(t) - ARRAY['_row', '_key'])::text, 'UTF8')), 'hex'), 32)"


def settle(conn: Connection, dataset: DatasetSpec, staged: Staged) -> Staged:
    """Give the rows of a typed table their `_row_id`, and drop duplicates, as far as the spec asks for it.

    `_row_id` is the hash of the content, a hyphen, and 1 for the first row of the file with this content, 2 for the
    second, and so on. So the same content in another file is the same row, and one more of it is one more row.

    Args:
        conn: the transaction in which the typed table may be made anew.
        dataset: the spec.
        staged: the batch, typed, without the generated column.

    Returns:
        The batch, with the number of dropped rows in `duplicates`.
    """
    drop = dataset.duplicates == "drop"
    if not dataset.generated and not drop:
        return staged
    made_anew = beside(staged.raw, "x")
    names = [sql.Identifier("_row"), *map(sql.Identifier, dataset.delivered.columns)]
    if len(dataset.key) > 1:
        names.append(sql.Identifier("_key"))
    columns = sql.SQL(", ").join(names)
    made = sql.SQL(", _hash || '-' || _nth AS {}").format(sql.Identifier(ROW_ID))
    with conn.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute(
            sql.SQL(
                "CREATE UNLOGGED TABLE {new} AS SELECT {columns}{made} FROM ("
                " SELECT *, row_number() OVER (PARTITION BY _hash ORDER BY _row) AS _nth FROM ("
                "  SELECT {columns}, {hash} AS _hash FROM {old} AS t) AS hashed) AS numbered WHERE {kept}"
            ).format(
                new=table(made_anew), old=table(staged.typed), columns=columns, hash=sql.SQL(_HASH),
                made=made if dataset.generated else sql.SQL(""),
                kept=sql.SQL("_nth = 1") if drop else sql.SQL("true"),
            )
        )  # fmt: skip
        kept = cursor.rowcount
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(table(staged.typed)))
        (before,) = cursor.fetchone() or (kept,)
        cursor.execute(sql.SQL("DROP TABLE {}").format(table(staged.typed)))
        cursor.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(table(made_anew), sql.Identifier(staged.typed))
        )
    return replace(staged, duplicates=int(before) - kept)
