"""Predictions through the compose stack: a client with its key, and the service, PostgreSQL and MLflow away in the middle of the load."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from compose_stack import Stack

MODEL, OTHER = "bike_demand", "bike_rush"
AWAY_S = 30
LOG_S = 1.5
"""What the service had gathered when it was killed is lost from the log, not from the answers: half a second, and some for the clocks."""


class Asking(threading.Thread):
    """A client that asks without a pause, until it is told to end.

    Attributes:
        answered: of each answer its request id, version, prediction and when it came (seconds since 1970).
        refused: of each other answer its status and when it came; 0: there was no answer.
    """

    def __init__(self, session: requests.Session, url: str, record: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._session, self._url, self._record = session, url, record
        self._ended = threading.Event()
        self.answered: list[tuple[str, str, float, float]] = []
        self.refused: list[tuple[int, float]] = []

    def run(self) -> None:
        while not self._ended.wait(0.01):
            try:
                answer = self._session.post(self._url, json={"record": self._record}, timeout=10)
            except requests.RequestException:
                self.refused.append((0, time.time()))
                continue
            if answer.status_code == 200:
                told = answer.json()
                self.answered.append((told["request_id"], told["version"], told["prediction"], time.time()))
            else:
                self.refused.append((answer.status_code, time.time()))

    def end(self) -> None:
        self._ended.set()
        self.join(30)


@pytest.fixture
def url(stack: Stack) -> str:
    found = f"http://127.0.0.1:{stack.ports['SERVING_PORT']}"
    stack.until(
        lambda: requests.get(f"{found}/readyz", timeout=5).status_code == 200, "a champion to answer", 120
    )
    return found


@pytest.fixture
def session(stack: Stack, url: str) -> Iterator[requests.Session]:
    key = stack.client(f"test-{time.time_ns()}", "--models", MODEL, "--rate", "1000")
    with requests.Session() as made:
        made.headers["Authorization"] = f"Bearer {key}"
        stack.until(
            lambda: made.get(f"{url}/models", timeout=5).status_code == 200, "the key to be in force", 60
        )
        yield made


def example(session: requests.Session, url: str) -> dict[str, Any]:
    return dict(session.get(f"{url}/models/{MODEL}", timeout=10).json()["example"]["record"])


def champion(stack: Stack) -> str:
    found = stack.rows(
        f"SELECT version FROM evergreen.decision WHERE subject = 'model/{MODEL}' AND kind IN ('promoted', 'rolled_back')"
        " ORDER BY id DESC LIMIT 1"
    )
    return str(found[0]["version"])


def logged(stack: Stack, ids: list[str]) -> set[str]:
    listed = ", ".join(f"'{one}'" for one in ids)
    return {row["id"] for row in stack.rows(f"SELECT id FROM evergreen.request WHERE id IN ({listed})")}


def test_a_client_asks_for_its_model_and_for_no_other(
    stack: Stack, session: requests.Session, url: str
) -> None:
    record = example(session, url)
    answer = session.post(f"{url}/models/{MODEL}/predict", json={"record": record}, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == champion(stack)
    stack.until(lambda: logged(stack, [answer.json()["request_id"]]), "the request to be in the log", 30)
    assert session.post(f"{url}/models/{OTHER}/predict", json={"record": {}}, timeout=10).status_code == 403
    assert (
        requests.post(f"{url}/models/{MODEL}/predict", json={"record": record}, timeout=10).status_code == 401
    )
    assert "evergreen_serving_requests_total" in requests.get(f"{url}/metrics", timeout=10).text


def test_the_service_can_neither_make_a_client_nor_write_the_ledger(stack: Stack, url: str) -> None:
    said = stack.compose("exec", "-T", "serving", "evergreen", "client", "add", "own", check=False)
    assert "this login may not do that" in said
    assert not stack.rows("SELECT 1 AS made FROM evergreen.client WHERE name = 'own'")


def test_the_service_may_read_mlflow_and_write_nothing_there(stack: Stack, url: str) -> None:
    asked = (
        "from mlflow import MlflowClient; c = MlflowClient();"
        f" print('versions', len(c.search_model_versions(\"name='{MODEL}'\")));"
        f" c.set_registered_model_tag('{MODEL}', 'own', 'yes')"
    )
    said = stack.compose("exec", "-T", "serving", "python", "-c", asked, check=False)
    assert re.search(r"versions [1-9]", said), said
    assert "PERMISSION_DENIED" in said or "Permission denied" in said, said


def test_a_killed_service_answers_again_from_its_disk(
    stack: Stack, session: requests.Session, url: str
) -> None:
    asking = Asking(session, f"{url}/models/{MODEL}/predict", example(session, url))
    stack.compose("stop", "mlflow")
    try:
        asking.start()
        stack.until(lambda: len(asking.answered) > 50, "some answers", 60)
        before = asking.answered[0][1:3]
        killed = time.time()
        stack.compose("kill", "--signal", "KILL", "serving")
        stack.compose("start", "serving")
        stack.until(lambda: asking.answered[-1][3] > killed + 10, "answers after the kill", 120)
    finally:
        asking.end()
        stack.compose("start", "mlflow")
    assert {one[1:3] for one in asking.answered} == {before}, (
        "the same version and the same prediction throughout"
    )
    assert {status for status, _ in asking.refused} <= {0, 503}
    ids = [one[0] for one in asking.answered if not killed - LOG_S < one[3] < killed + LOG_S]
    stack.until(lambda: logged(stack, ids) == set(ids), "the log to be whole", 120)


def test_without_postgres_every_request_is_answered_and_logged_later(
    stack: Stack, session: requests.Session, url: str
) -> None:
    asking = Asking(session, f"{url}/models/{MODEL}/predict", example(session, url))
    asking.start()
    try:
        stack.until(lambda: len(asking.answered) > 50, "some answers", 60)
        stack.compose("stop", "postgres")
        time.sleep(AWAY_S)
        away = requests.get(f"{url}/readyz", timeout=10)
        stack.compose("start", "postgres")
        stack.until(lambda: stack.rows("SELECT 1 AS there"), "PostgreSQL", 120)
    finally:
        asking.end()
    assert (away.status_code, sorted(away.json()["away"])) == (200, ["warehouse"])
    assert asking.refused == []
    ids = [one[0] for one in asking.answered]
    stack.until(lambda: logged(stack, ids) == set(ids), "the log to be whole", 120)
    stack.works_again()
