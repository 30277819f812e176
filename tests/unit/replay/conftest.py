"""The small world that is replayed."""

from __future__ import annotations

import pytest
from replays import DAY


@pytest.fixture
def small(world, start, tmp_path, monkeypatch):
    """Sixty days of rides; from day 36 on the demand is twice what it was."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    world = world.with_model(
        training={"window": "20d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24, "trigger": {"m": 2, "n": 3, "cooldown": "2d"}},
        watch={"period": "4d", "min_rows": 24},
    )
    world.land(start, 36)
    world.land(start + 36 * DAY, 24, seed=2, edit=lambda row: row.update(demand=2 * row["demand"]))
    return world
