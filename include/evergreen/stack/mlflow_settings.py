"""How an MLflow server with logins is told what it must know: a file of logins, and its environment."""

from __future__ import annotations

from pathlib import Path


def login_file(url: str, user: str, password: str) -> str:
    """The text of MLflow's configuration of logins."""
    lines = {
        "default_permission": "READ",
        "database_uri": url,
        "admin_username": user,
        "admin_password": password,
        "auth_cache_ttl_seconds": "300",
    }
    return "[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())


def environment(url: str, logins: Path, session_key: str) -> dict[str, str]:
    """What the server reads from its environment, as a command line can be read by every user of the machine."""
    return {
        "MLFLOW_BACKEND_STORE_URI": url,
        "MLFLOW_AUTH_CONFIG_PATH": str(logins),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": session_key,
        # Its job runners are four more processes of 300 MB each, and nothing here has a job for them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
