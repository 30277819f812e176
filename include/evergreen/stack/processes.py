"""Starting child processes that cannot outlive the stack, and finding those that did.

A child gets a session of its own, a marker in its environment, and a signal from the kernel when its parent
dies. Grandchildren get none of that signal and may rewrite their environment (process titles do), so what is
left over is recognised by any of three signs: the marker, the session, or PostgreSQL's data directory as
working directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

MARKER = "EVERGREEN_STACK"
"""Environment variable of every child; its value is the stack's home."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    home: Path,
    log: Path,
    *,
    parent_death_signal: int = signal.SIGKILL,
    become: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, its output appended to a log.

    Args:
        parent_death_signal: what it gets when this process dies. Only the thread that calls counts as parent.
        become: runs in the child before the program does, to change its user.
    """
    parent = os.getpid()

    def prepare() -> None:
        if become:
            become()
        # After the change of user, which would clear it.
        _libc.prctl(_PR_SET_PDEATHSIG, int(parent_death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**environment, MARKER: str(home)},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,
        )


def boot_id() -> str:
    """Return what the recorded process ids are relative to: this boot, this process namespace."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"


def created(pid: int) -> float | None:
    """Return when a process started, which with its id identifies it; None if it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def in_sessions(
    sessions: Mapping[int, float], *, home: Path | None = None, data: Path | None = None
) -> list[psutil.Process]:
    """Return the living processes of the sessions, marked with the home, or working in the data directory.

    Args:
        sessions: id of each session's first process, and when that was created.
        home: the stack's home, to find marked processes too.
        data: PostgreSQL's data directory, to find its processes too.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared or process.pid == 0:
            continue
        try:
            ours = (
                _is_member(process, sessions)
                or (home is not None and process.environ().get(MARKER) == str(home))
                or (data is not None and process.cwd() == str(data))
            )
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _is_member(process: psutil.Process, sessions: Mapping[int, float]) -> bool:
    session = os.getsid(process.pid)
    if session not in sessions or process.create_time() < sessions[session] - 1:
        return False
    # The number of a session is not given to another process while the session has members.
    first = created(session)
    return first is None or abs(first - sessions[session]) < 1


def end(find: Callable[[], Iterable[psutil.Process]], sig: int, *, grace: float) -> bool:
    """Send a signal to the processes found and wait until none is found; return whether that came true."""
    for process in find():
        _send(process, sig)
    deadline = time.monotonic() + grace
    while list(find()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def kill(find: Callable[[], Iterable[psutil.Process]]) -> None:
    """Kill the processes found, and those that appear meanwhile, until none is left or 30 seconds are over."""
    deadline = time.monotonic() + 30
    while (processes := list(find())) and time.monotonic() < deadline:
        for process in processes:
            _send(process, signal.SIGKILL)
        time.sleep(0.05)


def _send(process: psutil.Process, sig: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(sig)
