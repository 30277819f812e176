"""The encoding that training and scoring share: what the model does not know becomes missing, and is counted."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry.encoding import Encoding, encode, survey


def learn(model, table):
    return survey(model, table.to_batches(max_chunksize=7)).encoding


def test_categories_are_learnt_sorted_and_survive_json(rides, rows):
    encoding = learn(rides, rows(4, kind=["wet", None, "dry", "wet"]))
    assert encoding.categorical == {"kind": ("dry", "wet")}
    assert Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding
    assert encoding.types == ["float", "float", "c"]


def test_unseen_categories_and_infinite_numbers_become_missing_and_are_counted(rides, rows):
    encoding = Encoding(("hour", "x"), {"kind": ("dry", "wet")})
    table = rows(5, kind=["wet", "hail", None, "dry", "hail"], x=[1.0, np.inf, np.nan, -1e300, 2.0])
    found = encode(encoding, table)
    assert found.unseen == {"kind": 2}
    assert found.infinite == {"x": 2}
    np.testing.assert_array_equal(found.matrix[:, 2], [1, np.nan, np.nan, 0, np.nan])
    np.testing.assert_array_equal(found.matrix[:, 1], np.array([1, np.nan, np.nan, np.nan, 2], "float32"))


def test_a_feature_without_any_value_is_all_missing(rides, rows):
    table = rows(3, kind=pa.nulls(3, pa.string()), x=pa.nulls(3, pa.float64()))
    found = encode(learn(rides, table), table)
    assert np.isnan(found.matrix[:, 1:]).all()
    assert (found.unseen, found.infinite) == ({}, {})


def test_rows_in_chunks_encode_like_rows_in_one(rides, rows):
    table = rows(50)
    encoding = learn(rides, table)
    pieces = pa.concat_tables([table.slice(0, 20), table.slice(20)])
    np.testing.assert_array_equal(encode(encoding, pieces).matrix, encode(encoding, table).matrix)


def test_a_feature_that_is_gone_is_named(rides, rows):
    table = rows(3)
    with pytest.raises(TerminalError, match="features kind") as caught:
        encode(learn(rides, table), table.drop_columns(["kind"]))
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_constant_and_empty_features_are_noted_and_stop_nobody(rides, rows):
    def constant(**columns):
        return survey(rides, rows(20, **columns).to_batches(max_chunksize=7)).constant

    assert constant() == ()
    assert constant(x=[3.0] * 20, kind=["dry"] * 20) == ("x", "kind")
    assert constant(x=pa.nulls(20, pa.float64()), kind=pa.nulls(20, pa.string())) == ("x", "kind")
    # A value that is there or not does tell something.
    assert constant(x=pa.array([3.0, None] * 10), kind=["dry", None] * 10) == ()


def test_categories_of_further_rows_are_added(rides, rows):
    one, more = learn(rides, rows(2, kind=["wet", "dry"])), learn(rides, rows(2, kind=["snow", "dry"]))
    assert one.with_more(more).categorical == {"kind": ("dry", "snow", "wet")}
    assert one.with_more(one) == one
