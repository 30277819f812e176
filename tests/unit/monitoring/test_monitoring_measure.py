"""One change at a time against a reference: what was changed is found, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, learnt, model, rows, week

from evergreen.monitoring.page.pack import unpacked
from evergreen.monitoring.windows import measure, performance, report
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.reference import error_limit
from evergreen.reference.limits import limits
from evergreen.reference.reference import build
from evergreen.spec import ModelSpec

METRICS = {"rmse": 1.0, "mae": 0.8, "r2": 0.95}
ALL_IN = WindowFacts(ROWS, ROWS, ROWS)


@pytest.fixture(scope="module")
def reference():
    return build(model(), learnt(), METRICS)


def found(spec: ModelSpec, reference, frame: pd.DataFrame) -> set[str]:
    columns = measure.columns(spec, measure.frame(as_table(frame)), reference, labels=True)
    return {f"{c.kind.value}:{c.column}" for c in columns if c.violated}


@pytest.mark.parametrize("seed", range(11, 23))
def test_unchanged_data_is_quiet(seed):
    learned = build(model(), learnt(seed), METRICS)
    later = [found(model(), learned, week(n, seed)) for n in range(4)]
    # One check in a hundred may alarm.
    assert sum(map(bool, later)) <= 1, later


def _some(frame: pd.DataFrame, column: str, value: object, share: float) -> pd.DataFrame:
    chosen = np.arange(len(frame)) % 100 < share * 100
    return frame.assign(**{column: frame[column].astype(object).where(~chosen, value)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda f: f, set(), id="nothing"),
        pytest.param(lambda f: f.assign(amount=f["amount"] * 9 / 5 + 32), {"data_drift:amount"}, id="another unit"),
        pytest.param(lambda f: f.assign(pressure=f["pressure"] + 5), {"data_drift:pressure"}, id="a shift by one deviation"),
        pytest.param(lambda f: f.assign(pressure=1000 + (f["pressure"] - 1000) * 3), {"data_drift:pressure"}, id="another spread"),
        pytest.param(lambda f: f.assign(level=5.0), {"data_drift:level"}, id="a constant that changed"),
        pytest.param(
            lambda f: f.assign(kind=f["kind"].map({"a": "c", "b": "b", "c": "a"})), {"data_drift:kind"}, id="two categories swapped"
        ),
        pytest.param(lambda f: f.assign(guess=f["guess"] + 10), {"prediction_drift:_prediction"}, id="other predictions"),
        pytest.param(lambda f: f.assign(y=f["y"] + 100), set(), id="other labels are shown only"),
        pytest.param(lambda f: _some(f, "pressure", np.nan, 0.01), set(), id="a few missing"),
        pytest.param(lambda f: _some(f, "amount", np.nan, 0.05), {"missing:amount"}, id="many missing"),
        pytest.param(lambda f: _some(f, "amount", np.inf, 0.2), {"missing:amount"}, id="infinities are missing"),
        pytest.param(lambda f: _some(f, "kind", "z", 0.01), set(), id="a few of an unknown category"),
        pytest.param(
            lambda f: _some(f, "kind", "z", 0.1), {"new_category:kind", "data_drift:kind"}, id="many of an unknown category"
        ),
        pytest.param(
            lambda f: f.assign(amount=np.nan), {"missing:amount", "unreadable:amount"}, id="a column without values"
        ),
        pytest.param(lambda f: f.assign(amount=10.0), {"unreadable:amount"}, id="a stuck sensor"),
        pytest.param(lambda f: f.assign(kind=None), {"missing:kind", "unreadable:kind"}, id="categories without values"),
    ],
)  # fmt: skip
def test_what_was_changed_is_found_and_nothing_else(reference, change, expected):
    assert found(model(), reference, change(week(0))) == expected


def test_an_ignored_column_is_measured_and_never_violates(reference):
    spec = model(drift={"ignore": ["amount"]})
    frame = measure.frame(as_table(week(0).assign(amount=500.0)))
    columns = [c for c in measure.columns(spec, frame, reference, labels=False) if c.column == "amount"]
    assert {c.kind for c in columns} == {What.MISSING, What.UNREADABLE}
    assert not any(c.violated for c in columns)
    assert all("ignore" in c.detail for c in columns)


def test_a_feature_that_the_champion_does_not_know_is_unreadable(reference):
    spec = model()
    spec = spec.model_copy(
        update={"features": spec.features.model_copy(update={"categorical": ("kind", "fresh")})}
    )
    frame = measure.frame(as_table(week(0))).assign(fresh="x")
    columns = measure.columns(spec, frame, reference, labels=False)
    assert {(c.column, c.kind) for c in columns if c.violated} == {("fresh", What.UNREADABLE)}


def test_a_column_that_breaks_the_statistic_does_not_take_the_others_with_it(reference):
    frame = measure.frame(as_table(week(0)))
    frame["amount"] = pd.Series([{"not": "a number"}] * len(frame))
    columns = measure.columns(model(), frame, reference, labels=False)
    bad = [c for c in columns if c.column == "amount" and c.kind is What.UNREADABLE]
    assert bad[0].value is None
    assert bad[0].violated
    assert {c.column for c in columns if c.kind is What.DATA_DRIFT} == {"pressure", "level", "kind"}


def test_the_verdict_and_the_report_have_the_learnt_limits(reference):
    frame = measure.frame(as_table(week(0).head(100)))
    known = limits(reference.columns, reference.family, model().monitoring.drift, 100)
    kinds = {
        What.DATA_DRIFT: "drift",
        What.PREDICTION_DRIFT: "drift",
        What.MISSING: "missing",
        What.NEW_CATEGORY: "unseen",
    }
    columns = measure.columns(model(), frame, reference, labels=True)
    assert {(c.column, kinds[c.kind]): c.limit for c in columns} == known


def test_the_report_says_what_the_verdict_says(reference, tmp_path):
    frame = measure.frame(as_table(week(0).assign(amount=lambda f: f["amount"] * 2)))
    columns = tuple(measure.columns(model(), frame, reference, labels=True))
    metrics, _ = performance.judge_error(model(), frame, reference, ALL_IN)
    judged = Judgement(
        "watched",
        "1",
        CUTOFF,
        CUTOFF,
        1,
        CUTOFF,
        Status.OK,
        ROWS,
        ROWS - 1,
        ROWS,
        columns=columns,
        metrics=metrics,
    )
    values = report.write(judged, "regression", frame, reference, tmp_path)
    assert values == pytest.approx({c.column: c.value for c in columns if c.kind in report.DRIFTS})
    assert {p.name for p in tmp_path.iterdir()} == {"drift.html", "performance.html"}
    assert all(p.stat().st_size < 1.5e6 for p in tmp_path.iterdir())
    drift = next(c for c in columns if c.column == "amount" and c.kind is What.DATA_DRIFT)
    drift_page, performance_page = (
        (tmp_path / name).read_text() for name in ("drift.html", "performance.html")
    )
    assert f"The drift threshold is {drift.limit:.2f}" in unpacked(drift_page)
    assert "RMSE: Less or Equal 1.300" in unpacked(performance_page)
    for page in (drift_page, performance_page):
        assert "watched version 1" in page
        assert f"Window {judged.window}, judged as of {CUTOFF:%Y-%m-%d %H:%M} UTC" in page
    learnt = f"{reference.sample.num_rows:,} of the {reference.rows:,} rows of the time that the champion learnt from"
    assert f"Measured on {ROWS - 1:,} of the {ROWS:,} rows of the window, against {learnt}" in drift_page


def drawn(columns, frame: pd.DataFrame, reference, folder, metrics=None) -> tuple[str, dict[str, str]]:
    """The drift page of a window, and which of its tests failed, by title, with what they say."""
    judged = Judgement(
        "watched", "1", CUTOFF, CUTOFF, 1, CUTOFF, Status.OK, ROWS, ROWS, ROWS, columns=tuple(columns), metrics=metrics or {},
    )  # fmt: skip
    report.write(judged, "regression", frame, reference, folder)
    page = (folder / "drift.html").read_text()
    tests = re.findall(r'"title": "([^"]*)", "description": "([^"]*)", "state": "(\w+)"', unpacked(page))
    assert tests
    assert {state for *_, state in tests} <= {"success", "fail"}
    return page, {title: text for title, text, state in tests if state == "fail"}


def amount_missing(frame: pd.DataFrame) -> pd.DataFrame:
    return _some(frame, "amount", np.nan, 0.05)


@pytest.mark.parametrize(
    ("spec", "change", "violated", "failed", "told"),
    [
        pytest.param(
            model(), amount_missing, {"missing:amount"}, "Column 'amount' missing values: Less 0.020",
            "amount: rise of missing values 0.05", id="missing values only",
        ),
        pytest.param(
            model(drift={"categorical": 0.9}), lambda f: _some(_some(f, "kind", None, 0.01), "kind", "z", 0.1),
            {"new_category:kind"}, "Column 'kind, known or not' categories 'never seen': Less 0.0",
            "kind: share of rows with an unknown category 0.1", id="a new category only",
        ),
        pytest.param(
            model(), lambda f: f.assign(amount=10.0), {"unreadable:amount"}, "", "amount: could not be judged; stuck",
            id="a stuck sensor only",
        ),
        pytest.param(model(drift={"ignore": ["amount"]}), amount_missing, set(), "", "", id="shown only"),
        pytest.param(model(), lambda f: f, set(), "", "", id="nothing"),
    ],
)  # fmt: skip
def test_no_page_of_a_window_in_violation_looks_green(
    reference, tmp_path, spec, change, violated, failed, told
):
    frame = measure.frame(as_table(change(week(0))))
    columns = measure.columns(spec, frame, reference, labels=True)
    assert {f"{c.kind.value}:{c.column}" for c in columns if c.violated} == violated
    metrics, _ = performance.judge_error(spec, frame, reference, ALL_IN)
    page, fails = drawn(columns, frame, reference, tmp_path, metrics)
    assert ("In violation:" in page, told in page) == (bool(violated), True)
    assert told in (tmp_path / "performance.html").read_text()
    if not failed:
        assert fails == {}
        return
    ((title, text),) = fails.items()
    assert title.startswith(failed)
    (column,) = (c for c in columns if c.violated)
    share = column.value + (reference.columns["amount"].missing if column.kind is What.MISSING else 0)
    assert f"Actual value {share:.3f} >= " in text, "Evidently comes to the same number"


@pytest.mark.parametrize(("missing", "violated"), [(0.07, True), (0.17, False)])
def test_a_share_on_its_limit_comes_out_as_in_the_verdict(reference, tmp_path, missing, violated):
    """These shares are some whose rise, added to the reference's share again, is another number."""
    usual = replace(reference.columns["amount"], missing=missing)
    odd = replace(reference, columns={**reference.columns, "amount": usual})
    frame = measure.frame(as_table(_some(week(0), "amount", np.nan, 0.5)))
    columns = measure.columns(model(), frame, odd, labels=False)
    rise = next(c for c in columns if (c.column, c.kind) == ("amount", What.MISSING))
    limit = rise.value if violated else float(np.nextafter(rise.value, 1))
    on = replace(rise, limit=limit, violated=violated)
    _, fails = drawn([on, *(c for c in columns if c is not rise)], frame, odd, tmp_path)
    assert any("missing values" in title for title in fails) is violated


