"""Asset events that are owed: what was committed and Airflow has not been told of yet.

A decision that another DAG waits for owes an event in its own transaction; a scoring does with each chunk. The task that
emits the event has the row deleted when Airflow has it. A process that dies in between leaves the row, and the next run
that may emit an event of this asset does so: an event comes at least once, and those who wait for it can bear it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen.warehouse.connection import Connection, fetch


@dataclass(frozen=True)
class Owed:
    """What is owed of an asset: the newest row's id, and the newest as-of time of all rows."""

    upto: int
    as_of: datetime


def owe(conn: Connection, asset: str, as_of: datetime, run_id: str) -> None:
    """Owe an event of an asset, in the open transaction.

    Args:
        conn: the warehouse.
        asset: `dataset/NAME` (new rows), `model/NAME` (another champion) or `predictions/NAME`.
        as_of: as of when those who wait have to look.
        run_id: whose work it tells.
    """
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.owed_event (asset, as_of, run_id) VALUES (%s, %s, %s)",
            (asset, as_of, run_id),
        )


def owed(conn: Connection, asset: str) -> Owed | None:
    """What is owed of an asset, by whichever run; None if nothing is."""
    (row,) = fetch(
        conn,
        "SELECT max(id) AS upto, max(as_of) AS as_of FROM evergreen.owed_event WHERE asset = %s",
        (asset,),
    )
    return Owed(row["upto"], row["as_of"]) if row["upto"] is not None else None


def forget(conn: Connection, asset: str, upto: int) -> None:
    """Forget what was owed of an asset up to a row: Airflow has the event."""
    with conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.owed_event WHERE asset = %s AND id <= %s", (asset, upto))
