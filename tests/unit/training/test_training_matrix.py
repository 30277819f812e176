"""Encoded rows in batches of bounded size: a fit from batches, or from files, is the fit of all rows at once."""

from __future__ import annotations

import fcntl
import os
import time

import numpy as np
import pytest
import xgboost as xgb

from evergreen.registry.encoding import Encoding, encode, survey
from evergreen.registry.models import predict
from evergreen.training.data import matrix, scratch
from evergreen.training.data import rows as row_files
from evergreen.training.fitting import local
from evergreen.training.fitting.fit import fit, parameters
from evergreen.training.fitting.local import Labelled

ROWS = 4000


@pytest.fixture
def model(rides, change):
    """A regression that all of its rounds improve."""
    return change(rides, training={"max_rounds": 20, "params": {"max_depth": 4, "learning_rate": 0.3}})


@pytest.fixture
def learnable(in_file):
    """Rows with missing values and a category, in a file, as an array, and with their encoding."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(ROWS, 3)).astype(np.float32)
    values[:, 2] = rng.integers(0, 3, ROWS)
    y = 3 * values[:, 0] + np.sin(3 * values[:, 1]) + (values[:, 2] == 1) + rng.normal(size=ROWS) * 0.1
    values[::17, 0] = np.nan
    return Labelled(in_file(values), y), values, Encoding(("hour", "x"), {"kind": ("dry", "snow", "wet")})


@pytest.fixture
def in_batches(monkeypatch):
    """Batches of 300 rows of three columns."""
    return lambda: monkeypatch.setattr(matrix, "BATCH_BYTES", 300 * 3 * 4 * 2)


def test_what_is_written_is_what_encoding_all_rows_at_once_gives(rides, rows, stored, tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "BATCH_ROWS", 64)
    table = rows(500, x=[np.inf if i % 50 == 0 else float(i) for i in range(500)])
    read, encoding = stored(table), Encoding(("hour", "x"), {"kind": ("dry",)})
    found, (first, second) = matrix.write(encoding, (read.part(0, 333), read.part(333)), tmp_path / "m")
    whole = encode(encoding, table)
    np.testing.assert_array_equal(np.concatenate(list(found.batches())), whole.matrix)
    assert first.infinite["x"] + second.infinite["x"] == whole.infinite["x"] == 10
    assert first.unseen == {"kind": 166}
    assert second.unseen == {"kind": 84}
    assert not found.dense
    assert matrix.write(survey(rides, rows(9).to_batches()).encoding, [stored(rows(9))], tmp_path / "n")[
        0
    ].dense


def test_batches_are_bounded_and_hold_every_row(learnable, in_batches):
    data, values, _ = learnable
    assert data.matrix.counts() == [ROWS]
    in_batches()
    assert max(data.matrix.counts()) == 300
    np.testing.assert_array_equal(np.concatenate(list(data.matrix.batches())), values)
    np.testing.assert_array_equal(
        np.concatenate(list(data.part(123, 1234).matrix.batches())), values[123:1234]
    )
    assert [len(y) for _, y in data.part(3900).batches()] == [100]


def test_one_batch_gives_the_model_that_one_array_gives(model, learnable):
    data, values, encoding = learnable
    params = parameters(model)
    whole = xgb.QuantileDMatrix(
        values, data.y, feature_names=encoding.features, feature_types=encoding.types, enable_categorical=True,
        max_bin=256, nthread=params["nthread"],
    )  # fmt: skip
    assert (
        local.boost(params, encoding, data, 10).booster.save_raw() == xgb.train(params, whole, 10).save_raw()
    )


@pytest.mark.parametrize("where", ["memory", "files"])
def test_batches_give_about_the_model_that_one_array_gives(model, learnable, in_batches, monkeypatch, where):
    data, values, encoding = learnable
    times = np.arange(ROWS)
    once = fit(model, encoding, data, times)
    in_batches()
    made = []
    if where == "files":
        monkeypatch.setenv("EVERGREEN_TRAINING_MEMORY_MB", "0")
        whole = xgb.ExtMemQuantileDMatrix
        monkeypatch.setattr(xgb, "ExtMemQuantileDMatrix", lambda *a, **b: made.append(1) or whole(*a, **b))
    batched = fit(model, encoding, data, times)
    assert len(made) == (3 if where == "files" else 0)  # the older and the newer rows, then all
    expected, found = predict(once.booster, values), data.matrix.predict(batched.booster)
    # The bins are cut from a sketch of each batch: a few values fall on the other side of a cut.
    assert np.sqrt(np.mean((expected - found) ** 2)) < 0.03 * np.std(data.y)
    error, error_once = (np.sqrt(np.mean((p - data.y) ** 2)) for p in (found, expected))
    assert error == pytest.approx(error_once, rel=0.03)
    assert [f.name for f in data.matrix.path.parent.glob("*pages*")] == []


def test_a_fit_takes_more_threads_for_more_values_and_they_make_the_same_trees(
    model, learnable, monkeypatch, tmp_path
):
    def taken(rows, columns, most=64):
        return local.threads(matrix.Matrix(tmp_path / "none", 0, rows, columns, dense=True), most)

    assert [taken(rows, 17) for rows in (10_000, 99_999, 100_000, 500_000)] == [1, 1, 2, 10]
    assert taken(90_000, 300) == 31, "wide rows are work too"
    assert taken(90_000, 300, most=2) == 2
    assert taken(0, 17) == 1
    data, _, encoding = learnable
    params = {**parameters(model), "nthread": 3}
    one = local.boost(params, encoding, data, 10).booster.save_raw()
    monkeypatch.setattr(local, "VALUES_A_THREAD", ROWS)
    asked = []
    whole = xgb.train
    monkeypatch.setattr(xgb, "train", lambda p, *a, **b: asked.append(p["nthread"]) or whole(p, *a, **b))
    assert local.boost(params, encoding, data, 10).booster.save_raw() == one
    assert asked == [3]


def test_rows_that_cannot_be_read_are_no_fault_of_the_parameters(model, learnable):
    data, _, encoding = learnable
    data.matrix.path.unlink()
    with pytest.raises(FileNotFoundError):
        fit(model, encoding, data, np.arange(ROWS))


def test_the_size_that_is_told_is_what_xgboost_writes(model, learnable, monkeypatch):
    data, _, encoding = learnable
    monkeypatch.setenv("EVERGREEN_TRAINING_MEMORY_MB", "0")
    params = {**parameters(model), "max_bin": 256}
    kept = local._quantised(params, encoding, data, "learnt")
    size = sum(f.stat().st_size for f in data.matrix.path.parent.glob("learnt-pages*"))
    assert kept.num_row() == ROWS
    assert 0.8 < size / data.matrix.quantised_bytes < 1.2


def test_working_files_are_gone_after_a_failure(tmp_path):
    with pytest.raises(ValueError), scratch.folder(tmp_path / "model") as work:
        (work / "pages").write_text("x")
        raise ValueError
    assert list((tmp_path / "model").iterdir()) == []


def test_what_a_killed_training_left_is_removed_and_a_running_one_is_left_alone(tmp_path):
    killed, new, old = (tmp_path / f"{scratch.PREFIX}{n}" for n in ("killed", "new", "old"))
    for place in (killed, new, old):
        place.mkdir()
    (killed / "lock").touch()
    (killed / "pages").write_text("x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    with scratch.folder(tmp_path) as first:
        assert sorted(tmp_path.iterdir()) == sorted([first, new])
        with scratch.folder(tmp_path) as second:
            assert first.is_dir()
            with (second / "lock").open() as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
