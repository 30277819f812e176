"""Evidently's pages of a window, drawn where a person asks for them: by a process of its own, as drawing takes half a gigabyte."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC
from pathlib import Path

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TerminalError, TransientError
from evergreen.monitoring.windows.judgement import Judgement

FILES = {"drift.html": "drift", "performance.html": "served error"}
LONGEST_S = 300
_one = threading.Lock()


def can_be_drawn(judged: Judgement) -> bool:
    """Whether something of a window was kept from which its pages are drawn."""
    return bool(judged.report and judged.mlflow_run and not judged.held_back)


def drawn(judged: Judgement) -> dict[str, str]:
    """The pages that are there, by file, with what they show."""
    return {file: name for file, name in FILES.items() if (_folder(judged) / file).is_file()}


def content(judged: Judgement, file: str) -> bytes | None:
    """A page as bytes; None where it is not drawn."""
    return (_folder(judged) / file).read_bytes() if file in drawn(judged) else None


def draw(judged: Judgement) -> None:
    """Draw the pages of a window, one window at a time; nothing happens where they are there.

    Raises:
        TransientError: another one is being drawn, or it took longer than five minutes.
        TerminalError: they cannot be drawn; the message says why.
    """
    if not can_be_drawn(judged) or drawn(judged):
        return
    if not _one.acquire(blocking=False):
        raise TransientError("another window is being drawn; try again in half a minute", ErrorReason.BUSY)
    try:
        done = subprocess.run(
            [
                sys.executable, "-m", "evergreen", "report", judged.model, f"{judged.window_start.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
                "--version", judged.version, "--folder", str(_root()),
            ],
            env=_environment(), capture_output=True, text=True, timeout=LONGEST_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TransientError(
            f"drawing took longer than {LONGEST_S} s; try again when the machine has less to do",
            ErrorReason.BUSY,
        ) from None
    finally:
        _one.release()
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise TerminalError(said[-1] if said else "the window could not be drawn", ErrorReason.NO_ROWS)


def _environment() -> dict[str, str]:
    """The environment of the command: with the addresses that this process has found, be it by Airflow's connections."""
    found = dict(os.environ)
    for variable in (settings.WAREHOUSE, settings.MLFLOW):
        try:
            found[variable.name] = variable.read()
        except EvergreenError:
            continue
    found["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return found


def _root() -> Path:
    return settings.HOME.path() / "reports"


def _folder(judged: Judgement) -> Path:
    """Where `evergreen report` puts the pages of a judgement."""
    at = (judged.report or "").rpartition("/")[0].rpartition("/")[2]
    return _root() / judged.model / at if at else _root() / "none"
