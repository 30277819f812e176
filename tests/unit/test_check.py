"""`evergreen check`: what it finds with a warehouse, and what it says when it has none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen import check
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.connection import connect, fetch

NOT_CHECKED = "the feature queries and windows were NOT checked"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of specs; no embedded stack is found, whatever runs on this machine."""
    for name in ("datasets", "models"):
        (tmp_path / "specs" / name).mkdir(parents=True)
    return tmp_path / "specs"


@pytest.fixture(autouse=True)
def no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))


def write(folder: Path, specs: Specs, model: ModelSpec) -> None:
    """Write the files of a model and its datasets."""
    for dataset in specs.datasets_of(model):
        text = yaml.safe_dump(dataset.model_dump(mode="json"))
        (folder / "datasets" / f"{dataset.name}.yaml").write_text(text, encoding="utf-8")
    text = yaml.safe_dump(model.model_dump(mode="json", exclude={"query"}))
    (folder / "models" / f"{model.name}.yaml").write_text(text, encoding="utf-8")
    (folder / "models" / f"{model.name}.sql").write_text(model.query, encoding="utf-8")


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command on the folder; returns exit status, what it printed, and its errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = check.main(["--specs", str(folder), *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_a_good_spec_with_enough_history_has_no_problem(
    world: Any, folder: Path, run: Any, start: Any, change: Any
) -> None:
    world.land(start, 20)
    write(folder, world.specs, change(world.model, monitoring={"min_rows": 20}))
    status, out, err = run()
    assert (status, err) == (0, "")
    assert out == f"1 dataset(s), 1 model(s) in {folder}: no problem found\n"


def test_settings_that_keep_the_watch_silent_are_noted(
    world: Any, folder: Path, run: Any, start: Any, change: Any
) -> None:
    """One label in six never comes: no window of 24 rows has the labels that are asked for."""
    world.land(start, 20, edit=lambda row: row.update(demand=None) if row["ts"].hour % 6 == 0 else None)
    write(folder, world.specs, change(world.model, watch={"period": "3d"}))
    status, out, err = run()
    assert (status, err) == (0, "")
    notes = [line.split(": ")[2] for line in out.splitlines() if line.startswith("note: models/rides.yaml: ")]
    assert notes == ["monitoring.min_rows", "monitoring.performance.min_labels", "watch.period"]
    assert "write watch.period: 5d, or watch.min_rows: 30" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind, gone", "knid, gone", 'models/rides.sql: does not run: column "knid" does not exist, line 1'),
        ("FROM rides_hourly", "FROM rides_horly", 'relation "rides_horly" does not exist'),
        ("x, kind", "kind", "models/rides.yaml: features.numeric: the query returns no such column"),
        ("x, kind", "x::text AS x, kind", "models/rides.sql: features.numeric: has type text; cast it"),
    ],
    ids=["unknown column", "unknown table", "feature not returned", "feature of another type"],
)
def test_bad_sql_is_found_with_the_warehouse(
    world: Any, folder: Path, run: Any, old: str, new: str, said: str
) -> None:
    assert old in world.model.query
    write(
        folder, world.specs, world.model.model_copy(update={"query": world.model.query.replace(old, new, 1)})
    )
    status, out, err = run()
    assert status == 1
    assert said in err
    assert "1 problem(s)" in out
    assert NOT_CHECKED not in out


def test_every_window_that_is_longer_than_the_history_is_found(
    world: Any, folder: Path, run: Any, start: Any, change: Any
) -> None:
    world.land(start, 6)
    model = change(world.model, training={"window": "30d", "holdout": "8d"}, monitoring={"window": "7d"})
    write(folder, world.specs, model)
    status, out, err = run()
    assert status == 1
    assert err.splitlines() == [
        "models/rides.yaml: training.holdout: is longer than the history of 5 days; shorten it (value: 8d)",
        "models/rides.yaml: monitoring.window: is longer than the history of 5 days; shorten it (value: 7d)",
        "models/rides.yaml: training.window: is longer than the history of 5 days; write all, or shorten it (value: 30d)",
    ]
    assert "3 problem(s)" in out


