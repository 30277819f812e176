"""Ends a process before the n-th call that changes something outside of it.

Such calls are: statements that write, and commits, of psycopg2 and ADBC; commits of SQLAlchemy (MLflow's store); files that
are opened for writing, renamed, removed, and folders that are made or removed below the places that are watched; and the
mails that the step hands to its mail server. They are counted in a fork, so nothing has to be known of the code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import clean_fork

WRITING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
READS = ("select", "show", "set", "begin", "fetch", "declare", "close", "explain", "with", "rollback")


@dataclass(frozen=True)
class Ended:
    """How a fork ended.

    Attributes:
        killed: by SIGKILL, at the call that was asked for.
        calls: what it did that changes something, in order; the last one was not done if it was killed.
        error: the traceback, if it raised.
    """

    killed: bool
    calls: tuple[str, ...]
    error: str


def in_fork(step: Callable[[], object], watched: Sequence[Path], kill_at: int | None = None) -> Ended:
    """Run a step in a fork, to its end or to the call before which it is killed.

    Args:
        step: what is run; it may raise, and is pickled with all that it refers to.
        watched: changes of files below these count.
        kill_at: number of the call, from 1; one more than there are calls kills it when all is done.
    """
    places = tuple(str(p) for p in watched)

    def work(pipe: Connection) -> None:
        counter = _Counter(pipe.fileno(), places, kill_at)
        counter.install()
        try:
            step()
            counter.call("end")
        except BaseException:
            os.write(pipe.fileno(), ("\x01" + traceback.format_exc()[-4000:]).encode())
            os._exit(1)
        os._exit(0)

    mine, theirs = Pipe(duplex=False)
    child = clean_fork.start(work, pipe=theirs)
    theirs.close()
    with os.fdopen(os.dup(mine.fileno()), "rb") as pipe:
        told = pipe.read().decode()
    mine.close()
    child.join()
    calls, error = (*told.split("\x01"), "")[:2]
    return Ended(child.exitcode == -signal.SIGKILL, tuple(calls.splitlines()), error)


class _Counter:
    """Counts the calls of this process, tells each through a pipe, and kills the process at one of them."""

    def __init__(self, pipe: int, watched: tuple[str, ...], kill_at: int | None) -> None:
        self.pipe, self.watched, self.kill_at = pipe, watched, kill_at
        self.count = 0
        self.owner = os.getpid()
        # MLflow downloads in threads: two calls at once must not step over the one that is asked for.
        self.lock = threading.RLock()

    def call(self, what: str) -> None:
        if os.getpid() != self.owner:  # a process that the step started
            return
        with self.lock:
            self.count += 1
            os.write(self.pipe, (" ".join(what.split())[:120] + "\n").encode(errors="replace"))
            if self.count == self.kill_at:
                os.kill(self.owner, signal.SIGKILL)

    def install(self) -> None:
        sys.addaudithook(self._audit)
        self._psycopg2()
        self._adbc()
        self._sqlalchemy()

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in WRITING or not args:
            return
        if event == "open":
            path, mode, flags = args
            writes = (
                any(c in mode for c in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
            )
            if not writes:
                return
        else:
            path = args[0]
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text.startswith(self.watched) and "-journal" not in text:
            self.call(f"{event} {Path(text).name}")

    def _psycopg2(self) -> None:
        import psycopg2
        from psycopg2.extensions import connection, cursor

        counter = self

        class Cursor(cursor):
            def execute(self, query: Any, params: Any = None) -> Any:
                text = (
                    query
                    if isinstance(query, str)
                    else (query.decode() if isinstance(query, bytes) else query.as_string(self))
                )
                if not text.lstrip("( \n").lower().startswith(READS) or _writes(text):
                    counter.call(text)
                return super().execute(query, params)

            def copy_expert(self, query: Any, file: Any, size: int = 8192) -> Any:
                counter.call("COPY")
                return super().copy_expert(query, file, size)

        class Connection(connection):
            def cursor(self, *args: Any, **more: Any) -> Any:
                more.setdefault("cursor_factory", Cursor)
                return super().cursor(*args, **more)

            def commit(self) -> None:
                counter.call("commit")
                super().commit()

        connect = psycopg2.connect

        def counted(*args: Any, **more: Any) -> Any:
            more.setdefault("connection_factory", Connection)
            return connect(*args, **more)

        psycopg2.connect = counted

    def _adbc(self) -> None:
        from adbc_driver_manager import dbapi

        for owner, name in (
            (dbapi.Cursor, "adbc_ingest"),
            (dbapi.Cursor, "execute"),
            (dbapi.Connection, "commit"),
        ):
            setattr(owner, name, self._before(getattr(owner, name), f"adbc {name}"))

    def _sqlalchemy(self) -> None:
        import sqlalchemy

        @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "commit")
        def _(_: Any) -> None:
            self.call("sqlalchemy commit")

    def _before(self, function: Any, what: str) -> Any:
        def counted(*args: Any, **more: Any) -> Any:
            self.call(what)
            return function(*args, **more)

        return counted


def _writes(text: str) -> bool:
    """Whether a statement that begins like a read writes nevertheless."""
    words = text.lower()
    return any(word in words for word in (" for update", "insert into", "update evergreen", "delete from"))
