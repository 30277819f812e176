"""Imported once by the process from which Airflow forks its tasks, so that no task imports it again.

The scheduler's forkserver imports this module by its name in `evergreen.stack.variables.PRELOADED`. It holds what tasks import, also
what libraries put off until they are first used. Nothing here may do more than import: a connection, a thread or a
model that was run would be half alive in every task. What is imported here is the code of every task until the
scheduler starts again: after an upgrade, `make down` and `make up`.
"""

from __future__ import annotations

import logging
import pkgutil
from importlib import import_module

from evergreen import dag_kinds

log = logging.getLogger(__name__)

TASKS = (
    "evergreen.alerting.approval_page", "evergreen.alerting.compose", "evergreen.alerting.delivery", "evergreen.incidents.failures",
    "evergreen.incidents.outbox", "evergreen.incidents.silences", "evergreen.alerting.weekly", "evergreen.airflow_connections", "evergreen.lineage",
    "evergreen.monitoring.monitor",
    "evergreen.monitoring.trigger.policy", "evergreen.promotion.rollback", "evergreen.replay.run", "evergreen.scoring.score", "evergreen.training.plan",
    "evergreen.promotion.settlement", "evergreen.training.record.headline", "evergreen.training.train", "evergreen.validation.ingest", "evergreen.warehouse.features.feature_query", "evergreen.warehouse.files.landing_store",
    "evergreen.warehouse.features.snapshot", "evergreen.warehouse.features.snapshot_store",
)  # fmt: skip
"""What the tasks import; each brings its libraries."""

DEFERRED = (
    "adbc_driver_postgresql.dbapi", "aiosmtplib", "airflow.providers.smtp.hooks.smtp", "airflow.sdk.definitions.asset.metadata",
    "airflow.providers.common.io.assets.file", "airflow.sdk.definitions.decorators", "airflow.sdk.definitions.retry_policy",
    "airflow.sdk.execution_time.cache", "airflow.sdk.execution_time.timeout", "encodings.utf_8_sig", "git",
    "great_expectations", "matplotlib.backends.backend_agg", "mlflow.models.display_utils", "mlflow.pyfunc",
    "mlflow.sklearn", "mlflow.tracking.request_header.registry", "mlflow.xgboost", "narwhals._pandas_like.dataframe",
    "narwhals._pandas_like.namespace", "narwhals.stable.v2", "netrc", "plotly.io._json", "plotly.offline", "plotly.tools",
    "pyarrow.csv", "pyarrow.dataset", "pyarrow.pandas_compat", "pyarrow.parquet", "requests",
)  # fmt: skip
"""What libraries import when they are first used."""

DRAWN = ("layout", "layout.title", "layout.xaxis", "layout.yaxis", "layout.updatemenu", "scatter", "bar", "heatmap")  # fmt: skip
"""Parts of plotly that Evidently's reports are made of; plotly imports each attribute's module by itself."""


def preload() -> None:
    """Import everything; what this installation does not have is left to the task that wants it."""
    for name in (*TASKS, *DEFERRED, *(f"evergreen_airflow.dags.{kind}" for kind in dag_kinds.FILES)):
        _import(name)
    for part in DRAWN:
        for home in (f"plotly.graph_objs.{part}", f"plotly.validators.{part}"):
            for name in _modules(home):
                _import(name)


def _import(name: str) -> object | None:
    try:
        return import_module(name)
    except ImportError as error:
        log.info("not imported beforehand: %s", error)
        return None


def _modules(package: str) -> list[str]:
    """The modules directly in a package; none where there is no such package."""
    paths = getattr(_import(package), "__path__", [])
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths) if not module.ispkg]


preload()
