"""Loading a version: what was registered and nothing else, from this machine's cache where it can be."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import numpy as np
import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.reference.reference import Reference
from evergreen.registry import artifacts


@pytest.fixture
def trained(world, mlflow_url, start):
    world.land(start, 35)
    return world, world.train(start + timedelta(days=30), "dag/one")


def test_a_loaded_model_predicts_like_the_one_that_was_trained(trained, rows):
    world, outcome = trained
    loaded = registry.load(world.model, "1")
    assert (loaded.version, loaded.run_id) == ("1", outcome.mlflow_run)
    table = rows(50)
    assert loaded.predict(table).dtype == np.float64
    np.testing.assert_array_equal(loaded.predict(table), loaded.predict(table.select(["kind", "x", "hour"])))
    assert len(loaded.predict(table.slice(0, 0))) == 0


def test_the_second_load_needs_no_download_but_asks_for_the_version(trained, monkeypatch):
    world, _ = trained
    registry.load(world.model, "1")
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.artifacts.download_artifacts", None)
        registry.load(world.model, "1")
    MlflowClient().delete_model_version("rides", "1")
    with pytest.raises(TerminalError) as caught:
        registry.load(world.model, "1")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_files_that_are_not_what_was_registered_are_refused(trained, damage):
    world, _ = trained
    path = registry.load(world.model, "1").folder / "model.ubj"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else path.read_bytes() + b" ")
    with pytest.raises(TerminalError, match="SHA-256") as caught:
        registry.load(world.model, "1")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_the_reference_comes_back_as_the_watch_reads_it(trained):
    _, outcome = trained
    reference = Reference.read(registry.artifact_folder(outcome.mlflow_run, "reference"))
    assert reference.rows == outcome.rows["all"]
    assert reference.holdout_metrics["rmse"] == outcome.holdout["rmse"]
    gains = {c.name: c.gain for c in reference.columns.values() if c.role == "feature"}
    assert set(gains) == {"hour", "x", "kind"}
    assert sum(gains.values()) == pytest.approx(1)
    assert gains["hour"] > gains["kind"], "the share of all gain, not the gain of a split"


def test_the_holdout_in_the_reference_has_out_of_sample_predictions(trained):
    world, outcome = trained
    sample = Reference.read(registry.artifact_folder(outcome.mlflow_run, "reference")).sample.sort_by("_time")
    held = sample.slice(sample.num_rows - outcome.rows["holdout"])
    error = held["_prediction"].to_numpy() - held["_label"].to_numpy()
    assert np.sqrt((error**2).mean()) == pytest.approx(outcome.holdout["rmse"])
    refitted = registry.load(world.model, "1").predict(held) - held["_label"].to_numpy()
    assert np.sqrt((refitted**2).mean()) < outcome.holdout["rmse"]


def test_files_go_into_a_run_and_a_missing_one_is_named(trained, tmp_path):
    _, outcome = trained
    (tmp_path / "report.html").write_text("<p>fine</p>")
    registry.log_files(outcome.mlflow_run, tmp_path / "report.html", "reports")
    assert (
        registry.artifact_folder(outcome.mlflow_run, "reports") / "report.html"
    ).read_text() == "<p>fine</p>"
    with pytest.raises(TerminalError) as caught:
        registry.artifact_folder(outcome.mlflow_run, "nothing")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_the_cache_is_bounded_and_spares_what_may_be_in_use(mlflow_url, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "KEEP_FOLDERS", 3)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    for name in "abcdef":
        folder = artifacts.fetched(f"runs/{name}", source.as_uri())
        if name != "b":
            os.utime(folder, (time.time() - 7200, time.time() - 7200))
    kept = {p.name for p in (tmp_path / "home/cache/mlflow/runs").iterdir()}
    assert "b" in kept
    assert len(kept) == 3


def test_a_download_that_breaks_leaves_nothing(mlflow_url, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TerminalError, match="is empty"):
        artifacts.fetched("runs/a", empty.as_uri())
    assert list((tmp_path / "home/cache/mlflow/runs").iterdir()) == []
