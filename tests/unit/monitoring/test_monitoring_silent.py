"""Settings with which a part of the watch could never speak are named, with values that would do."""

from __future__ import annotations

import pytest

from evergreen.monitoring.windows.unobservable import silent
from evergreen.spec import ModelSpec

HOURLY = [(24, 24)] * 60


@pytest.fixture
def spec(rides_like):
    def made(monitoring=None, watch=None) -> ModelSpec:
        return ModelSpec.model_validate({**rides_like, "monitoring": monitoring or {}, "watch": watch or {}})

    return made


@pytest.fixture
def rides_like():
    return {
        "name": "rides", "task": "regression", "datasets": ["rides_hourly"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]}, "query": "SELECT 1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("monitoring", "watch", "windows", "told"),
    [
        pytest.param({"min_rows": 10}, {}, HOURLY, {}, id="all-speaks"),
        pytest.param({}, {}, HOURLY, {"monitoring.min_rows": "monitoring.window: 5d, or min_rows: 12"}, id="min-rows"),
        pytest.param(
            {"min_rows": 10}, {}, [(24, 20)] * 60,
            {"monitoring.performance.min_labels": "min_labels: 10, or monitoring.window: 2d"}, id="a-label-is-always-missing",
        ),
        pytest.param(
            {"min_rows": 10, "performance": {"min_labels": 0.8}}, {}, [(1000, 300)] * 60,
            {"monitoring.performance.min_labels": "write min_labels: 30"}, id="share-of-labels-that-never-come",
        ),
        pytest.param(
            {"min_rows": 10, "window": "1d"}, {"period": "3d"}, HOURLY, {"watch.period": "watch.period: 5d, or watch.min_rows: 36"},
            id="watch-too-short",
        ),
        pytest.param({"min_rows": 10, "window": "7d"}, {"period": "3d"}, [(168, 168)] * 9, {}, id="a-window-is-watched-at-least"),
        pytest.param({"min_rows": 10}, {"period": None}, HOURLY, {}, id="no-watch-is-asked-for"),
        pytest.param({}, {}, [], {}, id="nothing-is-known"),
        pytest.param({"min_rows": 10}, {}, [(24, 0)] * 60, {}, id="no-label-has-come-yet"),
    ],
)  # fmt: skip
def test_what_cannot_speak_is_told_with_what_could(spec, monitoring, watch, windows, told):
    found = {one.field: one.text for one in silent(spec(monitoring, watch), windows)}
    assert set(found) == set(told)
    for field, way_on in told.items():
        assert way_on in found[field]
