"""What the tests do with the compose stack: commands of compose and of the engine, Airflow's API, the warehouse."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from evergreen.deployment.environment import KEY, SECRETS, read, write
from evergreen.errors import TransientError
from evergreen.stack.airflow_api import AirflowApi

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
# Of the engine itself, for what compose has no word for.
ENGINE = [COMPOSE[0], *(["docker"] if COMPOSE[0] != "docker" else [])]
PROJECT = "evergreen-test"
DAG = "train__bike_demand"
SCORE = "score__bike_demand"
# A worker's own folder, in its own memory.
APART = "/tmp/evergreen"


class Stack:
    """The running stack: commands of compose, Airflow's API, and what the databases hold.

    Args:
        folder: for its `.env`.
        store: the profile of the store that it keeps its files in, with workers that share no folder for data; empty: volumes.
    """

    def __init__(self, folder: Path, store: str = "") -> None:
        self.env = folder / ".env"
        write(self.env, store)
        found = read(self.env)
        self.secrets = {name: value for name, value in found.items() if name in SECRETS or name == KEY}
        self.profiles = ["dev", *filter(None, [store])]
        self.ports = {
            "EVERGREEN_PORT": "18080",
            "MLFLOW_PORT": "15000",
            "SERVING_PORT": "18088",
            "MAIL_PORT": "18025",
        }
        self.files = [REPOSITORY / "docker-compose.yaml"]
        if store:
            own = folder / "apart.yaml"
            own.write_text(
                json.dumps({"services": {"airflow-worker": {"environment": {"EVERGREEN_HOME": APART}}}})
            )
            self.files.append(own)
        self.api = AirflowApi(
            f"http://127.0.0.1:{self.ports['EVERGREEN_PORT']}", "admin", self.secrets["AIRFLOW_PASSWORD"]
        )

    def compose(self, *arguments: str, timeout_s: float = 900, check: bool = True) -> str:
        """Run a command of compose; its output."""
        command = [
            *COMPOSE, *(part for file in self.files for part in ("-f", str(file))), "--env-file", str(self.env), "--project-name", PROJECT,
            *(part for name in self.profiles for part in ("--profile", name)), *arguments,
        ]  # fmt: skip
        done = subprocess.run(
            command, env={**os.environ, **self.ports, "EVERGREEN_SCHEDULES": "off"}, cwd=REPOSITORY, timeout=timeout_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout[-3000:]
        return done.stdout

    def engine(self, *arguments: str) -> str:
        """Run a command of the engine."""
        return subprocess.run([*ENGINE, *arguments], check=True, capture_output=True, text=True).stdout

    def token(self, username: str, password: str) -> dict[str, str]:
        """The header with which a login asks Airflow's API."""
        login = {"username": username, "password": password}
        answer = requests.post(f"{self.api.url}/auth/token", json=login, timeout=30)
        answer.raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query on the warehouse."""
        said = self.compose(
            "exec", "-T", "postgres", "psql", "--username", "postgres", "--dbname", "warehouse", "--tuples-only", "--no-align",
            "--command", f"SELECT coalesce(json_agg(r), '[]') FROM ({query}) AS r",
        )  # fmt: skip
        return list(json.loads(said[said.index("[") :]))

    def client(self, name: str, *options: str) -> str:
        """Make a client of the prediction service, as an operator does; its key."""
        said = self.compose(
            "run", "--rm", "--no-deps", "-T", "init", "evergreen", "client", "add", name, *options, "--json"
        )
        made, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
        self.secrets[f"key of {name}"] = made["key"]
        return str(made["key"])

    def memory(self, container: str) -> int:
        """Bytes that a container's processes hold."""
        told = self.engine("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split()[0]
        return int(float(told[:-3]) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[told[-3:]])

    def events(self, event: str, since: int) -> list[str]:
        """What the engine has seen since a time (seconds since 1970)."""
        told = self.engine(
            "events", "--filter", f"event={event}", "--since", str(since), "--until", str(int(time.time()))
        )
        return told.splitlines()

    def task_running(self, dag_id: str, run_id: str, task_id: str, timeout_s: float = 180) -> None:
        """Wait until a task of a run is at work."""
        self.until(
            lambda: self.api.tasks(dag_id, run_id).get(task_id) == "running", f"{task_id} to run", timeout_s
        )

    def worker_of(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The container of the worker that runs a task."""
        found = self.api.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return str(found["hostname"])

    def ended(self, dag_id: str, run_id: str, timeout_s: float = 1200) -> str:
        """Wait until a run is over, through an API that may be away meanwhile; its state.

        A task whose worker dies before it could say that it runs is queued again after ten minutes only (Airflow's
        `task_queued_timeout`).
        """

        def state() -> str | None:
            found = str(self.api.run(dag_id, run_id)["state"])
            return found if found in ("success", "failed") else None

        return str(self.until(state, f"{dag_id} to end", timeout_s))

    def newest(self) -> str:
        """The as-of time up to which there is data."""
        found = self.rows(
            "SELECT max(as_of)::text AS t FROM evergreen.decision WHERE subject = 'dataset/bike_hourly'"
        )
        return str(found[0]["t"]).replace(" ", "T")

    def training(self, reason: str, disturb: Callable[[str], None]) -> str:
        """Begin a training, disturb it, and wait for its end: nothing is lost, nothing doubled, and a failure is told. Its state.

        Args:
            reason: of the training.
            disturb: is given the run.
        """
        before = self.rows("SELECT coalesce(max(id), 0) AS id FROM evergreen.decision")[0]["id"]
        run = self.api.trigger(DAG, {"as_of": self.newest(), "reason": reason})
        disturb(run)
        state = self.ended(DAG, run)
        mine = f"SELECT kind, reason, version FROM evergreen.decision WHERE id > {before} AND run_id LIKE '{DAG}/%' ORDER BY id"
        if state == "success":
            decided = [row for row in self.rows(mine) if row["kind"] in ("promoted", "rejected")]
            assert len(decided) == 1, self.rows(mine)
        else:
            self.until(
                lambda: [row for row in self.rows(mine) if row["kind"] == "run_failed"],
                "the failure to be in the ledger",
            )
            self.until(
                lambda: self.rows(
                    f"SELECT 1 AS told FROM evergreen.mail WHERE incident LIKE 'failed:%' AND decision_id > {before}"
                ),
                "the mail of the failure",
            )
        doubled = self.rows(
            "SELECT model, key, count(*) FROM evergreen.prediction GROUP BY 1, 2, version, as_of HAVING count(*) > 1 LIMIT 3"
        )
        assert not doubled
        return state

    def works_again(self) -> None:
        """All of it is up, and the next scoring ends well."""
        self.compose("up", "--detach", "--wait", "--scale", "airflow-worker=2")
        run = self.api.trigger(SCORE, {"as_of": self.newest()})
        assert self.ended(SCORE, run) == "success"

    def until(self, question: Any, what: str, timeout_s: float = 300) -> Any:
        """Ask until the answer is yes."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if answer := question():
                    return answer
            except (TransientError, OSError, ValueError, AssertionError) as error:
                answer = error
            assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}; {answer}"
            time.sleep(0.2)
