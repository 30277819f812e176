"""Where the benchmarks run: a stack of their own with its own specs, or its PostgreSQL by itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2

from evergreen import settings
from evergreen.stack import control, processes
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import Layout
from evergreen.stack.postgres import Postgres
from evergreen.stack.variables import environment
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate

AIRFLOW = ("scheduler", "dag-processor", "triggerer", "api-server")


@dataclass(frozen=True)
class Place:
    """A running stack."""

    layout: Layout
    specs: Path
    api: AirflowApi

    @property
    def landing(self) -> Path:
        """Where files land, a folder for each dataset."""
        return Path(os.environ["EVERGREEN_LANDING"])

    @contextmanager
    def still(self) -> Iterator[None]:
        """Stop Airflow meanwhile, so that what is measured without it has the cores; PostgreSQL and MLflow go on."""
        state = self.layout.state()
        sessions = {s["session"]: s["created"] for name, s in state["services"].items() if name in AIRFLOW}
        # The supervisor would take what stands still for dead.
        stopped = [psutil.Process(state["supervisor"]["pid"]), *processes.in_sessions(sessions)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(stopped):
                process.resume()


@contextmanager
def place(write_specs: Callable[[Path], None] | None = None) -> Iterator[Place]:
    """Start a stack below a temporary folder and remove it at the end; its variables are in the environment.

    Nothing runs in it but what is triggered and what follows from that: a schedule would take files that landed for a run.

    Args:
        write_specs: puts specs into the stack's folder before it starts.
    """
    with _home() as layout:
        if write_specs:
            write_specs(Path(os.environ["EVERGREEN_SPECS"]))
        try:
            os.environ[settings.SCHEDULES.name] = "off"
            login = control.up(layout.home, say=lambda text: None)
            os.environ.update(environment(layout.home))
            api = AirflowApi(login.airflow_url, login.user, login.airflow_password)
            yield Place(layout, Path(os.environ["EVERGREEN_SPECS"]), api)
        finally:
            control.down(layout.home, say=lambda text: None)


class Server:
    """A stack's PostgreSQL by itself, which can be away for a while."""

    def __init__(self, layout: Layout, port: int) -> None:
        """Prepared, not started."""
        self.layout, self.port = layout, port
        self.postgres = Postgres(layout)
        self.postgres.prepare()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self.layout.log("postgres").open("ab") as log:
            self._process = subprocess.Popen(
                self.postgres.command(self.port), stdout=log, stderr=log, preexec_fn=self.postgres.become(), cwd="/"
            )  # fmt: skip
        while not self.postgres.is_ready(self.port):
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended: {self.layout.log('postgres').read_text()[-1000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; who is connected loses the connection."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None


@contextmanager
def warehouse() -> Iterator[str]:
    """Start a stack's PostgreSQL by itself: what runs beside it would take part in the measurement.

    Yields:
        URL of an empty, migrated warehouse; it and the stack's other variables are in the environment.
    """
    with server():
        yield os.environ["EVERGREEN_WAREHOUSE_URL"]


@contextmanager
def server() -> Iterator[Server]:
    """The same, for who wants to stop it; `EVERGREEN_WAREHOUSE_URL` names the empty, migrated warehouse."""
    with _home() as layout, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        layout.create()
        running = Server(layout, port)
        try:
            running.start()
            running.postgres.create_databases(port)
            url = running.postgres.url("warehouse", port)
            os.environ.update({**environment(layout.home), "EVERGREEN_WAREHOUSE_URL": url})
            with connect(url) as conn:
                migrate(conn)
            _may_checkpoint(layout, port)
            yield running
        finally:
            running.stop()


@contextmanager
def _home() -> Iterator[Layout]:
    base = Path(tempfile.mkdtemp(prefix="evergreen-bench-"))
    base.chmod(0o755)
    (base / "specs" / "datasets").mkdir(parents=True)
    (base / "specs" / "models").mkdir()
    before = dict(os.environ)
    os.environ["EVERGREEN_HOME"] = str(base / "home")
    os.environ["EVERGREEN_SPECS"] = str(base / "specs")
    try:
        yield Layout.of()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(base, ignore_errors=True)


def _may_checkpoint(layout: Layout, port: int) -> None:
    """Landing measures from a checkpoint on, so that neither way pays for what the other wrote."""
    admin = psycopg2.connect(
        host="127.0.0.1", port=port, user="postgres", password=layout.secrets["postgres"], dbname="postgres"
    )
    with closing(admin) as conn, conn.cursor() as cursor:
        cursor.execute("GRANT pg_checkpoint TO warehouse")
        conn.commit()
