"""What a person can do with the stack: bring it up, take it down, see how it is, remove it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from evergreen import settings
from evergreen.program import typed
from evergreen.stack import health, processes
from evergreen.stack.layout import Layout, StackError
from evergreen.stack.supervisor import ServiceState, leftovers, lock, sweep, tail
from evergreen.stack.variables import USER, overrides, python_path

Say = Callable[[str], None]
DOWN_WITHIN = 120.0


@dataclass(frozen=True)
class Login:
    """Addresses and passwords of the running stack."""

    airflow_url: str
    mlflow_url: str
    serving_url: str
    user: str
    airflow_password: str
    mlflow_password: str
    secrets_file: Path
    serving_key_file: Path


@dataclass(frozen=True)
class Row:
    """One line of the status table."""

    service: str
    state: str
    pid: int | None
    port: int | None
    since: datetime | None
    restarts: int
    message: str

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to do about it."""
        return self.state in ("up", ServiceState.DONE.value)


def login(home: Path | str | None = None) -> Login:
    """Return where Airflow, MLflow and the prediction service are, and how to get in."""
    layout = Layout.of(home)
    ports, secrets = layout.ports(), layout.secrets
    return Login(
        airflow_url=f"http://127.0.0.1:{ports['api-server']}",
        mlflow_url=f"http://127.0.0.1:{ports['mlflow']}",
        serving_url=f"http://127.0.0.1:{ports['serving']}",
        user=USER,
        airflow_password=secrets["airflow_login"],
        mlflow_password=secrets["mlflow_login"],
        secrets_file=layout.secrets_file,
        serving_key_file=layout.serving_key,
    )


def up(home: Path | str | None = None, *, say: Say = print, timeout: float = 300.0) -> Login:
    """Start the stack, or what is missing of it, and wait until all of it does its work.

    Args:
        home: the stack's home; by default `$EVERGREEN_HOME`, else `.evergreen/` in the project's folder.
        say: gets a line for each step.
        timeout: seconds to wait.

    Raises:
        StackError: it does not come up.
    """
    layout, started = Layout.of(home), time.monotonic()
    _require_dag_files(layout)
    layout.create()
    _ = layout.secrets
    if _supervisor(layout) is not None:
        _retry_failed(layout)
    attempt = None
    progress = _Progress(say, started)
    while time.monotonic() < started + timeout:
        if _supervisor(layout) is None:
            attempt = _launch(layout, attempt)
        else:
            state = layout.state()
            progress.notes(state.get("notes", []))
            rows = _rows(layout, state)
            progress.rows(rows)
            _raise_if_failed(layout, rows)
            if rows and "notes" in state and all(row.is_good for row in rows):
                progress.end()
                return login(layout.home)
        time.sleep(0.3)
    progress.end()
    missing = ", ".join(row.service for row in status(layout.home) if not row.is_good) or "the supervisor"
    raise StackError(
        f"Not ready after {timeout:.0f} s: {missing}; see {typed('status')} and the logs in {layout.logs}."
    )


def _require_dag_files(layout: Layout) -> None:
    """Refuse to start where Airflow would find no DAG: mostly in another folder than the project's.

    Raises:
        StackError: there is no folder with DAG files, and nothing names another.
    """
    variables = {**overrides(layout), **os.environ}
    folder = Path(variables.get("AIRFLOW__CORE__DAGS_FOLDER") or settings.project() / "dags")
    if not variables.get("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST") and not folder.is_dir():
        raise StackError(
            f"There is no folder {folder} with DAG files; go to the project's folder, or make one: `evergreen init FOLDER`."
        )


def down(home: Path | str | None = None, *, say: Say = print) -> None:
    """Stop the stack and wait until nothing of it runs. Nothing is lost.

    Raises:
        StackError: something cannot be stopped.
    """
    layout = Layout.of(home)
    if not layout.run.exists():
        say("The stack is not running.")
        return
    started = time.monotonic()
    supervisor = _supervisor(layout)
    if supervisor is None:
        say("No supervisor is running.")
    else:
        os.kill(supervisor, signal.SIGTERM)
        say("Stopping: the scheduler and its tasks first, PostgreSQL last.")
    seen: set[str] = set()
    while (held := lock(layout)) is None:
        for row in _rows(layout, layout.state(), probe=False):
            if row.state == ServiceState.STOPPED.value and row.service not in seen:
                seen.add(row.service)
                say(f"{_elapsed(started)} {row.service} stopped")
        if time.monotonic() > started + DOWN_WITHIN:
            if supervisor is None:
                raise StackError(f"Another process holds {layout.lock_file}; see {layout.log('supervisor')}.")
            say("It takes too long; killing the supervisor and all it started.")
            os.kill(supervisor, signal.SIGKILL)
            started, supervisor = time.monotonic(), None
        time.sleep(0.2)
    with held:
        if count := sweep(layout):
            say(f"Ended {count} processes that an earlier start had left.")
        remaining = leftovers(layout)
    if remaining:
        raise StackError(
            f"These processes cannot be ended: {', '.join(str(p.pid) for p in remaining)}; try as root."
        )
    say(f"{_elapsed(started)} The stack is down; its data stays in {layout.home}.")


def contents(home: Path | str | None = None) -> list[tuple[Path, int]]:
    """What `clean` would remove: each entry of the stack's home with the bytes that its files take."""
    folder = Layout.of(home).home
    if not folder.exists():
        return []
    return [(entry, _bytes(entry)) for entry in sorted(folder.iterdir())]


def _bytes(entry: Path) -> int:
    files = [entry, *entry.rglob("*")] if entry.is_dir() and not entry.is_symlink() else [entry]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):  # a running stack removes files meanwhile
            total += file.lstat().st_size
    return total


