"""The services of the stack: what runs, after what, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from evergreen.stack import health, mlflow_settings
from evergreen.stack.layout import Layout, read_json, write_private
from evergreen.stack.postgres import Postgres
from evergreen.stack.variables import USER, environment


class ServiceKind(StrEnum):
    """How long a service is meant to run."""

    SERVER = "server"
    STEP = "step"


@dataclass(frozen=True)
class Service:
    """One program that the supervisor runs.

    Args:
        name: shown to people; also the name of its log.
        command: the program and its arguments.
        after: services that must be ready (a server) or done (a step) first.
        kind: a server is restarted when it ends; a step runs once.
        prepare: runs before each start, in the supervisor.
        is_ready: whether those that wait for it may start; None: as soon as it runs.
        on_ready: runs once when it is ready, or done.
        stop_signal: asks it to stop.
        orphan_signal: what it gets from the kernel when the supervisor dies.
        stop_round: services of round 1 stop first.
        grace: seconds to stop in.
        become: runs in the child first, to change its user.
        folder: its processes are also known by this working directory.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    kind: ServiceKind = ServiceKind.SERVER
    port: int | None = None
    prepare: Callable[[], None] | None = None
    is_ready: Callable[[], bool] | None = None
    on_ready: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    stop_round: int = 2
    grace: float = 10.0
    become: Callable[[], None] | None = None
    folder: Path | None = None


def services(layout: Layout) -> list[Service]:
    """Return the services of the stack at this home, with the ports that were chosen for it."""
    ports, postgres = layout.ports(), Postgres(layout)
    everywhere = environment(layout.home)
    python = [sys.executable, "-m"]
    recorded = read_json(layout.versions_file)

    def component(name: str, *options: str) -> Service:
        command = [*python, "airflow", name, *options]
        return Service(name, command, everywhere, after=("airflow-migration",), stop_round=1, grace=15.0)

    database = Service(
        "postgres",
        postgres.command(ports["postgres"]),
        {"PATH": os.defpath, "LC_ALL": "C"},
        port=ports["postgres"],
        prepare=postgres.prepare,
        is_ready=lambda: postgres.is_ready(ports["postgres"]),
        on_ready=lambda: postgres.create_databases(ports["postgres"]),
        stop_signal=signal.SIGINT,
        orphan_signal=signal.SIGINT,
        stop_round=3,
        grace=60.0,
        become=postgres.become(),
        folder=layout.pgdata,
    )
    mail = Service(
        "mail",
        [*python, "evergreen", "catch-mail", "--home", str(layout.home)],
        everywhere,
        port=ports["mail"],
    )
    airflow_migration = Service(
        "airflow-migration",
        [*python, "airflow", "db", "migrate"],
        everywhere,
        after=("postgres",),
        kind=ServiceKind.STEP,
        on_ready=lambda: _record(layout, "apache-airflow"),
    )
    if recorded.get("apache-airflow") == version("apache-airflow"):
        airflow_migration = replace(airflow_migration, command=["true"])
    api = replace(
        component("api-server"), port=ports["api-server"], stop_round=2, prepare=lambda: _write_login(layout)
    )
    found = [database, airflow_migration, *_mlflow(layout, everywhere, recorded.get("mlflow")), mail, api]
    # The log servers of these two listen on all interfaces; the API server reads the same files.
    found += [component("scheduler", "--skip-serve-logs"), component("dag-processor")]
    # It waits 10 s for triggers that it could as well leave: they go on at the next start.
    found += [replace(component("triggerer", "--skip-serve-logs"), stop_round=2, grace=2.0)]
    return [*found, _serving(layout, everywhere)]


def _serving(layout: Layout, everywhere: Mapping[str, str]) -> Service:
    """Return the prediction service. It follows the ledger, so the warehouse has its tables first; it does not wait for MLflow.

    MLflow gives it versions that are new, and it answers with those on its disk until then. It is ready when it answers, not
    when a model has a champion: a new stack has none.
    """
    port = layout.ports()["serving"]
    command = [
        sys.executable, "-m", "evergreen", "serve", "--host", "127.0.0.1", "--port", str(port), "--local-client",
    ]  # fmt: skip
    return Service(
        "serving",
        command,
        everywhere,
        after=("postgres",),
        port=port,
        is_ready=lambda: health.serving(port),
        # It answers what it has begun, and brings the rest of its log to the warehouse.
        grace=30.0,
    )


def _mlflow(layout: Layout, everywhere: Mapping[str, str], recorded: str | None) -> list[Service]:
    """Return the MLflow server, and before it the upgrade of its tables if those are of another version.

    New tables the server makes itself.
    """
    port = layout.ports()["mlflow"]
    url = Postgres(layout).url("mlflow", layout.ports()["postgres"], driver="+psycopg2")
    own = {name: value for name, value in everywhere.items() if not name.startswith("MLFLOW_TRACKING_")}
    # In the environment, as a command line can be read by every user of the machine.
    own |= mlflow_settings.environment(url, layout.mlflow_auth_file, layout.secrets["mlflow_session"])

    def write_login() -> None:
        text = mlflow_settings.login_file(url, USER, layout.secrets["mlflow_login"])
        write_private(layout.mlflow_auth_file, text)

    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--app-name", "basic-auth", "--allowed-hosts", "127.0.0.1:*,localhost:*",
        "--serve-artifacts", "--artifacts-destination", str(layout.artifacts),
    ]  # fmt: skip
    server = Service(
        "mlflow",
        command,
        own,
        after=("postgres",),
        port=port,
        prepare=write_login,
        is_ready=lambda: health.mlflow(port),
        on_ready=lambda: _record(layout, "mlflow"),
    )
    if recorded in (None, version("mlflow")):
        return [server]
    password = {"PGPASSWORD": layout.secrets["mlflow_db"]}
    url_without = url.replace(f":{layout.secrets['mlflow_db']}@", "@")
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", url_without]
    step = Service(
        "mlflow-migration", upgrade, {**own, **password}, after=("postgres",), kind=ServiceKind.STEP
    )
    return [step, replace(server, after=("mlflow-migration",))]


def _write_login(layout: Layout) -> None:
    write_private(layout.passwords_file, json.dumps({USER: layout.secrets["airflow_login"]}))


def _record(layout: Layout, package: str) -> None:
    known = read_json(layout.versions_file)
    if known.get(package) != version(package):
        write_private(layout.versions_file, json.dumps({**known, package: version(package)}))
