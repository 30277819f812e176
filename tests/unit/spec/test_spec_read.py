"""Every mistake a person makes in a spec is named with file, field, value and remedy; all at once."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from evergreen.spec import (
    ModelSpec,
    Specs,
    format_duration,
    json_schema,
    load_dataset,
    load_model,
    load_specs,
    parse_duration,
)

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / name, tmp_path / name)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} does not hold {old!r}"
    path.write_text(text.replace(old, new))


def test_shipped_specs_are_good() -> None:
    specs = load_specs(REPOSITORY / "include")
    assert specs.problems == ()
    assert {m.task for m in specs.models.values()} == {"regression", "binary"}


MODEL_MISTAKES = {
    "misspelt-field": ("training:", "trainig:", "trainig: unknown field; did you mean training?"),
    "misspelt-inner-field": ("holdout:", "holdot:", "training.holdot: unknown field; did you mean holdout?"),
    "no-duration": ("window: 7d", "window: seven days", "monitoring.window: 'seven days' is not a duration"),
    "bad-cron": (
        'schedule: "0 2 * * *"',
        'schedule: "at night"',
        "schedule: 'at night' is not a cron expression",
    ),
    "label-is-feature": ("[hour,", "[demand, hour,", "features: demand is the label"),
    "feature-twice": ("[hour,", "[hour, hour,", "features: hour is named twice"),
    "time-is-feature": ("[hour,", "[ts, hour,", "features: ts is the event time"),
    "metric-of-other-task": (
        "metric: rmse",
        "metric: roc_auc",
        "gate.metric: roc_auc is not a metric of regression",
    ),
    "watch-without-unit": (
        "monitoring:",
        "watch: {period: 7}\nmonitoring:",
        "watch.period: 7 is not a duration",
    ),
    "slice-of-no-category": (
        "margin: 0.02",
        "slices: [wether, day_kind=holiday, hour]",
        "gate.slices: no column 'wether'; did you mean weather?",
    ),
    "slice-of-a-number": ("margin: 0.02", "slices: [hour]", "gate.slices: no column 'hour'; known: weather"),
    "fold-eats-window": (
        "window: 210d",
        "windows: [all, 20d]\n  fold: 30d",
        "training.fold: 30d leaves nothing of the window of 20d to train on; make it shorter",
    ),
    "folds-eat-windows": (
        "window: 210d",
        "windows: [30d, 20d]\n  folds: 4",
        "training.folds: a holdout of 7d and 4 folds of 7d leave nothing of the longest window, 30d, to train on",
    ),
    "holdout-eats-one-of-the-windows": (
        "window: 210d",
        "windows: [all, 5d]",
        "training.holdout: 7d leaves nothing of the window of 5d",
    ),
    "window-twice": (
        "window: 210d",
        "windows: [all, 60d, 60d]",
        "training.windows: a window stands there twice",
    ),
    "window-beside-windows": (
        "window: 210d",
        "window: 210d\n  windows: [all, 60d]",
        "training.window: 210d is not among training.windows, which stand in its place",
    ),
    "no-window": ("window: 210d", "windows: []", "training.windows"),
    "tune-nothing": ("window: 210d", "tune: {trials: 0}", "training.tune.trials"),
    "unknown-learner": ("window: 210d", "compare_with: [prophet]", "training.compare_with.0"),
    "holdout-eats-window": ("holdout: 7d", "holdout: 3000d", "training.holdout: 3000d leaves nothing"),
    "m-over-n": ("m: 2, n: 3", "m: 4, n: 3", "monitoring.trigger: m 4 is larger than n 3"),
    "unknown-dataset": (
        "[bike_hourly]",
        "[bike_hurly]",
        "datasets: no usable dataset of that name; did you mean bike_hourly?",
    ),
    "unknown-ignored": (
        "ignore: [hour,",
        "ignore: [huor,",
        "monitoring.drift.ignore: no column 'huor'; did you mean hour?",
    ),
    "wrong-type": ("margin: 0.02", "margin: much", "gate.margin: input should be a valid number"),
    "key-twice": ("owner: bike-team", "owner: bike-team\nowner: me", "'owner' is written twice"),
    "name-is-not-file": (
        "name: bike_demand",
        "name: demand",
        "name: must be the file's name; write name: bike_demand",
    ),
    "no-yaml": ("name: bike_demand", "name: [bike_demand", "not readable as YAML"),
    "wrong-baseline": (
        "max_rounds: 400",
        "max_rounds: 400\n  baseline: class_prior",
        "training.baseline: class_prior does not fit regression",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), MODEL_MISTAKES.values(), ids=MODEL_MISTAKES.keys())
def test_model_mistakes(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder / "models" / "bike_demand.yaml", old, new)
    specs = load_specs(folder)
    assert any(message in str(p) for p in specs.problems), [str(p) for p in specs.problems]
    assert all(p.file == "models/bike_demand.yaml" for p in specs.problems)
    assert "bike_demand" not in specs.models, "a bad spec is switched off"
    assert "bike_rush" in specs.models, "and no other"


DATASET_MISTAKES = {
    "unknown-key": ("key: [ts]", "key: [tss]", "key: no column 'tss'; did you mean ts?"),
    "event-time-no-time": (
        "event_time: ts",
        "event_time: price",
        "event_time: price has type float; make it timestamp",
    ),
    "bad-type": (
        "{type: integer, required: false, min: 0, max: 100000",
        "{type: whole",
        "columns.demand.type",
    ),
    "min-over-max": ("min: 0, max: 100}", "min: 100, max: 0}", "min 100.0 is larger than max 0.0"),
    "values-of-number": (
        "{type: float, min: 0, description",
        "{type: float, values: [a], description",
        "values is for text and category",
    ),
    "own-column": ("  price:", "  _batch:", "columns._batch: the name is Evergreen's own"),
    "unknown-expected": (
        "{column: temperature,",
        "{column: temprature,",
        "no column 'temprature'; did you mean temperature?",
    ),
    "two-arrivals": ("delay: 1h", "delay: 1h\n  column: ts", "arrival: give column or delay, not both"),
}


@pytest.mark.parametrize(("old", "new", "message"), DATASET_MISTAKES.values(), ids=DATASET_MISTAKES.keys())
def test_dataset_mistakes(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder / "datasets" / "bike_hourly.yaml", old, new)
    specs = load_specs(folder)
    assert any(message in str(p) for p in specs.problems), [str(p) for p in specs.problems]
    assert specs.datasets == {}
    assert specs.models == {}, "a model without its dataset is not built either"


def test_all_mistakes_at_once(folder: Path) -> None:
    path = folder / "models" / "bike_demand.yaml"
    edit(path, "holdout: 7d", "holdot: 7d")
    edit(path, "metric: rmse", "metric: best")
    edit(path, "min_rows: 100\n", "min_rows: many\n")
    assert len([p for p in load_specs(folder).problems if p.file == "models/bike_demand.yaml"]) == 3


@pytest.mark.parametrize(
    "query",
    ["", "-- none\n/* yet */;", "SELECT 1; SELECT 2"],
    ids=["empty", "only-comments", "two-statements"],
)
def test_bad_query_files(folder: Path, query: str) -> None:
    (folder / "models" / "bike_demand.sql").write_text(query)
    assert any("bike_demand.sql" in str(p) for p in load_specs(folder).problems)


def test_semicolons_in_comments_and_text_are_fine(folder: Path) -> None:
    path = folder / "models" / "bike_demand.sql"
    path.write_text(path.read_text().rstrip() + " WHERE weather <> 'a;b' -- not; here\n;\n")
    assert load_specs(folder).problems == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("90m", timedelta(minutes=90)), ("36h", timedelta(hours=36)), ("2w", timedelta(days=14))],
)
def test_durations(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value
    assert parse_duration(format_duration(value)) == value


def test_one_model_is_read_with_its_datasets_and_nothing_else(folder: Path) -> None:
    (folder / "models" / "bike_rush.yaml").write_text("name: [")
    (folder / "datasets" / "other.yaml").write_text("name: [")
    found, whole = load_model(folder, "bike_demand"), load_specs(folder)
    assert found.problems == (), "no neighbour was read"
    assert found.models == whole.models, "and what was read is the same"
    assert set(found.datasets) == {"bike_hourly"}
    assert load_dataset(folder, "bike_hourly").datasets == whole.datasets
    assert load_dataset(folder, "bike_hourly").models == {}


def test_one_model_has_its_own_problems_and_those_of_its_datasets(folder: Path) -> None:
    edit(folder / "datasets" / "bike_hourly.yaml", "key: [ts]", "key: [tss]")
    edit(folder / "models" / "bike_rush.yaml", "name: bike_rush", "name: rush")
    found = load_model(folder, "bike_demand")
    assert (found.models, found.datasets) == ({}, {})
    assert [p.file for p in found.problems] == ["datasets/bike_hourly.yaml", "models/bike_demand.yaml"]
    assert "no usable dataset of that name; add or mend datasets/bike_hourly.yaml" in str(found.problems[1])
    assert [p.field for p in load_model(folder, "bike_rush").problems] == ["name"]


@pytest.mark.parametrize("name", ["gone", "bike_*", "../models/bike_demand", ""])
def test_a_model_that_is_not_there_is_no_problem_and_no_model(folder: Path, name: str) -> None:
    assert load_model(folder, name) == load_dataset(folder, name) == Specs()


def test_exported_schema_knows_the_fields_but_not_the_query() -> None:
    schema = json_schema(ModelSpec)
    assert schema["additionalProperties"] is False
    assert "features" in schema["properties"]
    assert "query" not in schema["properties"]