def test_a_column_that_only_the_page_refuses_is_named_on_it_and_the_others_are_drawn(reference, tmp_path):
    frame = measure.frame(as_table(week(0)))
    columns = measure.columns(model(), frame, reference, labels=False)
    frame["amount"] = "words"
    page, _ = drawn(columns, frame, reference, tmp_path)
    assert "Evidently could not draw amount: " in page
    told = unpacked(page)
    assert "Value Drift for column pressure" in told
    assert "Value Drift for column amount" not in told


def test_of_many_columns_the_worst_are_drawn(tmp_path):
    names = [f"n{i:02d}" for i in range(40)]
    rng = np.random.default_rng(3)
    frame = rows(1, CUTOFF - 10 * WEEK, 10 * ROWS).assign(**{n: rng.normal(0, 1, 10 * ROWS) for n in names})
    spec = model().model_copy(
        update={"features": model().features.model_copy(update={"numeric": tuple(names)})}
    )
    made = build(spec, as_table(frame), {"rmse": 1.0})
    now = measure.frame(as_table(frame.assign(n33=frame["n33"] + 4)))
    columns = measure.columns(spec, now, made, labels=True)
    page, _ = drawn(columns, now, made, tmp_path)
    told = unpacked(page)
    shown = set(re.findall(r"Value Drift for column (\w+)", told))
    assert len(shown) == report.MOST_DRAWN
    assert "n33" in shown
    near = {c.column: c.value / c.limit for c in columns if c.kind in report.DRIFTS}
    left = set(near) - shown
    assert max(near[n] for n in left if n != "_label") <= min(near[n] for n in shown)
    assert f"Not drawn: {len({c.column for c in columns} - shown)} more columns" in page


