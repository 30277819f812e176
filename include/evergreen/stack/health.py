"""Whether each service does its work, not only whether its process lives."""

from __future__ import annotations

import json
import smtplib
import urllib.request
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from evergreen.stack.layout import Layout
from evergreen.stack.postgres import Postgres

HEARTBEATS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
"""Services without a port, and the name under which Airflow reports their heartbeat."""

# A proxy set for the machine must not stand between us and the loopback address.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, *, timeout: float = 3.0) -> bytes | None:
    """Return what a local server answers; None if it does not, or not with success."""
    try:
        with _direct.open(url, timeout=timeout) as answer:
            return bytes(answer.read())
    except (OSError, ValueError):
        return None


def mlflow(port: int) -> bool:
    """Return whether MLflow answers."""
    return fetch(f"http://127.0.0.1:{port}/health", timeout=1.0) is not None


def serving(port: int) -> bool:
    """Return whether the prediction service answers, whatever it has to answer with."""
    return fetch(f"http://127.0.0.1:{port}/healthz", timeout=1.0) is not None


def mail(port: int) -> bool:
    """Return whether the mail catcher takes a connection."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=3):
            return True
    except (OSError, smtplib.SMTPException):
        return False


def unhealthy(layout: Layout, services: dict[str, Any]) -> set[str]:
    """Return the names of the running services that do not do their work, or not yet.

    Args:
        services: as in the supervisor's state.
    """
    ports = layout.ports()
    answer = fetch(f"http://127.0.0.1:{ports['api-server']}/api/v2/monitor/health", timeout=5.0)
    airflow = json.loads(answer) if answer else {}
    checks: dict[str, Callable[[], bool]] = {
        "postgres": lambda: Postgres(layout).is_ready(ports["postgres"]),
        "mlflow": lambda: mlflow(ports["mlflow"]),
        "mail": lambda: mail(ports["mail"]),
        "serving": lambda: serving(ports["serving"]),
        "api-server": lambda: (airflow.get("metadatabase") or {}).get("status") == "healthy",
    }
    for name, reported in HEARTBEATS.items():
        part, since = airflow.get(reported) or {}, services.get(name, {}).get("since", 0.0)
        checks[name] = partial(_is_fresh, part, since)
    return {name for name, check in checks.items() if name in services and not check()}


def _is_fresh(part: dict[str, Any], since: float) -> bool:
    """Return whether a heartbeat is of this start: to Airflow the last one before a restart is healthy for a while."""
    # Python 3.10 does not read the Z.
    beats = [
        value.replace("Z", "+00:00") for key, value in part.items() if key.startswith("latest_") and value
    ]
    newest = max((datetime.fromisoformat(beat).timestamp() for beat in beats), default=0.0)
    return part.get("status") == "healthy" and newest >= since
