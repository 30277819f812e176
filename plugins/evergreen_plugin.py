"""Evergreen's Airflow plugin: MLflow in Airflow's navigation, pools, and imports made once by those who fork.

Imports nothing heavy: every component and every task loads it.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from importlib import import_module
from multiprocessing import forkserver

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from evergreen import settings

PARSED = (
    "airflow.providers.common.io.assets.file", "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.hitl", "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task", "airflow.sdk.definitions.asset.decorators",
    "airflow.sdk.definitions.asset.metadata", "airflow.sdk.definitions.decorators", "airflow.sdk.definitions.retry_policy",
    "airflow.timetables.assets", "airflow.timetables.trigger", "airflow.version", "encodings.utf_8_sig",
    "evergreen.spec", "evergreen.spec.environment", "psycopg2", "requests",
)  # fmt: skip
"""What parsing and serializing the files of dags/ imports."""

TRIES, PAUSE_S = 5, 2.0
DESCRIPTION = "Made by Evergreen, which leaves the number of slots as it is from now on"


def make_pools() -> None:
    """Make the pools that EVERGREEN_POOLS wants and that are missing; one that is there keeps its size, whoever set it.

    Airflow never starts a task of a missing pool and tells nobody. The scheduler may write to Airflow's database.

    Raises:
        SystemExit: Airflow's database could not be asked. The scheduler ends with it and is started again, where any other exception
            would be logged and passed over.
    """
    if settings.POOLS.read() != "on":
        return
    from sqlalchemy.exc import SQLAlchemyError

    for tries_left in reversed(range(TRIES)):
        try:
            return _make_missing()
        except SQLAlchemyError as error:
            if not tries_left:
                raise SystemExit(
                    f"the pools {', '.join(settings.POOL_SIZES)} could not be made ({' '.join(str(error).split())[:300]}), and without them "
                    "no training or scoring starts; look at Airflow's database, or set EVERGREEN_POOLS=off"
                ) from error
            time.sleep(PAUSE_S)


def _make_missing() -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    for name, slots in settings.POOL_SIZES.items():
        # Another scheduler may make it at the same time.
        with suppress(IntegrityError), create_session() as session:
            if Pool.get_pool(name, session=session) is None:
                session.add(Pool(pool=name, slots=slots, description=DESCRIPTION, include_deferred=False))


class Start:
    """What a component does at its start: the scheduler makes missing pools, and both it and the DAG processor warm up.

    Lets a component import, once and at its start, what all that it forks needs.

    The scheduler starts the forkserver of its tasks. The DAG processor forks for each file, again and again: without this
    half of each parse of two models, 0.3 CPU seconds a file, were the same imports.
    """

    @hookimpl
    def on_starting(self, component: object) -> None:
        """Called by Airflow when a component starts."""
        if sys.argv[1:2] == ["scheduler"]:
            forkserver.ensure_running()
            make_pools()
        elif sys.argv[1:2] == ["dag-processor"]:
            for name in PARSED:
                # Whatever is wrong with it: the file that needs it says so, and the others are parsed nonetheless.
                with suppress(Exception):
                    import_module(name)


class EvergreenPlugin(AirflowPlugin):
    """Adds a link to the UI and a listener; no web application of its own, so nothing that needs a login of its own."""

    name = "evergreen"
    listeners = [Start()]  # noqa: RUF012 - Airflow reads plain lists
    # Without url_route: MLflow forbids being shown inside a frame.
    external_views = [  # noqa: RUF012
        {"name": "MLflow", "href": settings.MLFLOW_URL.read(), "destination": "nav", "category": "browse"}
    ]
