"""The demo's story on the compose stack, and what may be done from outside."""

from __future__ import annotations

import secrets
import urllib.error
import urllib.request

import pytest
import requests
from compose_stack import Stack

from evergreen.ledger.reasons import DecisionKind


def test_the_story_goes_to_its_end_on_two_workers(stack: Stack) -> None:
    key = stack.client("demo")
    said = stack.compose(
        "--profile", "tools", "run", "--rm", "--no-deps", "-e", f"EVERGREEN_SERVING_KEY={key}", "demo", timeout_s=1800
    )  # fmt: skip
    assert "as in batch" in said, "the new champion answers a request"
    assert key not in said
    assert "What happened, from the ledger:" in said
    assert "did not go as promised" not in said
    mails = stack.rows("SELECT count(*) AS n, count(sent_at) AS sent FROM evergreen.mail")[0]
    assert mails["sent"] == mails["n"] > 10
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['MAIL_PORT']}/api/v1/messages") as answer:
        assert answer.status == 200
    kinds = {row["kind"] for row in stack.rows("SELECT DISTINCT kind FROM evergreen.decision")}
    assert {
        DecisionKind.BATCH_QUARANTINED.value,
        DecisionKind.RETRAIN_REQUESTED.value,
        DecisionKind.PROMOTED.value,
    } <= kinds
    hosts = {
        task["hostname"]
        for task in stack.api.call("POST", "dags/~/dagRuns/~/taskInstances/list", json={"page_limit": 100})[
            "task_instances"
        ]
    }
    assert len(hosts - {""}) == 2, "both workers had work"


def test_a_second_init_changes_nothing(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "init")
    assert "databases: are there" in said
    assert "login: is there" in said


@pytest.mark.parametrize(
    ("database", "change", "told"),
    [
        ("warehouse", "INSERT INTO evergreen.schema_version (version) VALUES (999)", "tables are of version 999"),
        ("airflow", "UPDATE alembic_version SET version_num = 'ffffffffffff'", "migration ffffffffffff is not known here"),
    ],
    ids=["ours", "airflow"],
)  # fmt: skip
def test_an_older_image_refuses_a_newer_schema(stack: Stack, database: str, change: str, told: str) -> None:
    undo = {"warehouse": "DELETE FROM evergreen.schema_version WHERE version = 999"}
    psql = (
        "exec",
        "-T",
        "postgres",
        "psql",
        "--username",
        "postgres",
        "--dbname",
        database,
        "--tuples-only",
        "--no-align",
    )
    if database == "airflow":
        known = stack.compose(*psql, "--command", "SELECT version_num FROM alembic_version").split()[-1]
        undo["airflow"] = f"UPDATE alembic_version SET version_num = '{known}'"
    stack.compose(*psql, "--command", change)
    try:
        said = stack.compose("run", "--rm", "init", check=False)
        assert "init stops:" in said
        assert told in said
        assert "Traceback" not in said
    finally:
        stack.compose(*psql, "--command", undo[database])


def test_it_does_not_start_without_its_secrets(stack: Stack, tmp_path) -> None:
    stack_env, stack.env = stack.env, tmp_path / ".env"
    stack.env.write_text("")
    try:
        assert "run make compose-env" in stack.compose("config", check=False)
    finally:
        stack.env = stack_env


@pytest.mark.parametrize(
    "path", ["/api/v2/dags", "/api/v2/connections", "/evergreen/", "/evergreen/model/bike_demand"]
)
def test_nobody_reads_anything_without_a_login(stack: Stack, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(stack.api.url + path)
    assert found.value.code in (401, 403)


# What a role may, by the answer to a request: 404 is that of somebody who may, about what is not there.
ASKED = {
    "read": ("GET", "dags/train__bike_demand/dagRuns", None),
    "trigger": ("POST", "dags/no_such_dag/dagRuns", {"logical_date": None}),
    "approve": ("PATCH", "dags/no_such_dag/dagRuns/x/taskInstances/y/-1/hitlDetails", {"chosen_options": ["Approve"]}),
    "read connections": ("GET", "connections", None),
    "change pools": ("DELETE", "pools/no_such_pool", None),
}  # fmt: skip
MAY = {
    "Viewer": {"read"},
    "User": {"read", "trigger", "approve"},
    "Op": {"read", "trigger", "approve", "read connections", "change pools"},
}


@pytest.mark.parametrize("role", sorted(MAY))
def test_a_role_may_what_the_page_says(stack: Stack, role: str) -> None:
    login = {"username": f"test-{role}", "password": secrets.token_urlsafe(12)}
    person = {"email": f"{role}@example.org", "first_name": role, "last_name": "x", "roles": [{"name": role}]}
    admin, anybody = stack.token("admin", stack.secrets["AIRFLOW_PASSWORD"]), requests.Session()
    users = f"{stack.api.url}/auth/fab/v1/users"
    requests.post(users, json={**login, **person}, headers=admin, timeout=30).raise_for_status()
    try:
        anybody.headers.update(stack.token(**login))
        answers = {
            what: anybody.request(method, f"{stack.api.url}/api/v2/{path}", json=body, timeout=30).status_code
            for what, (method, path, body) in ASKED.items()
        }
        assert set(answers.values()) <= {200, 403, 404}, answers
        assert {what for what, code in answers.items() if code != 403} == MAY[role], answers
        shown = anybody.get(f"{stack.api.url}/evergreen/model/bike_demand", timeout=60)
        assert shown.status_code == 200, shown.text
        assert ("dags/rollback__bike_demand/dagRuns" in shown.text) == ("trigger" in MAY[role])
        assert requests.get(users, headers=dict(anybody.headers), timeout=30).status_code == 403
    finally:
        requests.delete(f"{users}/{login['username']}", headers=admin, timeout=30).raise_for_status()


def test_mlflow_asks_for_a_login(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(
            f"http://127.0.0.1:{stack.ports['MLFLOW_PORT']}/api/2.0/mlflow/experiments/search?max_results=1"
        )
    assert found.value.code == 401


def test_no_secret_is_in_the_logs(stack: Stack) -> None:
    logs = stack.compose("logs", "--no-color")
    shown = [name for name, value in stack.secrets.items() if value in logs]
    assert not shown, f"in the logs: {shown}"
