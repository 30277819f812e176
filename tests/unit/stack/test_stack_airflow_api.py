"""Airflow's API as the demo asks it: a slow server is waited for, one that is not there is told at once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evergreen.errors import TransientError
from evergreen.stack import airflow_api
from evergreen.stack.airflow_api import AirflowApi

Asked = Counter[str]


@pytest.fixture
def server(monkeypatch) -> Iterator[Callable[[str], tuple[AirflowApi, Asked]]]:
    """A factory: a server whose first answer to one path comes too late, and how often each path was asked for."""
    monkeypatch.setattr(airflow_api, "ANSWER_S", 0.3)
    monkeypatch.setattr(airflow_api, "ONCE_S", 0.5)
    started = []

    def make(slow: str) -> tuple[AirflowApi, Asked]:
        asked: Asked = Counter()

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked[self.path] += 1
                if self.path == slow and asked[slow] == 1:
                    time.sleep(1)
                body = json.dumps({"access_token": "t", "dags": [], "total_entries": 0}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked has given up
                    self.wfile.write(body)

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(found)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        return AirflowApi(f"http://127.0.0.1:{found.server_port}", "admin", "x"), asked

    yield make
    for found in started:
        found.shutdown()
        found.server_close()


@pytest.mark.parametrize("slow", ["/auth/token", "/api/v2/version"])
def test_a_slow_answer_is_asked_for_again(server, slow):
    api, asked = server(slow)
    api.call("GET", "version")
    assert asked[slow] == 2


def test_what_starts_something_is_sent_once(server):
    api, asked = server("/api/v2/dags/x/dagRuns")
    with pytest.raises(TransientError, match="does not answer"):
        api.call("POST", "dags/x/dagRuns", json={})
    assert asked["/api/v2/dags/x/dagRuns"] == 1


def test_who_is_not_there_is_told_at_once_with_what_to_do():
    began = time.monotonic()
    with pytest.raises(
        TransientError, match=r"does not answer at http://127.0.0.1:1; look at the other machine"
    ):
        AirflowApi("http://127.0.0.1:1", "admin", "x", "look at the other machine").call("GET", "version")
    assert time.monotonic() - began < 1
