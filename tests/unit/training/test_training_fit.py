"""Fits: parameters that are refused, the same model twice, early stopping away from the holdout."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry.encoding import Encoding, encode, survey
from evergreen.registry.models import predict
from evergreen.training.fitting.fit import fit, gains, parameters
from evergreen.training.fitting.local import Labelled


@pytest.fixture
def fitted(in_file):
    """Fit a model to rows that it can learn; returns what was fitted, the encoding and the encoded rows."""
    return lambda model, count=600, **columns: _fitted(in_file, model, count, **columns)


def _fitted(in_file, model, count, **columns):
    rng = np.random.default_rng(3)
    x = rng.normal(size=count)
    kind = rng.integers(0, 2, count)
    y = 2 * x + kind + rng.normal(size=count) * 0.1
    if model.task == "binary":
        y = (y > 0).astype(float)
    table = pa.table({
        "hour": np.arange(count) % 24.0, "x": x, "kind": np.array(["dry", "wet"])[kind], **columns,
    })  # fmt: skip
    encoding = survey(model, table.to_batches()).encoding
    matrix = encode(encoding, table).matrix
    return fit(model, encoding, Labelled(in_file(matrix), y), np.arange(count)), encoding, matrix


@pytest.mark.parametrize(
    ("params", "told"),
    [
        pytest.param({"nthread": 8}, "EVERGREEN_THREADS", id="threads"),
        pytest.param({"seed": 1}, "training.seed", id="seed"),
        pytest.param({"n_estimators": 10}, "training.max_rounds", id="rounds"),
        pytest.param({"early_stopping_rounds": 3}, "training.early_stopping_rounds", id="early-stopping"),
        pytest.param({"tree_method": "exact"}, "same snapshot", id="tree-method"),
        pytest.param({"device": "cuda"}, "training.device", id="device"),
        pytest.param({"booster": "gblinear"}, "gbtree", id="booster"),
        pytest.param({"max_dept": 3}, "did you mean max_depth", id="misspelt"),
        pytest.param({"objective": "binary:logistic"}, "does not fit regression", id="objective"),
        pytest.param({"max_depth": -3}, "XGBoost refuses", id="value"),
        pytest.param({"learning_rate": "fast"}, "XGBoost refuses", id="type"),
        pytest.param({"eval_metric": "accuracy"}, "XGBoost refuses", id="metric"),
    ],
)
def test_parameters_that_are_refused(rides, change, fitted, params, told):
    with pytest.raises(TerminalError, match=told) as caught:
        fitted(change(rides, training={"params": params}))
    assert caught.value.reason is ErrorReason.BAD_SPEC
    assert "models/rides.yaml" in str(caught.value)


def test_every_refused_parameter_is_named_at_once(rides, change):
    with pytest.raises(TerminalError) as caught:
        parameters(change(rides, training={"params": {"seed": 1, "bogus": 2}}))
    assert len(str(caught.value).splitlines()) == 2


def test_the_same_rows_give_the_same_model(rides, change, fitted):
    model = change(rides, training={"params": {"subsample": 0.7, "colsample_bytree": 0.7}})
    first, second = fitted(model)[0], fitted(model)[0]
    assert first.rounds == second.rounds
    assert first.booster.save_raw() == second.booster.save_raw()
    other = fitted(change(model, training={"seed": 8}))[0]
    assert other.booster.save_raw() != first.booster.save_raw()


def test_early_stopping_ends_before_the_last_round_and_the_model_has_as_many(rides, change, fitted):
    model = change(rides, training={"max_rounds": 500, "early_stopping_rounds": 3})
    found, _, _ = fitted(model)
    assert 1 <= found.rounds < 500
    assert found.booster.num_boosted_rounds() == found.rounds


def test_without_early_stopping_every_round_is_fitted_and_no_row_is_set_aside(rides, change, fitted):
    found, _, _ = fitted(change(rides, training={"max_rounds": 9, "early_stopping_rounds": None}))
    assert found.rounds == found.booster.num_boosted_rounds() == 9
    assert (found.stopping_metric, found.stopping_score) == (None, None)


def test_probabilities_and_a_feature_that_is_all_missing(wetness, fitted):
    found, encoding, matrix = fitted(wetness, hour=np.full(600, np.nan))
    p = predict(found.booster, matrix)
    assert ((p > 0) & (p < 1)).all()
    assert gains(found.booster, encoding)["hour"] == 0
    assert next(iter(gains(found.booster, encoding))) == "x"


@pytest.mark.parametrize("memory", ["1024", "0"])
@pytest.mark.parametrize("subsample", [1.0, 0.7])
def test_what_a_fit_knows_of_its_rows_is_what_its_booster_predicts(
    wetness, rides, change, fitted, monkeypatch, subsample, memory
):
    monkeypatch.setenv("EVERGREEN_TRAINING_MEMORY_MB", memory)
    for model in (wetness, change(rides, training={"early_stopping_rounds": None})):
        found, _, matrix = fitted(change(model, training={"params": {"subsample": subsample}}))
        assert np.array_equal(found.learnt, predict(found.booster, matrix))


def test_one_moment_only_cannot_be_split(rides, in_file):
    encoding = Encoding(rides.features.numeric, {"kind": ("a",)})
    with pytest.raises(TerminalError) as caught:
        fit(rides, encoding, Labelled(in_file(np.zeros((50, 3))), np.arange(50.0)), np.zeros(50, int))
    assert caught.value.reason is ErrorReason.TOO_FEW_ROWS


def test_an_auc_that_does_not_exist_stops_the_fit(wetness, change, in_file):
    model = change(wetness, training={"params": {"eval_metric": "auc"}})
    y = np.r_[np.arange(80) % 2, np.ones(20)].astype(float)
    rows = Labelled(in_file(np.random.default_rng(1).normal(size=(100, 2))), y)
    with pytest.raises(TerminalError) as caught:
        fit(model, Encoding(model.features.numeric, {}), rows, np.arange(100))
    assert caught.value.reason is ErrorReason.BAD_METRIC


def test_a_quantile_is_fitted_where_it_is_judged(rides, change, fitted):
    asked = change(rides, gate={"metric": "pinball", "quantile": 0.9})
    assert parameters(asked)["objective"] == "reg:quantileerror"
    assert parameters(asked)["quantile_alpha"] == 0.9
    found, _, matrix = fitted(asked, noise=np.arange(600) % 7.0)
    assert found.stopping_metric == "quantile"
    predicted = predict(found.booster, matrix)
    rng = np.random.default_rng(3)
    x = rng.normal(size=600)
    y = 2 * x + rng.integers(0, 2, 600) + rng.normal(size=600) * 0.1
    assert predicted.shape == (600,)
    assert 0.8 < (y <= predicted).mean() < 0.98


@pytest.mark.parametrize(
    ("params", "gate", "told"),
    [
        pytest.param({"objective": "reg:quantileerror"}, {}, "write gate.quantile", id="no quantile"),
        pytest.param({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, {}, "is no quantile", id="several"),
        pytest.param({"quantile_alpha": 0.9}, {}, "is of objective reg:quantileerror", id="of another objective"),
        pytest.param({"objective": "reg:quantileerror", "quantile_alpha": 0.5}, {"quantile": 0.9}, "remove one", id="two of them"),
    ],
)  # fmt: skip
def test_a_quantile_that_does_not_fit_is_refused(rides, change, params, gate, told):
    with pytest.raises(TerminalError, match=told):
        parameters(change(rides, training={"params": params}, gate=gate))


def test_the_rounds_are_stopped_by_what_is_near_the_gates_metric(rides, change):
    assert "eval_metric" not in parameters(rides)
    for metric in ("wape", "mape"):
        assert parameters(change(rides, gate={"metric": metric}))["eval_metric"] == "mae"
        own = change(rides, gate={"metric": metric}, training={"params": {"eval_metric": "rmse"}})
        assert parameters(own)["eval_metric"] == "rmse"
