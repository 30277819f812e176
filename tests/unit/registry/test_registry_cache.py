"""The cache of MLflow's files: an entry appears whole, and what a killed download left is gone with the next one."""

from __future__ import annotations

import sys
import time
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import clean_fork
from evergreen.registry import artifacts
from evergreen.registry.artifacts import PART, fetched


def hold(folder: Path, pipe: Connection) -> None:
    """Download the half of a file, say where it lies, and hang."""
    with artifacts._part(folder) as part:
        (part / "half").write_text("half")
        pipe.send(part)
        time.sleep(60)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("whole")
    folder = tmp_path / "home" / "cache" / "mlflow" / "runs"
    folder.mkdir(parents=True)
    return source, folder


def filling(folder: Path) -> tuple[BaseProcess, Path]:
    """A process that hangs in its download, and where it downloads to."""
    ours, theirs = Pipe()
    process = clean_fork.start(partial(hold, folder), pipe=theirs, modules=(sys.modules[__name__],))
    assert ours.poll(60), "it did not begin"
    return process, ours.recv()


def test_what_a_killed_download_left_is_gone_with_the_next_one(cache):
    source, folder = cache
    process, part = filling(folder)
    assert (part / "half").exists()
    process.kill()
    process.join()
    assert part.exists()
    found = fetched("runs/one", source.as_uri())
    assert (found / "source" / "a.txt").exists() or (found / "a.txt").exists()
    assert [p.name for p in folder.iterdir()] == ["one"]


def test_a_download_that_is_under_way_is_left_alone(cache):
    source, folder = cache
    process, part = filling(folder)
    try:
        fetched("runs/one", source.as_uri())
        assert (part / "half").read_text() == "half"
    finally:
        process.kill()
        process.join()


def test_a_part_that_was_taken_for_a_left_one_is_made_again(cache, monkeypatch):
    _, folder = cache
    locked, tries = artifacts._locked, []

    def taken(part: Path, *, wait: bool) -> int | None:
        tries.append(part)
        if len(tries) == 1:
            part.rmdir()
        return locked(part, wait=wait)

    monkeypatch.setattr(artifacts, "_locked", taken)
    with artifacts._part(folder) as part:
        assert part.is_dir()
    assert len(tries) == 2
    assert not list(folder.glob(f"{PART}*"))
