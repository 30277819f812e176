"""Features are called what the query calls them, also where XGBoost takes no such name."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from mlflow import MlflowClient

from evergreen.registry.encoding import boosted_names
from evergreen.registry.models import load

NAMES = {
    "plain": (["a", "b"], ["a", "b"]),
    "brackets": (["temp[C]", "a<b", "]"], ["temp(C)", "altb", ")"]),
    "two that would be alike": (["temp[C]", "temp(C)", "temp(C]"], ["temp(C)_", "temp(C)", "temp(C)__"]),
    "other signs stay": (["a b", "µ%", 'q"', "x>y"], ["a b", "µ%", 'q"', "x>y"]),
}


@pytest.mark.parametrize(("given", "boosted"), NAMES.values(), ids=NAMES.keys())
def test_names_that_xgboost_takes(given: list[str], boosted: list[str]) -> None:
    assert boosted_names(given) == boosted
    assert len(set(boosted)) == len(given)
    rows = np.zeros((2, len(given)), dtype=np.float32)
    assert xgb.DMatrix(rows, feature_names=boosted_names(given)).feature_names == boosted


@pytest.mark.usefixtures("mlflow_url")
def test_a_model_is_trained_loaded_and_explained_under_the_names_of_its_query(world, start):
    query = 'SELECT ts, extract(hour FROM ts)::int AS "hour<24", x AS "temp[C]", x AS "temp(C)", kind AS "]", demand FROM rides_hourly'
    named = world.with_model(
        features={"numeric": ("hour<24", "temp[C]", "temp(C)"), "categorical": ("]",)},
        query=query,
        training={"params": {"monotone_constraints": {"temp[C]": 1}, "learning_rate": 0.3, "max_depth": 3}},
    )
    named.land(start, 45)
    named.promote(start + timedelta(days=40), "dag/first")
    loaded = load(named.model, "1")
    assert loaded.encoding.features == ["hour<24", "temp[C]", "temp(C)", "]"]
    table = pq.read_table(named.snapshot(start + timedelta(days=40)).path)
    assert np.isfinite(loaded.predict(table)).all()
    client = MlflowClient()
    path = client.download_artifacts(client.get_model_version("rides", "1").run_id, "importance.json")
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        gains = json.load(file)
    assert set(gains) == {"hour<24", "temp[C]", "temp(C)", "]"}
    assert gains["hour<24"] > 0
