"""Evergreen's Airflow plugin: MLflow in Airflow's navigation, and a scheduler that is warm when the first task comes.

Imports nothing heavy: every component and every task loads it.
"""

from __future__ import annotations

import sys
from multiprocessing import forkserver

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from evergreen import settings


class WarmStart:
    """Starts the forkserver, and so the imports that tasks inherit, with the scheduler instead of the first task."""

    @hookimpl
    def on_starting(self, component: object) -> None:
        """Called by Airflow when a component starts."""
        if sys.argv[1:2] == ["scheduler"]:
            forkserver.ensure_running()


class EvergreenPlugin(AirflowPlugin):
    """Adds a link to the UI and a listener; no web application of its own, so nothing that needs a login of its own."""

    name = "evergreen"
    listeners = [WarmStart()]  # noqa: RUF012 - Airflow reads plain lists
    # Without url_route: MLflow forbids being shown inside a frame.
    external_views = [  # noqa: RUF012
        {"name": "MLflow", "href": settings.MLFLOW_URL.read(), "destination": "nav", "category": "browse"}
    ]
