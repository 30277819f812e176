"""The alias in MLflow follows the ledger, whoever moves it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.alerting.compose import compose
from evergreen.errors import TerminalError
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import monitor
from evergreen.registry import confirm
from evergreen.registry.confirm import confirm_alias
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def one(world, made_once, start):
    """Version 1 is champion, version 2 was never judged."""

    def make():
        world.land(start, 40)
        world.promote(start + timedelta(days=30), "dag/one")
        world.train(start + timedelta(days=31), "dag/two")

    made_once(make)
    return world


def mails():
    with connect() as conn:
        return fetch(conn, "SELECT * FROM evergreen.mail WHERE kind = 'alias_repaired' ORDER BY id")


def repairs():
    with connect() as conn:
        return ledger.find(conn, "model/rides", (DecisionKind.ALIAS_REPAIRED,))


def test_the_monitor_puts_a_moved_alias_right_and_says_so_once(one, start):
    as_of = start + timedelta(days=40)
    for run in ("monitor/1", "monitor/1", "monitor/2"):
        MlflowClient().set_registered_model_alias("rides", "champion", "2")
        monitor(one.specs, one.model, as_of, run)
        assert registry.aliases("rides")["champion"] == "1"
    rows = repairs()
    assert [(d.reason, d.version, d.evidence.to_json()["found_version"], d.run_id) for d in rows] == [
        ("alias_moved", "1", "2", "monitor/2"), ("alias_moved", "1", "2", "monitor/1"),
    ]  # fmt: skip
    assert [m["incident"] for m in mails()] == [
        f"alias:rides:{rows[0].evidence.to_json()['champion_decision']}:2"
    ]
    with connect() as conn:
        message = compose(conn, one.specs, mails()[0])
        assert registry.champion(conn, "rides", repair=False).version == "1"
    assert "the alias champion in MLflow named version 2, it is version 1 again" in message["Subject"]


def test_a_removed_alias_comes_back(one, start, monkeypatch):
    monkeypatch.setattr(confirm, "LAG_S", 0)
    MlflowClient().delete_registered_model_alias("rides", "champion")
    assert confirm_alias(one.model, start + timedelta(days=40), "monitor/1").reason == "alias_removed"
    assert registry.aliases("rides")["champion"] == "1"
    assert confirm_alias(one.model, start + timedelta(days=40), "monitor/2") is None
    assert len(mails()) == 1


def test_an_alias_that_only_lags_behind_a_promotion_is_no_incident(one, start):
    """The promotion of a moment ago is in the ledger; its alias is on the way."""
    MlflowClient().delete_registered_model_alias("rides", "champion")
    assert confirm_alias(one.model, start + timedelta(days=40), "monitor/1") is None
    assert registry.aliases("rides")["champion"] == "1"
    assert repairs() == mails() == []


@pytest.mark.parametrize("lose", ["delete_model_version", "delete_registered_model"])
def test_a_champion_that_mlflow_lost_is_told_by_the_monitor(one, start, lose):
    """No alias can name it; the run says what is lost and what to do, and writes no repair."""
    getattr(MlflowClient(), lose)(*(("rides", "1") if "version" in lose else ("rides",)))
    with pytest.raises(TerminalError, match="train__MODEL"):
        confirm_alias(one.model, start + timedelta(days=40), "monitor/1")
    run = monitor(one.specs, one.model, start + timedelta(days=40), "monitor/2")
    assert [p for p in run.problems if "the alias in MLflow" in p and "train__MODEL" in p]
    assert repairs() == mails() == []


def test_without_a_champion_there_is_nothing_to_confirm(world, mlflow_url, start):
    assert confirm_alias(world.model, start, "monitor/1") is None