def _binary(metric: str) -> ModelSpec:
    return model("binary", performance={"metric": metric, "max_worse": 0.1})


@pytest.mark.parametrize(
    ("spec", "metrics", "limit"),
    [
        pytest.param(model(), {"rmse": 10.0}, 13.0, id="smaller is better"),
        pytest.param(_binary("roc_auc"), {"roc_auc": 0.9}, 0.81, id="larger is better"),
        pytest.param(
            model(performance={"metric": "r2"}), {"r2": -0.5}, -0.65, id="r2 below zero gets lower still"
        ),
        pytest.param(model(performance={"metric": "r2"}), {"r2": 0.0}, -0.015, id="r2 of zero"),
        pytest.param(_binary("log_loss"), {"log_loss": 0.001}, 0.006, id="log loss near zero"),
        pytest.param(model(), {"rmse": 0.0}, 0.3 * 0.01 * 5, id="no error on the holdout"),
    ],
)
def test_the_limit_of_the_served_error(spec, metrics, limit):
    frame = rows(1, CUTOFF, 168 * 5)
    frame["y"] = np.where(np.arange(len(frame)) % 2 == 0, 0.0, 1.0 if spec.task == "binary" else 10.0)
    made = build(spec, as_table(frame), metrics)
    assert error_limit.limit_of(spec, made) == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize(
    ("facts", "change", "state", "kinds"),
    [
        pytest.param(ALL_IN, lambda f: f, "judged", set(), id="as on the holdout"),
        pytest.param(ALL_IN, lambda f: f.assign(y=f["y"] + 3), "judged", {What.PERFORMANCE}, id="worse than allowed"),
        pytest.param(WindowFacts(ROWS, 29, ROWS), lambda f: f.assign(y=f["y"] + 3), "not_yet", set(), id="too few labels say nothing"),
        pytest.param(WindowFacts(ROWS, ROWS, 29), lambda f: f.assign(y=f["y"] + 3), "not_yet", set(), id="too few with label and prediction"),
        pytest.param(WindowFacts(ROWS, 100, ROWS, due=False), lambda f: f.assign(y=f["y"] + 3), "not_yet", set(), id="most labels may still come"),
        pytest.param(WindowFacts(ROWS, 100, ROWS), lambda f: f.assign(y=f["y"] + 3), "judged", {What.PERFORMANCE}, id="they are not waited for"),
        pytest.param(ALL_IN, lambda f: f.assign(y=np.nan), "unreadable", {What.UNREADABLE}, id="counted labels that are not there"),
    ],
)  # fmt: skip
def test_the_served_error_is_judged_where_labels_are_in(reference, facts, change, state, kinds):
    frame = measure.frame(as_table(change(week(0))))
    metrics, violations = performance.judge_error(model(), frame, reference, facts)
    assert metrics["rmse"].state == state
    assert {v.kind for v in violations} == kinds