def test_folds_that_leave_nothing_of_the_history_are_found(
    world: Any, folder: Path, run: Any, start: Any, change: Any
) -> None:
    world.land(start, 16)
    windows = {"windows": ("all", "300d"), "holdout": "4d", "folds": 3}
    write(folder, world.specs, change(world.model, training=windows))
    status, _, err = run()
    assert status == 1
    assert err.splitlines() == [
        "models/rides.yaml: training.folds: holdout and folds together take 16d, the history has 15 days; take fewer or "
        "shorter ones (value: 3)"
    ]
    write(folder, world.specs, change(world.model, training={**windows, "folds": 2}))
    assert run()[0] == 0


def test_a_dataset_that_has_not_landed_is_a_note_and_no_problem(world: Any, folder: Path, run: Any) -> None:
    write(folder, world.specs, world.model)
    status, out, err = run()
    assert (status, err) == (0, "")
    assert "note: models/rides.yaml: datasets: no row has landed yet; run ingest__rides_hourly" in out
    assert "no problem found" in out


def test_one_bad_query_leaves_the_other_models_checked(
    world: Any, folder: Path, run: Any, start: Any, change: Any
) -> None:
    world.land(start, 6)
    broken = world.model.model_copy(update={"name": "broken", "query": "SELECT nothing FROM rides_hourly"})
    write(folder, world.specs, broken)
    write(folder, world.specs, change(world.model, monitoring={"window": "7d"}))
    status, _, err = run()
    assert status == 1
    assert "models/broken.sql: does not run" in err
    assert "models/rides.yaml: monitoring.window" in err


def test_a_query_that_fails_only_on_the_data_is_a_problem_and_no_traceback(
    world: Any, folder: Path, run: Any, start: Any
) -> None:
    world.land(start, 6)
    query = world.model.query + " WHERE 1 / (extract(hour FROM ts)::int * 0) > 0"
    write(folder, world.specs, world.model.model_copy(update={"query": query}))
    status, _, err = run()
    assert status == 1
    assert "models/rides.sql: does not run on the rows that have landed: division by zero" in err


@pytest.mark.parametrize(
    ("url", "arguments", "why"),
    [
        (None, (), "EVERGREEN_WAREHOUSE_URL is not set"),
        ("postgresql://me:hunter2@127.0.0.1:9/none", (), "the warehouse does not answer"),
        ("postgresql://me:hunter2@127.0.0.1:9/none", ("--no-warehouse",), "--no-warehouse"),
    ],
    ids=["no address", "server is down", "left out by hand"],
)
def test_without_a_warehouse_it_says_that_queries_were_not_checked(
    world: Any, folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch, url: str | None,
    arguments: tuple[str, ...], why: str,
) -> None:  # fmt: skip
    write(folder, world.specs, world.model.model_copy(update={"query": "SELECT nothing"}))
    if url is None:
        monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL")
    else:
        monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert f"{NOT_CHECKED}: {why}" in out
    assert "no problem found in the rest" in out
    assert "hunter2" not in out


def test_static_mistakes_are_found_without_a_warehouse(world: Any, folder: Path, run: Any) -> None:
    write(folder, world.specs, world.model)
    path = folder / "models" / "rides.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "owneer: me\n", encoding="utf-8")
    status, out, err = run("--no-warehouse")
    assert status == 1
    assert "models/rides.yaml: owneer: unknown field; did you mean owner?" in err
    assert "1 problem(s)" in out
    assert NOT_CHECKED in out


def test_a_check_leaves_the_environment_and_the_warehouse_as_they_were(
    world: Any, folder: Path, run: Any
) -> None:
    def tables() -> list[str]:
        with connect() as conn:
            found = fetch(
                conn, "SELECT table_name AS n FROM information_schema.tables WHERE table_schema = 'data'"
            )
        return [row["n"] for row in found]

    write(folder, world.specs, world.model)
    before = dict(os.environ), tables()
    run()
    assert (dict(os.environ), tables()) == before


