"""The supervisor with small programs in place of the real services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evergreen.stack import control, processes, supervisor
from evergreen.stack.layout import Layout, StackError

REPOSITORY = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, signal, sys
from evergreen.stack import processes, supervisor
from evergreen.stack.layout import Layout
from evergreen.stack.services import Service, ServiceKind

class SmallSupervisor(supervisor.Supervisor):
    def __init__(self, layout, services, notes):
        super().__init__(layout, services, notes, pause=0.02)

layout = Layout.of(sys.argv[1])
env = dict(os.environ)
sh = lambda name, script, **more: Service(name, ["sh", "-c", script], env, **more)
supervisor.services = lambda layout: [{services}]
supervisor.Supervisor = SmallSupervisor
sys.exit(supervisor.main(layout))
"""


@pytest.fixture
def run(layout: Layout) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a supervisor for some services; afterwards nothing of it is left."""
    started = []

    def start(services: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "include")}
        program = PROGRAM.replace("{services}", textwrap.dedent(services))
        with layout.log("supervisor").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(layout.home)], env=environment, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    control.down(layout.home, say=lambda line: None)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


def service(layout: Layout, name: str) -> dict[str, Any]:
    return dict(layout.state().get("services", {}).get(name, {}))


def is_in(layout: Layout, name: str, state: str) -> Callable[[], Any]:
    return lambda: service(layout, name).get("state") == state and service(layout, name)


def test_a_crashed_service_is_restarted(layout: Layout, run: Callable[[str], Any]) -> None:
    run('sh("steady", "exec sleep 60")')
    first = wait_for(is_in(layout, "steady", "running"), "start")["pid"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: service(layout, "steady")["pid"] not in (first, None), "restart")
    assert service(layout, "steady")["restarts"] == 1


def test_one_that_always_fails_is_given_up_and_its_log_is_shown(
    layout: Layout, run: Callable[[str], Any]
) -> None:
    run('sh("broken", "echo no such column; exit 3"), sh("steady", "exec sleep 60")')
    failed = wait_for(is_in(layout, "broken", "failed"), "give up")
    assert failed["message"] == "broken ended with exit code 3 5 times in a row."
    assert failed["restarts"] == supervisor.MAX_FAST_CRASHES - 1
    assert service(layout, "steady")["state"] == "running"
    with pytest.raises(StackError, match=r"broken ended with exit code 3(?s:.*)no such column"):
        control._raise_if_failed(layout, control.status(layout.home))


def test_a_failed_service_is_tried_again_on_request(layout: Layout, run: Callable[[str], Any]) -> None:
    process = run(f'sh("needy", "test -e {layout.home}/there && exec sleep 60")')
    wait_for(is_in(layout, "needy", "failed"), "give up")
    (layout.home / "there").touch()
    process.send_signal(signal.SIGHUP)
    wait_for(is_in(layout, "needy", "running"), "second try")


def test_services_start_in_order_and_not_after_a_failed_step(
    layout: Layout, run: Callable[[str], Any]
) -> None:
    run(
        """
        sh("good", "sleep 0.2; date >> $0.order", kind=ServiceKind.STEP), sh("second", "exec sleep 60", after=("good",)),
        sh("bad", "exit 1", kind=ServiceKind.STEP), sh("never", "exec sleep 60", after=("bad",)),
        """
    )
    wait_for(is_in(layout, "second", "running"), "start")
    assert service(layout, "good")["state"] == "done"
    assert service(layout, "bad")["state"] == "failed"
    assert service(layout, "never")["state"] == "waiting"


def test_down_stops_all_and_waits(layout: Layout, run: Callable[[str], Any]) -> None:
    process = run(
        'sh("tree", "sleep 61 & sleep 62"), sh("deaf", "trap true TERM; while :; do sleep 0.1; done", grace=0.5)'
    )
    wait_for(is_in(layout, "deaf", "running"), "start")
    control.down(layout.home, say=lambda line: None)
    assert process.wait(10) == 0
    assert supervisor.leftovers(layout) == []
    assert {row.state for row in control.status(layout.home)} == {"stopped"}


def test_grandchildren_die_with_a_killed_supervisor(layout: Layout, run: Callable[[str], Any]) -> None:
    # The second one leaves the process group, and its environment does not carry the mark.
    process = run('sh("tree", "sleep 63 & env -i sleep 64 & wait")')
    wait_for(is_in(layout, "tree", "running"), "start")
    wait_for(lambda: len(supervisor.leftovers(layout)) == 3, "grandchildren")
    process.kill()
    process.wait()
    wait_for(lambda: supervisor.leftovers(layout) == [], "all gone")


def test_the_next_start_ends_what_a_killed_stack_left(layout: Layout, run: Callable[[str], Any]) -> None:
    orphan = processes.start(["sleep", "65"], dict(os.environ), layout.home, layout.log("orphan"))
    process = run('sh("steady", "exec sleep 60")')
    wait_for(is_in(layout, "steady", "running"), "start")
    assert orphan.wait(10) == -signal.SIGKILL
    assert process.poll() is None


def test_a_second_supervisor_leaves_the_first_alone(layout: Layout, run: Callable[[str], Any]) -> None:
    run('sh("steady", "exec sleep 60")')
    pid = wait_for(is_in(layout, "steady", "running"), "start")["pid"]
    assert run('sh("steady", "exec sleep 60")').wait(10) == 0
    assert service(layout, "steady")["pid"] == pid


def test_clean_leaves_a_foreign_folder_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StackError, match="was not made by Evergreen"):
        control.clean(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_clean_removes_the_home(layout: Layout) -> None:
    said: list[str] = []
    control.clean(layout.home, say=said.append)
    assert not layout.home.exists()
    assert f"Removing {layout.logs}" in said
