"""The processes that the prediction service is measured with: itself and what it is held against on one core, all else on another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil

from benchmarks import room, serving_champion
from benchmarks.place import Server, server
from benchmarks.serving_champion import MODEL
from evergreen import settings
from evergreen.serving import kept
from evergreen.stack import mlflow_settings
from evergreen.stack.layout import write_private
from evergreen.stack.variables import USER

REPOSITORY = Path(__file__).resolve().parents[1]
START_S = 600.0
"""Loading takes seconds on a machine of its own, and minutes on one that others use."""


@dataclass(frozen=True)
class Cores:
    """`service`: of what is measured, alone; `rest`: of the load, PostgreSQL and MLflow."""

    service: int
    rest: int


@dataclass(frozen=True)
class Asked:
    """An address to ask, and what with; the files hold a body a line."""

    name: str
    port: int
    path: str
    bodies: Path
    authorization: str = ""
    of_hundred: Path | None = None


@dataclass(frozen=True)
class World:
    """Everything that runs for all of the part.

    Attributes:
        folder: of the files of the measurement.
        versions: the champion, and the version that waits for its promotion.
        records: as a client sends them.
        said: by version its predictions of these records, as the batch scorer has them.
        postgres: can be stopped.
    """

    cores: Cores
    folder: Path
    versions: tuple[str, str]
    records: list[dict[str, Any]]
    said: Mapping[str, np.ndarray]
    postgres: Server

    @property
    def champion_files(self) -> Path:
        """Where the service keeps the champion's files."""
        (found,) = kept.versions_folder().glob(f"{MODEL}-{self.versions[0]}-*")
        return found


