"""A training, whole: leaks, determinism, retries, what MLflow keeps, and what fails closed."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import reasons
from evergreen.ledger.reasons import GateReason
from evergreen.reference.reference import Reference
from evergreen.registry.models import DIGEST_TAG
from evergreen.training import train
from evergreen.training.gate.evaluate import judged_rows
from evergreen.training.record import tracking
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.training.record.provenance import git_commit
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def versions(name="rides"):
    return sorted(int(v.version) for v in MlflowClient().search_model_versions(f"name = '{name}'"))


def runs(name="rides"):
    client = MlflowClient()
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def test_what_a_training_leaves_in_mlflow(landed, start, tmp_path):
    as_of = start + timedelta(days=40)
    outcome = landed.train(as_of, "dag/it's a run", trigger="schedule", requests=(3,))
    assert outcome.passed
    assert outcome.verdict.reason is GateReason.FIRST_CHAMPION
    assert outcome.refitted
    assert outcome.metrics["challenger"]["rmse"] < outcome.metrics["baseline"]["rmse"]
    assert (
        outcome.rows["training"] + outcome.rows["purged"] + outcome.rows["holdout"]
        == outcome.rows["all"]
        == 960
    )
    assert outcome.trained_until == start + timedelta(days=40) - timedelta(hours=1) + timedelta(
        microseconds=1
    )
    assert TrainingOutcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    assert len(json.dumps(outcome.to_dict())) < 10_000

    client = MlflowClient()
    run = client.get_run(outcome.mlflow_run)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["challenger_rmse"] == outcome.metrics["challenger"]["rmse"]
    assert run.data.metrics["baseline_mae"] == outcome.metrics["baseline"]["mae"]
    assert run.data.metrics["holdout_rmse"] == outcome.holdout["rmse"]
    assert run.data.tags["evergreen.fingerprint"] == outcome.fingerprint
    assert run.data.params["xgb.max_depth"] == "3"
    assert (run.data.params["engine"], run.data.params["device"], outcome.note) == ("local", "cpu", "")
    assert [p.suffix for p in (landed.folder / "rides").iterdir()] == [".parquet"]  # working files are gone
    assert "lib.xgboost-cpu" in run.data.params or "lib.xgboost" in run.data.params
    assert run.data.tags["evergreen.run_id"] == "dag/it's a run"
    assert run.data.tags["evergreen.git_commit"] == (git_commit() or "none")
    assert run.data.params["gate_reason"] == "first_champion"
    files = {f.path for f in client.list_artifacts(outcome.mlflow_run)}
    assert files >= {
        "gate.json",
        "evidence.json",
        "features.json",
        "importance.json",
        "spec.yaml",
        "reference",
        "outcome.json",
    }

    version = client.get_model_version("rides", outcome.version)
    assert version.tags["verdict"] == "passed: first champion"
    assert version.tags["evergreen.git_commit"] == run.data.tags["evergreen.git_commit"]
    assert registry.aliases("rides") == {"challenger": outcome.version}
    loaded = registry.load(landed.model, outcome.version)
    assert loaded.categories == {"kind": ("dry", "wet")}
    assert sorted(p.name for p in loaded.folder.iterdir() if p.suffix in (".pkl", ".pickle")) == []
    assert (loaded.folder / "model.ubj").stat().st_size > 0
    signature = yaml.safe_load((loaded.folder / "MLmodel").read_text())["signature"]
    assert [(c["name"], c["type"], c["required"]) for c in json.loads(signature["inputs"])] == [
        ("hour", "double", False),
        ("x", "double", False),
        ("kind", "double", False),
    ]
    assert [c["type"] for c in json.loads(signature["outputs"])] == ["double"]
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    booster = "xgboost-cpu" if "xgboost-cpu" in installed else "xgboost"
    wanted = ["mlflow", booster, "numpy", "pandas", "scikit-learn"]
    requirements = (loaded.folder / "requirements.txt").read_text().splitlines()
    assert sorted(requirements) == sorted(f"{name}=={metadata.version(name)}" for name in wanted)


def test_a_person_sees_the_interval_of_the_improvement_without_the_ledger(landed, start, tmp_path):
    landed.promote(start + timedelta(days=30), "dag/first")
    outcome = landed.train(start + timedelta(days=40), "dag/second")
    client = MlflowClient()
    kept = json.loads(
        Path(client.download_artifacts(outcome.mlflow_run, "evidence.json", str(tmp_path))).read_text()
    )
    over = kept["over_champion"]
    assert over["low"] < over["point"] < over["high"]
    measured = client.get_run(outcome.mlflow_run).data.metrics
    assert [measured[f"improvement{name}"] for name in ("", "_low", "_high")] == [
        over[name] for name in ("point", "low", "high")
    ]
    check = next(c for c in outcome.verdict.checks if c.check == "beats_champion")
    assert check.value == over["low"]


def test_the_gates_range_is_that_of_the_training_part_and_not_of_the_holdout(world, mlflow_url, start):
    world.land(start, 34)
    world.land(start + timedelta(days=34), 6, seed=2, edit=lambda row: row.update(demand=row["demand"] / 9))
    outcome = world.train(start + timedelta(days=40), "dag/run")
    kept = json.loads(registry.artifact_folder(outcome.mlflow_run, "evidence.json").read_text())
    (low, high), held = kept["learnt_labels"], kept["labels"]
    assert high > 3 * held[1]
    check = next(c for c in outcome.verdict.checks if c.check == "largest_prediction")
    assert check.limit == pytest.approx(2 * high - low)


def test_a_snapshot_whose_file_holds_other_values_promotes_nobody(landed, start):
    """As many rows under the same name: a file that was restored, or damaged."""
    as_of = start + timedelta(days=40)
    taken = landed.snapshot(as_of)
    rows = pq.read_table(taken.path)
    at = rows.column_names.index("x")
    pq.write_table(rows.set_column(at, rows.field("x"), pc.multiply(rows["x"], 1.5)), taken.path)
    outcome = train.train(landed.specs, landed.model, taken, as_of, "dag/run", trigger="manual")
    assert (outcome.passed, outcome.verdict.reason) == (False, GateReason.SNAPSHOT_MISMATCH)
    assert landed.settle(outcome).reason == "snapshot_mismatch"


def test_a_correction_that_arrives_after_as_of_changes_nothing(landed, start):
    as_of = start + timedelta(days=40)
    before = landed.train(as_of, "dag/before")
    for hour in range(200):
        landed.correct(start + timedelta(hours=500 + hour), as_of + timedelta(hours=1), demand=9999.0, x=50.0)
    after = landed.train(as_of, "dag/after")
    assert after.fingerprint == before.fingerprint
    assert after.metrics == before.metrics
    later = landed.train(as_of + timedelta(hours=2), "dag/later")
    assert later.fingerprint != before.fingerprint


def test_a_label_that_arrives_late_is_not_learnt_before_it_arrived(landed, start):
    as_of, late = start + timedelta(days=40), start + timedelta(days=39)
    landed.correct(late, start + timedelta(days=39, hours=1), demand=None)
    landed.correct(late, as_of + timedelta(hours=3), demand=1.0)
    assert landed.snapshot(as_of).rows == 40 * 24 - 1
    assert landed.snapshot(as_of + timedelta(hours=4)).rows == 40 * 24 + 4


def test_the_same_snapshot_gives_the_same_model(landed, start):
    first, second = (landed.train(start + timedelta(days=40), f"dag/{n}") for n in ("one", "two"))
    assert first.metrics == second.metrics
    digests = {MlflowClient().get_model_version("rides", o.version).tags[DIGEST_TAG] for o in (first, second)}
    assert len(digests) == 1


def test_a_retry_of_a_finished_training_changes_nothing(landed, start):
    as_of = start + timedelta(days=40)
    assert landed.train(as_of, "dag/run") == landed.train(as_of, "dag/run")
    assert versions() == [1]
    assert len(runs()) == 1


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the training handles it."""


