"""Rows whose label never comes: no fit sees them, and a champion's reference holds them as windows do."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows import measure, reads
from evergreen.monitoring.windows.judge import measured
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.reference.calendar import window_of
from evergreen.reference.reference import LABELLED_FILE, PROFILE_FILE, Reference
from evergreen.registry.models import DIGEST_TAG
from evergreen.training.data.split import read, unlabelled
from evergreen.warehouse.features import snapshot

DAYS = timedelta(days=1)
EVERY = 8


def cancelled(row):
    """Every eighth row is one without a label, and without a value of x."""
    if row["ts"].hour % EVERY == 0:
        row["demand"] = row["x"] = None


@pytest.fixture
def landed(world, mlflow_url, start):
    found = world.with_model(monitoring={"window": "7d", "min_rows": 50})
    found.land(start, 70, edit=cancelled)
    return found


def reference_of(outcome):
    return Reference.read(registry.local_copy("rides", outcome.mlflow_run, "reference"))


def test_the_reference_is_of_all_rows_and_the_error_of_those_with_a_label(landed, start):
    outcome = landed.train(start + 50 * DAYS, "train/1")
    made = reference_of(outcome)
    assert outcome.rows["all"] == made.labelled_rows == made.labelled.num_rows == 50 * 24 * 7 // 8
    assert made.rows == made.sample.num_rows == 50 * 24 - 1, (
        "the first row has no label and is before all that have"
    )
    assert (made.usual_rows, made.usual_labels) == (168, 147)
    assert made.rhythm.largest == 168
    assert made.columns["x"].missing == pytest.approx(1 / EVERY, abs=0.001)
    assert made.columns["_label"].missing == 0
    assert made.labelled["_label"].null_count == 0
    assert pc.is_valid(made.sample["_label"]).to_pylist().count(False) == 50 * 3 - 1
    assert made.sample["_prediction"].null_count == 0
    assert np.isfinite(made.sample["_prediction"].to_numpy()).all()
    assert made.movement.blocks > 1


def test_a_column_that_is_missing_where_labels_are_is_no_drift_in_windows_like_that(landed, start):
    outcome = landed.train(start + 50 * DAYS, "train/1")
    made = reference_of(outcome)
    window, as_of = window_of(start + 57 * DAYS, landed.model.monitoring.window), start + 69 * DAYS
    facts = reads.feed(landed.specs, landed.model, as_of, window.start, window.start).facts[window.start]
    rows = measure.frame(reads.sample(landed.specs, landed.model, as_of, window, facts))
    served = rows.assign(_prediction=rows["_label"].fillna(50.0) + 0.1, _version="1")
    found = Judgement(
        "rides", "1", window.start, window.end, 1, as_of, Status.OK, facts.rows, 0, facts.labelled
    )
    found, columns, worse = measured(landed.model, made, found, facts, served)
    assert facts.rows == len(rows) == 168
    assert [c for c in columns if c.violated and c.kind is not What.PREDICTION_DRIFT] == []
    (missing,) = (c for c in columns if c.column == "x" and c.kind is What.MISSING)
    assert abs(missing.value) < 0.001
    assert worse == ()


def test_no_fit_sees_them(world, mlflow_url, start):
    """The same model comes of the same rows with a label, whatever lies between them without one."""
    as_of = start + 40 * DAYS

    def fitted(run_id):
        outcome = world.train(as_of, run_id)
        tags = MlflowClient().get_run(outcome.mlflow_run).data.tags
        return outcome.fingerprint, outcome.metrics, outcome.holdout, outcome.rows, tags["evergreen.fingerprint"], MlflowClient().get_model_version("rides", outcome.version).tags[DIGEST_TAG]  # fmt: skip

    world.land(start, 40)
    alone = fitted("train/1")
    world.land(
        start + timedelta(minutes=30), 40, seed=9, edit=lambda row: row.update(demand=None, kind="new", x=1e6)
    )
    assert world.snapshot(as_of).unlabelled == 40 * 24 - 1
    assert fitted("train/2") == alone


def test_a_row_is_without_a_label_until_its_label_has_arrived(world, start):
    world.land(start, 20)
    late = [start + timedelta(days=5, hours=hour) for hour in range(4)]
    as_of = start + 15 * DAYS
    before = world.snapshot(as_of)
    for ts in late:
        world.correct(ts, ts + timedelta(hours=1), demand=None)
        world.correct(ts, start + 16 * DAYS, demand=50.0)
    taken = world.snapshot(as_of)
    assert (before.unlabelled, before.beside.exists()) == (0, False)
    assert (taken.rows, taken.unlabelled) == (before.rows - 4, 4)
    assert pq.read_table(taken.beside)["_time"].to_pylist() == late
    assert world.snapshot(as_of) == taken, "the same as of that time, whenever it is taken"
    assert world.snapshot(start + 17 * DAYS).unlabelled == 0


def test_what_is_not_mature_or_outside_the_labelled_time_is_no_part(world, start):
    hours = timedelta(hours=1)
    world = world.with_model(label={"column": "demand", "delay": "2d"})
    without = {start, start + 7 * DAYS, start + 10 * DAYS - 2 * hours, start + 10 * DAYS - hours}

    def edit(row):
        if row["ts"] in without or row["ts"] >= start + 10 * DAYS:
            row["demand"] = None

    world.land(start, 14, edit=edit)
    taken = world.snapshot(start + 12 * DAYS)
    rows = read(world.model, taken)
    assert taken.unlabelled == 5
    assert [int(t) for t in unlabelled(world.model, taken, rows).times] == [
        int((start + 7 * DAYS).timestamp()) * 10**6
    ]
    taken.beside.unlink()
    with pytest.raises(TerminalError, match="is gone") as error:
        unlabelled(world.model, taken, rows)
    assert error.value.reason is ErrorReason.NO_ROWS
    taken.remove()
    assert list((world.folder / "rides").iterdir()) == []


def test_a_snapshot_of_a_run_that_began_before_an_upgrade_is_read():
    old = {"path": "a.parquet", "fingerprint": "f", "rows": 1, "start": "s", "end": "e"}
    assert snapshot.Snapshot(**old).unlabelled == 0


def test_references_of_an_earlier_release_are_read(landed, start, tmp_path):
    made = reference_of(landed.train(start + 50 * DAYS, "train/1"))
    made.write(tmp_path)
    assert Reference.read(tmp_path) == made
    again = made.for_window(landed.with_model(monitoring={"window": "1d", "min_rows": 10}).model)
    assert (again.usual_rows, again.usual_labels, again.labelled_rows) == (24, 21, made.labelled_rows)
    assert again.columns["x"].missing == made.columns["x"].missing
    told = json.loads((tmp_path / PROFILE_FILE).read_text())
    for name in ("labelled_rows", "usual_labels", "labelled_sample_rows"):
        del told[name]
    (tmp_path / PROFILE_FILE).write_text(json.dumps(told))
    old = Reference.read(tmp_path)
    assert old.labelled is old.sample
    assert (old.labelled_rows, old.usual_labels) == (old.rows, old.usual_rows)
    made.write(tmp_path)
    (tmp_path / LABELLED_FILE).unlink()
    with pytest.raises(TerminalError, match="not usable"):
        Reference.read(tmp_path)