EXPECTATIONS = [
    ({"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "x"}},
     "expectations.0.type: Great Expectations knows no such expectation; did you mean expect_column_values_to_be_between?"),
    ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_valu": 1}},
     "expectations.0.kwargs: Great Expectations refuses them: "),
    ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 9, "max_value": 1}},
     "expectations.0.kwargs: min_value 9 is larger than max_value 1; swap them"),
    ({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x", "mostly": 3}},
     "ensure this value is less than or equal to 1.0"),
    ({"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "x", "column_B": "kid"}},
     "expectations.0.kwargs.column_B: there is: no column 'kid'; did you mean kind?"),
    ({"type": "expect_column_values_to_match_regex", "kwargs": {"column": "kind", "regex": "[a-"}},
     "expectations.0.kwargs.regex: no pattern that PostgreSQL reads (invalid regular expression: brackets [] not balanced)"),
]  # fmt: skip


def test_expectations_are_tried_on_great_expectations_and_patterns_on_postgresql(
    world: Any, folder: Path, run: Any
) -> None:
    dataset = world.specs.datasets["rides_hourly"]
    found = []
    for item, _ in EXPECTATIONS:
        content = {**dataset.model_dump(mode="json"), "expectations": [item]}
        write(folder, Specs({dataset.name: DatasetSpec.model_validate(content)}), world.model)
        status, _, err = run()
        assert status == 1, item
        found.append(err)
    for (_, said), err in zip(EXPECTATIONS, found, strict=True):
        assert f"datasets/rides_hourly.yaml: {said}" in err or said in err, err


PARAMETERS = [
    ({"max_dept": 3}, "training.params.max_dept: no parameter of XGBoost that is known here; did you mean max_depth?"),
    ({"max_depth": "deep"}, "training.params: XGBoost refuses them: Invalid Parameter format for max_depth expect int"),
    ({"subsample": 2}, "training.params: XGBoost refuses them: value 2 for Parameter subsample exceed bound [0,1]"),
    ({"eval_metric": "nope"}, "Unknown metric function nope"),
    ({"max_bin": 1}, "max_bin"),
    ({"monotone_constraints": {"huor": 1}}, "training.params.monotone_constraints: no feature 'huor'; did you mean hour?"),
]  # fmt: skip


def test_parameters_are_tried_on_xgboost(world: Any, folder: Path, run: Any, change: Any) -> None:
    for params, said in PARAMETERS:
        write(folder, world.specs, change(world.model, training={"params": params}))
        status, _, err = run("--no-warehouse")
        assert status == 1, params
        assert f"models/rides.yaml: {said}" in err or said in err, err
    write(folder, world.specs, change(world.model, training={"params": {"monotone_constraints": {"x": 1}}}))
    assert run("--no-warehouse")[0] == 0


def test_variables_of_the_environment_are_read(
    world: Any, folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, world.specs, world.model)
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "a@x.org;b@x.org")
    monkeypatch.setenv("EVERGREEN_DIGEST", "61 6 * * 1")
    status, _, err = run("--no-warehouse")
    assert status == 1
    assert "EVERGREEN_MAIL_TO: 'a@x.org;b@x.org': separate addresses by commas" in err
    assert "EVERGREEN_DIGEST: '61 6 * * 1' is not a cron expression" in err


def test_one_odd_file_is_a_line_and_no_traceback(world: Any, folder: Path, run: Any) -> None:
    write(folder, world.specs, world.model)
    (folder / "models" / "link.yaml").symlink_to("nowhere")
    (folder / "models" / "odd.yaml").write_text("owner: {{ team }}")
    os.mkfifo(folder / "models" / "pipe.yaml")
    status, out, err = run("--no-warehouse")
    assert status == 1
    assert "1 dataset(s), 1 model(s)" in out
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "models/link.yaml",
        "models/pipe.yaml",
        "models/odd.yaml",
    ]
