"""The naive baseline: what it says, and that no label leaks into it."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from evergreen.training import baseline
from evergreen.training.split import labels, split

WEEK, DAY = 7 * 24, 24


def values(count):
    return [float(i) for i in range(count)]


def test_seasonal_is_the_label_one_season_before(rides, rows):
    parts = split(rides, rows(40 * DAY, _label=values(40 * DAY)))
    np.testing.assert_array_equal(baseline.predict(rides, parts), labels(parts.holdout) - WEEK)


def test_a_season_shorter_than_the_label_delay_goes_back_as_far_as_labels_are_mature(rides, rows, change):
    model = change(rides, label={"delay": "50h"}, training={"season": "1d"})
    parts = split(model, rows(40 * DAY, _label=values(40 * DAY)))
    np.testing.assert_array_equal(baseline.predict(model, parts), labels(parts.holdout) - 3 * DAY)


def test_an_empty_slot_takes_the_season_before_it(rides, rows):
    table = rows(40 * DAY, _label=values(40 * DAY))
    gap = 35 * DAY + 3 - WEEK
    table = pa.concat_tables([table.slice(0, gap), table.slice(gap + 1)])
    parts = split(rides, table)
    found = baseline.predict(rides, parts)
    assert found[3] == labels(parts.holdout)[3] - 2 * WEEK
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(labels(parts.holdout), 3) - WEEK)


@pytest.mark.parametrize("delay", ["0m", "1h", "5h"])
def test_last_value_is_the_newest_mature_label(rides, rows, change, delay):
    model = change(rides, label={"delay": delay}, training={"baseline": "last_value"})
    parts = split(model, rows(40 * DAY, _label=values(40 * DAY)))
    steps = max(1, int(model.label.delay / timedelta(hours=1)))
    np.testing.assert_array_equal(baseline.predict(model, parts), labels(parts.holdout) - steps)


@pytest.mark.parametrize("kind", ["seasonal", "last_value"])
def test_labels_that_are_not_mature_change_nothing(rides, rows, change, kind):
    model = change(rides, label={"delay": "2d"}, training={"baseline": kind})
    count = 40 * DAY
    before = baseline.predict(model, split(model, rows(count, _label=values(count))))
    spoilt = values(count)
    spoilt[-2 * DAY + 1 :] = [1e6] * (2 * DAY - 1)  # not mature for the newest row, so for none
    after = baseline.predict(model, split(model, rows(count, _label=spoilt)))
    np.testing.assert_array_equal(before, after)


def test_entities_do_not_answer_for_each_other(rides, rows, change):
    model = change(rides, key=("city", "ts"), training={"baseline": "last_value"})
    table = rows(80 * DAY, step=timedelta(minutes=30))
    city = ["a" if i % 2 else "b" for i in range(table.num_rows)]
    keys = [json.dumps([c, *json.loads(k)]) for c, k in zip(city, table["_key"].to_pylist(), strict=True)]
    table = table.set_column(0, "_key", [keys])
    table = table.set_column(
        table.column_names.index("_label"), "_label", [[{"a": 1.0, "b": 2.0}[c] for c in city]]
    )
    parts = split(model, table)
    np.testing.assert_array_equal(baseline.predict(model, parts), labels(parts.holdout))


def test_class_prior_is_the_share_in_the_training_part(wetness, rows):
    count = 40 * DAY
    y = [float(i % 4 == 0) for i in range(count - 5 * DAY)] + [float(i % 2) for i in range(5 * DAY)]
    found = baseline.predict(wetness, split(wetness, rows(count, _label=y)))
    np.testing.assert_allclose(found, 0.25, atol=0.001)
