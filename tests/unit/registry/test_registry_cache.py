"""The cache of MLflow's files: an entry appears whole, and what a killed download left is gone with the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.registry import artifacts
from evergreen.registry.artifacts import PART, fetched

HOLDS = """
import sys, time
from pathlib import Path
from evergreen.registry import artifacts

with artifacts._part(Path(sys.argv[1])) as part:
    (part / "half").write_text("half")
    print(part, flush=True)
    time.sleep(60)
"""


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


def filling(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_download_left_is_gone_with_the_next_one(cache):
    source, folder = cache
    process, part = filling(folder)
    assert (part / "half").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
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
        process.wait()


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
