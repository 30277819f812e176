"""A champion that cannot be evaluated stands in nobody's way for ever: the baseline, its recorded holdout, and a person."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.incidents import failures
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.monitoring.monitor import monitor
from evergreen.promotion import approval, live_watch
from evergreen.promotion.approval import Answer
from evergreen.promotion.rollback import rollback
from evergreen.scoring.score import score
from evergreen.training.gate.verdict import GateVerdict
from evergreen.warehouse.connection import connect, fetch

ALONE = GateReason.CHAMPION_CANNOT_BE_EVALUATED


@pytest.fixture
def one(world, made_once, start):
    """One champion, version 1; the spec asks for no approval."""

    def make():
        world.land(start, 45)
        world.promote(start + timedelta(days=30), "dag/one")

    made_once(make)
    assert world.model.gate.approval == "auto"
    return world


def run():
    return MlflowClient().get_model_version("rides", "1").run_id


def forget(world):
    """What this machine keeps of MLflow's files is gone, as on another worker."""
    shutil.rmtree(world.folder.parent / "home" / "cache", ignore_errors=True)


def without_files(world):
    shutil.rmtree(world.folder.parent / "artifacts" / "rides")
    forget(world)


def with_other_files(world):
    path = next((world.folder.parent / "artifacts" / "rides").rglob("extra_files/features.json"))
    path.write_text(path.read_text().replace('"dry"', '"wet "'))
    forget(world)


LOSSES = {
    "version-deleted": lambda world: MlflowClient().delete_model_version("rides", "1"),
    "registered-model-deleted": lambda world: MlflowClient().delete_registered_model("rides"),
    "artifacts-deleted": without_files,
    "files-changed": with_other_files,
}


def answer(yes=True):
    return Answer(yes, "jane", datetime.now(UTC), "seen")


def retrained(world, start, day=40, name="dag/two"):
    return world.train(start + timedelta(days=day), name)


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_lost_champion_is_left_by_way_of_a_person(one, start, lose):
    """Each step's message names the next one, and the last one works."""
    lose(one)
    as_of = start + timedelta(days=41)
    with pytest.raises(TerminalError, match="train__") as caught:
        score(one.specs, one.model, as_of, "dag/score")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    with pytest.raises(TerminalError, match=r"run train__rides.*promote__rides"):
        rollback(one.specs, one.model, as_of, "dag/back", reason="it is lost")
    outcome = retrained(one, start)
    assert (outcome.verdict.passed, outcome.verdict.reason) == (True, ALONE)
    told = {c.check: c for c in outcome.verdict.checks}
    with connect() as conn:
        recorded = registry.history(conn, "rides")[0].holdout["rmse"]
    assert told["champion_recorded_rmse"].limit == recorded
    assert told["beats_baseline"].passed
    waits = one.settle(outcome)
    assert (waits.kind, waits.reason) == (DecisionKind.AWAITING_APPROVAL, ALONE.value)
    assert one.settle(outcome) == waits
    assert "champion cannot be evaluated" in waits.evidence.to_json()["message"]
    with connect() as conn:
        assert [r["kind"] for r in fetch(conn, "SELECT kind FROM evergreen.mail ORDER BY id")][
            -1
        ] == "approval"
    done = approval.conclude(one.model, str(outcome.version), answer(), "promote/1")
    assert (done.kind, done.reason, done.evidence.to_json()["answered_by"]) == (
        DecisionKind.PROMOTED,
        ALONE.value,
        "jane",
    )
    assert registry.aliases("rides")["champion"] == outcome.version
    assert score(one.specs, one.model, as_of, "dag/score").version == outcome.version
    # The watch has nothing to compare with, and takes nothing back.
    assert live_watch.watch(one.specs, one.model, start + timedelta(days=49), "m").reason == "cannot_compare"
    assert retrained(one, start, 42, "dag/three").verdict.reason is not ALONE


