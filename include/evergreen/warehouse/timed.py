"""A connection to the warehouse whose every wait ends in time, whatever has become of the server.

The driver's ordinary calls wait for a server that is frozen, or behind a broken network, until the system gives up on it: minutes.
Here each wait looks at a clock. What is not answered in time closes the connection, as nobody can tell what it would say next.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions, sql
from psycopg2.extensions import parse_dsn

from evergreen import settings


class OutOfTime(Exception):
    """The server has not answered by the deadline; the connection is closed."""


class TimedConnection:
    """One connection, for one thread at a time, without a transaction between its statements."""

    def __init__(self, parameters: Mapping[str, str], limit_s: float, *, name: str = "evergreen") -> None:
        """Connect.

        Args:
            parameters: settings of the session, such as TimeZone.
            limit_s: how long that may take, in seconds; what comes after it needs a `deadline` of its own.
            name: under which the server shows it.

        Raises:
            OutOfTime: the server does not answer.
            psycopg2.OperationalError: it refuses.
        """
        given = parse_dsn(settings.WAREHOUSE.read())
        options = " ".join(
            [given.pop("options", ""), *(f"-c {setting}={value}" for setting, value in parameters.items())]
        )
        self.deadline = time.monotonic() + limit_s
        self.conn = psycopg2.connect(
            **{**given, "application_name": name, "options": options.strip()}, async_=True
        )
        self._wait()

    def run(self, statement: sql.Composable) -> None:
        """Run statements that return nothing.

        Raises:
            OutOfTime: they did not end by `deadline`.
            psycopg2.Error: what the server said.
        """
        self.fetch(statement)

    def fetch(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        """The rows of a query, of the last one if there are several; errors as those of `run`."""
        with self.conn.cursor() as cursor:
            cursor.execute(query.as_string(self.conn))
            self._wait()
            return cursor.fetchall() if cursor.description else []

    def rows(self, query: sql.Composable) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries; for small results."""
        with self.conn.cursor() as cursor:
            cursor.execute(query.as_string(self.conn))
            self._wait()
            names = [c.name for c in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked of it any more."""
        return bool(self.conn.closed)

    def close(self) -> None:
        """Close it; again, it does nothing."""
        self.conn.close()

    def _wait(self) -> None:
        try:
            while (state := self.conn.poll()) != extensions.POLL_OK:
                left = self.deadline - time.monotonic()
                if left <= 0:
                    raise OutOfTime
                ready = select.poll()
                ready.register(
                    self.conn.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT
                )
                ready.poll(left * 1000)
        except psycopg2.Error:
            raise  # the server's word; where it was lost, the driver has closed the connection
        except BaseException:
            self.conn.close()
            raise
