"""Rollback: back along the line of champions, after a probe, and only to what was champion."""

from __future__ import annotations

from datetime import timedelta

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import Blocked, Look, RollbackEvidence
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.promotion.rollback import RollbackCause, rollback
from evergreen.registry.models import LoadedModel
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def one(world, made_once, start):
    """One champion, version 1."""

    def make():
        world.land(start, 35)
        world.promote(start + timedelta(days=30), "dag/a")

    made_once(make)
    return world


@pytest.fixture
def two(world, made_once, start):
    """Champions 1 and 2; 2 is champion now."""

    def make():
        world.land(start, 35)
        world.promote(start + timedelta(days=30), "dag/a")
        world.promote(start + timedelta(days=31), "dag/b")

    made_once(make)
    return world


def back(world, start, run_id, **more):
    return rollback(
        world.specs, world.model, start + timedelta(days=33), run_id, **{"reason": "it is worse", **more}
    )


def test_back_and_back_again_and_no_further(one, start):
    three = one
    three.settle(three.train(start + timedelta(days=30, hours=1), "dag/rejected"))
    three.promote(start + timedelta(days=31), "dag/b")
    three.promote(start + timedelta(days=32), "dag/c")
    with pytest.raises(TerminalError, match="was never champion; these were: 1, 3, 4"):
        back(three, start, "r", to_version="2")
    assert back(three, start, "r1").version == "3"
    assert registry.aliases("rides")["champion"] == "3"
    second = back(three, start, "r2")
    assert (second.kind, second.version, second.evidence.to_json()["previous_version"]) == (
        DecisionKind.ROLLED_BACK,
        "1",
        "3",
    )
    with connect() as conn:
        champion = registry.champion(conn, "rides")
    assert (champion.version, champion.as_of) == ("1", start + timedelta(days=30))
    with pytest.raises(TerminalError) as caught:
        back(three, start, "r3")
    assert caught.value.reason is ErrorReason.NO_PREVIOUS_CHAMPION
    with connect() as conn:
        mails = fetch(conn, "SELECT incident FROM evergreen.mail WHERE kind = 'rolled_back' ORDER BY id")
    assert len(mails) == 2


def test_a_retry_decides_once(two, start):
    assert back(two, start, "r1") == back(two, start, "r1")
    with connect() as conn:
        assert len(ledger.find(conn, "model/rides", (DecisionKind.ROLLED_BACK,))) == 1


def test_a_dry_run_changes_nothing(two, start):
    told = back(two, start, "r1", dry_run=True)
    assert (told.version, told.id) == ("1", None)
    assert registry.aliases("rides")["champion"] == "2"
    with connect() as conn:
        assert ledger.find(conn, "model/rides", (DecisionKind.ROLLED_BACK,)) == []


@pytest.mark.parametrize(
    ("version", "told"),
    [("1", "is champion now"), ("99", "never champion")],
    ids=["present-champion", "unknown"],
)
def test_versions_that_cannot_be_returned_to(one, start, version, told):
    with pytest.raises(TerminalError, match=told) as caught:
        back(one, start, "r", to_version=version)
    assert caught.value.reason is ErrorReason.NO_PREVIOUS_CHAMPION


def test_a_version_by_its_number(two, start):
    assert back(two, start, "r1", to_version="1").version == "1"
    assert back(two, start, "r2", to_version="2").version == "2"
    assert back(two, start, "r3").version == "1"


def test_a_version_that_mlflow_lost(two, start):
    MlflowClient().delete_model_version("rides", "1")
    with pytest.raises(TerminalError) as caught:
        back(two, start, "r1")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "2"


def test_a_lost_champion_can_be_left(two, start):
    MlflowClient().delete_model_version("rides", "2")
    assert back(two, start, "r1").version == "1"


@pytest.mark.parametrize("wrong", [float("nan"), 1.001], ids=["not-finite", "other-predictions"])
def test_a_version_that_predicts_otherwise_fails_its_probe(two, start, monkeypatch, wrong):
    whole = LoadedModel.predict
    monkeypatch.setattr(LoadedModel, "predict", lambda self, table: whole(self, table) * wrong)
    with pytest.raises(TerminalError) as caught:
        back(two, start, "r1")
    assert caught.value.reason is ErrorReason.PROBE_FAILED
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "2"


def finding(decision, rows=None):
    told = RollbackEvidence(watch=Look(rows=rows), blocked=Blocked(version="2"))
    return RollbackCause(WatchReason.WORSE, decision, "watch:rides", told)


def test_a_rollback_that_the_watch_asked_for(two, start):
    """It has its own reason and evidence, is done once whichever run asks, and closes requests about what it leaves."""
    as_of = start + timedelta(days=33)
    with connect() as conn:
        promotion = ledger.champions(conn, "rides")[0]
        wishes = [
            ledger.append(conn, Decision(at, "model/rides", DecisionKind.RETRAIN_REQUESTED, "performance", "m", f"{v}{at}", version=v))
            for v, at in (("2", as_of), ("1", as_of), ("2", as_of + timedelta(days=1)))
        ]  # fmt: skip
    done = back(two, start, "monitor/1", to_version="1", finding=finding(promotion.id, rows=120))
    assert (done.kind, done.reason, done.version) == (DecisionKind.ROLLED_BACK, "worse_than_previous", "1")
    assert done.answers == (wishes[0].id,)
    told = done.evidence.to_json()
    assert (told["watch"]["rows"], told["blocked"]) == (120, {"version": "2"})
    assert done.evidence.to_json()["probe_rows"] > 0
    assert back(two, start, "monitor/2", to_version="1", finding=finding(promotion.id)) == done
    assert registry.aliases("rides")["champion"] == "1"


def test_a_finding_about_a_champion_that_is_gone(two, start):
    with connect() as conn:
        promotion = ledger.champions(conn, "rides")[0]
    two.promote(start + timedelta(days=32), "dag/c")
    with pytest.raises(TransientError, match="version 3 now") as caught:
        back(two, start, "monitor/1", to_version="1", finding=finding(promotion.id))
    assert caught.value.reason is ErrorReason.BUSY
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "3"


def test_nothing_to_return_to(world, mlflow_url, start):
    with pytest.raises(TerminalError, match="first one") as caught:
        back(world, start, "r1")
    assert caught.value.reason is ErrorReason.NO_PREVIOUS_CHAMPION
