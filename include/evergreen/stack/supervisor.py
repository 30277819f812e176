"""The one background process of the stack: it starts the services in order, restarts them, and ends with them.

It has one thread, because a child is told about its parent's death by the thread that started it. Beside it
runs the guard, which outlives a killed supervisor just long enough to end what the supervisor left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import psutil

from evergreen import settings
from evergreen.stack import processes
from evergreen.stack.free_ports import Ports
from evergreen.stack.layout import Layout, StackError, write_private
from evergreen.stack.services import Service, ServiceKind, services

FAST = 60.0
"""Seconds; a service that ends sooner after its start crashed fast."""

MAX_FAST_CRASHES = 5
LONGEST_PAUSE = 30.0
LOG_LIMIT = 50 * 1024 * 1024
TAIL_LINES = 15
TICK = 0.1


class ServiceState(StrEnum):
    """What a service is doing."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class Child:
    """A service and what became of it."""

    service: Service
    state: ServiceState = ServiceState.WAITING
    process: subprocess.Popen[bytes] | None = None
    created: float = 0.0
    since: float = 0.0
    restarts: int = 0
    fast_crashes: int = 0
    next_start: float = 0.0
    message: str = ""
    next_probe: float = 0.0
    deadline: float = 0.0
    asked_all: bool = False

    def members(self) -> list[psutil.Process]:
        """Return what lives of its last process and of all that this one started."""
        session = {self.process.pid: self.created} if self.process else {}
        return processes.in_sessions(session, data=self.service.folder)

    def as_json(self) -> dict[str, Any]:
        """Return what the state file says of it."""
        alive = self.process is not None and self.process.returncode is None
        return {
            "state": self.state.value,
            "kind": self.service.kind.value,
            "pid": self.process.pid if self.process and alive else None,
            "session": self.process.pid if self.process else None,
            "created": self.created,
            "port": self.service.port,
            "since": self.since,
            "restarts": self.restarts,
            "message": self.message,
        }


