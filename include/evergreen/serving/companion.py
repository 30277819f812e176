"""The companion of the server: a process of its own that follows the ledger and brings the log into the warehouse.

What it does may take long, and what it asks may be away; the server, which it never holds up, does not notice. It ends with the server:
its standard input ends then. Servers that share a folder, one on each core, share the work of one companion: the others wait for their turn.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from evergreen import settings
from evergreen.errors import EvergreenError, in_one_line
from evergreen.health.specs import SpecsFolder
from evergreen.serving import deliver, grants, kept, spool
from evergreen.serving.follow import Follower
from evergreen.serving.kept import Health
from evergreen.warehouse.connection import Connection, connect

log = logging.getLogger(__name__)

CHANNEL = "evergreen_serving"
POLL_S = 2.0
"""The ledger is read so often, too, where no word of it comes."""
AGAIN_S = 1.0
STATEMENT_S = 60
FORGET_S = 600.0
NICE = 10


@dataclass
class _Part:
    """One of the two works, and why it cannot be done now."""

    problem: str = ""
    since: float = 0.0

    def tell(self, problem: str) -> None:
        if bool(problem) != bool(self.problem):
            self.since = time.time()
            if problem:
                log.warning("%s; the companion goes on trying", problem)
            else:
                log.info("it works again")
        self.problem = problem


class Companion:
    """Both works, each in a thread of its own."""

    def __init__(self, local: bool) -> None:
        """`local`: a client of this machine gets its key, see `grants.ensure_local`."""
        self._local = local
        self._ended = threading.Event()
        self._ledger, self._mlflow, self._log = _Part(), _Part(), _Part()
        self._told = threading.Lock()

    def run(self) -> None:
        """Work until the server has ended, once no other companion works in the folder."""
        kept.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with (kept.folder() / "companion.lock").open("a") as lock:
            if _turn(lock):
                self._work()

    def _work(self) -> None:
        threads = [threading.Thread(target=work, daemon=True) for work in (self._follow, self._deliver)]
        for thread in threads:
            thread.start()
        with suppress(OSError):
            while sys.stdin.buffer.read(4096):
                pass
        self._ended.set()
        for thread in threads:
            thread.join(timeout=10)

    def _follow(self) -> None:
        follower = Follower()
        self._forever(self._ledger, lambda conn: self._listen(conn, follower))

    def _listen(self, conn: Connection, follower: Follower) -> None:
        """Follow the ledger as long as the connection lasts."""
        listening = psycopg2.connect(conn.dsn, password=conn.info.password)
        try:
            listening.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            with listening.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            told = True  # while nobody listened anything may have been decided
            while not self._ended.is_set():
                if self._local:
                    grants.ensure_local(conn)
                # A decision may be committed after one with a larger id: the word of it counts, whatever the newest id is.
                if follower.is_due(conn) or told:
                    follower.bring_up(conn)
                conn.commit()
                self._mlflow.tell(follower.mlflow)
                self._ledger.tell("")
                self._say()
                select.select([listening], [], [], POLL_S)
                listening.poll()
                told = bool(listening.notifies)
                listening.notifies.clear()
        finally:
            listening.close()

    def _deliver(self) -> None:
        self._forever(self._log, self._empty)

    def _empty(self, conn: Connection) -> None:
        """Bring files to the warehouse as long as the connection lasts."""
        specs = SpecsFolder(settings.specs_folder())
        forgot = 0.0
        while not self._ended.is_set():
            waiting = spool.waiting()
            for path in waiting:
                deliver.deliver(conn, path)
                self._log.tell("")
                if self._ended.is_set():
                    return
            if time.monotonic() - forgot > FORGET_S:
                deliver.forget_old(conn, specs.read())
                forgot = time.monotonic()
            self._log.tell("")
            self._ended.wait(AGAIN_S)
        # What the server wrote last.
        for path in spool.waiting():
            deliver.deliver(conn, path)

    def _forever(self, part: _Part, work: Callable[[Connection], None]) -> None:
        while not self._ended.is_set():
            try:
                with connect(timeout_s=STATEMENT_S) as conn:
                    work(conn)
            except (EvergreenError, psycopg2.Error, OSError) as error:
                part.tell(in_one_line(error))
            except Exception as error:
                log.exception("this should not happen; the companion goes on trying")
                part.tell(f"{type(error).__name__}: {in_one_line(error)}")
            self._say()
            self._ended.wait(AGAIN_S)

    def _say(self) -> None:
        """Write down what answers and what does not."""
        problem = self._ledger.problem or self._log.problem
        since = self._ledger.since if self._ledger.problem else self._log.since
        told = Health(
            time.time(), problem, since, self._mlflow.problem, self._mlflow.since, len(spool.waiting())
        )
        with self._told, suppress(OSError):
            kept.write(kept.health_file(), told)


def _turn(lock: IO[str]) -> bool:
    """Wait for the lock; False: the server has ended before."""
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not told:
                log.info("another companion works in %s; this one takes over when it ends", kept.folder())
            told = True
        # Nobody writes to it: it can be read when it has ended.
        if select.select([sys.stdin], [], [], AGAIN_S)[0]:
            return False


def main(*, local: bool) -> int:
    """Be the companion."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s companion %(levelname)s %(message)s")
    with suppress(OSError):
        os.nice(NICE)
    Companion(local).run()
    return 0
