"""The environment variables that join the parts of the stack: every service, the demo and the tests get the same."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from evergreen import settings
from evergreen.stack.layout import Layout, read_json
from evergreen.stack.postgres import Postgres

USER = "admin"
"""Login name in Airflow and in MLflow."""

PRELOADED = (
    "airflow,airflow.settings,airflow.sdk,airflow.executors.local_executor,airflow.sdk.execution_time.supervisor,"
    "airflow.sdk.execution_time.task_runner,airflow.dag_processing.dagbag,airflow.providers_manager,"
    "airflow.plugins_manager,airflow.providers.standard.decorators.python,evergreen_airflow.preload"
)
"""Imported once, for all tasks; otherwise each task that needs them waits 17 s and more."""

OVERRIDABLE = ("EVERGREEN_", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__")
"""Variables of these kinds that the user has set win over the stack's, except those it must own."""

DROPPED = ("MLFLOW_", "_MLFLOW_", "PG", "AIRFLOW_", "GX_", "PYTHONDONTWRITEBYTECODE")
"""Set for other servers than this stack's; they must not reach its services. Without compiled files each start takes ten seconds more."""


def environment(home: Path | str | None = None) -> dict[str, str]:
    """Return the whole environment for a program that works with the stack: Airflow, MLflow, warehouse, mail.

    It holds passwords. Ports are those of the running stack, or of the last start.

    Args:
        home: the stack's home; by default `$EVERGREEN_HOME`, else `.evergreen/` in the project's folder.
    """
    layout = Layout.of(home)
    own = os.environ
    result = {name: value for name, value in own.items() if not name.startswith(DROPPED)}
    result |= _defaults(layout) | overrides(layout)
    result |= {name: value for name, value in own.items() if name.startswith(OVERRIDABLE)}
    return result | _owned(layout)


def overrides(layout: Layout) -> dict[str, str]:
    """Return what a program has set for this stack; what the user sets in the environment wins."""
    return {str(name): str(value) for name, value in read_json(layout.overrides_file).items()}


def secret_names(home: Path | str | None = None) -> set[str]:
    """Return the names of the variables in the environment that hold a password or key of the stack."""
    layout = Layout.of(home)
    secrets = set(layout.secrets.values())
    return {name for name, value in environment(home).items() if any(secret in value for secret in secrets)}


def _defaults(layout: Layout) -> dict[str, str]:
    """Return what the user may set otherwise."""
    ports, postgres = layout.ports(), Postgres(layout)
    airflow_url, mlflow_url, serving_url = (
        f"http://127.0.0.1:{ports[name]}" for name in ("api-server", "mlflow", "serving")
    )
    threads = os.environ.get(settings.THREADS.name) or settings.THREADS.default or "2"
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": ports["mail"],
        "extra": {
            "from_email": os.environ.get(settings.MAIL_FROM.name) or settings.MAIL_FROM.default,
            "disable_ssl": True,
            "disable_tls": True,
            "timeout": 10,
            "retry_limit": 1,
        },
    }
    return {
        "EVERGREEN_WAREHOUSE_URL": postgres.url("warehouse", ports["postgres"]),
        "EVERGREEN_LANDING": str(layout.home / "landing"),
        "EVERGREEN_SNAPSHOTS": str(layout.home / "snapshots"),
        "EVERGREEN_AIRFLOW_URL": airflow_url,
        "EVERGREEN_MLFLOW_URL": mlflow_url,
        "EVERGREEN_SERVING_URL": serving_url,
        "EVERGREEN_THREADS": threads,
        "EVERGREEN_POOLS": "on",
        "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "EVERGREEN_PROJECT": str(layout.project()),
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout.project() / "dags"),
        # A team's own; Evergreen's is found by its entry point.
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(layout.project() / "plugins"),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": airflow_url,
        "AIRFLOW__API__INSTANCE_NAME": "Evergreen",
        # Airflow's default of 1 s passes between any two tasks; with 0.1 s, looking for work takes a fifth of a core all the time.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
        # A scheduler that starts again at once does not see its killed forerunner as dead yet, and by default looks
        # again after five minutes; until then the tasks of that one count as running.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
        "AIRFLOW__SCHEDULER__MP_START_METHOD": "forkserver",
        "AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD": PRELOADED,
        # A new spec changes what a DAG file makes, not the file itself, so all are parsed again and again. A model costs
        # some 0.15 s each time; two seconds a model keep that below a tenth of a core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(max(40, 2 * _models())),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "20",
        # It also tells of tasks that were killed; on a machine so busy that they are, Airflow's 50 s can be too short for that.
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "180",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "OMP_NUM_THREADS": threads,
        # Threads that wait sleep instead of spinning: trainings at once on the same cores otherwise take each other's time.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": threads,
    }


def _models() -> int:
    return sum(1 for _ in (settings.specs_folder() / "models").glob("*.yaml"))


def specs_folder(variables: Mapping[str, str]) -> Path:
    """The folder of the specs that the services with these variables work on."""
    own = Path(variables.get(settings.PROJECT.name) or settings.project())
    named = variables.get(settings.SPECS.name)
    return (own / named).resolve() if named else settings.specs_folder(own)


def python_path() -> str:
    """PYTHONPATH for what is started in another folder: it imports the package that this process has, also where that is not installed."""
    here = Path(__file__).resolve().parents[2]
    installed = here == Path(sysconfig.get_path("purelib")).resolve()
    return os.pathsep.join(filter(None, ["" if installed else str(here), os.environ.get("PYTHONPATH")]))


def _owned(layout: Layout) -> dict[str, str]:
    """Return what the stack must own: otherwise a variable meant for another Airflow would point it there."""
    ports, secrets, postgres = layout.ports(), layout.secrets, Postgres(layout)
    loopback = ",".join(
        filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"])
    )
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "TZ": "UTC",
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "False",
        "GX_ANALYTICS_ENABLED": "False",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(layout.home / "cache" / "matplotlib"),
        "EVERGREEN_HOME": str(layout.home),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": secrets["mlflow_login"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "AIRFLOW_HOME": str(layout.airflow),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": secrets["fernet"],
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(layout.passwords_file),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{ports['api-server']}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url("airflow", ports["postgres"], driver="+psycopg2"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports["api-server"]),
        "AIRFLOW__API__SECRET_KEY": secrets["api"],
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets["jwt"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(layout.logs / "airflow"),
    }
