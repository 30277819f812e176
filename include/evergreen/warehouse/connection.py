"""Connections to the warehouse: one place for the address, the time zone and what a lost server means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import parse_dsn

from evergreen import settings
from evergreen.errors import ErrorReason, TransientError, in_one_line
from evergreen.program import typed
from evergreen.warehouse.storage.full_disk import full

__all__ = ["Connection", "connect", "fetch"]

# A server that vanished without a word is noticed after two minutes, not after two hours. What the address says wins.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "60",
    "keepalives_interval": "15",
    "keepalives_count": "4",
}


@contextmanager
def connect(url: str | None = None, *, timeout_s: int = 600) -> Iterator[Connection]:
    """Open a connection for one transaction: committed at the end, rolled back on any error, always closed.

    Args:
        url: libpq URL or DSN; default EVERGREEN_WAREHOUSE_URL, in Airflow also its connection.
        timeout_s: the server ends a statement that runs longer.

    Raises:
        TransientError: the server cannot be reached or went away, another run holds a lock, or a statement took
            longer than `timeout_s` (BUSY); its disk is full (NO_SPACE).
    """
    given = parse_dsn(url or settings.WAREHOUSE.read())
    limits = f"-c TimeZone=UTC -c statement_timeout={timeout_s * 1000} -c lock_timeout=60000"
    options = f"{given.pop('options', '')} {limits}".strip()
    try:
        conn = psycopg2.connect(**{**_PATIENCE, **given, "application_name": "evergreen", "options": options})
    except psycopg2.OperationalError as error:
        raise lost(error) from error
    try:
        yield conn
        conn.commit()
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected) as error:
        conn.rollback()
        raise TransientError(
            f"another run holds the lock: {in_one_line(error)}; try again when it has ended", ErrorReason.BUSY
        ) from error
    except psycopg2.errors.QueryCanceled as error:
        conn.rollback()
        raise TransientError(
            f"the warehouse ended a statement ({in_one_line(error)}); its limit is {timeout_s} s. Try again; if "
            "it stays, choose a smaller window or chunk, add an index that the query can use, or allow a longer time-out",
            ErrorReason.BUSY,
        ) from error
    except psycopg2.errors.DiskFull as error:
        conn.rollback()
        raise full("no space left on the disk of the warehouse's server", error) from error
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        if (
            conn.closed
            or isinstance(error, psycopg2.InterfaceError)
            or error.pgcode is None
            or error.pgcode[:2] in ("08", "57")
        ):
            raise lost(error) from error
        conn.rollback()
        raise
    except BaseException:
        if not conn.closed:
            conn.rollback()
        raise
    finally:
        conn.close()


def fetch(conn: Connection, query: Any, params: Any = None) -> list[dict[str, Any]]:
    """Run a query and return its rows as dictionaries; for small results."""
    with conn.cursor() as cursor:
        cursor.execute(query, params)
        names = [c.name for c in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def lost(error: object) -> TransientError:
    """What a lost connection is to a task; `error` is what the server or the driver said."""
    return TransientError(
        f"the warehouse does not answer ({in_one_line(error)}); start it ({typed('up')} for the embedded stack) and try again. {typed('status')} shows what is up",
        ErrorReason.UNREACHABLE,
    )
