"""A warehouse with the story of `health_scene`."""

from __future__ import annotations

from pathlib import Path

import pytest

import health_scene
from evergreen.spec import Specs


@pytest.fixture
def story(warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specs:
    """The story is written; the specs that the project ships."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("EVERGREEN_SNAPSHOTS", str(tmp_path / "snapshots"))
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "team@example.org")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nothing.db")
    (tmp_path / "home").mkdir()
    health_scene.write(tmp_path / "landing")
    return health_scene.specs()
