"""What `make status` says about files that wait in a landing folder, on a real warehouse."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from evergreen.spec import load_dataset, load_specs
from evergreen.stack import landed
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import connect

SPEC = {"name": "rides", "key": ["id"], "event_time": "ts",
        "columns": {"id": {"type": "integer"}, "ts": {"type": "timestamp"}}}  # fmt: skip
ROWS = "id,ts\n1,2026-01-05T00:00:00Z\n"


@pytest.fixture
def folder(warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The landing folder of the dataset of a stack that is up."""
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    (tmp_path / "specs" / "datasets").mkdir(parents=True)
    say(tmp_path / "landing" / "rides")
    (tmp_path / "landing" / "rides").mkdir(parents=True)
    return tmp_path / "landing" / "rides"


def lines(folder: Path) -> list[str]:
    """What is said of the files."""
    with connect() as conn:
        return landed.lines(conn, load_specs(folder.parents[1] / "specs"))


def say(landing: Path, **source: object) -> None:
    path = landing.parents[1] / "specs" / "datasets" / "rides.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "source": {"pattern": "*.csv", **source}}))


def land(folder: Path, name: str, text: str = ROWS, age_s: float = 0) -> float:
    (folder / name).write_text(text)
    changed = time.time() - age_s
    os.utime(folder / name, (changed, changed))
    return changed


def test_each_file_is_shown_with_since_when_and_what_it_waits_for(folder: Path) -> None:
    since = land(folder, "cut.csv", ROWS.rstrip(), age_s=120)
    land(folder, "whole.csv")
    land(folder, "sent.csv.part", age_s=60)
    land(folder, "other.txt.part")
    head, *files = lines(folder)
    assert head == f"2 file(s) of rides in {folder} wait:"
    told = datetime.fromtimestamp(since, UTC)
    assert (
        files[0]
        == f"  cut.csv  since {told:%Y-%m-%d %H:%M} UTC: changed less than 5 min ago, its last line has no line end"
    )
    assert files[1].endswith("its name ends in .part; it is taken once it is renamed to sent.csv")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"complete": "quiet", "quiet": "1h"}, "changed less than 60 min ago"),
        ({"complete": "marker"}, "no a.csv.done that is newer than it"),
    ],
    ids=["too young", "without marker"],
)
def test_a_file_waits_as_the_spec_says(folder: Path, source: dict[str, str], why: str) -> None:
    say(folder, **source)
    land(folder, "a.csv", age_s=600)
    assert lines(folder)[1].endswith(f"UTC: {why}")
    land(folder, "a.csv", age_s=4000)
    land(folder, "a.csv.done")
    assert lines(folder) == []


def test_a_file_that_was_taken_waits_for_nothing(folder: Path) -> None:
    land(folder, "a.csv", age_s=4000)
    dataset = load_dataset(folder.parents[1] / "specs", "rides").datasets["rides"]
    (done,) = ingest(dataset, datetime.now(UTC), "ingest__rides/1", folder=folder)
    assert done.state == "published"
    say(folder, complete="marker")
    assert lines(folder) == []


def test_many_files_are_counted(folder: Path) -> None:
    say(folder, complete="marker")
    for number in range(25):
        land(folder, f"{number:02}.csv", age_s=1000 - number)
    shown = lines(folder)
    assert (len(shown), shown[0].split()[0], shown[-1]) == (22, "25", "  and 5 more")


def test_a_folder_that_is_gone_is_said(folder: Path) -> None:
    say(folder, folder="elsewhere")
    (line,) = lines(folder)
    assert "is not there" in line
