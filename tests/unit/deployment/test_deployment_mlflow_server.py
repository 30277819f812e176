"""The MLflow server of a deployment: beside its administrator it has a login that reads."""

from __future__ import annotations

import pytest

from evergreen.deployment.mlflow_server import ensure_reader
from evergreen.stack.mlflow_settings import environment, login_file

FIRST, SECOND = "first-" + "0" * 20, "second-" + "0" * 20


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A database of MLflow, and the environment that names its logins."""
    found = f"sqlite:///{tmp_path}/mlflow.db"
    logins = tmp_path / "logins.ini"
    logins.write_text(login_file(found, "admin", FIRST))
    for name, value in environment(found, logins, "a key of the sessions").items():
        monkeypatch.setenv(name, value)
    return found


def test_the_login_that_reads_is_made_once_and_takes_a_new_password(url):
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    for password in (FIRST, FIRST, SECOND):
        ensure_reader(url, "serving", password)
        store = SqlAlchemyStore()
        store.init_db(url)
        assert [(user.username, user.is_admin) for user in store.list_users()] == [("serving", False)]
        assert store.authenticate_user("serving", password)
    assert not store.authenticate_user("serving", FIRST)
