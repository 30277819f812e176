"""Past rows are predicted by models that had not learnt them, so that the reference tells how hard each part was."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from evergreen import registry
from evergreen.reference.reference import Reference
from evergreen.training.gate import evaluate
from evergreen.training.record import unseen_predictions
from evergreen.training.search.choose import Choice
from evergreen.training.search.validate import with_params


def sample(world, mlflow_run):
    reference = Reference.read(registry.artifact_folder(mlflow_run, "reference"))
    return reference, reference.sample.to_pandas()


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def test_a_champions_reference_has_predictions_of_models_that_had_not_learnt_the_row(landed, start):
    done = landed.train(start + timedelta(days=40), "dag/1")
    reference, rows = sample(landed, done.mlflow_run)
    held = rows["_time"] > rows["_time"].max() - landed.model.training.holdout
    assert rows["_outside"][held].notna().all()
    assert np.corrcoef(rows["_outside"][held], rows["_prediction"][held])[0, 1] > 0.5
    before = rows[~held & rows["_outside"].notna()]
    assert len(before) >= done.rows["training"]
    learnt, honest = ((before[n] - before["_label"]).pow(2).mean() for n in ("_prediction", "_outside"))
    assert honest > learnt
    assert reference.movement.metric == "rmse"
    assert reference.movement.windows >= 4
    assert reference.movement.factor(0.01, 24) > 1


def test_the_fits_have_the_parameters_that_were_chosen(landed, start, monkeypatch):
    idle = landed.with_model(training={"params": {"learning_rate": 1e-6}})
    chosen = with_params(idle.model, {**idle.model.training.params, "learning_rate": 0.3})
    monkeypatch.setattr(evaluate, "choose", lambda *_: Choice(chosen, 0, "all"))
    done = idle.train(start + timedelta(days=40), "dag/1")
    _, rows = sample(idle, done.mlflow_run)
    known = rows["_outside"].notna()
    assert known.sum() > done.rows["training"]
    assert np.corrcoef(rows["_outside"][known], rows["_label"][known])[0, 1] > 0.5
    assert rows["_outside"][known].std() > 0.5 * rows["_prediction"][known].std()


def test_rows_that_are_too_few_have_none(landed, start, monkeypatch):
    monkeypatch.setattr(unseen_predictions, "LEAST_ROWS", 10_000)
    done = landed.train(start + timedelta(days=40), "dag/1")
    reference, rows = sample(landed, done.mlflow_run)
    assert rows["_outside"].notna().sum() == done.rows["holdout"]
    held = rows["_outside"].notna()
    assert (rows["_outside"] == rows["_prediction"])[held].all()
    assert reference.movement.factor(0.01, 24) > 1
