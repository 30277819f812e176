"""An Airflow connection as libpq, MLflow and apprise take it."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from evergreen.airflow_connections import Parts, channel, mlflow, warehouse
from evergreen.errors import TerminalError

SECRET = r"p@:/?#[]% '\x"


def of(kind: str = "postgres", **parts: Any) -> Parts:
    return Parts("evergreen_x", kind, **{"host": "db.example.org", "schema": "warehouse", **parts})


@pytest.mark.parametrize(
    "host",
    ["db.example.org", "::1", "2001:db8::7", "/var/run/postgresql", "one,two"],
    ids=["a name", "IPv6, short", "IPv6", "a folder", "several"],
)
def test_a_warehouse_arrives_in_libpq_as_it_was_filled_in(host: str) -> None:
    found = parse_dsn(warehouse(of(host=host, port=5433, login="o'brien@corp", password=SECRET)))
    assert found == {
        "host": host,
        "port": "5433",
        "user": "o'brien@corp",
        "password": SECRET,
        "dbname": "warehouse",
    }


def test_what_is_left_empty_is_left_to_libpq() -> None:
    assert parse_dsn(warehouse(of(host=""))) == {"dbname": "warehouse"}


def test_extras_are_parameters_of_libpq() -> None:
    extra = {"sslmode": "verify-full", "sslrootcert": "/etc/our ca.pem", "keepalives_idle": 30, "sslcompression": False,
             "options": "-c search_path=x"}  # fmt: skip
    found = parse_dsn(warehouse(of(extra=extra)))
    assert {name: found[name] for name in extra} == {
        "sslmode": "verify-full", "sslrootcert": "/etc/our ca.pem", "keepalives_idle": "30", "sslcompression": "0",
        "options": "-c search_path=x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"extra": {"sslmod": "require"}}, "'sslmod', which is no parameter of libpq"),
        ({"extra": {"sslmode": ["require"]}}, "sslmode, which is no text"),
        ({"extra": {"host": "elsewhere"}}, "host among its extras"),
        ({"kind": "mysql"}, "of the type 'mysql'; choose postgres"),
        ({"schema": ""}, "names no database"),
    ],
    ids=["misspelt", "a list", "a second host", "another server", "no database"],
)
def test_a_warehouse_that_cannot_be_used_is_refused(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(TerminalError, match="evergreen_x") as caught:
        warehouse(of(**parts, password="hunter2"))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "address"),
    [
        ({"kind": "http", "host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"kind": "http", "host": "mlflow", "schema": "https"}, "https://mlflow"),
        ({"kind": "https", "host": "mlflow"}, "https://mlflow"),
        ({"kind": "generic", "host": "mlflow", "port": 80}, "http://mlflow:80"),
        ({"kind": "generic", "host": "https://x.org/mlflow/"}, "https://x.org/mlflow"),
        ({"kind": "http", "host": "https://x.org/mlflow", "port": 8443}, "https://x.org:8443/mlflow"),
        ({"kind": "http", "host": "2001:db8::7", "port": 5000}, "http://[2001:db8::7]:5000"),
    ],
)
def test_the_address_of_mlflow(parts: dict[str, Any], address: str) -> None:
    found = mlflow(of(**{"schema": "", **parts}, login="me", password=SECRET))
    assert found == {
        "MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": SECRET,
    }  # fmt: skip
    assert mlflow(of(**{"schema": "", **parts})) == {"MLFLOW_TRACKING_URI": address}


@pytest.mark.parametrize(
    "parts",
    [{"host": ""}, {"kind": "aws"}, {"host": "https://me:hunter2@x.org"}, {"host": "file:///mlruns"}, {"schema": "ftp"},
     {"host": "https://x.org:port"}],
    ids=["no host", "another type", "a login in the host", "a folder", "another scheme", "no port"],
)  # fmt: skip
def test_a_server_that_cannot_be_used_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(TerminalError, match="evergreen_x") as caught:
        mlflow(of(**{"kind": "http", "schema": "", **parts}))
    assert "hunter2" not in str(caught.value)


def test_a_channel_is_the_whole_password() -> None:
    assert channel(of("generic", password="slack://a/b/c")) == "slack://a/b/c"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"kind": "slack", "password": "slack://a"}, "choose generic"),
        ({"password": "hunter2secret"}, "no URL as its password"),
    ],
)
def test_a_channel_without_a_url_is_told_without_its_password(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(TerminalError, match=said) as told:
        channel(of(**{"kind": "generic", **parts}))
    assert "hunter2secret" not in str(told.value)
