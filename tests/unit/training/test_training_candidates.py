"""A training that chooses, whole: which model is registered, and what MLflow and the ledger say of the choice."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.reference.reference import Reference
from evergreen.registry.models import DIGEST_TAG
from evergreen.training.search import choose
from evergreen.warehouse.connection import connect

WINDOWS = ("all", "20d")
FOLDS = {"holdout": "3d", "folds": 3, "min_rows": 100}


@pytest.fixture
def turned(world, mlflow_url, start):
    """Fifty days of rides; after thirty of them x means the opposite."""
    world.land(start, 30, slope=15.0)
    world.land(start + timedelta(days=30), 20, slope=-15.0, seed=2)
    return world.with_model(training=FOLDS)


@pytest.fixture
def as_of(start):
    return start + timedelta(days=50)


def digest(outcome):
    return MlflowClient().get_model_version("rides", outcome.version).tags[DIGEST_TAG]


def leaderboard(outcome):
    client = MlflowClient()
    place = client.get_experiment_by_name("rides").experiment_id
    return client.load_table(place, "leaderboard.json", [outcome.mlflow_run])


def test_the_chosen_window_gives_the_model_that_this_window_alone_gives(turned, as_of):
    choosing = turned.with_model(training={"windows": WINDOWS})
    assert choosing.snapshot(as_of).rows == turned.snapshot(as_of).rows
    chosen = choosing.train(as_of, "dag/choice")
    alone = turned.with_model(training={"window": "20d"}).train(as_of, "dag/alone")
    everything = turned.train(as_of, "dag/all")
    assert chosen.choice["window"] == "20d"
    assert digest(chosen) == digest(alone) != digest(everything)
    assert (chosen.rows, chosen.trained_until) == (alone.rows, alone.trained_until)
    assert chosen.metrics["challenger"] == alone.metrics["challenger"]
    assert alone.choice is everything.choice is None
    one, other = (
        Reference.read(registry.artifact_folder(o.mlflow_run, "reference")) for o in (chosen, alone)
    )
    assert one.sample.equals(other.sample)


def test_a_window_that_is_kept_gives_the_model_of_a_spec_without_a_choice(world, mlflow_url, start):
    world.land(start, 45)
    as_of = start + timedelta(days=45)
    plain = world.with_model(training=FOLDS)
    chosen = plain.with_model(training={"windows": WINDOWS}).train(as_of, "dag/choice")
    assert chosen.choice["window"] == "all"
    assert digest(chosen) == digest(plain.train(as_of, "dag/plain"))


def test_what_mlflow_and_the_ledger_keep_of_a_choice(turned, as_of):
    spec = {"windows": WINDOWS, "tune": {"trials": 3}, "compare_with": ("linear", "hist_gradient_boosting")}
    world = turned.with_model(training=spec)
    outcome = world.train(as_of, "dag/run")
    client = MlflowClient()
    run = client.get_run(outcome.mlflow_run)
    table = leaderboard(outcome)
    assert len(table) == 2 + 3 + 2
    line = table[table["chosen"]].iloc[0]
    assert (line["learner"], line["window"]) == ("xgboost", "20d")
    used = json.loads(line["parameters"])
    assert {name: run.data.params[f"xgb.{name}"] for name in used} == {n: str(v) for n, v in used.items()}
    assert run.data.params["window"] == "20d"
    assert run.data.metrics["candidates"] == 7
    assert run.data.metrics["validation_rmse"] == pytest.approx(line["rmse mean"])
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "leaderboard.json", "type": "table"}
    ]
    page = Path(client.download_artifacts(outcome.mlflow_run, "leaderboard.html")).read_text()
    assert "hist_gradient_boosting" in page
    assert "<script" not in page
    assert json.loads(json.dumps(outcome.to_dict()))["choice"]["candidates"] == 7
    decision = world.settle(outcome)
    assert decision.evidence.to_json()["choice"] == outcome.choice
    assert "Window 20d of all, 20d" in decision.evidence.to_json()["choice"]["sentence"]


def test_a_search_begins_with_the_parameters_of_the_champion(turned, as_of):
    turned.with_model(training={"params": {"max_depth": 2, "eta": 0.11}}).promote(as_of, "dag/first")
    with connect() as conn:
        champion = registry.champion(conn, "rides", repair=False)
    found = choose.champions_params(turned.model, champion)
    assert (found["max_depth"], found["eta"]) == (2, 0.11)
    outcome = turned.with_model(training={"tune": {"trials": 1}}).train(as_of, "dag/second")
    table = leaderboard(outcome)
    theirs = json.loads(table[table["source"] == "champion"].iloc[0]["parameters"])
    assert (theirs["max_depth"], theirs["learning_rate"]) == (2, 0.11)


def test_a_training_without_a_choice_keeps_no_word_of_one(turned, as_of):
    outcome = turned.train(as_of, "dag/run")
    run = MlflowClient().get_run(outcome.mlflow_run)
    assert "window" not in run.data.params
    assert "candidates" not in run.data.metrics
    files = {f.path for f in MlflowClient().list_artifacts(outcome.mlflow_run)}
    assert not {"leaderboard.json", "leaderboard.html"} & files
    assert "choice" not in turned.settle(outcome).evidence.to_json()
