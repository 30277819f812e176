"""What a person finds in MLflow after a training: names, data set, figures, card, and nothing twice after a crash."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.registry import artifacts
from evergreen.training import train
from evergreen.training.figures import of_the_judged_rows
from evergreen.training.record import tracking


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def files_of(client, run, folder=None):
    return {f.path for f in client.list_artifacts(run, folder)}


def read(client, run, path, tmp_path):
    return Path(client.download_artifacts(run, path, str(tmp_path))).read_text(encoding="utf-8")


def test_a_run_and_its_version_say_what_they_are(landed, start, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_AIRFLOW_URL", "https://airflow.example.org/team")
    as_of = start + timedelta(days=40)
    outcome = landed.train(as_of, "train__rides/it's | a <run>", trigger="data_drift")
    client = MlflowClient()
    run, version = client.get_run(outcome.mlflow_run), client.get_model_version("rides", outcome.version)

    assert run.info.run_name == f"rides {as_of:%Y-%m-%d %H:%M}, data drift"
    for tags in (run.data.tags, version.tags):
        assert (tags["verdict"], tags["trigger"]) == ("passed: first champion", "data_drift")
    text = run.data.tags["mlflow.note.content"]
    assert version.description == text
    assert text.startswith("**Passed the gate**: first champion: RMSE of the challenger")
    assert "because the input data drifted" in text
    assert (
        f"#/experiments/{run.info.experiment_id}/runs/{outcome.mlflow_run}/artifacts/model_card.html" in text
    )
    assert "https://airflow.example.org/team/dags/train__rides/runs/it%27s%20%7C%20a%20%3Crun%3E" in text

    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("rides snapshot", outcome.fingerprint[:16])
    assert [(t.key, t.value) for t in given.tags] == [("mlflow.data.context", "training")]
    assert json.loads(given.dataset.profile)["num_rows"] == outcome.rows["all"]
    columns = json.loads(given.dataset.schema)["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in columns] == [
        ("ts", "datetime"), ("hour", "double"), ("x", "double"), ("kind", "string"), ("demand", "double"),
    ]  # fmt: skip

    curve = client.get_metric_history(outcome.mlflow_run, "rmse_newest_rows")
    assert [m.step for m in curve] == list(range(1, len(curve) + 1))
    assert min(m.value for m in curve) == run.data.metrics["early_stopping_score"]
    assert not {"spec_hash", "git_commit", "snapshot.fingerprint"} & run.data.params.keys()


def test_figures_and_card_stand_beside_the_run_and_are_no_part_of_what_is_loaded(landed, start, tmp_path):
    outcome = landed.train(start + timedelta(days=40), "train__rides/run")
    client = MlflowClient()
    drawn = files_of(client, outcome.mlflow_run, "figures")
    assert drawn == {
        f"figures/{name}.png"
        for name in (
            "predicted_against_actual",
            "residuals_over_time",
            "error_by_slice",
            "importance",
            "learning_curve",
        )
    }
    page, text = (read(client, outcome.mlflow_run, f"model_card.{kind}", tmp_path) for kind in ("html", "md"))
    for found in (page, text):
        assert "rides, version 1" in found
        assert outcome.fingerprint in found
        assert "the specs name none" in found
        assert outcome.sentence().split(":")[0] in found
    assert page.count("data:image/png;base64,") == len(drawn)
    assert "It is judged on few rows: 120." in text
    sums = json.loads(client.get_model_version("rides", "1").tags["evergreen.files"])
    assert not [name for name in sums if "figures" in name or "card" in name]
    # What people look at may be changed or lost; what is served may not.
    registry.load(landed.model, "1")


def test_a_card_tells_the_licence_and_the_decisions_before(landed, start, tmp_path):
    licensed = landed.specs.datasets["rides_hourly"].model_copy(update={"license": "CC-BY-4.0"})
    landed.specs.datasets["rides_hourly"] = licensed
    landed.promote(start + timedelta(days=30), "train__rides/first")
    outcome = landed.train(start + timedelta(days=40), "train__rides/second")
    text = read(MlflowClient(), outcome.mlflow_run, "model_card.md", tmp_path)
    assert "CC-BY-4.0" in text
    assert "| promoted | 1 |" in text
    assert "champion, version 1" in text


def test_a_figure_that_fails_does_not_fail_the_training(landed, start, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(of_the_judged_rows, "residuals_over_time", broken)
    outcome = landed.train(start + timedelta(days=40), "train__rides/run")
    assert outcome.version == "1"
    assert "residuals_over_time cannot be drawn: RuntimeError: no ink" in caplog.text
    assert "figures/residuals_over_time.png" not in files_of(MlflowClient(), outcome.mlflow_run, "figures")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the training handles it."""


@pytest.mark.parametrize("after", ["files", "metrics", "card"])
def test_a_training_that_is_killed_and_run_again_has_nothing_twice(landed, start, monkeypatch, after):
    as_of = start + timedelta(days=40)
    where, name = {
        "files": (artifacts, "log_files"),
        "metrics": (tracking, "measured"),
        "card": (train, "_log_card"),
    }[after]
    whole = getattr(where, name)

    def dies(*args, **more):
        whole(*args, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry if after == "files" else where, name, dies)
        with pytest.raises(Killed):
            landed.train(as_of, "train__rides/run")
    outcome = landed.train(as_of, "train__rides/run")
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("rides").experiment_id])
    assert run.info.run_id == outcome.mlflow_run
    assert len(client.get_metric_history(run.info.run_id, "challenger_rmse")) == 1
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "rmse_newest_rows")]
    assert len(steps) == len(set(steps))
    assert len(run.inputs.dataset_inputs) == 1
    assert len(files_of(client, run.info.run_id, "figures")) == 5
    assert len(client.search_model_versions("name = 'rides'")) == 1
