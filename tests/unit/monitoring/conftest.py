"""A champion in a scratch MLflow (SQLite) and a scratch warehouse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from monitoring_scene import Scene, model


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database that is set up; making one takes seconds, copying it does not."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def scene(
    warehouse_url: str, tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scene]:
    """Make a scene; keyword arguments are monitoring settings."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return lambda **monitoring: Scene(model(**monitoring), tmp_path)
