"""The split: what is learnt from, what is judged on, and which rows stop a training."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.microseconds import in_micros, moment
from evergreen.training.data.split import read, split
from evergreen.warehouse.features.snapshot import Snapshot


@pytest.fixture
def written(stored):
    """A snapshot of some rows, which may say that it has another number of them."""

    def write(table, count=None):
        path = stored(table).path
        return Snapshot(str(path), "f" * 64, table.num_rows if count is None else count, "", "")

    return write


def test_holdout_is_the_newest_part_and_the_training_part_ends_a_label_delay_before(
    rides, rows, stored, change
):
    model = change(rides, label={"delay": "6h"})
    parts = split(model, stored(rows(40 * 24)))
    assert len(parts.holdout) == 5 * 24
    # At the first moment of the holdout, the labels of the five hours before were not known yet.
    assert parts.holdout.times[0] - parts.training.times[-1] == in_micros(timedelta(hours=6))
    assert parts.purged == 5
    assert len(parts.training) + parts.purged + len(parts.holdout) == 40 * 24
    assert parts.boundary == moment(int(parts.holdout.times[0]))


def test_slow_labels_do_not_empty_the_holdout(rides, rows, stored, change):
    parts = split(change(rides, label={"delay": "14d"}, training={"holdout": "2d"}), stored(rows(60 * 24)))
    assert len(parts.holdout) == 48
    assert parts.purged == 14 * 24 - 1


@pytest.mark.parametrize(
    ("days", "changes", "part"),
    [
        pytest.param(12, {}, "training part", id="short-history"),
        pytest.param(30, {"min_holdout_rows": 500}, "holdout", id="small-holdout"),
        pytest.param(1 / 8, {}, "training part", id="three-rows"),
    ],
)
def test_too_few_rows(rides, rows, stored, change, days, changes, part):
    with pytest.raises(TerminalError, match=f"{part} has \\d+ rows") as caught:
        split(change(rides, training=changes), stored(rows(int(days * 24))))
    assert caught.value.reason is ErrorReason.TOO_FEW_ROWS


@pytest.mark.parametrize("where", ["training part", "holdout"])
def test_one_class(wetness, rows, stored, where):
    count = 30 * 24
    y = [float(i % 2) for i in range(count)]
    if where == "holdout":
        y[-5 * 24 :] = [1.0] * (5 * 24)
    else:
        y[: -5 * 24] = [0.0] * (count - 5 * 24)
    with pytest.raises(TerminalError, match=where) as caught:
        split(wetness, stored(rows(count, _label=y)))
    assert caught.value.reason is ErrorReason.ONE_CLASS


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        pytest.param("rides", float("nan"), {}, id="nan"),
        pytest.param("rides", float("inf"), {}, id="infinite"),
        pytest.param("rides", -1e300, {}, id="huge"),
        pytest.param("rides", -1.0, {"min": 0}, id="below-min"),
        pytest.param("rides", 99.0, {"max": 50}, id="above-max"),
        pytest.param("wetness", 0.5, {}, id="between-classes"),
    ],
)
def test_bad_label_is_named_with_its_key(request, rows, change, written, name, value, label):
    model = change(request.getfixturevalue(name), label=label)
    y = [float(i % 2) for i in range(100)]
    y[40] = value
    table = rows(100, _label=y)
    with pytest.raises(TerminalError, match="1 of 100 labels") as caught:
        read(model, written(table))
    assert caught.value.reason is ErrorReason.BAD_LABEL
    assert table["_key"][40].as_py() in str(caught.value)


@pytest.mark.parametrize("other", [pytest.param(5, id="neighbour"), pytest.param(9, id="far-apart")])
def test_a_key_that_comes_twice_is_refused(rides, rows, written, other):
    table = rows(10)
    keys = table["_key"].to_pylist()
    keys[other] = keys[4]
    with pytest.raises(TerminalError, match="more than once") as caught:
        read(rides, written(table.set_column(0, "_key", [keys])))
    assert caught.value.reason is ErrorReason.BAD_QUERY
    assert keys[4] in str(caught.value)


def test_two_keys_that_share_a_hash_are_two_rows(rides, rows, written):
    table = rows(10)
    table = table.append_column("_hash", pa.array([7] * 10, pa.int64()))
    assert len(read(rides, written(table))) == 10


def test_a_snapshot_of_an_earlier_version_is_refused(rides, rows, written):
    taken = written(rows(10))
    pq.write_table(pq.read_table(taken.path).drop_columns(["_hash"]), taken.path)
    with pytest.raises(TerminalError, match="lacks _hash") as caught:
        read(rides, taken)
    assert caught.value.reason is ErrorReason.NO_ROWS


def test_a_snapshot_that_is_gone_or_cut_is_refused(rides, rows, written, tmp_path):
    with pytest.raises(TerminalError, match="is gone"):
        read(rides, Snapshot(str(tmp_path / "none.parquet"), "f", 1, "", ""))
    with pytest.raises(TerminalError, match="10 rows, 11 were written"):
        read(rides, written(rows(10), 11))
