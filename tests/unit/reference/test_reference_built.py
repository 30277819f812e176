"""A reference is the same for the same rows, knows its own past, and is refused when it is not whole."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from monitoring_scene import BEGIN, WEEK, as_table, learnt, model, rows

from evergreen.errors import ErrorReason, TerminalError
from evergreen.reference import past_windows
from evergreen.reference.limits import limits
from evergreen.reference.reference import PROFILE_FILE, SAMPLE_FILE, Reference, build
from evergreen.spec import parse_duration
from evergreen.warehouse.connection import fetch

METRICS = {"rmse": 1.0, "mae": 0.8, "r2": 0.95}


def test_the_same_rows_make_the_same_reference_in_any_order():
    frame = learnt()
    shuffled = frame.take(pa.array(np.random.default_rng(0).permutation(frame.num_rows)))
    one, other = build(model(), frame, METRICS), build(model(), shuffled, METRICS)
    assert one.sample.equals(other.sample)
    assert one.columns == other.columns


def test_the_sample_is_the_one_that_the_warehouse_takes(conn):
    keys = [f'["2024-01-{d:02d}T00:00:00+00:00"]' for d in range(1, 29)]
    query = "SELECT key, hashtextextended(key, 0) AS hash FROM unnest(%s) AS key"
    hashes = np.array([r["hash"] for r in fetch(conn, query, (keys,))])
    found = fetch(conn, f"{query} ORDER BY hash, key LIMIT 10", (keys,))
    assert {keys[i] for i in past_windows.sample_of(hashes, 10)} == {r["key"] for r in found}
    assert len(past_windows.sample_of(np.zeros(20, int), 7)) == 7


def test_a_sample_keeps_its_hashes_so_that_a_smaller_one_of_it_is_the_same():
    hashes = np.random.default_rng(0).permutation(20 * 168)
    frame = learnt().append_column("_hash", pa.array(hashes, pa.int64()))
    made = build(model(sample_rows=500), frame, METRICS)
    assert sorted(made.sample["_hash"].to_pylist()) == list(range(500))
    again = made.for_window(model(window="1d", min_rows=1, sample_rows=100))
    assert sorted(again.sample["_hash"].to_pylist()) == list(range(100))


def test_a_reference_of_an_earlier_version_has_no_hashes_and_still_serves(tmp_path):
    made = build(model(sample_rows=500), learnt(), METRICS)
    assert "_hash" not in made.sample.column_names
    made.write(tmp_path)
    daily = model(window="1d", min_rows=1, sample_rows=100)
    one, other = (Reference.read(tmp_path).for_window(daily) for _ in range(2))
    assert one.sample.num_rows == 100
    assert one.sample.equals(other.sample)


def test_large_windows_are_measured_by_their_samples():
    frame = learnt()
    hashes = pa.array(np.random.default_rng(0).permutation(frame.num_rows), pa.int64())
    whole = build(model(), frame.append_column("_hash", hashes), METRICS)
    small = build(model(sample_rows=100), frame.append_column("_hash", hashes), METRICS)
    assert whole.columns["amount"].least_distinct == 168
    assert small.columns["amount"].least_distinct == 100
    # What is counted over all rows does not follow the sample.
    assert small.columns["kind"].categories == whole.columns["kind"].categories
    assert small.columns["pressure"].missing == whole.columns["pressure"].missing


def test_it_is_bounded_and_states_what_it_is_made_of():
    made = build(model(sample_rows=500), learnt(), METRICS)
    assert made.sample.num_rows == 500
    assert (made.rows, made.windows, made.basis, made.usual_rows) == (20 * 168, 20, "history", 168)
    assert (made.start, made.end) == (BEGIN, BEGIN + 20 * WEEK - timedelta(hours=1))


@pytest.mark.parametrize(
    ("weeks", "basis", "usual"),
    [
        pytest.param(4, "history", 168, id="four whole windows suffice"),
        pytest.param(3, "resampled", 168, id="three are too few"),
        pytest.param(0.5, "resampled", 168, id="less than one window"),
    ],
)
def test_a_short_history_is_resampled_and_says_so(weeks, basis, usual):
    made = build(model(), as_table(rows(1, BEGIN, int(weeks * 168))), METRICS)
    assert made.basis == basis
    assert made.usual_rows == pytest.approx(usual, rel=0.02)
    assert all(None not in c.learnt["drift"].past for c in made.columns.values())


def test_windows_cut_off_at_the_ends_are_not_taken_for_usual():
    made = build(model(), as_table(rows(1, BEGIN + timedelta(days=3), 168 * 8)), METRICS)
    assert made.windows == 7
    assert made.usual_rows == 168


def limit(made, column="pressure", rows=168, kind="drift", **drift):
    return limits(made.columns, made.family, model(drift=drift).monitoring.drift, rows)[column, kind]


def test_a_season_that_the_champion_has_seen_raises_the_limit():
    frame = rows(1, BEGIN, 52 * 168)
    season = 10 * np.sin(np.arange(len(frame)) * 2 * np.pi / len(frame))
    flat = limit(build(model(), as_table(frame), METRICS))
    frame["pressure"] += season
    assert limit(build(model(), as_table(frame), METRICS)) > 3 * flat


def test_limits_follow_the_spec_of_now():
    made = build(model(), learnt(), METRICS)
    assert limit(made, numeric=0.5) == 0.5
    assert limit(made, false_alarms=0.1) < limit(made) < limit(made, false_alarms=0.001)


def test_a_changed_window_makes_the_limits_again():
    made = build(model(), learnt(), METRICS, {"amount": 0.7, "kind": 0.3})
    daily = made.for_window(model(window="1d", min_rows=10))
    assert made.for_window(model()) is made
    assert daily.window_s == parse_duration("1d").total_seconds()
    assert daily.usual_rows == pytest.approx(24, rel=0.1)
    assert limit(daily, rows=24) > limit(made)
    assert {n: c.gain for n, c in daily.columns.items()} == {n: c.gain for n, c in made.columns.items()}


def test_of_very_many_past_windows_seeded_ones_of_all_times_are_taken():
    hourly = model(window="1h", min_rows=1)
    times = np.arange(24 * 100 * 4) * 900_000_000
    made = past_windows.split(times, hourly.monitoring, 7)
    assert (len(made.rows), made.whole) == (past_windows.MOST_WINDOWS, 2399)
    begins = np.array([rows[0] for rows in made.rows])
    assert (np.diff(begins) > 0).all()
    assert set(begins // 4 % 24) == set(range(24))


def test_ten_thousand_rows_in_fifty_windows_take_less_than_three_seconds():
    frame = learnt(weeks=60)
    begin = time.thread_time()
    made = build(model(sample_rows=20000), frame, METRICS)
    assert made.windows == 60
    assert time.thread_time() - begin < 3


@pytest.mark.parametrize(
    ("change", "metrics", "reason"),
    [
        pytest.param(
            lambda t: t.drop_columns(["_prediction"]), METRICS, ErrorReason.BAD_QUERY, id="no predictions"
        ),
        pytest.param(lambda t: t.slice(0, 0), METRICS, ErrorReason.NO_ROWS, id="no rows"),
        pytest.param(lambda t: t, {"mae": 1.0}, ErrorReason.BAD_METRIC, id="the watched metric is missing"),
        pytest.param(
            lambda t: t, {"rmse": float("nan")}, ErrorReason.BAD_METRIC, id="the watched metric is no number"
        ),
    ],
)
def test_what_no_reference_can_be_made_of(change, metrics, reason):
    with pytest.raises(TerminalError) as error:
        build(model(), change(learnt(weeks=4)), metrics)
    assert error.value.reason is reason


def test_a_column_of_another_type_or_without_values_is_marked_unreadable():
    frame = learnt(weeks=6)
    words = pa.array(["x"] * frame.num_rows)
    nothing = pa.nulls(frame.num_rows, pa.float64())
    frame = frame.set_column(frame.schema.get_field_index("amount"), "amount", words)
    frame = frame.set_column(frame.schema.get_field_index("pressure"), "pressure", nothing)
    made = build(model(), frame, METRICS)
    assert "not readable as numbers" in made.columns["amount"].unreadable
    assert "no value" in made.columns["pressure"].unreadable
    assert not made.columns["kind"].unreadable


def test_it_reads_back_what_it_wrote(tmp_path):
    made = build(model(), learnt(), METRICS)
    made.write(tmp_path / "reference")
    back = Reference.read(tmp_path / "reference")
    assert back.sample.equals(made.sample)
    assert (back.columns, back.family) == (made.columns, made.family)
    assert (back.holdout_metrics, back.start) == (made.holdout_metrics, made.start)
    assert limit(back) == limit(made)


def _edit(folder, **changes):
    profile = json.loads((folder / PROFILE_FILE).read_text())
    (folder / PROFILE_FILE).write_text(json.dumps({**profile, **changes}))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / PROFILE_FILE).unlink(), id="profile missing"),
        pytest.param(lambda f: (f / SAMPLE_FILE).unlink(), id="sample missing"),
        pytest.param(lambda f: (f / SAMPLE_FILE).write_bytes(b"PAR1"), id="sample damaged"),
        pytest.param(lambda f: (f / PROFILE_FILE).write_text("[]"), id="profile is no profile"),
        pytest.param(lambda f: _edit(f, format=4), id="unknown format"),
        pytest.param(lambda f: _edit(f, format=1), id="limits of an earlier version"),
        pytest.param(lambda f: _edit(f, movement={"blocks": 3}), id="half of how the error moves"),
        pytest.param(
            lambda f: _edit(f, family={"sizes": [100]}), id="half of what the columns have in common"
        ),
        pytest.param(lambda f: _edit(f, sample_rows=7), id="sample of another profile"),
        pytest.param(lambda f: _edit(f, columns=[{"name": "amount"}]), id="half a column"),
    ],
)
def test_a_reference_that_is_not_whole_is_refused(tmp_path, damage):
    build(model(), learnt(weeks=4), METRICS).write(tmp_path)
    damage(tmp_path)
    with pytest.raises(TerminalError, match="no window can be judged"):
        Reference.read(tmp_path)