def clean(home: Path | str | None = None, *, say: Say = print) -> None:
    """Stop the stack and remove its home.

    Raises:
        StackError: it was not made by Evergreen, or cannot be removed.
    """
    layout = Layout.of(home)
    if not layout.home.exists():
        say(f"There is no {layout.home}.")
        return
    if not layout.mark.exists() and layout.home != settings.project() / ".evergreen":
        raise StackError(
            f"{layout.home} was not made by Evergreen (no {layout.mark.name} in it); it stays as it is."
        )
    down(layout.home, say=say)
    for entry in sorted(layout.home.iterdir()):
        say(f"Removing {entry}")
    try:
        shutil.rmtree(layout.home)
    except OSError as error:
        raise StackError(
            f"Cannot remove {error.filename}: {error.strerror}; run as the user who owns it."
        ) from error


def status(home: Path | str | None = None) -> list[Row]:
    """Return the state of each service; empty if the stack was never up."""
    layout = Layout.of(home)
    state = layout.state()
    if _supervisor(layout) is None:
        return [
            _row(name, service, ServiceState.STOPPED.value)
            for name, service in state.get("services", {}).items()
        ]
    return _rows(layout, state)


def ports(home: Path | str | None = None) -> dict[str, int]:
    """Return the port of each server: api-server, mlflow, mail, postgres, serving."""
    return Layout.of(home).ports()


def _supervisor(layout: Layout) -> int | None:
    """Return the process id of the running supervisor."""
    state = layout.state()
    known = state.get("supervisor")
    if (
        not known
        or state.get("boot") != processes.boot_id()
        or processes.created(known["pid"]) != known["created"]
    ):
        return None
    return int(known["pid"])


def _launch(layout: Layout, attempt: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes] | None:
    """Start a supervisor, unless one is just starting or the guard of a killed one still tidies up."""
    if attempt is not None:
        code = attempt.poll()
        if code is None:
            return attempt
        if code:
            log = layout.log("supervisor")
            if reason := layout.state().get("error"):
                raise StackError(reason)
            raise StackError(
                _with_tail(f"The supervisor ended with exit code {code}. Log: {log}.", tail(log))
            )
    held = lock(layout)
    if held is None:
        return None
    held.close()
    environment = {name: value for name, value in os.environ.items() if name != processes.MARKER}
    # It works in the home's folder.
    environment |= {"PYTHONPATH": python_path(), settings.PROJECT.name: str(settings.project())}
    with layout.log("supervisor").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "evergreen", "supervise", "--home", str(layout.home)],
            env=environment,
            cwd=layout.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _retry_failed(layout: Layout) -> None:
    if any(s["state"] == ServiceState.FAILED.value for s in layout.state().get("services", {}).values()):
        supervisor = _supervisor(layout)
        if supervisor is not None:
            os.kill(supervisor, signal.SIGHUP)
            time.sleep(1)


def _rows(layout: Layout, state: dict[str, Any], *, probe: bool = True) -> list[Row]:
    services = state.get("services", {})
    running = {name: s for name, s in services.items() if s["state"] == ServiceState.RUNNING.value}
    ill = health.unhealthy(layout, running) if probe and running else set()
    rows = []
    for name, service in services.items():
        shown = service["state"]
        if name in running:
            shown = "not ready" if name in ill else "up"
        rows.append(_row(name, service, shown))
    return rows


def _row(name: str, service: dict[str, Any], state: str) -> Row:
    alive = state not in (ServiceState.STOPPED.value, ServiceState.WAITING.value)
    since = datetime.fromtimestamp(service["since"]).astimezone() if alive and service["since"] else None
    return Row(
        name,
        state,
        service["pid"] if alive else None,
        service["port"],
        since,
        service["restarts"],
        service["message"],
    )


def _raise_if_failed(layout: Layout, rows: list[Row]) -> None:
    for row in rows:
        if row.state == ServiceState.FAILED.value:
            log = layout.log(row.service)
            raise StackError(
                _with_tail(
                    f"{row.message} Log: {log}; put it right and run {typed('up')} again, or stop the rest with {typed('down')}.",
                    tail(log),
                )
            )


def _with_tail(sentence: str, lines: list[str]) -> str:
    return "\n    ".join([sentence, *lines])


def _elapsed(started: float) -> str:
    return f"[{timedelta(seconds=int(time.monotonic() - started))}]"


class _Progress:
    """Says each change once; on a terminal it also shows what is being waited for."""

    def __init__(self, say: Say, started: float) -> None:
        self._say, self._started = say, started
        self._seen: dict[str, str] = {}
        # Whoever takes the lines elsewhere, as the demo does, tells its own time.
        self._timed = say is print
        self._live = self._timed and sys.stdout.isatty()

    def notes(self, notes: list[str]) -> None:
        for note in notes:
            self._once(note, "", note)

    def rows(self, rows: list[Row]) -> None:
        for row in rows:
            if row.is_good or row.state == ServiceState.RESTARTING.value:
                what = {"up": "is up", "done": "is done"}.get(row.state, f"restarts: {row.message}")
                self._once(row.service, what, f"{row.service} {what}")
        if self._live and (missing := [row.service for row in rows if not row.is_good]):
            print(f"\r\033[K{_elapsed(self._started)} waiting for {', '.join(missing)}", end="", flush=True)

    def end(self) -> None:
        if self._live:
            print("\r\033[K", end="", flush=True)

    def _once(self, key: str, value: str, line: str) -> None:
        if self._seen.get(key) != value:
            self._seen[key] = value
            self.end()
            self._say(f"{_elapsed(self._started)} {line}" if self._timed else line)
