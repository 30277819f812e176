"""The few answers of Airflow's REST API that `evergreen run` asks for, on a port of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DAG, RUN = "train__bike_demand", "manual__1"


@dataclass
class Airflow:
    """A DAG and the run that it will have had.

    Attributes:
        state: of the run.
        tasks: state and number of tries, by task.
        logs: events of the newest try, by task.
        handed_on: return values, by task.
        asked: methods and paths, as they came.
        conf: Params of the run that was triggered.
    """

    state: str = "success"
    tasks: dict[str, tuple[str, int]] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    handed_on: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    conf: dict[str, Any] | None = None

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The JSON of an answer."""
        self.asked.append(f"{method} {path}")
        part = path.removeprefix("/api/v2/dags").strip("/").split("/")
        if path == "/auth/token":
            return {"access_token": "t"}
        if part == [""]:
            return {"dags": [{"dag_id": DAG}], "total_entries": 1}
        if part[1:] == ["details"]:
            reason = {"value": None, "schema": {"type": ["null", "string"]}, "description": "Why."}
            return {"params": {"reason": reason}}
        if method == "PATCH":
            return {}
        if method == "POST":
            self.conf = body["conf"]
            return {"dag_run_id": RUN}
        if len(part) == 3:
            return {"state": self.state}
        if len(part) == 4:
            every = [
                {"task_id": t, "state": s, "try_number": n, "dag_id": DAG, "dag_run_id": RUN}
                for t, (s, n) in self.tasks.items()
            ]
            return {"task_instances": every}
        if part[5] == "logs":
            return {"content": [*self.logs.get(part[4], []), {"event": "::endgroup::"}]}
        return {"value": self.handed_on[part[4]]} if part[4] in self.handed_on else None


@contextmanager
def serving(airflow: Airflow) -> Iterator[int]:
    """Serve it; the port."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found = airflow.answer(self.command, self.path.partition("?")[0], body)
            content = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()
