"""Following the ledger: the champion of the ledger is fetched, tried and kept; what is away changes nothing that is served."""

from __future__ import annotations

import select
import socket
import time
from datetime import timedelta

import numpy as np
import psycopg2
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from evergreen.errors import TransientError
from evergreen.promotion.rollback import rollback
from evergreen.serving import grants, kept
from evergreen.serving.clients import sha256
from evergreen.serving.follow import Follower
from evergreen.serving.served import Shelf
from evergreen.spec import Problem, Specs
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def promoted(world, made_once, start, monkeypatch, tmp_path):
    """A champion, version 1, and the folder of specs in which its model is."""

    def make():
        world.land(start, 30 - 1 / 24)
        world.promote(start + timedelta(days=30), "dag/first")

    made_once(make)
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: world.specs)
    return world


def follow(follower=None):
    with connect() as conn:
        return (follower or Follower()).bring_up(conn).models.get("rides")


def second(world, start):
    day = start + timedelta(days=30)
    world.land(day, 5, seed=2, slope=9.0)
    return world.promote(day + timedelta(days=5), "dag/second")


def back(world, start):
    return rollback(
        world.specs, world.model, start + timedelta(days=36), "dag/back", to_version="1", reason="a test"
    )


def test_the_champion_is_kept_with_what_a_client_needs_to_know(promoted, start):
    model = follow()
    version = model.versions["1"]
    assert (model.champion, model.former, model.share, model.problem) == ("1", None, 1.0, "")
    assert (model.key, model.event_time) == ({"ts": "timestamp with time zone"}, "ts")
    assert version.features == ("hour", "x", "kind")
    assert version.categorical == {"kind": ("dry", "wet")}
    assert (version.lows["hour"], version.highs["hour"]) == (0.0, 23.0)
    assert set(version.example) == {"hour", "x", "kind"}
    assert version.metrics["rmse"] > 0
    assert Shelf().serve(model).champion.predict(np.array([[8.0, 0.5, 0.0]], np.float32))
    assert kept.read_state().models["rides"] == model


def test_nothing_is_written_where_nothing_has_changed(promoted):
    follower = Follower()
    follow(follower)
    before = kept.state_file().stat().st_mtime_ns
    follow(follower)
    assert kept.state_file().stat().st_mtime_ns == before
    with connect() as conn:
        for change in (lambda: None, lambda: grants.add(conn, "shop", ["*"], 5.0)):
            change()
            assert follower.is_due(conn)
            follower.bring_up(conn)
            assert not follower.is_due(conn)
    assert [client.name for client in kept.read_state().clients] == ["shop"]


def test_a_look_that_did_not_come_to_its_end_is_due_again(promoted, monkeypatch):
    follower = Follower()

    def full(path, content):
        raise OSError(28, "No space left on device")

    with connect() as conn:
        assert follower.is_due(conn)
        with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
            disk.setattr("evergreen.serving.kept.write", full)
            follower.bring_up(conn)
        assert follower.is_due(conn)
        assert follower.bring_up(conn).models["rides"].champion == "1"
        assert not follower.is_due(conn)


def test_another_champion_is_told_in_the_moment_of_its_commit(promoted, start, warehouse_url):
    listening = psycopg2.connect(warehouse_url)
    listening.autocommit = True
    listening.cursor().execute("LISTEN evergreen_serving")
    follower = Follower()
    follow(follower)
    second(promoted, start)
    assert select.select([listening], [], [], 5) != ([], [], [])
    listening.poll()
    assert {n.payload for n in listening.notifies} == {"model/rides"}
    assert follow(follower).champion == "2"
    back(promoted, start)
    assert follow(follower).champion == "1"
    listening.close()


def test_a_rollback_to_a_version_that_was_served_needs_no_mlflow(promoted, start, monkeypatch):
    follower = Follower()
    follow(follower)
    second(promoted, start)
    follow(follower)
    back(promoted, start)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert (follow(follower).champion, follower.mlflow) == ("1", "")


def test_without_mlflow_the_former_champion_goes_on_and_the_new_one_comes_when_it_is_back(
    promoted, start, monkeypatch
):
    follower = Follower()
    follow(follower)
    second(promoted, start)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        model = follow(follower)
        assert (model.champion, "does not answer yet" in model.problem) == ("1", True)
        assert follower.mlflow
        with connect() as conn:
            assert follower.is_due(conn)
    model = follow(follower)
    assert (model.champion, model.problem, follower.mlflow) == ("2", "", "")


def test_an_mlflow_that_hangs_holds_up_neither_clients_nor_what_is_on_the_disk(promoted, start, monkeypatch):
    monkeypatch.setattr("evergreen.serving.follow.WAIT_S", 0.3)
    follower = Follower()
    until(lambda: follow(follower))
    second(promoted, start)
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        began = time.monotonic()
        with monkeypatch.context() as hanging:
            hanging.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
            hanging.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
            model = follow(follower)
        assert (model.champion, follower.mlflow) == ("1", "")
        assert "version 2 of rides is being fetched and has not come yet" in model.problem
        with connect() as conn:
            assert follower.is_due(conn)
            grants.add(conn, "shop", ["*"], 5.0)
            follower.bring_up(conn)
            assert [client.name for client in kept.read_state().clients] == ["shop"]
            grants.revoke(conn, "shop")
            follower.bring_up(conn)
        assert kept.read_state().clients == ()
        monkeypatch.setattr("evergreen.serving.fetch.SLOW_S", 0.0)
        assert (follow(follower).champion, "has not come yet" in follower.mlflow) == ("1", True)
        back(promoted, start)
        model = follow(follower)
        assert (model.champion, model.problem, follower.mlflow) == ("1", "", "")
        assert time.monotonic() - began < 50, "the request to MLflow has ended by itself"


