"""A version is what its run and its digest say, not what its number says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.monitoring.windows import live_windows
from evergreen.promotion import approval
from evergreen.promotion.rollback import rollback
from evergreen.registry.models import DIGEST_TAG, ENCODING_FILE, PROBE_FILE
from evergreen.scoring.score import score
from evergreen.training.gate.verdict import GateVerdict
from evergreen.warehouse.connection import connect, fetch

NOT_BETTER = GateVerdict(False, GateReason.NOT_BETTER_THAN_CHAMPION)


@pytest.fixture
def one(world, made_once, start):
    """One champion, version 1."""

    def make():
        world.land(start, 40)
        world.promote(start + timedelta(days=30), "dag/one")

    made_once(make)
    return world


def kept(world, name="extra_files/" + ENCODING_FILE, version="1"):
    """The copy of a file on this machine."""
    return registry.load(world.model, version).folder / name


def reorder(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "numeric": content["numeric"][::-1]}))


def relabel(path):
    content = json.loads(path.read_text())
    categories = {name: found[::-1] for name, found in content["categorical"].items()}
    path.write_text(json.dumps({**content, "categorical": categories}))


DAMAGES = {
    "order-of-the-features": reorder,
    "order-of-the-categories": relabel,
    "cut": lambda path: path.write_text(path.read_text()[:-20]),
    "no-features": lambda path: path.write_text("{}"),
    "not-a-dictionary": lambda path: path.write_text("[1, 2]"),
    "not-text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_encoding_that_is_not_what_was_registered_is_refused(one, damage):
    damage(kept(one))
    with pytest.raises(TerminalError, match=f"version 1: {ENCODING_FILE} has SHA-256") as caught:
        registry.load(one.model, "1")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    assert "Delete" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_encoding_of_an_earlier_release_is_held_against_its_probe(one, damage):
    forget(one)
    damage(kept(one))
    with pytest.raises(TerminalError) as caught:
        registry.load(one.model, "1")
    assert caught.value.reason in (ErrorReason.REGISTRY_MISMATCH, ErrorReason.PROBE_FAILED)


def forget(world, version="1"):
    """Make a version what an earlier release registered: the booster's sum alone."""
    found = MlflowClient().get_model_version("rides", version)
    for tag in ("evergreen.files", "evergreen.digest"):
        MlflowClient().delete_model_version_tag("rides", version, tag)
        MlflowClient().delete_tag(found.run_id, tag)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("ALTER TABLE evergreen.decision DISABLE TRIGGER decision_append_only")
        cursor.execute(
            "UPDATE evergreen.decision SET evidence = evidence - 'digest' WHERE version = %s", (version,)
        )
        cursor.execute("ALTER TABLE evergreen.decision ENABLE TRIGGER decision_append_only")


def test_a_version_of_an_earlier_release_is_loaded_and_that_is_said(one, start, caplog):
    forget(one)
    registry.load(one.model, "1")
    assert "registered by an earlier release" in caplog.text
    assert score(one.specs, one.model, start + timedelta(days=31), "dag/score").rows > 0
    assert live_windows.judge_windows(one.specs, one.model, start + timedelta(days=40))


def test_tags_that_are_taken_away_make_no_earlier_release_of_what_the_ledger_knows(one):
    MlflowClient().delete_model_version_tag("rides", "1", "evergreen.files")
    reorder(kept_anyway(one))
    with pytest.raises(TerminalError, match="the ledger keeps"):
        registry.load(one.model, "1")


def kept_anyway(world):
    return next(
        (world.folder.parent / "home/cache/mlflow").rglob(f"extra_files/{ENCODING_FILE}"), None
    ) or kept_fresh(world)


def kept_fresh(world):
    from evergreen.registry.artifacts import fetched

    run = MlflowClient().get_model_version("rides", "1").run_id
    return fetched(f"models/rides-1-{run}", "models:/rides/1") / "extra_files" / ENCODING_FILE


def test_files_and_tags_that_were_changed_together_differ_from_the_ledger(one):
    """Who can write to MLflow can make its tags agree with other files; the ledger keeps the digest, too."""
    from evergreen.registry import identity

    reorder(path := kept(one))
    found = MlflowClient().get_model_version("rides", "1")
    sums = json.loads(found.tags["evergreen.files"]) | identity.sums({ENCODING_FILE: path})
    MlflowClient().set_model_version_tag("rides", "1", "evergreen.files", json.dumps(sums))
    MlflowClient().set_model_version_tag("rides", "1", "evergreen.digest", identity.digest_of(sums))
    with pytest.raises(TerminalError, match="the ledger keeps"):
        registry.load(one.model, "1")


@pytest.mark.parametrize("name", [f"extra_files/{PROBE_FILE}", "model.ubj"], ids=["probe", "booster"])
def test_whatever_is_loaded_with_a_version_is_held_against_its_sum(one, name):
    path = kept(one, name)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(TerminalError, match="has SHA-256"):
        registry.load(one.model, "1")


