"""How what runs in Airflow finds the warehouse, MLflow and the channels of alerts: by the environment, else by Airflow's connections.

A connection is looked up when its address is first needed, in the process that needs it: a task, or a callback that Airflow
calls in the DAG processor. Never while a file is parsed. So each of Airflow's secrets backends will do.

The warehouse's may be one for what ingests (`evergreen_warehouse_ingest`) and one for the steps of models
(`evergreen_warehouse_model`), each with the rights of its steps; where there is none of its own, `evergreen_warehouse` is taken.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError

log = logging.getLogger(__name__)

_found: dict[str, str] = {}
_steps = "model"


def begin(subject: str) -> None:
    """Say for what this process works from now on, `dataset/NAME` or `model/NAME`: it decides on the warehouse's connection."""
    global _steps
    _steps = _steps_of(subject)


def find(name: str) -> str | None:
    """What `evergreen.settings` asks for a variable that is not set.

    Raises:
        TransientError: there is no connection either, or the secrets backend did not answer, which Airflow does not tell apart.
        TerminalError: the connection is there and cannot be used.
    """
    if name == settings.WAREHOUSE.name:
        return _warehouse(_steps)
    if name == settings.MLFLOW.name:
        return _mlflow()
    if name.startswith(settings.CHANNEL_PREFIX):
        return _channel(settings.channel(name.removeprefix(settings.CHANNEL_PREFIX).lower()))
    return None


def warehouse_of(subject: str) -> str:
    """The warehouse's address for one question about a subject, where a process works for several at once: see `begin` and `find`."""
    return os.environ.get(settings.WAREHOUSE.name) or _warehouse(_steps_of(subject))


def _steps_of(subject: str) -> str:
    return "ingest" if subject.startswith("dataset/") else "model"


def _warehouse(steps: str) -> str:
    from evergreen import airflow_connections

    common = settings.WAREHOUSE.connection
    own = f"{common}_{steps}"
    if own not in _found:
        _found[own] = airflow_connections.warehouse(_parts(settings.WAREHOUSE, own, common))
    return _found[own]


def _mlflow() -> str:
    from evergreen import airflow_connections

    found = airflow_connections.mlflow(_parts(settings.MLFLOW, settings.MLFLOW.connection))
    # MLflow's own library reads the environment. A login that is set there is not mixed with the connection's.
    if {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"} & os.environ.keys():
        found = {settings.MLFLOW.name: found[settings.MLFLOW.name]}
    os.environ.update(found)
    return found[settings.MLFLOW.name]


def _channel(variable: settings.Variable) -> str:
    from evergreen import airflow_connections

    if variable.connection not in _found:
        _found[variable.connection] = airflow_connections.channel(_parts(variable, variable.connection))
    return _found[variable.connection]


def _parts(variable: settings.Variable, *names: str) -> Any:
    """The first of these connections that is there."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import mask_secret

    from evergreen.airflow_connections import Parts

    conn = None
    for name in names:
        with suppress(AirflowNotFoundException):
            conn = BaseHook.get_connection(name)
            if name != names[0]:
                # A secrets backend that fails for one name looks like one that does not have it: what is used instead may do more.
                log.warning(
                    "Airflow gave no connection %s, so %s is used, with the rights of that one",
                    names[0],
                    name,
                )
            break
    if conn is None:
        raise TransientError(
            f"{variable.name} is not set, and Airflow gave no connection {' or '.join(names)}: set the one in the environment of the "
            "Airflow services, or make the other (Admin > Connections). Where it is made, the secrets backend did not answer; "
            "the task is tried again",
            ErrorReason.UNREACHABLE,
        )
    try:
        extra = json.loads(conn.extra) if conn.extra else {}
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise TerminalError(
            f"the extras of the Airflow connection {name} are no JSON object; mend them, or set {variable.name} instead",
            ErrorReason.BAD_SPEC,
        )
    # Airflow itself masks the password as it is, but not as it stands in an address, nor what extras hold.
    secrets: tuple[Any, ...] = (quote(conn.password or "", safe=" +"), extra)
    for secret in filter(None, secrets):
        mask_secret(secret)
    return Parts(
        name, conn.conn_type or "", conn.host or "", conn.port, conn.login or "", conn.password or "", conn.schema or "",
        extra,
    )  # fmt: skip


settings.look_also(find)
