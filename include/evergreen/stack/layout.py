"""Where the embedded stack keeps what it owns: folders, generated secrets, remembered ports, its state.

Everything lies below one folder, the home (`.evergreen/` in the project's folder, or `$EVERGREEN_HOME`), which only
its owner can enter. Two projects have two homes and share nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evergreen import settings
from evergreen.program import typed

PREFERRED_PORTS = {"api-server": 8080, "mlflow": 5000, "mail": 1025, "postgres": 5433, "serving": 8088}


class StackError(Exception):
    """The stack cannot do what was asked; the message is one sentence with the next step."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file, or an empty one if the file is not there."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StackError(f"Cannot read {path}: {error.strerror}; run as the user who owns it.") from error
    except ValueError as error:
        raise StackError(
            f"{path} is damaged ({error}); restore it, or {typed('clean')} removes all."
        ) from error
    if not isinstance(value, dict):
        raise StackError(
            f"{path} is damaged (not a JSON object); restore it, or {typed('clean')} removes all."
        )
    return value


@dataclass(frozen=True)
class Layout:
    """The folders and files of one stack.

    Args:
        home: the folder that holds them; absolute.
    """

    home: Path

    @classmethod
    def of(cls, home: Path | str | None = None) -> Layout:
        """Return the layout of a home; without one, that of `$EVERGREEN_HOME` or of the project's folder."""
        return cls(Path(home).resolve() if home else settings.HOME.path())

    @property
    def pgdata(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "postgres"

    @property
    def airflow(self) -> Path:
        """Airflow's home."""
        return self.home / "airflow"

    @property
    def artifacts(self) -> Path:
        """What MLflow serves as artifacts."""
        return self.home / "mlflow"

    @property
    def mail(self) -> Path:
        """The caught e-mails."""
        return self.home / "mail"

    @property
    def logs(self) -> Path:
        """One log per service, and Airflow's task logs."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """Lock and state of the running stack."""
        return self.home / "run"

    @property
    def secrets_file(self) -> Path:
        """All generated passwords and keys."""
        return self.home / "secrets.json"

    @property
    def passwords_file(self) -> Path:
        """The Airflow login, in the form that its SimpleAuthManager reads."""
        return self.airflow / "passwords.json"

    @property
    def mlflow_auth_file(self) -> Path:
        """MLflow's configuration for logins."""
        return self.home / "mlflow-auth.ini"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor as long as anything of the stack may be running."""
        return self.run / "lock"

    @property
    def state_file(self) -> Path:
        """What the supervisor last knew about its services."""
        return self.run / "state.json"

    @property
    def ports_file(self) -> Path:
        """The ports of the last start, and of the first."""
        return self.home / "ports.json"

    @property
    def versions_file(self) -> Path:
        """Versions to which the databases were migrated."""
        return self.home / "versions.json"

    @property
    def overrides_file(self) -> Path:
        """Environment variables that a program has set for this stack, over the stack's own defaults."""
        return self.home / "overrides.json"

    @property
    def serving_key(self) -> Path:
        """The key with which this machine asks the prediction service (`evergreen.serving.grants.local_key_file`)."""
        return self.home / "serving" / "local.key"

    def log(self, service: str) -> Path:
        """Return the log file of a service."""
        return self.logs / f"{service}.log"

    @property
    def mark(self) -> Path:
        """Says that the home was made by Evergreen and may be removed as a whole."""
        return self.home / "README.txt"

    def create(self) -> None:
        """Create the folders.

        Raises:
            StackError: the home cannot be written, belongs to another user, or holds something else.
        """
        try:
            foreign = self.home.exists() and not self.mark.exists() and any(self.home.iterdir())
            if foreign and self.home != settings.project() / ".evergreen":
                raise StackError(
                    f"{self.home} holds other files already; set EVERGREEN_HOME to a new or empty folder."
                )
            for folder in (self.home, self.airflow, self.artifacts, self.mail, self.logs, self.run):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.secrets_file.stat().st_uid if self.secrets_file.exists() else os.geteuid()
            if owner == os.geteuid():
                self.home.chmod(0o700)
                self.mark.write_text(
                    f"Made by Evergreen's embedded stack. {typed('clean')} removes this folder.\n"
                )
                with tempfile.TemporaryFile(dir=self.run):
                    return
        except OSError as error:
            raise StackError(
                f"Cannot write to {error.filename or self.home}: {error.strerror}; "
                "make it writable, or set EVERGREEN_HOME to a folder that is."
            ) from error
        raise StackError(
            f"{self.home} belongs to user id {owner}, and this is user id {os.geteuid()}; run as that user, "
            "or set EVERGREEN_HOME to another folder."
        )

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The generated passwords and keys; made at first use, different in every home."""
        known = read_json(self.secrets_file)
        if not known:
            if (self.pgdata / "PG_VERSION").exists():
                raise StackError(
                    f"{self.secrets_file} is missing but {self.pgdata} is there, and its passwords are lost; "
                    f"restore the file, or {typed('clean')} removes all."
                )
            self.create()
            fresh = {
                name: secrets.token_hex(16)
                for name in ("postgres", "airflow_db", "mlflow_db", "warehouse_db")
            }
            fresh |= {name: secrets.token_urlsafe(12) for name in ("airflow_login", "mlflow_login")}
            fresh |= {name: secrets.token_hex(32) for name in ("jwt", "api", "mlflow_session")}
            fresh["fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            draft = self.secrets_file.with_suffix(f".{os.getpid()}")
            write_private(draft, json.dumps(fresh, indent=1))
            # A link, unlike a rename, fails if another process was faster: then its secrets hold.
            with contextlib.suppress(FileExistsError):
                os.link(draft, self.secrets_file)
            draft.unlink()
            known = read_json(self.secrets_file)
        return {str(name): str(value) for name, value in known.items()}

    def ports(self) -> dict[str, int]:
        """Return the port of each server: those of the last start, else the preferred ones."""
        known = read_json(self.ports_file)
        return {name: int(known.get(name, preferred)) for name, preferred in PREFERRED_PORTS.items()}

    def first_ports(self) -> dict[str, int]:
        """Return the ports of the first start, which links in sent mails lead to; empty before it."""
        known = read_json(self.ports_file)
        first = known.get("first", known)
        return {name: int(first[name]) for name in PREFERRED_PORTS if name in first}

    def keep_ports(self, chosen: Mapping[str, int]) -> None:
        """Write the ports of this start, beside those of the first."""
        write_private(self.ports_file, json.dumps({**chosen, "first": {**chosen, **self.first_ports()}}))

    def project(self) -> Path:
        """The project that the stack works for: EVERGREEN_PROJECT, else the one of its last start, else the current one."""
        own = os.environ.get(settings.PROJECT.name) or self.state().get("project")
        return Path(own).resolve() if own else settings.project()

    def state(self) -> dict[str, Any]:
        """Return what the supervisor wrote last; empty if it never ran."""
        return read_json(self.state_file)
