"""The prediction service as a process of its own, as `evergreen serve` starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"
REPOSITORY = Path(__file__).resolve().parents[2]


class Process:
    """One service with its companion."""

    def __init__(
        self, home: Path, warehouse: str = NOWHERE, mlflow: str = "http://127.0.0.1:9", **more: str
    ) -> None:
        """Start it; its output goes into a file."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.parent / f"serve-{self.port}.log"
        environment = {
            **os.environ, "EVERGREEN_HOME": str(home), "EVERGREEN_WAREHOUSE_URL": warehouse, "MLFLOW_TRACKING_URI": mlflow,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "PYTHONPATH": str(REPOSITORY / "include"), **more,
        }  # fmt: skip
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evergreen", "serve", "--port", str(self.port), "--local-client"],
                env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=home.parent,
            )  # fmt: skip

    def until(self, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until something holds; what it returned then."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := holds():
                    return found
            except (requests.RequestException, OSError):
                pass
            assert self.process.poll() is None or time.monotonic() < end, self.log.read_text()
            assert time.monotonic() < end, f"not within {seconds} s: {self.log.read_text()}"
            time.sleep(0.1)

    def ready(self) -> dict[str, Any]:
        """Wait until every model is answered for; what `/readyz` says."""
        return self.until(
            lambda: (a := requests.get(f"{self.url}/readyz", timeout=5)).status_code == 200 and a.json()
        )

    def ask(self, body: Any, key: str, model: str = "rides") -> requests.Response:
        """Ask for predictions."""
        headers = {"authorization": f"Bearer {key}"}
        return requests.post(f"{self.url}/models/{model}/predict", json=body, headers=headers, timeout=10)

    def companions(self) -> list[int]:
        """The processes of the companion."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                line = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and b"--companion" in line and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found

    def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=40)
