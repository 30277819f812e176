from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import terminal_scene
from terminal_scene import REPOSITORY, Terminal

from evergreen.warehouse.connection import connect


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Terminal]:
    """A person at a terminal, whose environment names a warehouse or none, this repository's specs and no stack."""
    for name in ("EVERGREEN_AIRFLOW_URL", "EVERGREEN_MLFLOW_URL", "EVERGREEN_MAIL_TO", "MLFLOW_TRACKING_URI", "NO_COLOR"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVERGREEN_SPECS", str(REPOSITORY / "include"))
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    before = dict(os.environ)
    yield Terminal(capsys)
    os.environ.clear()  # a command takes the stack's variables for its process
    os.environ.update(before)


@pytest.fixture
def life(terminal: Terminal, warehouse_url: str, tmp_path: Path) -> Terminal:
    """The same, with a year of two models and a dataset in the warehouse."""
    terminal_scene.world(tmp_path / "landing")
    return terminal


@pytest.fixture
def decided(terminal: Terminal, warehouse_url: str) -> Terminal:
    """The same with the models alone."""
    with connect() as conn:
        terminal_scene.write_life(conn)
    return terminal