@pytest.mark.parametrize(
    "after",
    ["begin", "learnt_from", "parameters", "model_files", "measured", "describe", "register", "finish"],
)
def test_a_retry_after_a_crash_leaves_one_version(landed, start, monkeypatch, after):
    as_of = start + timedelta(days=40)
    whole = getattr(tracking, after)

    def dies(*args, **more):
        whole(*args, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tracking, after, dies)
        with pytest.raises(Killed):
            landed.train(as_of, "dag/run")
    outcome = landed.train(as_of, "dag/run")
    assert len(versions()) == 1
    assert [r.info.run_id for r in runs()] == [outcome.mlflow_run]
    assert landed.settle(outcome).version == str(versions()[0])


def test_two_tries_of_one_run_do_not_overlap(landed, start):
    as_of = start + timedelta(days=40)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('evergreen.train.rides.dag/run', 0))")
        with pytest.raises(TransientError, match="still at work") as caught:
            landed.train(as_of, "dag/run")
    assert caught.value.reason is ErrorReason.BUSY
    assert landed.train(as_of, "dag/run").version == "1"


def while_fitting(monkeypatch, act):
    """Do something in the middle of a training, where the hours go."""
    evaluate = train.evaluate

    def between(*args, **more):
        judged = evaluate(*args, **more)
        act()
        return judged

    monkeypatch.setattr(train, "evaluate", between)


