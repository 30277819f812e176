"""Slices: what is broken for some is found, what is absent is told, and chance rejects nobody."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.training.slices import MISSING, MOST_VALUES, slices

N = 3000


@pytest.fixture
def rows():
    rng = np.random.default_rng(2)
    y = rng.normal(size=N)
    kind = np.array(["wet", "dry", "snow"])[rng.choice(3, N, p=[0.5, 0.4, 0.1])]
    columns = {"kind": pa.array(kind), "shop": pa.chunked_array([[f"s{i % 20}" for i in range(N)]])}
    return columns, np.arange(N), y, y + rng.normal(size=N), y + rng.normal(size=N)


def ask(rows, metric="rmse", **more):
    columns, times, y, new, old = rows
    return slices(metric, columns, times, y, new, old, **{
        "named": (), "search": True, "max_worse": 0.05, "min_rows": 100, "confidence": 0.95, "seed": 7, **more,
    })  # fmt: skip


def broken(rows, feature, value, by=2.0):
    columns, times, y, new, old = rows
    hit = np.array(columns[feature].to_pylist()) == value
    return columns, times, y, np.where(hit, new + by, new), old


def test_chance_is_not_worse(rows):
    found = ask(rows, named=("kind", "shop=s3"))
    assert found.searched == 23
    assert not found.worst.worse
    assert {s.name for s in found.named["kind"]} == {"kind=wet", "kind=dry", "kind=snow"}
    assert not any(s.worse for parts in found.named.values() for s in parts)


@pytest.mark.parametrize(("feature", "value"), [("kind", "snow"), ("shop", "s7")])
def test_a_broken_slice_is_found(rows, feature, value):
    found = ask(broken(rows, feature, value), named=("kind",))
    assert found.worst.name == f"{feature}={value}"
    assert found.worst.worse
    assert found.worst.point < found.worst.high < -0.05
    assert "kind=dry" not in [s.name for s in found.named["kind"] if s.worse]
    assert ask(broken(rows, feature, value), search=False).worst is None


def test_a_slice_that_is_only_a_little_worse_is_allowed(rows):
    columns, times, y, _, old = rows
    hit = np.array(columns["kind"].to_pylist()) == "snow"
    little = np.where(hit, y + 1.03 * (old - y), old)
    assert not ask((columns, times, y, little, old)).worst.worse
    assert ask((columns, times, y, little, old), max_worse=0.01).worst.worse


def test_absent_and_small_slices_are_told(rows):
    found = ask(rows, named=("kind=hail", "gone", "shop=s1", "shop"), min_rows=200)
    assert found.named["kind=hail"] == found.named["gone"] == ()
    assert [s.rows for s in found.named["shop=s1"]] == [150]
    assert found.named["shop"] == (), "no shop has enough rows"
    assert found.searched == 3


def test_missing_values_are_a_slice_but_fill_no_feature(rows):
    _, *others = rows
    empty = {"kind": pa.nulls(N, pa.string())}
    found = ask((empty, *others), named=("kind",))
    assert found.named["kind"] == ()
    assert found.worst.name == f"kind={MISSING}"


def test_a_feature_of_many_values_is_searched_in_part(rows):
    _, *others = rows
    many = {"id": pa.array([str(i % 100) for i in range(N)])}
    assert ask((many, *others), min_rows=20).searched == MOST_VALUES


def test_a_slice_of_one_class_has_no_area(rows):
    columns, times, y, new, old = rows
    label = (y > 0).astype(float) * (np.array(columns["kind"].to_pylist()) != "snow")
    found = ask((columns, times, label, new, old), metric="roc_auc", named=("kind=snow",))
    assert found.named["kind=snow"][0].point is None
    assert found.worst.name != "kind=snow"
