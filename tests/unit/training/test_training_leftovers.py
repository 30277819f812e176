"""What a killed training leaves goes with the next one, and nothing that somebody works on goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

import clean_fork
from evergreen import registry
from evergreen.errors import ErrorReason, TransientError
from evergreen.training import train
from evergreen.training.record import tracking
from evergreen.warehouse.features import snapshot
from evergreen.warehouse.storage import working_folder


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def runs():
    place = MlflowClient().get_experiment_by_name("rides").experiment_id
    return {r.data.tags["evergreen.run_id"]: r for r in MlflowClient().search_runs([place])}


def killed(step, module, name):
    """Run a step in a process of its own, which is killed where it calls a function of a module."""

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        setattr(module, name, die)
        step()

    process = clean_fork.start(work)
    process.join(240)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["measured", "finish"], ids=["after-the-files", "after-the-version"])
def test_a_killed_training_is_cleared_away_by_the_next_one(landed, start, where):
    as_of = start + timedelta(days=30)
    taken = landed.snapshot(as_of)
    killed(
        lambda: train.train(landed.specs, landed.model, taken, as_of, "dag/killed", trigger="manual"),
        tracking,
        where,
    )
    assert runs()["dag/killed"].info.status == "RUNNING"
    left = Path(taken.path).parent
    assert list(left.glob(".work-*"))
    outcome = landed.train(start + timedelta(days=31), "dag/next")
    assert runs()["dag/killed"].info.status == "KILLED"
    assert "without a word" in runs()["dag/killed"].data.tags["evergreen.error"]
    assert runs()["dag/next"].info.status == "FINISHED"
    assert [str(v.version) for v in MlflowClient().search_model_versions("name = 'rides'")] == [
        outcome.version
    ]
    assert list(left.glob(".work-*")) == []
    # Airflow may try the killed one again: it begins anew, in the same run id.
    again = train.train(landed.specs, landed.model, taken, as_of, "dag/killed", trigger="manual")
    assert registry.load(landed.model, str(again.version)).run_id == again.mlflow_run


def test_a_training_that_is_at_work_is_left_alone(landed, start):
    landed.train(start + timedelta(days=30), "dag/one")
    open_run = tracking.begin(landed.model, "dag/at work", start, {tracking.TRIGGER_TAG: "manual"})
    with train._alone("rides", "dag/at work"):
        tracking.sweep(landed.model, "dag/two", train.at_work)
        assert MlflowClient().get_run(open_run).info.status == "RUNNING"
    tracking.sweep(landed.model, "dag/two", train.at_work)
    assert MlflowClient().get_run(open_run).info.status == "KILLED"


def test_a_training_whose_outcome_was_written_is_only_closed(landed, start):
    outcome = landed.train(start + timedelta(days=30), "dag/one")
    MlflowClient().update_run(outcome.mlflow_run, "RUNNING")
    tracking.sweep(landed.model, "dag/two", train.at_work)
    assert runs()["dag/one"].info.status == "FINISHED"
    assert registry.load(landed.model, str(outcome.version))
    assert landed.train(start + timedelta(days=30), "dag/one") == outcome


def test_a_training_killed_before_it_closed_its_run_is_closed_when_it_is_tried_again(landed, start):
    outcome = landed.train(start + timedelta(days=30), "dag/one")
    MlflowClient().update_run(outcome.mlflow_run, "RUNNING")
    assert landed.train(start + timedelta(days=30), "dag/one") == outcome
    assert runs()["dag/one"].info.status == "FINISHED"


def test_a_snapshot_that_was_cut_short_goes_and_one_that_is_being_written_stays(landed, start):
    as_of, folder = start + timedelta(days=30), landed.folder / "rides"
    killed(lambda: landed.snapshot(as_of), snapshot.Fingerprint, "update")
    left = list(folder.iterdir())
    assert [p.name for p in left[0].iterdir()]
    with working_folder.folder(folder) as busy:
        taken = landed.snapshot(as_of)
        assert {p.name for p in folder.iterdir()} == {busy.name, Path(taken.path).name}
    assert [p.name for p in folder.iterdir()] == [Path(taken.path).name]


def test_half_a_snapshot_of_an_earlier_release_goes_once_it_is_old(landed, start):
    folder = landed.folder / "rides"
    folder.mkdir(parents=True)
    new, old = folder / ".12.part", folder / ".34.part"
    for path in (new, old):
        path.write_bytes(b"PAR1")
    os.utime(old, (0, 0))
    landed.snapshot(start + timedelta(days=30))
    assert (new.exists(), old.exists()) == (True, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> None:
    with pytest.raises(OSError), (place / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_is_told_by_the_snapshot(landed, start, small_disk):
    fill(small_disk)
    with pytest.raises(TransientError) as caught:
        snapshot.take(landed.specs, landed.model, start + timedelta(days=30), small_disk)
    assert caught.value.reason is ErrorReason.NO_SPACE
    assert f"no space left on the disk of {small_disk}" in str(caught.value)
    assert "free some" in str(caught.value)
    (small_disk / "filler").unlink()
    assert snapshot.take(landed.specs, landed.model, start + timedelta(days=30), small_disk).rows


def test_a_full_disk_is_told_by_the_training(landed, start, small_disk):
    as_of = start + timedelta(days=30)
    taken = snapshot.take(landed.specs, landed.model, as_of, small_disk)
    fill(small_disk)
    with pytest.raises(TransientError) as caught:
        train.train(landed.specs, landed.model, taken, as_of, "dag/full", trigger="manual")
    assert caught.value.reason is ErrorReason.NO_SPACE
    assert "it needs about" in str(caught.value)
    (small_disk / "filler").unlink()
    assert train.train(landed.specs, landed.model, taken, as_of, "dag/full", trigger="manual").version


def test_a_full_disk_is_told_where_a_version_is_fetched(landed, start, small_disk, monkeypatch):
    landed.train(start + timedelta(days=30), "dag/one")
    monkeypatch.setenv("EVERGREEN_HOME", str(small_disk))
    fill(small_disk)
    with pytest.raises(TransientError, match="no space left") as caught:
        registry.load(landed.model, "1")
    assert caught.value.reason is ErrorReason.NO_SPACE
