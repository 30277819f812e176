"""The assets that join the loop: what one DAG tells, and the next one waits for."""

from __future__ import annotations

from airflow.sdk import Asset


def dataset_asset(name: str) -> Asset:
    """New rows of a dataset were published."""
    return Asset(name=f"dataset_{name}", uri=f"evergreen://dataset/{name}", group="evergreen")


def model_asset(name: str) -> Asset:
    """A model has a new champion."""
    return Asset(name=f"model_{name}", uri=f"evergreen://model/{name}", group="evergreen")


def challenger_asset(name: str) -> Asset:
    """A challenger of a model waits for approval; its evaluation is a row of the ledger."""
    return Asset(name=f"challenger_{name}", uri=f"evergreen://challenger/{name}", group="evergreen")


def predictions_asset(name: str) -> Asset:
    """New predictions of a model were written."""
    return Asset(name=f"predictions_{name}", uri=f"evergreen://predictions/{name}", group="evergreen")


def drift_asset(name: str) -> Asset:
    """A retrain request of a model is open; the request itself is a row of the ledger."""
    return Asset(name=f"drift_{name}", uri=f"evergreen://drift/{name}", group="evergreen")