def test_no_transaction_is_open_while_a_training_fits(landed, start, monkeypatch):
    seen = []

    def look():
        with connect() as conn:
            seen.extend(
                fetch(
                    conn,
                    "SELECT state, xact_start FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND application_name = 'evergreen'",
                )
            )

    while_fitting(monkeypatch, look)
    landed.train(start + timedelta(days=40), "dag/run")
    assert seen == [{"state": "idle", "xact_start": None}]


def test_another_try_is_kept_out_while_the_first_fits_and_let_in_after(landed, start, monkeypatch):
    as_of, refused = start + timedelta(days=40), []

    def try_again():
        with pytest.raises(TransientError, match="still at work") as caught:
            landed.train(as_of, "dag/run")
        refused.append(caught.value.reason)

    while_fitting(monkeypatch, try_again)
    first = landed.train(as_of, "dag/run")
    assert refused == [ErrorReason.BUSY]
    assert landed.train(as_of, "dag/run") == first


def test_a_training_that_lost_its_lock_registers_nothing(landed, start, monkeypatch):
    as_of = start + timedelta(days=40)

    def cut():
        with connect() as conn:
            cut_off = fetch(
                conn,
                "SELECT pg_terminate_backend(pid, 5000) AS done FROM pg_locks WHERE locktype = 'advisory'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
        assert cut_off == [{"done": True}]

    with monkeypatch.context() as patch:
        while_fitting(patch, cut)
        with pytest.raises(TransientError) as caught:
            landed.train(as_of, "dag/run")
    assert caught.value.reason is ErrorReason.UNREACHABLE
    assert versions() == []
    assert landed.train(as_of, "dag/run").version == "1"


def test_a_dry_run_registers_and_decides_nothing(landed, start):
    outcome = landed.train(start + timedelta(days=40), "dag/dry", dry_run=True, commit="of the specs")
    assert outcome.version is None
    assert versions() == []
    tags = runs()[0].data.tags
    assert tags["dry_run"] == "true"
    assert tags["evergreen.git_commit"] == "of the specs"
    assert tags["evergreen.code_commit"] == (git_commit() or "none")
    with pytest.raises(ValueError, match="dry run"):
        landed.settle(outcome)


def test_a_backfill_is_never_promoted_over_a_newer_champion(landed, start):
    landed.promote(start + timedelta(days=40), "dag/now")
    outcome = landed.train(start + timedelta(days=30), "dag/backfill")
    assert not outcome.passed
    assert any(c.check == "not_older" and not c.passed for c in outcome.verdict.checks)


def test_only_rows_that_the_champion_has_not_learnt_are_judged(landed, start):
    landed.promote(start + timedelta(days=40), "dag/first")
    soon = landed.train(start + timedelta(days=40, hours=12), "dag/soon")
    assert soon.rows["judged"] == soon.rows["holdout"] == 120  # 12 new rows are too few, so all of them
    assert soon.rows["champion_learnt"] == 108
    assert soon.verdict.reason is GateReason.NOT_ENOUGH_FRESH_ROWS
    assert (
        "on 120 holdout rows, 108 of which the champion had learnt"
        in landed.settle(soon).evidence.to_json()["message"]
    )
    later = landed.train(start + timedelta(days=42), "dag/later")
    assert 24 <= later.rows["judged"] < later.rows["holdout"]
    assert later.rows["champion_learnt"] == 0
    assert later.verdict.reason is not GateReason.NOT_ENOUGH_FRESH_ROWS


def test_new_rows_of_one_class_are_judged_with_those_that_the_champion_learnt(wetness):
    labels = np.array([0.0, 1.0] * 60 + [0.0] * 60)
    fresh = np.arange(180) >= 120
    assert judged_rows(wetness, labels, fresh).all()
    labels[-1] = 1.0
    assert (judged_rows(wetness, labels, fresh) == fresh).all()


def test_a_binary_model_all_the_way(world, mlflow_url, wetness, start):
    world.land(start, 45)
    other = world.with_model(wetness)
    decision = other.settle(other.train(start + timedelta(days=40), "dag/run"))
    assert decision.kind is reasons.DecisionKind.PROMOTED
    assert set(decision.evidence.to_json()["metrics"]["challenger"]) == {
        "roc_auc",
        "pr_auc",
        "log_loss",
        "brier",
        "accuracy",
        "f1",
    }
    assert decision.evidence.to_json()["metrics"]["baseline"]["roc_auc"] == 0.5


def test_a_gpu_that_cannot_be_used_is_told_and_the_model_is_the_same(landed, start, monkeypatch):
    as_of = start + timedelta(days=40)
    plain = landed.train(as_of, "dag/cpu")
    monkeypatch.setattr(
        "evergreen.training.fitting.machine.why_no_cuda", lambda: "no GPU is visible to XGBoost"
    )
    asked = landed.with_model(training={"device": "cuda"}).train(as_of, "dag/cuda")
    assert asked.metrics == plain.metrics
    assert asked.note == "device: cuda asked for, none usable: no GPU is visible to XGBoost"
    client = MlflowClient()
    params = client.get_run(asked.mlflow_run).data.params
    assert (params["device"], params["xgb.device"]) == ("cpu", "cpu")
    notes = Path(client.download_artifacts(asked.mlflow_run, "notes.json")).read_text()
    assert json.loads(notes)["device"] == asked.note


def test_a_window_of_many_batches_and_files_trains_the_same_all_the_way(landed, start, monkeypatch):
    as_of = start + timedelta(days=40)
    once = landed.train(as_of, "dag/once")
    monkeypatch.setattr("evergreen.training.data.rows.BATCH_ROWS", 100)
    monkeypatch.setattr("evergreen.training.data.matrix.BATCH_BYTES", 4096)
    monkeypatch.setenv("EVERGREEN_TRAINING_MEMORY_MB", "0")
    parts = landed.train(as_of, "dag/parts")
    assert parts.rows == once.rows
    assert parts.metrics["baseline"] == once.metrics["baseline"]
    # The bins are cut from a sketch of each batch of 170 rows.
    assert parts.metrics["challenger"]["rmse"] == pytest.approx(once.metrics["challenger"]["rmse"], rel=0.05)
    one, other = (Reference.read(registry.artifact_folder(o.mlflow_run, "reference")) for o in (once, parts))
    assert one.sample.drop_columns(["_prediction"]).equals(other.sample.drop_columns(["_prediction"]))
    assert one.columns["kind"] == other.columns["kind"]


def test_a_failed_training_says_why_in_mlflow_and_registers_nothing(landed, start):
    model = landed.with_model(label={"max": 10})
    with pytest.raises(TerminalError) as caught:
        model.train(start + timedelta(days=40), "dag/run")
    assert caught.value.reason is ErrorReason.BAD_LABEL
    assert versions() == []
    assert runs()[0].info.status == "FAILED"
    assert "labels are not" in runs()[0].data.tags["evergreen.error"]


def test_a_server_that_is_down_is_transient_and_nothing_is_decided(landed, start, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError) as caught:
        landed.train(start + timedelta(days=40), "dag/run")
    assert "secret" not in str(caught.value)
    with connect() as conn:
        assert ledger.find(conn) == []
