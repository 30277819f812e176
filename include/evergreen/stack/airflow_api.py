"""The few calls of Airflow's REST API that the demo and the end-to-end tests make, as a person at the UI would."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from evergreen.errors import ErrorReason, TransientError
from evergreen.program import typed

ANSWER_S = 30
# What starts something is sent once, so its answer is waited for as long as for all tries of a question.
ONCE_S = 120
# A server that has just started, or a machine that is busy, may take longer for one answer; who is not there refuses at once.
SLOW = Retry(total=None, connect=0, read=3, status=0, other=0, backoff_factor=1, allowed_methods={"GET"})


class AirflowApi:
    """A logged-in client.

    Args:
        url: address of the API server, without a path.
        user: login name.
        password: its password; it is sent to `/auth/token` only.
        advice: what to do when the server does not answer; by default that of the embedded stack.
    """

    def __init__(self, url: str, user: str, password: str, advice: str = "") -> None:
        self.url = url.rstrip("/")
        self._advice = advice or f"{typed('up')} starts the stack, {typed('status')} shows what is up"
        self._login = {"username": user, "password": password}
        self._session = requests.Session()
        self._session.mount(self.url, HTTPAdapter(max_retries=SLOW))
        # A login changes nothing, so it may be sent again.
        self._session.mount(f"{self.url}/auth/", HTTPAdapter(max_retries=SLOW.new(allowed_methods=None)))

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call `/api/v2/PATH` and return the JSON answer.

        Raises:
            TransientError: the server does not answer.
            requests.HTTPError: it answers with an error; its text is in the message.
        """
        for attempt in (1, 2):
            if "Authorization" not in self._session.headers or attempt == 2:
                token = self._send("POST", "/auth/token", json=self._login)
                token.raise_for_status()
                self._session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            answer = self._send(method, f"/api/v2/{path}", **kwargs)
            if answer.status_code != 401:
                break
        if not answer.ok:
            raise requests.HTTPError(
                f"{method} {path}: {answer.status_code} {answer.text[:500]}", response=answer
            )
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        try:
            patience = ANSWER_S if method == "GET" or path.startswith("/auth/") else ONCE_S
            return self._session.request(method, self.url + path, timeout=patience, **kwargs)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(
                f"Airflow does not answer at {self.url}; {self._advice}",
                ErrorReason.UNREACHABLE,
            ) from error

    def wait_for_dags(self, dag_ids: set[str], timeout_s: float = 150) -> None:
        """Wait until Airflow has parsed these DAGs.

        Raises:
            TransientError: they do not appear in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            known = self.dag_ids()
            if dag_ids <= known:
                return
            if time.monotonic() > deadline:
                problems = [e["stack_trace"] for e in self.call("GET", "importErrors")["import_errors"]]
                raise TransientError(
                    f"Airflow does not show {sorted(dag_ids - known)}; import errors: {problems or 'none'}"
                )
            time.sleep(0.5)

    def dag_ids(self) -> set[str]:
        """The DAGs that Airflow knows."""
        found: list[str] = []
        while True:  # a page has at most `[api] maximum_page_limit` entries, whatever is asked for
            page = self.call("GET", "dags", params={"limit": 100, "offset": len(found), "order_by": "dag_id"})
            found += [dag["dag_id"] for dag in page["dags"]]
            if not page["dags"] or len(found) >= page["total_entries"]:
                return set(found)

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a manual run with Params and return its run id."""
        answer = self.call("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf or {}})
        return str(answer["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One DAG run."""
        found: dict[str, Any] = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        return found

    def runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        """The runs of a DAG, newest first."""
        found = self.call(
            "GET", f"dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 100, **filters}
        )
        return list(found["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """State of each task of a run."""
        found = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return {task["task_id"]: task["state"] for task in found["task_instances"]}

    def active(self, dag_ids: list[str]) -> list[str]:
        """Which of these DAGs have a run that is queued or running."""
        body = {"dag_ids": dag_ids, "states": ["queued", "running"], "page_limit": 100}
        return sorted(
            {run["dag_id"] for run in self.call("POST", "dags/~/dagRuns/list", json=body)["dag_runs"]}
        )

    def wait(self, dag_id: str, run_id: str, timeout_s: float = 300) -> str:
        """Wait until a run has ended and return its state.

        Raises:
            TransientError: it has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            state = str(self.run(dag_id, run_id)["state"])
            if state in ("success", "failed"):
                return state
            if time.monotonic() > deadline:
                tasks = self.tasks(dag_id, run_id)
                raise TransientError(
                    f"{dag_id} {run_id} is still {state} after {timeout_s:.0f} s; its tasks: {tasks}"
                )
            time.sleep(0.3)