@dataclass
class Supervisor:
    """Runs services until it is asked to stop.

    Args:
        layout: the stack's home.
        services: what to run.
        notes: sentences for the person who started it.
        pause: seconds before the first restart; doubled for each further fast crash.
    """

    layout: Layout
    services: Sequence[Service]
    notes: list[str] = field(default_factory=list)
    pause: float = 1.0

    def __post_init__(self) -> None:
        self._children = {service.name: Child(service) for service in self.services}
        self._stop = self._retry = False
        self._written: dict[str, Any] = {}

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP tries failed services again."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: setattr(self, "_stop", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_retry", True))
        next_trim = 0.0
        try:
            while not self._stop:
                self._tick()
                if time.monotonic() > next_trim:
                    next_trim = time.monotonic() + 60
                    self._trim_logs()
                time.sleep(TICK)
        finally:
            self._stop_all()

    def _tick(self) -> None:
        if self._retry:
            self._retry = False
            for child in self._children.values():
                if child.state is ServiceState.FAILED:
                    child.state, child.fast_crashes, child.next_start = ServiceState.WAITING, 0, 0.0
        for child in self._children.values():
            if child.process is not None and child.state in (ServiceState.STARTING, ServiceState.RUNNING):
                code = child.process.poll()
                if code is not None:
                    self._ended(child, code)
                elif child.state is ServiceState.STARTING:
                    self._probe(child)
            elif child.state in (ServiceState.WAITING, ServiceState.RESTARTING) and self._is_due(child):
                self._start(child)
        self._write()

    def _is_due(self, child: Child) -> bool:
        ready = (ServiceState.RUNNING, ServiceState.DONE)
        return time.monotonic() >= child.next_start and all(
            self._children[name].state in ready for name in child.service.after
        )

    def _start(self, child: Child) -> None:
        service = child.service
        child.since = time.time()
        try:
            if service.prepare:
                service.prepare()
            child.process = processes.start(
                service.command,
                service.environment,
                self.layout.home,
                self.layout.log(service.name),
                parent_death_signal=service.orphan_signal,
                become=service.become,
            )
        except (StackError, OSError, subprocess.SubprocessError) as error:
            child.state = ServiceState.FAILED
            child.message = (
                str(error) if isinstance(error, StackError) else f"{service.name} cannot be started: {error}."
            )
            return
        child.created = processes.created(child.process.pid) or time.time()
        child.state = ServiceState.STARTING
        self._say(f"{service.name} started, pid {child.process.pid}")
        self._probe(child)

    def _probe(self, child: Child) -> None:
        """Let those that wait for a server start once it is ready."""
        service = child.service
        if service.kind is ServiceKind.STEP or time.monotonic() < child.next_probe:
            return
        child.next_probe = time.monotonic() + 0.3
        if service.is_ready is None or service.is_ready():
            self._ready(child, ServiceState.RUNNING)

    def _ready(self, child: Child, state: ServiceState) -> None:
        if child.service.on_ready:
            try:
                child.service.on_ready()
            except Exception as error:
                # It is tried again with the service: nothing may follow on a half-prepared one.
                traceback.print_exc()
                child.message = f"{child.service.name} runs but could not be set up: {str(error).strip()}."
                child.next_probe = time.monotonic() + 3
                if state is ServiceState.DONE:
                    child.state = ServiceState.FAILED
                return
        child.state, child.message = state, ""
        self._say(f"{child.service.name} is {state.value}")

    def _ended(self, child: Child, code: int) -> None:
        service = child.service
        processes.kill(child.members)
        if service.kind is ServiceKind.STEP and code == 0:
            self._ready(child, ServiceState.DONE)
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._say(f"{service.name} {how}")
        fast = time.time() - child.since < FAST
        child.fast_crashes = child.fast_crashes + 1 if fast else 1
        if service.kind is ServiceKind.STEP or child.fast_crashes >= MAX_FAST_CRASHES:
            child.state = ServiceState.FAILED
            often = f" {child.fast_crashes} times in a row" if child.fast_crashes > 1 else ""
            child.message = f"{service.name} {how}{often}."
            return
        child.restarts += 1
        child.state, child.message = ServiceState.RESTARTING, f"{service.name} {how}."
        pause = min(self.pause * 2 ** (child.fast_crashes - 1), LONGEST_PAUSE)
        child.next_start = time.monotonic() + pause

    def _stop_all(self) -> None:
        """Stop round by round, so that tasks can still report to the API and everything to the database."""
        for stop_round in sorted({service.stop_round for service in self.services}):
            stopping = []
            for child in self._children.values():
                if child.service.stop_round == stop_round and child.process:
                    if child.process.poll() is None:
                        child.state = ServiceState.STOPPING
                        child.process.send_signal(child.service.stop_signal)
                    child.deadline, child.asked_all = time.monotonic() + child.service.grace, False
                    stopping.append(child)
            while stopping:
                self._write()
                stopping = [child for child in stopping if not self._has_stopped(child)]
                time.sleep(TICK)
            self._write()

    def _has_stopped(self, child: Child) -> bool:
        """Ask the whole session where the first process has ended or is late; then kill what does not end."""
        assert child.process is not None
        late = time.monotonic() > child.deadline
        if child.process.poll() is None and not late:
            return False
        if members := child.members():
            if not child.asked_all:
                # Tasks that still run can say to Airflow how they ended, if they are given the time.
                child.asked_all = True
                child.deadline = time.monotonic() + (5.0 if child.service.stop_round == 1 else 1.0)
                for member in members:
                    with contextlib.suppress(psutil.Error):
                        member.terminate()
                return False
            if not late:
                return False
            processes.kill(child.members)
        child.process.wait()
        child.state = ServiceState.STOPPED
        self._say(f"{child.service.name} stopped")
        return True

    def _trim_logs(self) -> None:
        """Keep each log within its limit; the services append, so a truncated file goes on from its start."""
        for log in self.layout.logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                with log.open("rb+") as file:
                    file.seek(-LOG_LIMIT // 2, os.SEEK_END)
                    log.with_suffix(".log.1").write_bytes(file.read())
                    file.truncate(0)

    def _write(self) -> None:
        state = {
            **_identity(),
            "boot": processes.boot_id(),
            "project": str(settings.project()),
            "notes": self.notes,
            "services": {name: child.as_json() for name, child in self._children.items()},
        }
        if state != self._written:
            self._written = state
            with contextlib.suppress(OSError):
                write_private(self.layout.state_file, json.dumps(state, indent=1))

    @staticmethod
    def _say(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 100_000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def leftovers(layout: Layout) -> list[psutil.Process]:
    """Return the processes of this home that run although no supervisor does."""
    state = layout.state()
    sessions = {}
    if state.get("boot") == processes.boot_id():
        sessions = {s["session"]: s["created"] for s in state["services"].values() if s["session"]}
    return processes.in_sessions(sessions, home=layout.home, data=layout.pgdata)


def sweep(layout: Layout) -> int:
    """End what a killed supervisor left, PostgreSQL last and in order; return how many processes that were."""

    def all_but_postgres() -> list[psutil.Process]:
        return [process for process in leftovers(layout) if not _works_in(process, layout.pgdata)]

    found = leftovers(layout)
    processes.kill(all_but_postgres)
    if not processes.end(lambda: leftovers(layout), signal.SIGINT, grace=20):
        processes.kill(lambda: leftovers(layout))
    return len(found)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.cwd() == str(folder))
    except psutil.Error:
        return False


def lock(layout: Layout) -> IO[str] | None:
    """Take the lock of the home; None if a supervisor, or its guard, holds it."""
    file = layout.lock_file.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def main(layout: Layout) -> int:
    """Run the stack's services in the foreground; at once 0 if another supervisor does so for this home."""
    held = lock(layout)
    if held is None:
        return 0
    os.umask(0o077)
    state = {
        "boot": processes.boot_id(),
        "project": str(settings.project()),
        "services": _last_services(layout),
        **_identity(),
    }
    write_private(layout.state_file, json.dumps(state))
    release = _start_guard(layout)
    try:
        if count := sweep(layout):
            print(f"ended {count} processes that an earlier start had left", flush=True)
        ports = Ports()
        chosen, notes = ports.choose(layout.first_ports())
        layout.keep_ports(chosen)
        Supervisor(layout, services(layout), notes).run()
    except StackError as error:
        print(error, flush=True)
        write_private(
            layout.state_file, json.dumps({"boot": processes.boot_id(), "services": {}, "error": str(error)})
        )
        return 1
    finally:
        with contextlib.suppress(OSError):
            os.write(release, b".")
    return 0


def _identity() -> dict[str, Any]:
    return {"supervisor": {"pid": os.getpid(), "created": processes.created(os.getpid())}}


def _last_services(layout: Layout) -> dict[str, Any]:
    """Return the services of the last run, for the sweep; none if the machine was started since."""
    try:
        state = layout.state()
    except StackError:
        return {}
    return dict(state.get("services", {})) if state.get("boot") == processes.boot_id() else {}


def _start_guard(layout: Layout) -> int:
    """Start the guard, which holds the lock too; return the pipe by which it is released."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    os.close(writing)
    os.setsid()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    if not os.read(reading, 1):
        with contextlib.suppress(Exception):
            print(f"the supervisor was killed; ended {sweep(layout)} processes", flush=True)
    os._exit(0)
