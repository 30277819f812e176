"""Airflow's own API server with the plugin's pages, and people with rights of different kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from evergreen.links import window_name
from evergreen.warehouse.connection import connect, fetch
from health_scene import BEGIN, WEEK

VIEWER, OPERATOR = "viewer", "op"
WINDOW = f"model/bike_demand/window/{window_name(BEGIN + 3 * WEEK)}"
PAGES = [
    "", "model/bike_demand", WINDOW, "model/bike_rush/approval", "dataset/bike_hourly", "incident/{incident}", "decision/{decision}",
    "decision/{decision}?part=true",
]  # fmt: skip


def address(path: str) -> str:
    """A page of the scene."""
    with connect() as conn:
        (row,) = fetch(
            conn,
            "SELECT (SELECT min(id) FROM evergreen.mail WHERE kind = 'drift') AS incident,"
            " (SELECT id FROM evergreen.decision WHERE kind = 'promoted' AND version = '2') AS decision",
        )
    return f"/evergreen/{path.format(**row)}"


def served() -> Any:
    """The server's app, anew: with the settings of now."""
    purge_cached_app()
    return create_app(apps="core")


def token(role: str) -> str:
    """What a person of a role has after the login."""
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=f"a {role}", role=role))


@dataclass(frozen=True)
class Bearer:
    """The header of a program that asks with a token."""

    role: str

    @property
    def headers(self) -> dict[str, str]:
        """As it is sent, of one who wants a page."""
        return {"Authorization": f"Bearer {token(self.role)}", "Accept": "text/html"}


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an app on a free port of loopback; its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "the server ended"
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