@pytest.mark.parametrize(
    "name", [n for n in LOSSES if n != "files-changed"]
)  # the monitor reads no changed encoding
def test_a_lost_champion_is_one_mail_whoever_finds_it(one, start, name):
    as_of = start + timedelta(days=31)
    LOSSES[name](one)
    with pytest.raises(TerminalError) as failed:
        score(one.specs, one.model, as_of, "score__rides/1")
    assert failed.value.reason is ErrorReason.REGISTRY_MISMATCH
    found = monitor(one.specs, one.model, as_of, "monitor__rides/1")
    assert found.problems
    assert found.reason is failed.value.reason
    for dag, task, told in (("score", "score", str(failed.value)), ("monitor", "verdict", found.problems[0])):
        failures.record("model/rides", f"{dag}__rides/1", task, 1, told, "", as_of, found.reason)
    with connect() as conn:
        (mail,) = fetch(conn, "SELECT incident FROM evergreen.mail WHERE kind = 'run_failed'")
    assert "score__rides" in mail["incident"]


def test_nobody_is_promoted_without_a_person(one, start):
    MlflowClient().delete_model_version("rides", "1")
    outcome = retrained(one, start)
    one.settle(outcome)
    refused = approval.conclude(one.model, str(outcome.version), answer(yes=False), "promote/1")
    assert (refused.kind, refused.reason) == (DecisionKind.REJECTED, "refused")
    with connect() as conn:
        assert registry.champion(conn, "rides", repair=False).version == "1"


def test_a_challenger_that_does_not_beat_the_baseline_asks_nobody(one, start):
    MlflowClient().delete_model_version("rides", "1")
    lenient = one.with_model(
        gate={"beat_baseline": False}, training={"max_rounds": 1, "params": {"learning_rate": 1e-6}}
    )
    outcome = retrained(lenient, start)
    assert outcome.verdict.reason is GateReason.WORSE_THAN_BASELINE
    assert lenient.settle(outcome).kind is DecisionKind.REJECTED


def test_a_server_that_does_not_answer_is_no_lost_champion(one, start, monkeypatch):
    snapshot = one.snapshot(start + timedelta(days=40))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from evergreen.training.train import train

    with pytest.raises(EvergreenError) as caught:
        train(one.specs, one.model, snapshot, start + timedelta(days=40), "dag/two", trigger="manual")
    assert caught.value.reason is ErrorReason.UNREACHABLE
    with connect() as conn:
        assert [d.kind for d in ledger.find(conn, "model/rides")] == [DecisionKind.PROMOTED]


def test_a_lost_champion_of_an_earlier_release_whose_run_is_not_in_the_ledger(one, start):
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("ALTER TABLE evergreen.decision DISABLE TRIGGER decision_append_only")
        cursor.execute(
            "UPDATE evergreen.decision SET evidence = evidence - 'mlflow_run' - 'digest' - 'holdout'"
        )
        cursor.execute("ALTER TABLE evergreen.decision ENABLE TRIGGER decision_append_only")
    MlflowClient().delete_registered_model("rides")
    outcome = retrained(one, start)
    assert (outcome.version, outcome.verdict.reason) == ("2", ALONE)
    assert one.settle(outcome).kind is DecisionKind.AWAITING_APPROVAL


RETOLD = {
    "label": ({"label": {"column": "rides", "delay": "1h"}}, "label demand, the spec's label is rides now"),
    "task": (
        {"task": "binary", "label": {"column": "busy", "delay": "1h"}},
        "task regression, the spec's task is binary now",
    ),
}


