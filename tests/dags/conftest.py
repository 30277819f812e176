"""A DagBag of the real dags/ folder, with an Airflow home of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Airflow reads these once, when it is first imported. Each process of the tests has a home of its own: two would make the same tables.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="evergreen-test-airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
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


@pytest.fixture(scope="session")
def known_dags(_session_bag: Any) -> None:
    """The DAGs of the specs that the project ships are in Airflow's tables, as the DAG processor writes them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(_session_bag, "dags-folder", None)


@pytest.fixture(scope="session")
def _told_story(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The story of `health_scene` in a warehouse that no test changes; the variables that lead to it."""
    import psycopg2

    import health_scene
    from evergreen.warehouse.connection import connect
    from evergreen.warehouse.migrate import migrate

    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE told_story")
    admin.close()
    folder = tmp_path_factory.mktemp("story")
    (folder / "home").mkdir()
    found = {
        "EVERGREEN_WAREHOUSE_URL": postgres_url.removesuffix("/postgres") + "/told_story",
        "EVERGREEN_HOME": str(folder / "home"),
        "EVERGREEN_LANDING": str(folder / "landing"),
        "EVERGREEN_SNAPSHOTS": str(folder / "snapshots"),
        "EVERGREEN_MAIL_TO": "team@example.org",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    with connect(found["EVERGREEN_WAREHOUSE_URL"]) as conn:
        migrate(conn)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        health_scene.write(folder / "landing")
    with connect(found["EVERGREEN_WAREHOUSE_URL"]) as conn:
        health_scene.takes_over(conn)
        health_scene.predicted(conn)
        health_scene.day_online(conn, datetime.now(UTC), errors=40, lost=0)
        health_scene.compared(conn)
        health_scene.lives(conn, datetime.now(UTC) - timedelta(hours=5))
    return found


@pytest.fixture(scope="session")
def _pages_server(known_dags: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import pages_scene
    from airflow.api_fastapi.app import purge_cached_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "somebody:admin")
        patch.setenv(
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
            str(tmp_path_factory.mktemp("login") / "passwords.json"),
        )
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a" * 64)
        yield pages_scene.served()
    purge_cached_app()


@pytest.fixture
def pages_app(
    _pages_server: Any, _told_story: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Airflow's API server with the pages, on the story of `health_scene`; the DAGs of other tests are gone meanwhile."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    for name, value in _told_story.items():
        monkeypatch.setenv(name, value)
    others = (~DagModel.is_stale, ~DagModel.dag_id.contains("__bike_"))
    with create_session() as session:
        gone = list(session.scalars(select(DagModel.dag_id).where(*others)))
        session.execute(update(DagModel).where(*others).values(is_stale=True))
    yield _pages_server
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id.in_(gone)).values(is_stale=False))


@pytest.fixture(autouse=True)
def _airflow_is_asked() -> Iterator[None]:
    """The library asks Airflow for what the environment lacks, as in a task; the tests of the library do not."""
    from evergreen import settings
    from evergreen_airflow import connections

    settings.look_also(connections.find)
    connections._found.clear()
    yield
    settings.look_also(lambda name: None)
