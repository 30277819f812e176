"""The rows of evergreen.batch: one for each file that was decided, and which of them count."""

from __future__ import annotations

from datetime import datetime

from psycopg2 import sql

from evergreen.errors import ErrorReason, TransientError
from evergreen.spec import DatasetSpec
from evergreen.validation.outcome import State
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files.landed_file import LandedFile, Stamp

# Behind every batch that there is.
_LAST = sql.SQL(
    "(SELECT coalesce(max(greatest(p.id, p.place)), 0) + 1 FROM evergreen.batch AS p WHERE p.dataset = %(dataset)s)"
)


def remembered(file: LandedFile) -> Stamp:
    """The file's stamp; without what it takes to leave it out, where the next run has to try it again."""
    return file.stamp._replace(ctime_ns=None, inode=None) if file.passing else file.stamp


def stamps(conn: Connection, dataset: DatasetSpec, *, force: bool = False) -> set[Stamp]:
    """The files that need not be read: decided, and not to be judged again."""
    rows = fetch(
        conn,
        "SELECT file, file_size, file_mtime_ns, file_ctime_ns, file_inode FROM evergreen.batch WHERE dataset = %s"
        " AND file_inode IS NOT NULL AND replaced_by IS NULL AND (state <> 'quarantined' OR NOT %s)",
        (dataset.name, force),
    )
    return {Stamp(*row.values()) for row in rows}


def decided(
    conn: Connection,
    dataset: DatasetSpec,
    file: LandedFile,
    as_of: datetime,
    state: State,
    place: int | None = None,
) -> int:
    """Write the row of a file that is decided, or write over it where the file was held back; returns its id.

    Args:
        conn: the transaction that decides the file.
        dataset: its dataset.
        file: the file.
        as_of: the run's.
        state: what was decided.
        place: of the batch whose place it takes; None: behind all others.

    Raises:
        TransientError: another run has published it meanwhile.
    """
    stamp = remembered(file)
    rows = fetch(
        conn,
        sql.SQL(
            "INSERT INTO evergreen.batch AS b (dataset, checksum, file, file_size, file_mtime_ns, file_ctime_ns, file_inode,"
            " as_of, state, place, rows_read, rows_new, rows_changed, rows_held)"
            " VALUES (%(dataset)s, %(checksum)s, %(file)s, %(size)s, %(mtime)s, %(ctime)s, %(inode)s, %(as_of)s, %(state)s,"
            " CASE WHEN %(state)s = 'published' THEN coalesce(%(place)s::bigint, {last}) END, 0, 0, 0, 0)"
            " ON CONFLICT (dataset, checksum) WHERE replaced_by IS NULL DO UPDATE SET file = excluded.file,"
            " file_size = excluded.file_size, file_mtime_ns = excluded.file_mtime_ns, file_ctime_ns = excluded.file_ctime_ns,"
            " file_inode = excluded.file_inode, as_of = excluded.as_of, state = excluded.state, place = excluded.place,"
            " decided_at = clock_timestamp() WHERE b.state = 'quarantined' RETURNING id"
        ).format(last=_LAST),
        {
            "dataset": dataset.name, "checksum": file.checksum, "file": stamp.name, "size": stamp.size,
            "mtime": stamp.mtime_ns, "ctime": stamp.ctime_ns, "inode": stamp.inode, "as_of": as_of, "state": state,
            "place": place,
        },
    )  # fmt: skip
    if not rows:
        raise TransientError(
            f"{file.name} was published by another run meanwhile; this one starts again", ErrorReason.BUSY
        )
    return int(rows[0]["id"])


def keys_deleted(conn: Connection, dataset: DatasetSpec, file: LandedFile, as_of: datetime, rows: int) -> int:
    """Write the row of a file of keys, whose keys are gone; returns its id. The same file may come again."""
    made = fetch(
        conn,
        sql.SQL(
            "INSERT INTO evergreen.batch (dataset, checksum, file, as_of, state, place, rows_read, rows_new, rows_changed,"
            " rows_held) VALUES (%(dataset)s, %(checksum)s, %(file)s, %(as_of)s, 'keys_deleted', {last}, %(rows)s, 0, 0, 0)"
            " RETURNING id"
        ).format(last=_LAST),
        {"dataset": dataset.name, "checksum": file.checksum, "file": file.name, "as_of": as_of, "rows": rows},
    )
    return int(made[0]["id"])


def set_state(conn: Connection, batch: int, state: str) -> None:
    """Change the state of a batch."""
    with conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.batch SET state = %s WHERE id = %s", (state, batch))


def make_way(conn: Connection, batch: int) -> int | None:
    """Withdraw a batch for the new reading of its file; returns its place, None if it was never published."""
    (row,) = fetch(
        conn,
        "SELECT coalesce(place, CASE WHEN state IN ('published', 'withdrawn') THEN id END) AS place FROM evergreen.batch"
        " WHERE id = %s",
        (batch,),
    )
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.batch SET state = 'withdrawn', replaced_by = id WHERE id = %s", (batch,)
        )
    place: int | None = row["place"]
    return place


def replaced(conn: Connection, batch: int, by: int) -> None:
    """Name the batch to which another one made way."""
    with conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.batch SET replaced_by = %s WHERE id = %s", (by, batch))


def state_of(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> str | None:
    """The state of the batch with the content of a file; None where none was decided."""
    rows = fetch(
        conn,
        "SELECT state FROM evergreen.batch WHERE dataset = %s AND checksum = %s AND replaced_by IS NULL",
        (dataset.name, file.checksum),
    )
    return rows[0]["state"] if rows else None