@pytest.mark.parametrize(("changes", "told"), RETOLD.values(), ids=RETOLD)
def test_a_champion_of_another_label_or_task_is_not_compared(one, start, changes, told):
    query = one.model.query.replace(
        "demand FROM", "demand, 2 * demand AS rides, (demand > 55)::int AS busy FROM"
    )
    other = one.with_model(query=query, **changes)
    outcome = retrained(other, start)
    assert outcome.verdict.reason is ALONE
    recorded = next(c for c in outcome.verdict.checks if c.check.startswith("champion_recorded_"))
    assert recorded.limit is None, "its numbers are about something else"
    assert told in other.settle(outcome).evidence.to_json()["message"]
    done = approval.conclude(other.model, str(outcome.version), answer(), "promote/1")
    assert (done.kind, done.reason) == (DecisionKind.PROMOTED, ALONE.value)
    # The one before predicts something else: it is no shadow.
    result = score(other.specs, other.model, start + timedelta(days=41), "dag/score")
    assert (result.shadow.version, result.rows > 0) == (None, True)
    passed = replace(
        retrained(other, start, 42, "dag/three"), verdict=GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)
    )
    assert other.settle(passed).kind is DecisionKind.PROMOTED, "from now on the champions are compared again"


LEFT = {
    "left-the-spec": ("", {"numeric": ("hour",)}),
    "became-a-category": ("x, |round(x)::int AS x, ", {"numeric": ("hour",), "categorical": ("kind", "x")}),
    "became-a-number": (
        "kind, |length(kind) AS kind, ",
        {"numeric": ("hour", "x", "kind"), "categorical": ()},
    ),
    "left-the-query": ("x, |", {"numeric": ("hour",)}),
    "became-text": ("x, |x::text AS x, ", {"numeric": ("hour",), "categorical": ("kind", "x")}),
    "became-a-truth": ("x, |x > 0 AS x, ", {"numeric": ("hour",), "categorical": ("kind", "x")}),
}
EVALUATED = ("left-the-spec", "became-a-category")


@pytest.mark.parametrize("name", LEFT)
def test_a_feature_that_changed(one, start, name):
    """Where the query still gives what the champion reads it is compared, and else left by way of a person."""
    (edit, features), query = LEFT[name], one.model.query
    other = one.with_model(query=query.replace(*edit.split("|"), 1) if edit else query, features=features)
    outcome = retrained(other, start)
    if name in EVALUATED:
        assert outcome.verdict.reason is not ALONE
        assert "rmse" in outcome.metrics["champion"]
        return
    told = next(c for c in outcome.verdict.checks if c.check == "champion_cannot_be_evaluated")
    assert f"needs the features {'kind' if name == 'became-a-number' else 'x'}" in told.sentence
    if outcome.verdict.passed:
        assert other.settle(outcome).kind is DecisionKind.AWAITING_APPROVAL
        assert approval.conclude(other.model, "2", answer(), "promote/1").reason == ALONE.value
        assert score(other.specs, other.model, start + timedelta(days=41), "dag/score").version == "2"
        with pytest.raises(TerminalError, match="it could score nothing"):
            rollback(other.specs, other.model, start + timedelta(days=41), "dag/back", reason="x")


def test_a_champion_with_a_feature_more_is_evaluated_as_it_was(one, start):
    """What the gate measures of it is what it gives on the same rows of the unchanged spec, to the last digit."""
    as_of = start + timedelta(days=40)
    fewer = one.with_model(features={"numeric": ("hour",)})
    with_x, without = one.train(as_of, "dag/with"), fewer.train(as_of, "dag/without")
    assert without.metrics["champion"] == with_x.metrics["champion"]
    assert without.fingerprint != with_x.fingerprint, "the snapshot is the spec's own"
    again = fewer.snapshot(as_of)
    assert again.fingerprint == without.fingerprint, "whoever is champion"


def test_another_key_keeps_the_champion_comparable(one, start):
    """Its features and its label are the same, so its predictions of today's rows are what the challenger must beat."""
    query = one.model.query.replace("ts,", "ts, ts AS moment,", 1)
    other = one.with_model(query=query, key=["moment"], event_time="ts")
    outcome = retrained(other, start)
    assert outcome.verdict.reason is not ALONE
    assert "rmse" in outcome.metrics["champion"]
