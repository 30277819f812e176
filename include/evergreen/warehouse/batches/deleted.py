"""Rows that say of themselves that they are deleted: a column of the dataset tells, see `deleted` in its spec.

Such a row is published like any other, as the newest version of its key, and no view shows it. So it is seen by the as-of
times before it arrived, a key that comes again is a new version, and rows that land out of order come out right.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.warehouse.batches.publish import HELD
from evergreen.warehouse.batches.staging import Staged, beside, table
from evergreen.warehouse.connection import Connection


def is_deleted(dataset: DatasetSpec) -> sql.Composable:
    """The condition under which a row is deleted; never NULL."""
    if dataset.deleted is None:
        return sql.SQL("false")
    true = "IS TRUE" if dataset.columns[dataset.deleted].type == "boolean" else "IS NOT NULL"
    return sql.SQL("{} {}").format(sql.Identifier(dataset.deleted), sql.SQL(true))


def set_apart(conn: Connection, dataset: DatasetSpec, staged: Staged) -> Staged:
    """Copy the rows of a typed table that are not deleted to a table of their own, if some are.

    A deleted row often has its key and nothing else, so most expectations are about the others.
    """
    if dataset.deleted is None:
        return staged
    living = beside(staged.raw, "l")
    with conn.cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT count(*) FILTER (WHERE {0}), count(*) FILTER (WHERE NOT {0}) FROM {1}").format(
                is_deleted(dataset), table(staged.typed)
            )
        )
        deleted, others = cursor.fetchone() or (0, 0)
        if not deleted:
            return staged
        cursor.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT * FROM {} WHERE NOT {}").format(
                table(living), table(staged.typed), is_deleted(dataset)
            )
        )
    return replace(staged, living=living, living_rows=others)


def published(conn: Connection, dataset: DatasetSpec, staged: Staged) -> int:
    """How many rows of a batch say that they are deleted and are not held back; after `publish.mark_held`."""
    if not staged.living:
        return 0
    with conn.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT count(*) FROM {} AS n WHERE {}"
                " AND NOT EXISTS (SELECT 1 FROM {} AS held WHERE held._row = n._row)"
            ).format(table(staged.typed), is_deleted(dataset), HELD)
        )
        return int((cursor.fetchone() or (0,))[0])
