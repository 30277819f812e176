"""Evergreen's Airflow plugin: the pages of models and MLflow in Airflow's navigation, pools, and imports made once by those who fork.

Imports nothing heavy: every component and every task loads it.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing import forkserver
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from evergreen import dag_kinds, settings
from evergreen.links import PREFIX, VIEW
from evergreen_airflow.notes import Notes
from evergreen_airflow.pools import make_pools

PARSED = (
    "airflow.providers.common.io.assets.file", "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.hitl", "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task", "airflow.sdk.definitions.asset.decorators",
    "airflow.sdk.definitions.asset.metadata", "airflow.sdk.definitions.decorators", "airflow.sdk.definitions.retry_policy",
    "airflow.timetables.assets", "airflow.timetables.trigger", "airflow.version", "encodings.utf_8_sig",
    "evergreen.spec", "evergreen.spec.environment", "psycopg2", "requests",
    *(f"evergreen_airflow.dags.{kind}" for kind in dag_kinds.FILES),
)  # fmt: skip
"""What parsing and serializing the files of a DAG folder imports."""


class Start:
    """What a component does at its start: the scheduler makes missing pools, and both it and the DAG processor warm up.

    Lets a component import, once and at its start, what all that it forks needs.

    The scheduler starts the forkserver of its tasks. The DAG processor forks for each file, again and again: without this
    half of each parse of two models, 0.3 CPU seconds a file, were the same imports.
    """

    @hookimpl
    def on_starting(self, component: object) -> None:
        """Called by Airflow when a component starts.

        Airflow calls it in each task, too, whose process is a fork of the scheduler with the same arguments: a task may not ask
        Airflow's database, and warms nothing up.
        """
        if type(component).__name__ == "TaskRunnerMarker":
            return
        if sys.argv[1:2] == ["scheduler"]:
            forkserver.ensure_running()
            make_pools()
        elif sys.argv[1:2] == ["dag-processor"]:
            for name in PARSED:
                # Whatever is wrong with it: the file that needs it says so, and the others are parsed nonetheless.
                with suppress(Exception):
                    import_module(name)


class WhenAsked:
    """A web application that is imported at its first request: with FastAPI it takes seconds, and every task loads this file."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand a request on, as ASGI has it."""
        if self._app is None:
            self._app = (await asyncio.to_thread(import_module, self._module)).app
        await self._app(scope, receive, send)


class EvergreenPlugin(AirflowPlugin):
    """Adds pages and links to the UI, and a listener. Each page asks for Airflow's login itself: Airflow leaves a plugin's app open."""

    name = "evergreen"
    listeners = [Start(), Notes()]  # noqa: RUF012 - Airflow reads plain lists
    fastapi_apps = [  # noqa: RUF012
        {"app": WhenAsked("evergreen_airflow.pages.app"), "url_prefix": f"/{PREFIX}", "name": "Evergreen"}
    ]
    # Addresses without a leading slash, so that they work behind a path prefix. MLflow has no url_route: it forbids being shown in a frame.
    external_views = [  # noqa: RUF012
        {
            "name": "Models",
            "href": f"{PREFIX}/",
            "destination": "nav",
            "url_route": VIEW,
            "nav_top_level": True,
        },
        {
            "name": "Health",
            "href": f"{PREFIX}/dag/{{DAG_ID}}",
            "destination": "dag",
            "url_route": f"{VIEW}-dag",
        },
        {
            "name": "Health",
            "href": f"{PREFIX}/run/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": f"{VIEW}-run",
        },
        {"name": "MLflow", "href": settings.MLFLOW_URL.read(), "destination": "nav", "category": "browse"},
    ]
