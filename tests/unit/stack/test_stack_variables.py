from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from evergreen.stack.layout import Layout
from evergreen.stack.processes import MARKER
from evergreen.stack.services import services
from evergreen.stack.variables import environment, secret_names, specs_folder


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name not in ("HOME", "PATH"):
            monkeypatch.delenv(name)


def test_everything_stays_on_the_loopback_address(layout: Layout) -> None:
    found = environment(layout.home)
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    commands = " ".join(part for service in services(layout) for part in service.command)
    text = commands + " ".join(found.values())
    assert not re.search(r"0\.0\.0\.0|\[::\]", text)
    assert {s.name: "--skip-serve-logs" in s.command for s in services(layout)}["scheduler"]


def test_no_secret_is_on_a_command_line(layout: Layout) -> None:
    words = " ".join(word for service in services(layout) for word in service.command)
    assert [name for name, secret in layout.secrets.items() if secret in words] == []


def test_it_joins_the_parts(layout: Layout) -> None:
    layout.ports_file.write_text(
        json.dumps({"api-server": 8081, "mlflow": 5001, "mail": 1026, "postgres": 5434, "serving": 8089})
    )
    found = environment(layout.home)
    assert found["EVERGREEN_HOME"] == str(layout.home)
    assert found["EVERGREEN_WAREHOUSE_URL"].endswith("@127.0.0.1:5434/warehouse")
    assert found["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8081/execution/"
    assert found["EVERGREEN_SERVING_URL"] == "http://127.0.0.1:8089"
    smtp = json.loads(found["AIRFLOW_CONN_SMTP_DEFAULT"])
    assert (smtp["port"], smtp["extra"]["disable_ssl"], smtp["extra"]["disable_tls"]) == (1026, True, True)
    assert MARKER not in found


def test_what_the_user_set_wins(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example.org")
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "me@example.org")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "8")
    found = environment(layout.home)
    assert found["AIRFLOW_CONN_SMTP_DEFAULT"] == "smtp://mail.example.org"
    assert found["EVERGREEN_MAIL_TO"] == "me@example.org"
    assert found["AIRFLOW__CORE__PARALLELISM"] == "8"


@pytest.mark.parametrize(
    "name",
    [
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW_HOME",
        "MLFLOW_TRACKING_URI",
        "PGHOST",
        "MLFLOW_BACKEND_STORE_URI",
    ],
)
def test_variables_of_another_installation_do_not_reach_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "elsewhere")
    assert environment(layout.home).get(name) != "elsewhere"


def test_a_proxy_is_not_asked_for_loopback_addresses(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org")
    monkeypatch.setenv("no_proxy", "example.org")
    found = environment(layout.home)
    assert found["NO_PROXY"] == found["no_proxy"] == "example.org,127.0.0.1,localhost"


def test_names_of_variables_with_secrets_are_known(layout: Layout) -> None:
    names = secret_names(layout.home)
    assert {"EVERGREEN_WAREHOUSE_URL", "MLFLOW_TRACKING_PASSWORD", "AIRFLOW__CORE__FERNET_KEY"} <= names
    assert not {"PATH", "EVERGREEN_HOME", "MLFLOW_TRACKING_URI"} & names


def test_dag_files_and_plugins_are_the_projects(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path))
    found = environment(layout.home)
    for variable, folder in (("DAGS_FOLDER", "dags"), ("PLUGINS_FOLDER", "plugins")):
        assert found[f"AIRFLOW__CORE__{variable}"] == str(tmp_path / folder)


def test_a_home_named_from_elsewhere_belongs_to_the_project_that_it_was_started_for(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for project in (own, other):
        (project / "include" / "datasets").mkdir(parents=True)
    monkeypatch.chdir(other)
    assert specs_folder(environment(layout.home)) == other / "include"
    layout.state_file.parent.mkdir(parents=True, exist_ok=True)
    layout.state_file.write_text(json.dumps({"project": str(own)}))
    found = environment(layout.home)
    assert found["EVERGREEN_PROJECT"] == str(own)
    assert specs_folder(found) == own / "include"
