"""Which window and parameters a training chooses: after a change, without one, and never by the holdout."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from evergreen.microseconds import moment
from evergreen.registry.encoding import survey
from evergreen.training.data.folds import folds
from evergreen.training.data.matrix import write
from evergreen.training.data.split import split
from evergreen.training.fitting.machine import Machine
from evergreen.training.search import other_learners
from evergreen.training.search.choose import Search, choose

DAY = 24
HOLDOUT = 3


@pytest.fixture
def model(rides, change, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return change(
        rides,
        training={
            "windows": ("all", "40d", "15d"),
            "holdout": f"{HOLDOUT}d",
            "folds": 3,
            "min_rows": 100,
            "min_holdout_rows": 24,
        },
    )


@pytest.fixture
def chosen(stored, tmp_path):
    """Choose for rows as a training would; returns the choice."""

    def chosen(model, table, run_id="run"):
        rows = stored(table)
        parts = split(model, rows)
        encoding = survey(model, parts.training.batches(model.features.all)).encoding
        matrix, _ = write(encoding, (parts.training, parts.between, parts.holdout), tmp_path / "m.f32")
        as_of = moment(int(rows.times[-1])) + timedelta(hours=1)
        return choose(model, parts, encoding, matrix, as_of, Machine(), Search(run_id, "fingerprint"))

    return chosen


@pytest.fixture
def stream(rows):
    """Hourly rows whose label follows x; the sign of that turns so many days before the end."""

    def stream(days=90, turned_days_ago=None, seed=0, noise=2.0):
        count = days * DAY
        rng = np.random.default_rng(seed)
        x = rng.normal(size=count)
        slope = np.full(count, 10.0)
        if turned_days_ago:
            slope[count - turned_days_ago * DAY :] = -10.0
        return rows(count, x=x, _label=slope * x + 50 + noise * rng.normal(size=count))

    return stream


def row(choice, **wanted):
    found = [r for r in choice.board.rows() if all(r[name] == value for name, value in wanted.items())]
    assert len(found) == 1, choice.board.rows()
    return found[0]


@pytest.mark.parametrize("seed", range(5))
def test_after_an_abrupt_change_the_short_window_is_chosen(model, chosen, stream, seed):
    choice = chosen(model, stream(turned_days_ago=30, seed=seed))
    assert choice.window == "15d"
    assert choice.first == (90 - 15) * DAY
    assert "15d" in choice.sentence
    assert "smaller" in choice.sentence


@pytest.mark.parametrize("seed", range(5))
def test_without_a_change_the_longest_window_is_kept(model, chosen, stream, seed):
    choice = chosen(model, stream(seed=seed))
    assert (choice.window, choice.first) == ("all", 0)
    assert "no shorter one is surely better" in choice.sentence


def test_the_holdout_changes_nothing_in_the_choice(model, chosen, stream, change):
    model = change(model, training={"tune": {"trials": 4}, "compare_with": ("linear",)})
    table = stream(turned_days_ago=30)
    before = chosen(model, table, "before")
    held = HOLDOUT * DAY
    rng = np.random.default_rng(9)
    label, x = (table[n].to_numpy().copy() for n in ("_label", "x"))
    label[-held:], x[-held:] = rng.normal(1e6, 1e5, held), rng.normal(-1e3, 10, held)
    kinds = pa.array([*table["kind"].to_pylist()[:-held], *["unheard of"] * held], pa.string())
    garbage = table
    for name, values in (("_label", pa.array(label)), ("x", pa.array(x)), ("kind", kinds)):
        garbage = garbage.set_column(garbage.column_names.index(name), name, values)
    after = chosen(model, garbage, "after")
    assert without_seconds(after) == without_seconds(before)
    assert after.model == before.model

    # The same garbage one row earlier is in the newest fold, and is seen.
    label[-held - 24 : -held] = 1e6
    seen = table.set_column(table.column_names.index("_label"), "_label", pa.array(label))
    assert without_seconds(chosen(model, seen, "seen")) != without_seconds(before)


def without_seconds(choice):
    return [{n: v for n, v in r.items() if n != "fit seconds"} for r in choice.board.rows()]


def test_nothing_open_to_choice_means_no_fold_and_no_fit(rides, chosen, stream, change):
    model = change(rides, training={"min_rows": 100})
    choice = chosen(model, stream())
    assert (choice.model, choice.first, choice.board, choice.summary()) == (model, 0, None, None)


def test_folds_lie_end_to_end_before_the_holdout_and_nothing_is_learnt_too_early(
    model, stored, stream, change
):
    model = change(model, label={"delay": "30h"}, training={"folds": 4, "fold": "2d"})
    rows = stored(stream())
    parts = split(model, rows)
    as_of = moment(int(rows.times[-1])) + timedelta(hours=31)
    found = folds(model, parts, as_of)
    times = parts.training.times
    assert len(found) == 4
    assert found[0].end == len(parts.training)
    for fold, older in zip(found, [*found[1:], None], strict=True):
        assert fold.end - fold.begin == 2 * DAY
        assert moment(int(times[fold.learnt - 1])) + timedelta(hours=30) <= moment(int(times[fold.begin]))
        # As far from the fold's newest row as as-of is from the newest row of all.
        assert moment(fold.as_of) - moment(int(times[fold.end - 1])) == as_of - moment(int(rows.times[-1]))
        assert older is None or older.end == fold.begin


def test_a_history_without_room_for_folds_is_trained_as_the_spec_says(model, chosen, stream):
    choice = chosen(model, stream(days=9))
    assert (choice.window, choice.first, choice.board) == ("all", 0, None)
    assert "too little history" in choice.sentence
    assert choice.summary()["candidates"] == 0


def test_a_window_with_too_few_rows_stands_on_the_board_with_the_reason(model, chosen, stream, change):
    choice = chosen(change(model, training={"min_rows": 500}), stream(turned_days_ago=30))
    assert choice.window == "40d"
    assert "training.min_rows is 500" in row(choice, window="15d")["problem"]


def test_windows_of_the_same_rows_are_fitted_once(model, chosen, stream, change):
    choice = chosen(change(model, training={"windows": ("all", "500d", "15d")}), stream())
    assert row(choice, window="500d")["fit seconds"] == 0
    assert choice.window == "all"
    assert [v for n, v in row(choice, window="500d").items() if n.startswith("rmse")] == [
        v for n, v in row(choice, window="all").items() if n.startswith("rmse")
    ]


def test_every_candidate_stands_on_the_leaderboard(model, chosen, stream, change):
    model = change(
        model, training={"tune": {"trials": 5}, "compare_with": ("linear", "hist_gradient_boosting")}
    )
    choice = chosen(model, stream())
    rows = choice.board.rows()
    assert len(rows) == 3 + 5 + 2
    assert sorted(r["source"] for r in rows) == sorted(
        [*["spec"] * 3, *(f"trial {n}" for n in range(1, 6)), *["compare_with"] * 2]
    )
    assert [r["chosen"] for r in rows].count(True) == 1
    ranked = [r for r in rows if r["rank"] is not None]
    assert [r["rank"] for r in ranked] == list(range(1, len(ranked) + 1))
    shares = [r["error of the first"] for r in ranked]
    assert shares == sorted(shares)
    assert row(choice, source="spec", window="all")["error of the first"] == 1
    for r in ranked:
        values = [v for n, v in r.items() if n.startswith("rmse from")]
        assert len(values) == 3
        assert r["rmse mean"] == pytest.approx(np.mean(values))
        assert r["fit seconds"] >= 0
    table = json.loads(json.dumps(choice.board.table(), allow_nan=False))
    assert len(table["data"]) == len(rows)
    assert {len(line) for line in table["data"]} == {len(table["columns"])}
    page = choice.board.page()
    assert page.count("<tr") == len(rows) + 1
    assert page.count('class="chosen"') == 1


def test_a_linear_model_that_is_better_is_named_and_xgboost_is_trained_all_the_same(
    model, chosen, stream, change
):
    model = change(model, training={"windows": None, "compare_with": ("linear",), "max_rounds": 5})
    choice = chosen(model, stream())
    assert "linear is better than XGBoost by" in choice.sentence
    assert row(choice, chosen=True)["learner"] == "xgboost"
    assert row(choice, learner="linear")["rank"] == 1


@pytest.mark.parametrize("kind", ["linear", "hist_gradient_boosting"])
@pytest.mark.parametrize("task", ["regression", "binary"])
def test_other_learners_take_gaps_and_categories_and_are_flat_in_memory(
    rides, chosen, stream, change, monkeypatch, kind, task
):
    table = stream()
    x = table["x"].to_numpy().copy()
    y = table["_label"].to_numpy().copy()
    x[::7] = np.nan
    y += np.where(np.array(table["kind"].to_pylist()) == "dry", 8, 0)
    if task == "binary":
        y = (y > 50).astype(float)
    table = table.set_column(table.column_names.index("x"), "x", pa.array(x))
    table = table.set_column(table.column_names.index("_label"), "_label", pa.array(y))
    model = change(rides, task=task, training={"compare_with": (kind,), "min_rows": 100})
    monkeypatch.setattr(other_learners, "MOST_ROWS", 700)
    seen = []
    sample = other_learners._sample
    monkeypatch.setattr(other_learners, "_sample", lambda data: seen.append(sample(data)) or seen[-1])
    found = row(chosen(model, table), learner=kind)
    assert found["problem"] == ""
    assert all(0 < len(rows) <= 700 for rows, _ in seen)
    if task == "regression":
        assert found["error of the first"] < 3
    else:
        assert found["roc_auc mean"] > 0.7


def test_the_sample_of_other_learners_is_every_nth_row_whatever_the_batches(in_file, monkeypatch):
    from evergreen.training.data import matrix as matrices
    from evergreen.training.fitting.local import Labelled

    values = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    data = Labelled(in_file(values), np.arange(1000.0))
    monkeypatch.setattr(other_learners, "MOST_ROWS", 300)
    monkeypatch.setattr(matrices, "BATCH_BYTES", 2 * 8 * 37)
    rows, y = other_learners._sample(data)
    assert np.array_equal(rows, values[::4])
    assert np.array_equal(y, data.y[::4])


def test_a_choice_is_the_same_when_it_is_made_again(model, chosen, stream, change):
    model = change(model, training={"tune": {"trials": 12}})
    one, two = (chosen(model, stream(turned_days_ago=30), run) for run in ("one", "two"))
    assert without_seconds(one) == without_seconds(two)
    assert replace(one, board=None) == replace(two, board=None)
