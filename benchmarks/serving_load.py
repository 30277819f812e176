"""Loads a server: wrk for as much as it takes, `benchmarks.rate` for a constant rate; and reads off what that cost the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.serving_place import REPOSITORY, Asked, Cores, on
from evergreen.serving import spool

WRK = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Taken:
    """What wrk saw: requests that were answered, in so many seconds, and their latencies (ms); errors of any kind."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    connections: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def most(cores: Cores, asked: Asked, seconds: float, connections: int, bodies: Path | None = None) -> Taken:
    """Ask on so many connections as fast as the answers come.

    Raises:
        RuntimeError: wrk failed.
    """
    with started(cores, asked, seconds, connections, bodies) as process:
        out, problem = process.communicate()
    if process.returncode:
        raise RuntimeError(f"wrk failed: {problem}")
    told = json.loads(out.strip().splitlines()[-1])
    return Taken(
        told["requests"], told["seconds"], told["p50_ms"], told["p99_ms"], told["refused"] + told["failed"], connections
    )  # fmt: skip


def started(
    cores: Cores, asked: Asked, seconds: float, connections: int, bodies: Path | None = None
) -> subprocess.Popen[str]:
    """wrk, started; it prints its JSON in the last line."""
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s", "--timeout", "10s",
        "--script", str(WRK), f"http://127.0.0.1:{asked.port}{asked.path}", "--", str(bodies or asked.bodies), "application/json",
    ]  # fmt: skip
    # A key on the command line can be read by who is on this machine; it opens a service that lives as long as the benchmark.
    command += [asked.authorization] if asked.authorization else []
    return subprocess.Popen(
        on(cores.rest, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Constant:
    """A load of a constant rate, running: `benchmarks.rate` in a process of its own."""

    def __init__(  # what a load is
        self, cores: Cores, asked: Asked, folder: Path, *, rate: float | None, seconds: float, connections: int = 64,
        read: bool = False,
    ) -> None:  # fmt: skip
        """Start it; returns when it begins."""
        self._out = folder / f"rate-{time.monotonic_ns()}.npz"
        headers = {"Content-Type": "application/json"}
        if asked.authorization:
            headers["Authorization"] = asked.authorization
        wanted = {
            "port": asked.port, "path": asked.path, "bodies": str(asked.bodies), "headers": headers, "rate": rate,
            "seconds": seconds, "connections": connections, "read": read, "out": str(self._out),
        }  # fmt: skip
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            on(cores.rest, sys.executable, "-m", "benchmarks.rate", json.dumps(wanted)),
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the load of a constant rate did not begin")

    def end(self) -> Seen:
        """Wait for its end.

        Raises:
            RuntimeError: it failed.
        """
        with self._process as process:
            if process.wait():
                raise RuntimeError("the load of a constant rate failed")
        with np.load(self._out) as found:
            return Seen(dict(found))


class Seen:
    """What became of each request of a load, see `benchmarks.rate`."""

    def __init__(self, found: dict[str, np.ndarray]) -> None:
        self.due, self.ended, self.status = found["due"], found["ended"], found["status"]
        self.found = found

    @property
    def took_ms(self) -> np.ndarray:
        """From when a request was due to its answer; without those that got none."""
        took: np.ndarray = (self.ended - self.due) * 1e3
        return np.asarray(took[~np.isnan(took)])

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return int((self.status != 200).sum())

    @property
    def rate(self) -> float:
        """Answers a second."""
        good = self.status == 200
        return float(good.sum() / (np.nanmax(self.ended) - self.due.min()))

    def p_ms(self, share: float) -> float:
        """A quantile of the latencies."""
        return float(np.quantile(self.took_ms, share))

    def p99_between(self, begin: float, end: float) -> float:
        """The 99th percentile (ms) of the requests that were due in between; an unanswered one took for ever."""
        among = (self.due >= begin) & (self.due < end)
        took = np.nan_to_num((self.ended[among] - self.due[among]) * 1e3, nan=np.inf)
        return float(np.quantile(took, 0.99, method="higher")) if len(took) else float("nan")


def prediction(asked: Asked) -> float:
    """What a server says of its first body."""
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": asked.authorization} if asked.authorization else {}
    )
    (body, *_) = asked.bodies.read_bytes().splitlines()
    request = urllib.request.Request(f"http://127.0.0.1:{asked.port}{asked.path}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        said = json.loads(response.read())
    return float(said["prediction"] if "prediction" in said else said["predictions"][0])


def family(process: subprocess.Popen[bytes]) -> tuple[psutil.Process, psutil.Process]:
    """The server and its companion. taskset becomes what it starts, so the server has its process id."""
    server = psutil.Process(process.pid)
    (companion,) = (p for p in server.children() if "--companion" in p.cmdline())
    return server, companion


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used, with the kernel's for it."""
    times = process.cpu_times()
    return float(times.user + times.system)


def counted(asked: Asked, name: str) -> float:
    """The sum of a series of the service's own metrics over its labels but `result` other than ok."""
    with urllib.request.urlopen(f"http://127.0.0.1:{asked.port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    found = [
        line
        for line in lines
        if line.startswith(f"{name}{{") and ('result="' not in line or 'result="ok"' in line)
    ]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def settled(seconds: float = 600) -> None:
    """Wait until the log is in the warehouse, so that what one load left is not done while the next is measured.

    Raises:
        RuntimeError: it is not by then.
    """
    until = time.monotonic() + seconds
    time.sleep(0.6)  # what was gathered in memory is written twice a second
    while spool.waiting():
        if time.monotonic() > until:
            raise RuntimeError("the log of the requests does not come to the warehouse")
        time.sleep(0.2)


def with_children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A server's processes."""
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def cpu_s_of(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU of a server's processes, but the companion's."""
    return sum(cpu_s(p) for p in with_children(process) if "--companion" not in p.cmdline())


@contextmanager
def still(processes: list[psutil.Process]) -> Iterator[None]:
    """Let processes stand still meanwhile."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()
