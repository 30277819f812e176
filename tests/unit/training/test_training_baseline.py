"""The naive baseline: what it says, and that no label leaks into it."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evergreen.microseconds import in_micros
from evergreen.training.data.split import split
from evergreen.training.gate import baseline

WEEK, DAY = 7 * 24, 24


def values(count):
    return [float(i) for i in range(count)]


def test_seasonal_is_the_label_one_season_before(rides, rows, stored):
    parts = split(rides, stored(rows(40 * DAY, _label=values(40 * DAY))))
    np.testing.assert_array_equal(baseline.predict(rides, parts), parts.holdout.labels - WEEK)


def test_a_season_shorter_than_the_label_delay_goes_back_as_far_as_labels_are_mature(
    rides, rows, stored, change
):
    model = change(rides, label={"delay": "50h"}, training={"season": "1d"})
    parts = split(model, stored(rows(40 * DAY, _label=values(40 * DAY))))
    np.testing.assert_array_equal(baseline.predict(model, parts), parts.holdout.labels - 3 * DAY)


def test_an_empty_slot_takes_the_season_before_it(rides, rows, stored):
    table = rows(40 * DAY, _label=values(40 * DAY))
    gap = 35 * DAY + 3 - WEEK
    table = pa.concat_tables([table.slice(0, gap), table.slice(gap + 1)])
    parts = split(rides, stored(table))
    found = baseline.predict(rides, parts)
    assert found[3] == parts.holdout.labels[3] - 2 * WEEK
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(parts.holdout.labels, 3) - WEEK)


@pytest.mark.parametrize("delay", ["0m", "1h", "5h"])
def test_last_value_is_the_newest_mature_label(rides, rows, stored, change, delay):
    model = change(rides, label={"delay": delay}, training={"baseline": "last_value"})
    parts = split(model, stored(rows(40 * DAY, _label=values(40 * DAY))))
    steps = max(1, int(model.label.delay / timedelta(hours=1)))
    np.testing.assert_array_equal(baseline.predict(model, parts), parts.holdout.labels - steps)


@pytest.mark.parametrize("kind", ["seasonal", "last_value"])
def test_labels_that_are_not_mature_change_nothing(rides, rows, stored, change, kind):
    model = change(rides, label={"delay": "2d"}, training={"baseline": kind})
    count = 40 * DAY
    before = baseline.predict(model, split(model, stored(rows(count, _label=values(count)))))
    spoilt = values(count)
    spoilt[-2 * DAY + 1 :] = [1e6] * (2 * DAY - 1)  # not mature for the newest row, so for none
    after = baseline.predict(model, split(model, stored(rows(count, _label=spoilt))))
    np.testing.assert_array_equal(before, after)


def test_entities_do_not_answer_for_each_other(rides, rows, stored, change):
    model = change(rides, key=("city", "ts"), training={"baseline": "last_value"})
    table = rows(80 * DAY, step=timedelta(minutes=30))
    city = ["a" if i % 2 else "b" for i in range(table.num_rows)]
    keys = [json.dumps([c, *json.loads(k)]) for c, k in zip(city, table["_key"].to_pylist(), strict=True)]
    table = table.set_column(0, "_key", [keys])
    table = table.set_column(
        table.column_names.index("_label"), "_label", [[{"a": 1.0, "b": 2.0}[c] for c in city]]
    )
    parts = split(model, stored(table))
    np.testing.assert_array_equal(baseline.predict(model, parts), parts.holdout.labels)


def test_class_prior_is_the_share_in_the_training_part(wetness, rows, stored):
    count = 40 * DAY
    y = [float(i % 4 == 0) for i in range(count - 5 * DAY)] + [float(i % 2) for i in range(5 * DAY)]
    found = baseline.predict(wetness, split(wetness, stored(rows(count, _label=y))))
    np.testing.assert_allclose(found, 0.25, atol=0.001)


def by_definition(model, table, parts):
    """The baseline as its words say it, with whole keys, for tables that are small."""
    y = table["_label"].to_numpy()
    times = table["_time"].cast(pa.int64()).to_numpy()
    entities = [json.dumps(json.loads(k)[:-1]) for k in table["_key"].to_pylist()]
    known = pd.DataFrame({"entity": entities, "time": times, "label": y})
    asked = known.iloc[len(known) - len(parts.holdout) :].reset_index(drop=True)
    season, delay = in_micros(model.training.season), in_micros(model.label.delay)
    found = np.full(len(asked), np.nan)
    if model.baseline == "seasonal":
        slots = known.groupby(["entity", "time"])["label"].mean()
        nearest = max(1, -(-delay // season))
        for back in range(nearest + 7, nearest - 1, -1):
            value = [
                slots.get((e, t - back * season), np.nan)
                for e, t in zip(asked.entity, asked.time, strict=True)
            ]
            found = np.where(np.isnan(value), found, value)
    for i in np.flatnonzero(np.isnan(found)):
        mature = known[(known.entity == asked.entity[i]) & (known.time <= asked.time[i] - max(delay, 1))]
        found[i] = mature.label.iloc[-1] if len(mature) else y[: len(parts.training)].mean()
    return found


@pytest.mark.parametrize("kind", ["seasonal", "last_value"])
@pytest.mark.parametrize("key", [("ts",), ("city", "ts")])
def test_it_is_what_the_definition_says_where_rows_are_missing_and_entities_come_late(
    rides, rows, stored, change, kind, key
):
    model = change(rides, key=key, label={"delay": "3h"}, training={"baseline": kind, "season": "1d"})
    table = rows(60 * DAY, step=timedelta(minutes=20), _label=np.random.default_rng(2).normal(size=60 * DAY))
    rng = np.random.default_rng(3)
    city = rng.choice(["a", "b", "c"], table.num_rows)
    city[-30:] = "new"
    if len(key) > 1:
        keys = [json.dumps([c, *json.loads(k)]) for c, k in zip(city, table["_key"].to_pylist(), strict=True)]
        table = table.set_column(0, "_key", [keys])
    table = table.filter(pa.array(rng.random(table.num_rows) < 0.4))
    parts = split(model, stored(table))
    np.testing.assert_array_equal(baseline.predict(model, parts), by_definition(model, table, parts))


@pytest.mark.parametrize("key", [("ts",), ("city", "ts")])
def test_of_a_long_past_only_the_newest_label_of_each_entity_is_needed(rides, rows, stored, change, key):
    model = change(rides, key=key, label={"delay": "3h"}, training={"baseline": "last_value"})
    table = rows(60 * DAY, _label=np.random.default_rng(5).normal(size=60 * DAY))
    city = np.random.default_rng(6).choice(["a", "b", "c"], table.num_rows)
    if len(key) > 1:
        keys = [json.dumps([c, *json.loads(k)]) for c, k in zip(city, table["_key"].to_pylist(), strict=True)]
        table = table.set_column(0, "_key", [keys])
    parts = split(model, stored(table))
    everything, held = parts.rows, parts.holdout
    asked = []

    def labels_of(begin, end, *, newest=False):
        first = 0 if begin is None else int(np.searchsorted(everything.times, begin, "left"))
        part = everything.part(first, int(np.searchsorted(everything.times, end, "left")))
        known = pd.DataFrame({"entity": part.entities, "time": part.times, "label": part.labels})
        if newest:
            known = known.groupby("entity").tail(1)
        asked.append(len(known))
        return baseline.Labels(*(known[name].to_numpy() for name in ("time", "entity", "label")))

    found = baseline.forecast(model, held.times, held.entities, labels_of)
    np.testing.assert_array_equal(found, by_definition(model, table, parts))
    assert sum(asked) <= len(held) + 3
