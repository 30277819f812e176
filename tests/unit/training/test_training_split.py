"""The split: what is learnt from, what is judged on, and which rows stop a training."""

from __future__ import annotations

from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from evergreen.errors import Reason, TerminalError
from evergreen.training.split import read, split
from evergreen.warehouse.snapshot import Snapshot


def written(tmp_path, table, count=None):
    path = tmp_path / "snapshot.parquet"
    pq.write_table(table, path)
    return Snapshot(str(path), "f" * 64, table.num_rows if count is None else count, "", "")


def test_holdout_is_the_newest_part_and_the_training_part_ends_a_label_delay_before(rides, rows, change):
    model = change(rides, label={"delay": "6h"})
    parts = split(model, rows(40 * 24))
    assert parts.holdout.num_rows == 5 * 24
    first, last = parts.holdout["_time"][0].as_py(), parts.training["_time"][-1].as_py()
    # At the first moment of the holdout, the labels of the five hours before were not known yet.
    assert first - last == timedelta(hours=6)
    assert parts.purged == 5
    assert parts.training.num_rows + parts.purged + parts.holdout.num_rows == 40 * 24


def test_slow_labels_do_not_empty_the_holdout(rides, rows, change):
    parts = split(change(rides, label={"delay": "14d"}, training={"holdout": "2d"}), rows(60 * 24))
    assert parts.holdout.num_rows == 48
    assert parts.purged == 14 * 24 - 1


def test_constant_and_empty_features_are_noted_and_stop_nobody(rides, rows):
    count = 20 * 24
    parts = split(rides, rows(count, x=[3.0] * count, kind=["dry"] * count))
    assert parts.constant == ("x", "kind")


@pytest.mark.parametrize(
    ("days", "changes", "part"),
    [
        pytest.param(12, {}, "training part", id="short-history"),
        pytest.param(30, {"min_holdout_rows": 500}, "holdout", id="small-holdout"),
        pytest.param(1 / 8, {}, "training part", id="three-rows"),
    ],
)
def test_too_few_rows(rides, rows, change, days, changes, part):
    with pytest.raises(TerminalError, match=f"{part} has \\d+ rows") as caught:
        split(change(rides, training=changes), rows(int(days * 24)))
    assert caught.value.reason is Reason.TOO_FEW_ROWS


@pytest.mark.parametrize("where", ["training part", "holdout"])
def test_one_class(wetness, rows, where):
    count = 30 * 24
    y = [float(i % 2) for i in range(count)]
    if where == "holdout":
        y[-5 * 24 :] = [1.0] * (5 * 24)
    else:
        y[: -5 * 24] = [0.0] * (count - 5 * 24)
    with pytest.raises(TerminalError, match=where) as caught:
        split(wetness, rows(count, _label=y))
    assert caught.value.reason is Reason.ONE_CLASS


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
def test_bad_label_is_named_with_its_key(request, rows, change, tmp_path, name, value, label):
    model = change(request.getfixturevalue(name), label=label)
    y = [float(i % 2) for i in range(100)]
    y[40] = value
    table = rows(100, _label=y)
    with pytest.raises(TerminalError, match="1 of 100 labels") as caught:
        read(model, written(tmp_path, table))
    assert caught.value.reason is Reason.BAD_LABEL
    assert table["_key"][40].as_py() in str(caught.value)


@pytest.mark.parametrize("other", [pytest.param(5, id="neighbour"), pytest.param(9, id="far-apart")])
def test_a_key_that_comes_twice_is_refused(rides, rows, tmp_path, other):
    table = rows(10)
    keys = table["_key"].to_pylist()
    keys[other] = keys[4]
    with pytest.raises(TerminalError, match="more than once") as caught:
        read(rides, written(tmp_path, table.set_column(0, "_key", [keys])))
    assert caught.value.reason is Reason.BAD_QUERY
    assert keys[4] in str(caught.value)


def test_a_snapshot_that_is_gone_or_cut_is_refused(rides, rows, tmp_path):
    with pytest.raises(TerminalError, match="is gone"):
        read(rides, Snapshot(str(tmp_path / "none.parquet"), "f", 1, "", ""))
    with pytest.raises(TerminalError, match="10 rows, 11 were written"):
        read(rides, written(tmp_path, rows(10), 11))
