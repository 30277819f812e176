"""A champion's reference of an earlier format is read, so that a release that changes the format does not end its watch."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evergreen.errors import TerminalError
from evergreen.reference.reference import FORMAT, PROFILE_FILE, Reference, build
from evergreen.spec import ModelSpec, load_specs

HERE = Path(__file__).parent
KEPT = [HERE / "run" / "reference", *sorted(HERE.glob("reference_format_*"))]


def format_of(folder: Path) -> int:
    return int(json.loads((folder / PROFILE_FILE).read_text())["format"])


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return load_specs(HERE / "specs").models["bike_demand"]


def test_a_file_of_the_last_formats_is_kept() -> None:
    assert {format_of(folder) for folder in KEPT} >= {FORMAT - 1, FORMAT}, (
        "a new format? Keep a file of the one before"
    )


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_it_is_read_and_says_from_where_on_an_error_counts(folder: Path, model: ModelSpec) -> None:
    profile = json.loads((folder / PROFILE_FILE).read_text())
    found = Reference.read(folder).for_window(model)
    assert [column.to_dict()["learnt"].keys() for column in found.columns.values()] == [
        column["learnt"].keys() for column in profile["columns"]
    ]
    assert found.family.window_rows == profile["family"]["window_rows"]
    assert found.movement.metric == "rmse"
    assert found.movement.blocks >= 2
    assert found.movement.factor(0.01, 168) > 1
    assert sum(found.sample["_outside"].is_valid().to_pylist()) >= 20


def test_what_format_2_lacks_is_learnt_from_its_sample(model: ModelSpec) -> None:
    folder = HERE / "reference_format_2"
    fresh = build(model, pq.read_table(folder / "reference.parquet"), {"rmse": 55.8})
    found = Reference.read(folder).for_window(model)
    assert found.sample.sort_by("_time").equals(fresh.sample.sort_by("_time"))
    assert found.movement.factor(0.01, 168) == pytest.approx(
        Reference.read(KEPT[0]).movement.factor(0.01, 168), rel=0.3
    )


def test_a_format_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / PROFILE_FILE).write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(TerminalError, match=f"has format {FORMAT + 1}, this release reads 2 to {FORMAT};"):
        Reference.read(tmp_path)
