"""The parts of an Airflow connection as what the libraries read: libpq's string, MLflow's variables, a channel's URL. No Airflow is needed for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from evergreen.errors import ErrorReason, TerminalError

CHANNEL_TYPES = ("generic", "http", "https")
WAREHOUSE_TYPES = ("postgres", "generic")
MLFLOW_TYPES = ("http", "https", "generic")


@dataclass(frozen=True)
class Parts:
    """A connection as a person has filled it in; nothing is percent-encoded."""

    name: str
    kind: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def warehouse(parts: Parts) -> str:
    """The connection string of a warehouse, in libpq's form of keywords and values; it holds the password.

    Args:
        parts: `schema` is the database, `extra` are further parameters of libpq, such as sslmode.

    Raises:
        TerminalError: it is of another type, names no database, or has an extra that libpq does not know.
    """
    import psycopg2
    from psycopg2.extensions import make_dsn

    if parts.kind not in WAREHOUSE_TYPES:
        raise _unusable(parts, f"is of the type {parts.kind!r}", "choose postgres, or generic")
    if not parts.schema:
        raise _unusable(parts, "names no database", "fill the field Database (schema)")
    own = {"host": parts.host, "port": parts.port, "user": parts.login, "password": parts.password,
           "dbname": parts.schema}  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in own.items() if value not in ("", None)}
    for name, value in parts.extra.items():
        if name in own:
            raise _unusable(parts, f"has {name} among its extras", "fill the connection's own field for it")
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, str | int):
            raise _unusable(parts, f"has the extra {name}, which is no text and no whole number", "mend it")
        try:
            # One that is misspelt and passed over would be a connection without TLS that nobody notices.
            make_dsn(**{name: str(value)})
        except psycopg2.ProgrammingError:
            raise _unusable(
                parts, f"has the extra {name!r}, which is no parameter of libpq", "mend or remove it"
            ) from None
        given[name] = str(value)
    return str(make_dsn(**given))


def mlflow(parts: Parts) -> dict[str, str]:
    """MLflow's environment variables for a server: its address, and login and password where there are some.

    Args:
        parts: `host` is a name or a whole address such as https://mlflow.example.org/prefix; for a name `schema` is http or
            https, else the type says which (generic: http).

    Raises:
        TerminalError: it is of another type, or its host is none.
    """
    if parts.kind not in MLFLOW_TYPES:
        raise _unusable(parts, f"is of the type {parts.kind!r}", "choose http or generic")
    address = parts.host.rstrip("/")
    if "://" not in address:
        scheme = parts.schema or ("https" if parts.kind == "https" else "http")
        host = f"[{address}]" if ":" in address else address
        address = f"{scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    elif parts.port and urlsplit(address).port is None:
        split = urlsplit(address)
        address = split._replace(netloc=f"{split.netloc}:{parts.port}").geturl()
    try:
        split = urlsplit(address)
        good = split.scheme in ("http", "https") and bool(split.hostname) and "@" not in split.netloc
        good = good and (split.port is None or split.port > 0)
    except ValueError:
        good = False
    if not good:
        raise _unusable(
            parts,
            "has no usable host",
            "write a name, or an address like https://mlflow.example.org; the login has fields of its own",
        )
    found = {"MLFLOW_TRACKING_URI": address}
    if parts.login:
        found["MLFLOW_TRACKING_USERNAME"] = parts.login
    if parts.password:
        found["MLFLOW_TRACKING_PASSWORD"] = parts.password
    return found


def channel(parts: Parts) -> str:
    """The URL of a channel, which is all secret and so is the connection's password.

    Raises:
        TerminalError: it is of another type, or has no password.
    """
    if parts.kind not in CHANNEL_TYPES:
        raise _unusable(parts, f"is of the type {parts.kind!r}", "choose generic")
    if "://" not in parts.password:
        raise _unusable(parts, "has no URL as its password", "write the whole URL there, such as slack://…")
    return parts.password


def _unusable(parts: Parts, what: str, remedy: str) -> TerminalError:
    return TerminalError(
        f"the Airflow connection {parts.name} {what}; {remedy}, or set the environment variable instead",
        ErrorReason.BAD_SPEC,
    )
