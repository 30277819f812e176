"""The service as a process: it starts from its disk alone, swaps under load, and a kill in the middle loses no more than it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from serving_process import Process
from serving_scene import EXAMPLE, KEY

from evergreen.client import Client, RefusedError
from evergreen.serving import kept, spool
from evergreen.warehouse.connection import connect, fetch

ROW = {**EXAMPLE, "ts": "2025-06-01T00:00:00Z"}


@pytest.fixture
def specs(world, made_once, start, tmp_path):
    """The folder of specs of a model that has a champion in the warehouse and in MLflow."""

    def make():
        world.land(start, 30 - 1 / 24)
        world.promote(start + timedelta(days=30), "dag/first")

    made_once(make)
    specs = tmp_path / "include"
    for kind, spec in (("datasets", world.specs.datasets["rides_hourly"]), ("models", world.model)):
        (specs / kind).mkdir(parents=True)
        text = spec.model_dump_json(exclude_defaults=True, exclude={"query"})
        (specs / kind / f"{spec.name}.yaml").write_text(text)  # JSON is YAML
    (specs / "models" / "rides.sql").write_text(world.model.query)
    return specs


@pytest.fixture
def whole(specs, serve, home, mlflow_url, monkeypatch):
    """A service on a warehouse and an MLflow, with a champion, and a client of it."""
    service = serve(os.environ["EVERGREEN_WAREHOUSE_URL"], mlflow_url, EVERGREEN_SPECS=str(specs))
    service.ready()
    monkeypatch.setenv("EVERGREEN_HOME", str(home))
    service.until(lambda: Client(service.url).models(), 30)
    return service


@pytest.fixture
def serve(home):
    """A function that starts a service in this home; all are ended."""
    started = []

    def start(*args, **more):
        started.append(Process(home, *args, **more))
        return started[-1]

    yield start
    for process in started:
        process.end()


def logged():
    with connect() as conn:
        return fetch(conn, "SELECT id, prediction, features FROM evergreen.request ORDER BY asked_at, id")


def test_it_starts_from_its_disk_without_anything_else_and_keeps_the_log_until_the_warehouse_is_there(
    kept_scene, serve, warehouse_url, home
):
    alone = serve()
    alone.ready()
    for _ in range(20):
        assert alone.ask({"record": ROW}, KEY).json()["prediction"] == kept_scene.predicted("1", EXAMPLE)
    away = alone.until(lambda: requests.get(f"{alone.url}/readyz", timeout=5).json()["away"].get("warehouse"))
    assert "does not answer" in away
    assert (
        'evergreen_serving_up{part="warehouse"} 0.0' in requests.get(f"{alone.url}/metrics", timeout=5).text
    )
    assert alone.end() == 0
    assert spool.waiting()
    again = serve(warehouse_url)
    again.until(lambda: len(logged()) == 20)
    assert not [path for path in spool.waiting() if b'answered":[[' in path.read_bytes()]


def test_who_is_killed_loses_half_a_second_and_leaves_nobody_behind(kept_scene, serve, home):
    service = serve()
    service.ready()
    (companion,) = service.until(service.companions)
    service.ask({"record": ROW}, KEY)
    time.sleep(1.2)
    service.kill()
    assert sum(len(spool.read(path).answered) for path in spool.waiting()) == 1
    for _ in range(400):
        try:
            if Path(f"/proc/{companion}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the companion outlived the server")


def test_a_companion_that_is_killed_is_started_again_and_nobody_notices(kept_scene, serve):
    service = serve()
    service.ready()
    (companion,) = service.until(service.companions)
    os.kill(companion, signal.SIGKILL)
    assert service.ask({"record": ROW}, KEY).status_code == 200
    service.until(lambda: [p for p in service.companions() if p != companion])


def test_a_swap_in_the_middle_of_load_drops_nothing_and_never_goes_back(kept_scene, serve):
    kept_scene.add("2")
    service = serve()
    service.ready()
    answers: list[tuple[float, int, str, float]] = []
    ended = threading.Event()

    def load() -> None:
        with requests.Session() as session:
            session.headers["authorization"] = f"Bearer {KEY}"
            while not ended.is_set():
                found = session.post(
                    f"{service.url}/models/rides/predict", json={"record": EXAMPLE}, timeout=10
                )
                told = found.json()
                answers.append(
                    (time.monotonic(), found.status_code, told.get("version"), told.get("prediction"))
                )

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    swaps = []
    for champion in ("2", "1", "2", "1", "2"):
        time.sleep(0.6)
        kept_scene.keep(kept_scene.model(champion))
        swaps.append(time.monotonic())
    time.sleep(0.8)
    ended.set()
    for thread in threads:
        thread.join()
    assert Counter(status for _, status, _, _ in answers) == {200: len(answers)}
    assert len(answers) > 200
    for _, _, version, prediction in answers:
        assert prediction == kept_scene.predicted(version, EXAMPLE)
    # Each version comes in its turn, within a second of its being kept.
    for at, version in zip(swaps, ("2", "1", "2", "1", "2"), strict=True):
        first = min(a for a, _, v, _ in answers if v == version and a > at)
        assert first - at < 1.0
    assert {v for a, _, v, _ in answers if a > swaps[-1] + 0.6} == {"2"}


@pytest.mark.parametrize("after_s", [0.0, 0.27])
def test_who_is_killed_in_the_middle_of_a_swap_starts_with_what_is_kept(kept_scene, serve, after_s):
    kept_scene.add("2")
    service = serve()
    service.ready()
    assert service.ask({"record": EXAMPLE}, KEY).json()["version"] == "1"
    kept_scene.keep(kept_scene.model("2"))
    time.sleep(after_s)  # it looks four times a second, loads in a thread, then swaps
    service.kill()
    again = serve()
    again.ready()
    told = again.ask({"record": EXAMPLE}, KEY).json()
    assert (told["version"], told["prediction"]) == ("2", kept_scene.predicted("2", EXAMPLE))


def test_the_whole_way_from_a_promotion_to_the_first_answer_and_the_log(whole, world, start):
    client = Client(whole.url)
    assert client.models()[0]["version"] == "1"
    day = start + timedelta(days=30)
    world.land(day, 5, seed=2, slope=9.0)
    world.promote(day + timedelta(days=5), "dag/second")
    committed = time.monotonic()
    whole.until(lambda: client.models()[0]["version"] == "2", 30)
    assert time.monotonic() - committed < 10
    record = {"hour": 8, "x": 1.0, "kind": "dry"}
    one, two = client.predict("rides", record), client.predict("rides", [record, {**record, "x": -1.0}])
    assert one == two[0] != two[1]
    with pytest.raises(RefusedError, match="x: is missing") as refused:
        client.predict("rides", {"hour": 8, "kind": "dry"})
    assert refused.value.status == 422
    whole.until(lambda: len(logged()) == 3)


def test_by_key_the_warehouse_has_the_features_and_its_absence_is_told(whole, world, start):
    client = Client(whole.url)
    keys = [{"ts": (start + timedelta(hours=h)).isoformat()} for h in range(50)]
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT x, kind, extract(hour FROM ts)::int AS hour FROM data.rides_hourly ORDER BY ts LIMIT 50",
        )
    assert client.predict_keys("rides", keys) == client.predict("rides", rows)
    with pytest.raises(RefusedError, match="no row of 1 of the keys") as refused:
        client.predict_keys("rides", [*keys, {"ts": "1999-01-01"}])
    assert (refused.value.status, refused.value.problems[0]["record"]) == (404, 50)
    with pytest.raises(RefusedError, match="station"):
        client.predict_keys("rides", {"station": 5})
    with pytest.raises(RefusedError, match="soon"):
        client.predict_keys("rides", {"ts": "soon"})
    whole.until(lambda: [r for r in logged() if r["features"]])
    with connect() as conn:
        found = fetch(
            conn,
            "SELECT count(*) AS count, count(key) AS keyed FROM evergreen.request WHERE source = 'query'",
        )
    assert found == [{"count": 50, "keyed": 50}]


def test_fuzzed_against_its_own_document_it_never_fails(whole, home):
    service, key = whole, (home / "serving" / "local.key").read_text()
    found = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {key}",
            "--max-time", "25", "--phases", "examples,fuzzing", "--checks", "not_a_server_error,content_type_conformance,status_code_conformance",
            "--exclude-path", "/metrics", "--generation-deterministic",
        ],
        cwd=service.log.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-1000:]
    assert service.ask({"record": EXAMPLE}, key).status_code == 200
    assert "ERROR" not in service.log.read_text().replace("companion ERROR", "")
    metrics = requests.get(f"{service.url}/metrics", timeout=5).text
    asked = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("evergreen_serving_requests_total")
    )
    assert asked > 200, "the fuzzing asked too little to mean anything"


def test_an_mlflow_that_hangs_is_named_and_not_the_companion_that_waits_for_it(specs, serve, home):
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        mlflow = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = serve(
            os.environ["EVERGREEN_WAREHOUSE_URL"],
            mlflow,
            EVERGREEN_SPECS=str(specs),
            MLFLOW_HTTP_REQUEST_TIMEOUT="120",
        )

        def away():
            return requests.get(f"{service.url}/readyz", timeout=5).json()["away"]

        # It says that it lives long before the version is told to be late.
        told = service.until(lambda: (found := away()) != {} and "companion" not in found and found, 60)
        assert set(told) == {"mlflow"}
        assert re.fullmatch(
            r"since [-0-9]+ [0-9:]+ UTC: version 1 of rides is being fetched and has not come yet",
            told["mlflow"],
        )
        metrics = requests.get(f"{service.url}/metrics", timeout=5).text
        assert 'evergreen_serving_up{part="mlflow"} 0.0' in metrics
        assert 'evergreen_serving_up{part="companion"} 1.0' in metrics
        before = kept.read_health().told_at
        assert time.time() - before < 10
        service.until(lambda: kept.read_health().told_at > before, 10)


def test_a_port_that_is_taken_is_said_so(kept_scene, serve):
    first = serve()
    first.ready()
    found = subprocess.run(
        [sys.executable, "-m", "evergreen", "serve", "--port", str(first.port)],
        env={**os.environ, "EVERGREEN_WAREHOUSE_URL": "postgresql://nobody@127.0.0.1:9/nothing", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (found.returncode, f"127.0.0.1:{first.port} cannot be listened on" in found.stderr) == (1, True), (
        found.stderr
    )
    assert kept.state_file().exists()
