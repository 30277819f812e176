"""Rows out of a snapshot's file: whatever batches they come in, the same rows; never the table at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.training.data import rows as module


@pytest.fixture
def read(rows, stored, monkeypatch):
    monkeypatch.setattr(module, "BATCH_ROWS", 70)
    return stored(rows(1000), row_group_size=150)


@pytest.mark.parametrize(
    ("begin", "end"), [(0, None), (0, 1), (149, 151), (150, 300), (437, 438), (999, None), (200, 200)]
)
def test_a_part_is_those_rows(read, rows, begin, end):
    part, wanted = read.part(begin, end), rows(1000).slice(begin, (1000 if end is None else end) - begin)
    batches = list(part.batches(["_key", "kind"]))
    assert [k for b in batches for k in b.column("_key").to_pylist()] == wanted["_key"].to_pylist()
    assert [k for b in batches for k in b.column("kind").to_pylist()] == wanted["kind"].to_pylist()
    assert max([b.num_rows for b in batches], default=0) <= 70
    assert part.column("x").to_pylist() == wanted["x"].to_pylist()
    np.testing.assert_array_equal(part.labels, wanted["_label"].to_numpy())
    np.testing.assert_array_equal(part.times, wanted["_time"].cast(pa.int64()).to_numpy())


def test_a_part_of_a_part_counts_from_its_own_first_row(read, rows):
    part = read.part(100, 900).part(50, 60)
    assert part.column("x").to_pylist() == rows(1000)["x"].to_pylist()[150:160]


def test_rows_are_taken_by_their_positions(read, rows):
    positions = np.array([0, 3, 69, 70, 149, 150, 700])
    found = read.part(100).take(positions, ["x", "_key"])
    assert found.column_names == ["x", "_key"]
    assert found.equals(rows(1000).select(["x", "_key"]).take(pa.array(positions + 100)).combine_chunks())
    assert read.take(np.array([], dtype=int), ["x"]).num_rows == 0


def test_a_large_file_is_never_read_at_once(read):
    sizes = [b.num_rows for b in read.batches(["x"])]
    assert len(sizes) > 10
    assert sum(sizes) == 1000
