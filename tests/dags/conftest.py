"""A DagBag of the real dags/ folder, with an Airflow home of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Airflow reads these once, when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="evergreen-test-airflow-"))
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(REPOSITORY / "dags")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own tables, in SQLite, as DagBag needs them."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def make_dagbag(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parse dags/ against a folder of specs and return the DagBag."""

    def parse(specs: Path | None = None) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        if specs:
            monkeypatch.setenv("EVERGREEN_SPECS", str(specs))
        return DagBag(str(REPOSITORY / "dags"))

    return parse


@pytest.fixture(scope="session")
def _session_bag(airflow_db: None) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(REPOSITORY / "dags"))


@pytest.fixture
def dagbag(_session_bag: Any) -> Any:
    """The DagBag of the specs that the project ships."""
    return _session_bag


@pytest.fixture(autouse=True)
def _airflow_is_asked() -> Iterator[None]:
    """The library asks Airflow for what the environment lacks, as in a task; the tests of the library do not."""
    from evergreen import settings
    from evergreen_airflow import connections

    settings.look_also(connections.find)
    connections._found.clear()
    yield
    settings.look_also(lambda name: None)
