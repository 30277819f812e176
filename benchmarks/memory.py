"""The peak memory of every process below another one, read from the kernel while they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

EVERY_S = 0.2


class Peaks(dict[int, tuple[str, float]]):
    """By process id: what it is, and its peak resident memory in MB."""

    @property
    def largest(self) -> tuple[str, float]:
        """The process with the highest peak."""
        return max(self.values(), key=lambda p: p[1], default=("none", 0.0))


@contextmanager
def watched(roots: list[int]) -> Iterator[Peaks]:
    """Watch the processes below some, those included, until the block ends.

    The kernel keeps each process's peak (VmHWM), so only a process that ends within `EVERY_S` of its peak can hide a
    part of it. PostgreSQL's processes are left out: their resident memory holds the shared buffers, which are bounded
    by a setting of the server.
    """
    peaks, stop = Peaks(), threading.Event()

    def watch() -> None:
        while not stop.wait(EVERY_S):
            for root in roots:
                try:
                    found = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
                except psutil.Error:
                    continue
                for process in found:
                    _read(process, peaks)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _read(process: psutil.Process, peaks: Peaks) -> None:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    except OSError:
        return
    if "postgres" in command.partition(" ")[0]:
        return
    for line in status.splitlines():
        if line.startswith("VmHWM"):
            peak = int(line.split()[1]) / 1024
            peaks[process.pid] = (command, max(peak, peaks.get(process.pid, ("", 0.0))[1]))
