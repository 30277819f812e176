"""Addresses of the pages that an e-mail points to, in the Airflow 3 and MLflow 3 user interfaces and in the runbook."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.parse import quote, urlsplit

from evergreen import settings
from evergreen.errors import EvergreenError

_TIMEOUT_S = 3.0
PREFIX = "evergreen"
"""Where Airflow serves the pages of the health of models, below its own address."""
VIEW = "models"
"""The name of the view in Airflow in which they are shown."""


def airflow_run_url(run_id: str | None) -> str | None:
    """The page of a DAG run; None if `run_id` does not name one.

    Args:
        run_id: `dag_id/run_id`, as decisions hold it.
    """
    dag, separator, run = (run_id or "").partition("/")
    if not (dag and separator and run):
        return None
    return f"{_base(settings.AIRFLOW_URL)}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}"


def airflow_dag_url(dag_id: str) -> str:
    """The page of a DAG, with its trigger button."""
    return f"{_base(settings.AIRFLOW_URL)}/dags/{quote(dag_id, safe='')}"


def subject_url(subject: str) -> str:
    """The page of a model's or dataset's health, inside Airflow; of another subject the overview of all.

    Args:
        subject: such as `model/NAME` or `dataset/NAME`.
    """
    kind, _, name = subject.partition("/")
    base = _base(settings.AIRFLOW_URL)
    # The view in Airflow takes the whole path of the page that it shows, with what Airflow itself is behind.
    below = urlsplit(base).path.strip("/")
    page = (kind, quote(name, safe="")) if kind in ("model", "dataset") else ("",)
    path = "/".join((*([below] if below else []), PREFIX, *page))
    return f"{base}/plugin/{VIEW}/{path}"


def window_name(start: datetime) -> str:
    """The start of a window as it stands in an address: `20251020T000000Z`."""
    return f"{start.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def report_url(model: str, start: datetime, version: str, file: str) -> str:
    """Evidently's page of a judged window, drawn when it is asked for; outside of Airflow's frame, which leads to the login where needed.

    Args:
        model: its name.
        start: of the window.
        version: against whose reference it was judged.
        file: `drift.html` or `performance.html`.
    """
    page = f"model/{quote(model, safe='')}/window/{window_name(start)}/report"
    return f"{_base(settings.AIRFLOW_URL)}/{PREFIX}/{page}?version={quote(version, safe='')}&file={quote(file, safe='')}"


def runbook(kind: str) -> tuple[str, str | None]:
    """Where the runbook tells what to do about a kind of alert: in words, and its address where EVERGREEN_RUNBOOK_URL is set.

    Args:
        kind: of `alert_kinds`; the section has its name.
    """
    page = _base(settings.RUNBOOK_URL)
    named = kind.replace("_", " ").capitalize()
    return f"docs/runbook.md, section {named}", f"{page}#{kind.replace('_', '-')}" if page else None


def airflow_pages(model: str, run_id: str | None) -> list[tuple[str, str]]:
    """Labels and addresses of the pages of a training in Airflow, for what is read outside of it.

    Empty where nobody has set EVERGREEN_AIRFLOW_URL: the default is right on one machine only, and these links are kept for years.

    Args:
        model: name of the model.
        run_id: of the training, `dag_id/run_id`.
    """
    if not settings.AIRFLOW_URL.given():
        return []
    run, dag = airflow_run_url(run_id), f"train__{model}"
    found = [("This training in Airflow", run)] if run else []
    return [*found, (f"All trainings of {model}", airflow_dag_url(dag))]


def airflow_approval_url(model: str) -> str:
    """The page on which a model's waiting challengers are approved or refused."""
    return f"{airflow_dag_url(f'promote__{model}')}/required_actions?response_received=false"


def mlflow_version_url(model: str, version: str | None) -> str | None:
    """The page of a registered model's version; None without a version."""
    if not version:
        return None
    page = f"/#/models/{quote(model, safe='')}/versions/{quote(str(version), safe='')}"
    return _base(settings.MLFLOW_URL) + page


def mlflow_report_url(run_id: str | None, path: str | None, experiment_id: str | None = None) -> str | None:
    """The artifact view of an MLflow run, opened at `path`; None without a run.

    MLflow shows an artifact only under the run's experiment. Without `experiment_id` the address is the run's
    own, which MLflow forwards to the run's first page.
    """
    if not run_id:
        return None
    base, run = _base(settings.MLFLOW_URL), quote(str(run_id), safe="")
    if not experiment_id:
        return f"{base}/#/runs/{run}"
    page = f"{base}/#/experiments/{quote(str(experiment_id), safe='')}/runs/{run}"
    return f"{page}/artifacts/{quote(path, safe='/')}" if path else page


def mlflow_artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """The page of a run's artifact as a page of MLflow itself links to it, at whatever address people reach that."""
    experiment, run = (quote(part, safe="") for part in (experiment_id, run_id))
    return f"#/experiments/{experiment}/runs/{run}/artifacts/{quote(path, safe='/')}"


def experiment_of(run_id: str | None) -> str | None:
    """Ask the MLflow server for a run's experiment; None if it does not say so within seconds.

    A link is not worth a late mail, so this is one short request without MLflow's retries.
    """
    try:
        server = settings.MLFLOW.read()
    except EvergreenError:
        return None
    if not run_id or not server.startswith(("http://", "https://")):
        return None
    url = f"{server.rstrip('/')}/api/2.0/mlflow/runs/get?run_id={quote(str(run_id), safe='')}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # an http address, checked above
            return str(json.load(answer)["run"]["info"]["experiment_id"])
    except (OSError, ValueError, KeyError, HTTPException):
        return None


def _base(variable: settings.Variable) -> str:
    return variable.read().rstrip("/")
