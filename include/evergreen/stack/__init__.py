"""The embedded stack: PostgreSQL, MLflow, Airflow and a mail catcher for one machine, without Docker.

`evergreen up` (or `make up`) and the like for people; `up`, `down`, `status`, `environment`, `login`, `ports` for programs.
"""

from evergreen.stack.control import Login, Row, clean, down, login, ports, status, up
from evergreen.stack.layout import StackError
from evergreen.stack.mailcatcher import Mail, messages
from evergreen.stack.variables import environment

__all__ = [
    "Login", "Mail", "Row", "StackError", "clean", "down", "environment", "login", "messages", "ports", "status", "up",
]  # fmt: skip
