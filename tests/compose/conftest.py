"""The compose stack, started with data of its own and removed at the end: `make test-compose`. Tests of the store have one with it.

Needs an engine (`docker compose`, or the command in COMPOSE) and some 10 GB; skipped with a reason where none is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from compose_stack import ENGINE, REPOSITORY, Stack


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        found = (
            subprocess.run([*ENGINE, "version"], capture_output=True, check=False, timeout=300).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        found = False
    if not found:
        pytest.skip(
            f"no engine answers to `{' '.join(ENGINE)} version`; COMPOSE names another compose command"
        )
    # One after the other: pytest ends the one before it makes the other.
    stack = Stack(tmp_path_factory.mktemp("compose"), getattr(request, "param", ""))
    try:
        stack.compose("up", "--detach", "--build", "--wait", "--scale", "airflow-worker=2", timeout_s=1800)
        yield stack
    finally:
        logs = REPOSITORY / "compose-test.log"
        logs.write_text(stack.compose("logs", "--no-color", "--tail", "400", check=False), encoding="utf-8")
        stack.compose("--profile", "tools", "down", "--volumes", "--timeout", "20", check=False)
