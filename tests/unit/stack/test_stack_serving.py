"""The prediction service as the stack starts it: it answers before there is anything to answer with, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from evergreen.serving import grants
from evergreen.stack import demo_request, health, processes
from evergreen.stack.layout import Layout
from evergreen.stack.services import Service, services


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(layout: Layout) -> Service:
    # Nothing else of this stack runs: the warehouse and MLflow are away.
    layout.ports_file.write_text(json.dumps({"serving": free_port(), "postgres": 1, "mlflow": 1}))
    return next(one for one in services(layout) if one.name == "serving")


@pytest.fixture
def running(layout: Layout, service: Service) -> Iterator[subprocess.Popen[bytes]]:
    assert service.is_ready is not None
    assert not service.is_ready()
    process = processes.start(service.command, service.environment, layout.home, layout.log("serving"))
    try:
        wait(service.is_ready, "the service to answer")
        wait(lambda: bool(psutil.Process(process.pid).children()), "its companion")
        yield process
    finally:
        processes.kill(lambda: processes.in_sessions({}, home=layout.home))
        process.wait()


def wait(question: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline, f"waited a minute for {what}"
        time.sleep(0.1)


def left(layout: Layout) -> bool:
    return bool(processes.in_sessions({}, home=layout.home))


def test_it_is_up_without_a_champion_a_warehouse_and_mlflow(
    layout: Layout, service: Service, running: subprocess.Popen[bytes]
) -> None:
    shown = {"serving": {"since": 0.0}}
    assert health.unhealthy(layout, shown) == set()
    assert health.fetch(f"http://127.0.0.1:{service.port}/readyz") is None, "it has nothing to answer with"
    wait(lambda: "warehouse" in told_away(layout), "word that the warehouse is away")
    assert running.poll() is None


def told_away(layout: Layout) -> str:
    file = layout.home / "serving" / "health.json"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_its_companion_ends_with_it(
    layout: Layout, service: Service, running: subprocess.Popen[bytes], how: signal.Signals
) -> None:
    running.send_signal(how)
    running.wait(timeout=service.grace)
    wait(lambda: not left(layout), "its companion to end")
    assert health.unhealthy(layout, {"serving": {"since": 0.0}}) == {"serving"}


def test_of_two_on_one_folder_one_companion_works_and_the_other_takes_over(
    layout: Layout, service: Service, running: subprocess.Popen[bytes]
) -> None:
    command = [*service.command[:-3], "--port", str(free_port())]
    log = layout.log("second")
    second = processes.start(command, service.environment, layout.home, log)
    wait(lambda: "another companion works" in log.read_text(), "the second companion to wait")
    file = layout.home / "serving" / "health.json"
    wait(file.exists, "the first companion to tell")
    running.kill()
    running.wait()
    wait(lambda: log.read_text().count("warehouse does not answer") > 0, "the second companion to work")
    assert second.poll() is None


def test_it_starts_when_the_warehouse_has_its_tables(layout: Layout, service: Service) -> None:
    # PostgreSQL is ready for others once `on_ready` has migrated the warehouse.
    assert set(service.after) == {"postgres"}
    assert service.stop_round < next(s.stop_round for s in services(layout) if s.name == "postgres")


def test_the_key_is_where_people_are_sent(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(layout.home))
    assert grants.local_key_file() == layout.serving_key


@pytest.mark.parametrize("folder", ["plain", "with a space and a 'quote'"])
def test_the_line_that_is_shown_asks_what_was_asked_and_shows_no_key(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / folder / "local.key"
    file.parent.mkdir()
    file.write_text("the-key\n")
    record = {"x": 1.5, "label": 'it\'s "$HOME"', "none": None}
    line = demo_request.curl("http://h:1", demo_request.key_in(file), "m", record)
    assert "the-key" not in line
    said = subprocess.run(
        ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[:4] == ["-s", "http://h:1/models/m/predict", "-H", "Authorization: Bearer the-key"]
    assert json.loads(said[5]) == {"record": record}