@pytest.mark.parametrize("name", ["profile.json", "reference.parquet", "more.json"])
def test_a_reference_that_is_not_what_was_registered_judges_nothing(one, start, name):
    run = MlflowClient().get_model_version("rides", "1").run_id
    path = registry.local_copy("rides", run, "reference") / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    with pytest.raises(TerminalError, match=f"reference/{name} has SHA-256"):
        live_windows.judge_windows(one.specs, one.model, start + timedelta(days=40))


def lose(name="rides"):
    MlflowClient().delete_registered_model(name)


def test_a_number_is_not_given_out_again(one, start):
    """A rejected challenger of the number of a champion must not be settled, announced or served as that champion."""
    lose()
    outcome = one.train(start + timedelta(days=31), "dag/two")
    assert outcome.version == "2"
    decision = one.settle(replace(outcome, verdict=NOT_BETTER))
    assert (decision.kind, decision.version) == (DecisionKind.REJECTED, "2")
    assert registry.aliases("rides") == {"challenger": "2"}
    with pytest.raises(TerminalError) as caught:
        score(one.specs, one.model, start + timedelta(days=32), "dag/score")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    with connect() as conn:
        assert fetch(conn, "SELECT 1 FROM evergreen.prediction") == []


def test_the_numbers_that_a_restored_database_forgot_are_used_up(one, start, mlflow_url, tmp_path):
    import shutil

    backup = tmp_path / "backup.db"
    shutil.copy(tmp_path / "mlflow.db", backup)
    for day in (31, 32):
        one.settle(replace(one.train(start + timedelta(days=day), f"dag/{day}"), verdict=NOT_BETTER))
    shutil.copy(backup, tmp_path / "mlflow.db")
    outcome = one.train(start + timedelta(days=33), "dag/33")
    assert outcome.version == "4"
    assert [v.version for v in MlflowClient().search_model_versions("name = 'rides'")] == [4, 1]


def another(world, start, version="1"):
    """Give the number of a champion to a model that was never judged, as a release without this care did."""
    outcome = world.train(start + timedelta(days=31), "dag/ungated")
    made = MlflowClient().get_model_version("rides", outcome.version)
    lose()
    MlflowClient().create_registered_model("rides")
    MlflowClient().create_model_version("rides", made.source, run_id=made.run_id, tags=made.tags)
    MlflowClient().set_registered_model_alias("rides", "champion", version)
    return replace(outcome, version=version)


def test_another_model_under_the_number_of_the_champion_is_used_nowhere(one, start):
    outcome = another(one, start)
    as_of = start + timedelta(days=32)
    for use in (
        lambda: registry.load(one.model, "1"),
        lambda: score(one.specs, one.model, as_of, "dag/score"),
        lambda: rollback(one.specs, one.model, as_of, "dag/back", to_version="1", reason="x", dry_run=True),
    ):
        with pytest.raises(TerminalError) as caught:
            use()
        assert caught.value.reason in (ErrorReason.REGISTRY_MISMATCH, ErrorReason.NO_PREVIOUS_CHAMPION)
    # The decision on the champion is not the decision on this one, though the number is the same.
    decision = one.settle(replace(outcome, verdict=NOT_BETTER))
    assert (decision.kind, decision.evidence.to_json()["mlflow_run"]) == (
        DecisionKind.REJECTED,
        outcome.mlflow_run,
    )


def test_a_waiting_challenger_whose_number_is_another_model_is_not_approved(one, start):
    from datetime import datetime

    manual = one.with_model(gate={"approval": "manual"})
    passed = GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)
    waiting = manual.settle(replace(manual.train(start + timedelta(days=31), "dag/two"), verdict=passed))
    assert waiting.kind is DecisionKind.AWAITING_APPROVAL
    assert waiting.evidence.to_json()["digest"]
    MlflowClient().set_model_version_tag("rides", "2", "evergreen.digest", "0" * 64)
    answer = approval.Answer(True, "jane", datetime.now(UTC))
    with pytest.raises(TerminalError, match="digest"):
        approval.conclude(manual.model, "2", answer, "promote/1")


def test_the_ledger_keeps_the_digest_of_what_was_decided_on(one, start):
    rejected = one.settle(replace(one.train(start + timedelta(days=31), "dag/two"), verdict=NOT_BETTER))
    with connect() as conn:
        promoted = registry.history(conn, "rides")[0]
        rows = fetch(
            conn, "SELECT version, evidence->>'digest' AS digest FROM evergreen.decision ORDER BY id"
        )
    tags = {str(v.version): v.tags for v in MlflowClient().search_model_versions("name = 'rides'")}
    assert {r["version"]: r["digest"] for r in rows} == {n: t["evergreen.digest"] for n, t in tags.items()}
    assert {promoted.version, rejected.version} == {*tags}
    names = {*json.loads(tags["1"]["evergreen.files"])}
    assert names == {
        "model.ubj", ENCODING_FILE, PROBE_FILE, "spec.yaml", "reference/profile.json", "reference/reference.parquet",
    }  # fmt: skip
    assert tags["1"][DIGEST_TAG] == json.loads(tags["1"]["evergreen.files"])["model.ubj"]
