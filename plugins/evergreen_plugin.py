"""Evergreen's Airflow plugin: the MLflow UI in Airflow's navigation. Imports nothing heavy: every task loads it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from evergreen import settings


class EvergreenPlugin(AirflowPlugin):
    """Adds links to the UI; no web application of its own, so nothing that would need a login of its own."""

    name = "evergreen"
    # Without url_route: MLflow forbids being shown inside a frame.
    external_views = [  # noqa: RUF012 - Airflow reads a plain list
        {"name": "MLflow", "href": settings.MLFLOW_URL.read(), "destination": "nav", "category": "browse"}
    ]