def test_one_class_is_a_violation_without_a_value():
    spec = _binary("roc_auc")
    frame = rows(1, CUTOFF, 168 * 5)
    frame["y"], frame["guess"] = (np.arange(len(frame)) % 2).astype(float), 0.5
    made = build(spec, as_table(frame), {"roc_auc": 0.9})
    current = measure.frame(as_table(frame.head(ROWS).assign(y=0.0)))
    metrics, violations = performance.judge_error(spec, current, made, ALL_IN)
    assert (metrics["roc_auc"].state, metrics["roc_auc"].value) == ("unreadable", None)
    assert [v.kind for v in violations] == [What.UNREADABLE]
    assert metrics["log_loss"].state == "shown"


def test_the_page_of_a_classifier_is_drawn(tmp_path):
    spec = _binary("roc_auc")
    frame = rows(1, CUTOFF, 168 * 5)
    frame["y"] = (frame["amount"] > 10).astype(float)
    frame["guess"] = 1 / (1 + np.exp(10 - frame["amount"]))
    made = build(spec, as_table(frame), {"roc_auc": 0.99})
    current = measure.frame(as_table(frame.head(ROWS)))
    columns = tuple(measure.columns(spec, current, made, labels=True))
    metrics, _ = performance.judge_error(spec, current, made, ALL_IN)
    judged = Judgement(
        "watched",
        "1",
        CUTOFF,
        CUTOFF,
        1,
        CUTOFF,
        Status.OK,
        ROWS,
        ROWS - 1,
        ROWS,
        columns=columns,
        metrics=metrics,
    )
    report.write(judged, "binary", current, made, tmp_path)
    page = (tmp_path / "performance.html").read_text()
    assert "RocAuc metric: Greater or Equal 0.891" in unpacked(page)
