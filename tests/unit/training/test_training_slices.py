"""Slices: what is broken for some is found, what is absent is told, and chance rejects nobody."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.metrics.paired_bootstrap import Paired
from evergreen.training.gate.slices import MISSING, MOST_VALUES, SliceRule, slices

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
    return slices(Paired(metric, times, y, new, old), columns, SliceRule(**{
        "named": (), "search": True, "max_worse": 0.05, "min_rows": 100, "confidence": 0.95, "seed": 7, **more,
    }))  # fmt: skip


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
    assert found.left_out == {"gone": (0, 0), "shop": (20, N)}
    assert found.searched == 3


def test_values_of_a_named_feature_that_are_too_small_are_left_out_and_counted(rows):
    columns, *others = rows
    kind = np.array(columns["kind"].to_pylist(), dtype=object)
    kind[:99], kind[99:160], kind[160:300] = "hail", "fog", None
    found = ask(({"kind": pa.array(kind)}, *others), named=("kind",))
    assert {s.name for s in found.named["kind"]} == {"kind=wet", "kind=dry", "kind=snow"}
    assert found.left_out == {"kind": (2, 160)}
    assert f"kind={MISSING}" not in {s.name for s in found.named["kind"]}


def in_two_days(rows, factor):
    """The rows on 14 days, two a weekday; on Mondays the challenger's error is `factor` times the champion's."""
    _, _, y, _, old = rows
    days = np.sort(np.arange(N) % 14)
    day = np.array([f"d{d % 7}" for d in days])
    off = np.random.default_rng(5).normal(size=N)
    new = np.where(day == "d0", y + factor * off, old)
    return {"weekday": pa.array(day)}, days * 86_400_000_000, y, new, np.where(day == "d0", y + off, old)


def test_without_an_interval_the_point_of_a_named_slice_decides(rows):
    for name in ("weekday", "weekday=d0"):
        found = ask(in_two_days(rows, 3.0), named=(name,), search=False).named[name]
        monday = next(s for s in found if s.name == "weekday=d0")
        assert (monday.high, monday.told_by, monday.worse) == (None, "point", True)
        assert monday.point == pytest.approx(-2.0)
        assert [s.name for s in found if s.worse] == ["weekday=d0"]
    assert not any(s.worse for s in ask(in_two_days(rows, 1.04), named=("weekday",)).named["weekday"])
    assert ask(in_two_days(rows, 1.06), named=("weekday=d0",)).named["weekday=d0"][0].worse


def test_without_an_interval_each_row_of_a_searched_slice_counts_as_a_moment(rows):
    found = ask(in_two_days(rows, 3.0))
    assert (found.worst.name, found.worst.worse, found.worst.told_by) == ("weekday=d0", True, "rows")
    assert -2.1 < found.worst.point < found.worst.high < -0.05
    assert found.untold == 0
    columns, times, y, _, _ = in_two_days(rows, 1.0)
    lucky, rng = [], np.random.default_rng(9)
    for _ in range(5):
        new, old = (y + rng.normal(size=N) for _ in "ab")
        lucky.append(ask((columns, times, y, new, old), named=("weekday",)))
    assert any(s.worse for found in lucky for s in found.named["weekday"]), (
        "the point alone rejects by chance"
    )
    assert not any(found.worst.worse for found in lucky)


def test_a_searched_slice_with_hardly_a_row_of_one_class_is_not_told(rows):
    columns, times, y, _, _ = rows
    snow = np.flatnonzero(np.array(columns["kind"].to_pylist()) == "snow")
    label = (y > 0).astype(float)
    label[snow] = 0.0
    label[snow[100]] = 1.0
    new = label + np.random.default_rng(3).normal(size=N)
    old = new.copy()
    new[snow[100]], old[snow[100]] = -9.0, 9.0
    asked = ({"kind": columns["kind"]}, times, label, new, old)
    found = ask(asked, metric="roc_auc", named=("kind=snow",))
    assert (found.searched, found.untold) == (3, 1)
    assert found.worst.name != "kind=snow"
    assert not found.worst.worse
    named = found.named["kind=snow"][0]
    assert (named.high, named.told_by, named.worse) == (None, "point", True)


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