def test_a_version_that_cannot_be_kept_holds_up_no_revoked_client(promoted, start, monkeypatch):
    follower = Follower()
    follow(follower)
    second(promoted, start)

    def damaged(*_):
        raise pa.ArrowInvalid("Parquet magic bytes not found in footer")

    monkeypatch.setattr("evergreen.serving.fetch._keep", damaged)
    with connect() as conn:
        grants.add(conn, "shop", ["*"], 5.0)
        model = follower.bring_up(conn).models["rides"]
        assert [client.name for client in kept.read_state().clients] == ["shop"]
        grants.revoke(conn, "shop")
        follower.bring_up(conn)
    assert kept.read_state().clients == ()
    assert model.champion == "1"
    assert "version 2 of rides cannot be fetched: ArrowInvalid: Parquet magic bytes" in model.problem


def test_what_a_killed_companion_left_in_the_middle_of_a_fetching_is_removed(promoted):
    left = kept.versions_folder() / ".half"
    left.mkdir(parents=True)
    (left / "model.ubj").write_bytes(b"half")
    assert follow().champion == "1"
    assert not left.exists()


def until(question, seconds=30):
    """Ask again until the answer is not empty."""
    late = time.monotonic() + seconds
    while not (found := question()):
        assert time.monotonic() < late, "it does not come"
        time.sleep(0.05)
    return found


def test_a_version_that_comes_after_the_look_answers_after_the_next_one(promoted, start, monkeypatch):
    follower = Follower()
    follow(follower)
    second(promoted, start)
    monkeypatch.setattr("evergreen.serving.follow.WAIT_S", 0.0)
    model = follow(follower)
    assert (model.champion, "has not come yet" in model.problem) == ("1", True)
    until(lambda: follow(follower).champion == "2")
    assert (kept.read_state().models["rides"].problem, follower.mlflow) == ("", "")
    with connect() as conn:
        follower.is_due(conn)
        follower.bring_up(conn)
        assert not follower.is_due(conn)


def test_a_first_champion_that_cannot_be_fetched_is_told_as_not_answered_for(promoted, monkeypatch):
    follower = Follower()
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert follow(follower) is None
    assert "does not answer yet" in kept.read_state().unserved["rides"]
    assert follow(follower).champion == "1"
    assert kept.read_state().unserved == {}


def test_a_version_that_was_changed_after_training_is_never_served(promoted, start):
    follower = Follower()
    follow(follower)
    decision = second(promoted, start)
    client = MlflowClient()
    found = client.get_model_version("rides", decision.version)
    client.set_model_version_tag("rides", decision.version, "evergreen.digest", "0" * 64)
    assert found
    model = follow(follower)
    assert (model.champion, "the tags were changed" in model.problem) == ("1", True)


def test_a_companion_that_starts_anew_goes_on_with_what_is_kept(promoted, monkeypatch):
    before = follow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert follow() == before
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(TransientError):
        follow()
    assert kept.read_state().models["rides"] == before
    assert Shelf().serve(kept.read_state().models["rides"]).champion.version.version == "1"


def test_a_model_that_is_not_served_online_or_has_no_champion_is_left_out(
    promoted, change, monkeypatch, world
):
    off = world.with_model(serving={"online": False}).specs
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: off)
    assert follow() is None
    other = world.with_model(name="others").specs
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: other)
    assert follow() is None


def test_a_spec_that_cannot_be_read_takes_nobodys_predictions_away(promoted, monkeypatch):
    follower = Follower()
    follow(follower)
    broken = Specs({}, {}, (Problem("models/rides.yaml", "task", "", "is missing"),))
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: broken)
    model = follow(follower)
    assert (model.champion, "its spec cannot be used (models/rides.yaml" in model.problem) == ("1", True)
    monkeypatch.setattr("evergreen.serving.follow.SpecsFolder.read", lambda self: Specs())
    assert follow(follower) is None


def test_versions_that_nobody_needs_are_dropped(promoted, start):
    for number in range(8):
        (kept.versions_folder() / f"rides-9{number}-old").mkdir(parents=True)
        (kept.versions_folder() / f"rides-9{number}-old" / "model.ubj").write_text("")
    follow()
    left = sorted(p.name for p in kept.versions_folder().iterdir())
    assert (len(left), left[0].startswith("rides-1-")) == (5, True)


def test_the_client_of_this_machine_keeps_its_key_and_gets_it_again(conn, home):
    grants.ensure_local(conn)
    key = grants.local_key_file().read_text()
    grants.ensure_local(conn)
    with conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.client SET key_sha256 = 'another', revoked_at = now()")
    conn.commit()
    grants.ensure_local(conn)
    (row,) = fetch(conn, "SELECT * FROM evergreen.client")
    assert (row["key_sha256"], row["revoked_at"], grants.local_key_file().read_text()) == (
        sha256(key.encode()),
        None,
        key,
    )
    assert grants.local_key_file().stat().st_mode & 0o077 == 0