@contextmanager
def world(say: TextIO = sys.stderr) -> Iterator[World]:
    """A PostgreSQL, an MLflow, the demo's data, a champion and a version after it.

    This process and all that it starts stay on one core from here on, but for what asks for the other.

    Raises:
        SystemExit: there is no second core, or a program is missing.
    """
    before = os.sched_getaffinity(0)
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(
                f"{program} is missing; `apt-get install wrk util-linux` has both (Debian, Ubuntu), `dnf install wrk util-linux` elsewhere"
            )
    if len(before) < 2:
        raise SystemExit("two cores are needed: one for the service, one for the load")
    cores = Cores(*sorted(before)[:2])
    os.sched_setaffinity(0, {cores.rest})
    try:
        with (
            server() as postgres,
            tempfile.TemporaryDirectory(prefix="evergreen-bench-load-") as folder,
            _mlflow(postgres),
        ):
            shutil.copytree(
                REPOSITORY / "include" / "datasets", settings.SPECS.path() / "datasets", dirs_exist_ok=True
            )
            (settings.SPECS.path() / "models").mkdir(exist_ok=True)
            for suffix in ("yaml", "sql"):
                shutil.copy(
                    REPOSITORY / "include" / "models" / f"{MODEL}.{suffix}", settings.SPECS.path() / "models"
                )
            print("trains two versions …", file=say, flush=True)
            made = room.aside("benchmarks.serving_champion.prepare", folder, ",".join(map(str, before)))
            records = json.loads((Path(folder) / serving_champion.RECORDS_FILE).read_text())
            with np.load(Path(folder) / serving_champion.PREDICTIONS) as said:
                yield World(
                    cores, Path(folder), (made["champion"], made["following"]), records, dict(said), postgres
                )
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _mlflow(postgres: Server) -> Iterator[None]:
    """A tracking server beside the warehouse, with the embedded stack's logins; the environment names it."""
    layout = postgres.layout
    port = _free_port()
    url = postgres.postgres.url("mlflow", postgres.port, driver="+psycopg2")
    own = {n: v for n, v in os.environ.items() if not n.startswith("MLFLOW_TRACKING_")}
    own |= mlflow_settings.environment(url, layout.mlflow_auth_file, layout.secrets["mlflow_session"])
    write_private(
        layout.mlflow_auth_file, mlflow_settings.login_file(url, USER, layout.secrets["mlflow_login"])
    )
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--app-name", "basic-auth", "--allowed-hosts", "127.0.0.1:*,localhost:*", "--serve-artifacts", "--artifacts-destination",
        str(layout.artifacts),
    ]  # fmt: skip
    with running(command, own, layout.log("mlflow"), f"http://127.0.0.1:{port}/health"):
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
        yield


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path, ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the block ends, from when it answers.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    with log.open("ab") as out, subprocess.Popen(
        command, env=dict(environment), cwd=log.parent, stdout=out, stderr=out, start_new_session=True
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + START_S
            while not answers(ready):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command} does not answer: {log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield process
        finally:
            family = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(recursive=True))]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in family:
                    _kill(pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether it answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def on(core: int, *command: str) -> list[str]:
    """The command on a core."""
    return ["taskset", "--cpu-list", str(core), *command]


def bodies(path: Path, content: list[Any]) -> Path:
    """A file with a body a line."""
    path.write_text(
        "".join(json.dumps(one, separators=(",", ":"), ensure_ascii=False) + "\n" for one in content)
    )
    return path


@contextmanager
def ours(world: World) -> Iterator[tuple[Asked, subprocess.Popen[bytes]]]:
    """The prediction service with its companion."""
    port = _free_port()
    command = on(
        world.cores.service, sys.executable, "-m", "evergreen", "serve", "--local-client", "--port", str(port)
    )
    log = world.postgres.layout.log("serve")
    with running(command, os.environ, log, f"http://127.0.0.1:{port}/readyz") as process:
        key = (kept.folder() / "local.key").read_text().strip()
        records, batches = world.records, serving_champion.BATCH
        one = bodies(world.folder / "ours", [{"record": record} for record in records])
        hundred = bodies(
            world.folder / "ours_of_hundred",
            [{"records": records[i : i + batches]} for i in range(0, len(records), batches)],
        )
        yield Asked("evergreen", port, f"/models/{MODEL}/predict", one, f"Bearer {key}", hundred), process


@contextmanager
def bare(world: World) -> Iterator[tuple[Asked, subprocess.Popen[bytes]]]:
    """A bare app with the same model; it is not sent the key, which it has no use for."""
    port = _free_port()
    command = on(
        world.cores.service,
        sys.executable,
        "-m",
        "benchmarks.serving_bare",
        str(world.champion_files),
        str(port),
    )
    log = world.postgres.layout.log("bare")
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    with running(command, own, log, f"http://127.0.0.1:{port}/alive") as process:
        features = [{n: v for n, v in record.items() if n != "ts"} for record in world.records]
        yield Asked("bare FastAPI", port, "/predict", bodies(world.folder / "bare", features)), process


@contextmanager
def mlflow_serve(world: World) -> Iterator[tuple[list[Asked], subprocess.Popen[bytes]]]:
    """`mlflow models serve` with the same version, and the forms of its bodies; features are sent as the numbers of its signature."""
    port = _free_port()
    command = on(
        world.cores.service, sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{MODEL}/{world.versions[0]}",
        "--port", str(port), "--host", "127.0.0.1", "--env-manager", "local", "--workers", "1",
    )  # fmt: skip
    log = world.postgres.layout.log("mlflow-serve")
    with running(command, os.environ, log, f"http://127.0.0.1:{port}/health") as process:
        names, rows = encoded(world)
        told = [[None if np.isnan(v) else float(v) for v in row] for row in rows]
        split = [{"dataframe_split": {"columns": names, "data": [row]}} for row in told]
        by_name = [
            {"inputs": {name: [value] for name, value in zip(names, row, strict=True)}} for row in told
        ]
        yield [
            Asked(f"mlflow models serve, {form}", port, "/invocations", bodies(world.folder / f"mlflow_{form}", content))
            for form, content in (("dataframe_split", split), ("inputs", by_name))
        ], process  # fmt: skip


def encoded(world: World) -> tuple[list[str], np.ndarray]:
    """The features' names in the champion's order, and the records as its numbers (float32)."""
    told = json.loads((world.champion_files / kept.VERSION_FILE).read_text())
    codes = {
        name: {c: float(i) for i, c in enumerate(values)} for name, values in told["categorical"].items()
    }
    names = [*told["numeric"], *codes]
    nan = float("nan")

    def number(name: str, value: Any) -> float:
        if value is None:
            return nan
        return codes[name].get(value, nan) if name in codes else float(value)

    rows = [[number(name, record[name]) for name in names] for record in world.records]
    return names, np.array(rows, np.float32)
