"""The stories: their files obey the dataset's spec except where they say so, and nothing is delivered twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from evergreen.errors import TerminalError
from evergreen.feeds import bike_sharing, catalogue, plot
from evergreen.feeds.story import File, Story, StoryStep
from evergreen.reference.calendar import ANCHOR
from evergreen.spec import DatasetSpec, Specs, load_specs
from evergreen.validation.ingest import ingest

SPECS = load_specs(Path(__file__).resolve().parents[3] / "include")


@pytest.fixture(scope="module", params=catalogue.NAMES)
def story(request: pytest.FixtureRequest) -> Story:
    if request.param == "bike_sharing":
        try:
            bike_sharing.find()
        except TerminalError as error:
            pytest.skip(f"the real data is not on this machine: {error}")
    return catalogue.get(request.param)


@pytest.fixture(scope="module")
def dataset() -> DatasetSpec:
    return SPECS.datasets["bike_hourly"]


def of_kind(story: Story, *kinds: str) -> list[StoryStep]:
    return [d for d in story.deliveries if d.kind in kinds]


def rows(delivery: StoryStep) -> pd.DataFrame:
    return pd.concat([f.table for f in delivery.files], ignore_index=True)


def test_the_shipped_specs_load() -> None:
    assert isinstance(SPECS, Specs)
    assert SPECS.problems == ()


def test_the_plot_is_history_weeks_a_broken_one_and_its_correction(story: Story) -> None:
    kinds = [d.kind for d in story.deliveries]
    assert kinds == ["history", *["normal"] * 3, "broken", "corrected", *["normal"] * 8]
    broken, corrected = of_kind(story, "broken", "corrected")
    assert (broken.first, broken.last) == (corrected.first, corrected.last)
    assert timedelta(0) < corrected.as_of - broken.as_of < timedelta(hours=12)


def test_weeks_are_the_monitored_windows_and_land_two_hours_later(story: Story) -> None:
    window = SPECS.models["bike_demand"].monitoring.window
    for delivery in of_kind(story, "normal", "corrected", "broken"):
        assert (delivery.first - ANCHOR) % window == timedelta(0)
        assert delivery.end - delivery.first == window
        assert timedelta(hours=2) <= delivery.as_of - delivery.end < timedelta(hours=24)
    assert [d.as_of for d in story.deliveries] == sorted(d.as_of for d in story.deliveries)
    assert story.deliveries[0].end == story.history_end == story.deliveries[1].first


def test_the_history_is_longer_than_the_training_windows(story: Story) -> None:
    for model in SPECS.models.values():
        assert model.training.window != "all"
        # The first 28 days have no full past in the rush model's query.
        assert story.history_end - story.start > model.training.window + timedelta(days=28)
    assert len(story.deliveries[0].files) == 5


def test_good_deliveries_obey_the_dataset(story: Story, dataset: DatasetSpec) -> None:
    table = pd.concat([rows(d) for d in story.deliveries if d.kind != "broken"], ignore_index=True)
    assert list(table.columns) == list(dataset.columns)
    assert not table["ts"].duplicated().any()
    assert table["ts"].is_monotonic_increasing
    assert str(table["ts"].dtype).endswith("UTC]")
    for name, column in dataset.columns.items():
        values = table[name]
        if column.type == "float":
            assert values.dtype == "float64"
        elif column.type == "integer":
            assert values.dtype == "int64"
        elif column.type == "boolean":
            assert values.dtype == "bool"
        elif column.type == "category":
            assert set(values) <= set(column.values or ())
        if column.min is not None:
            assert values.min() >= column.min
        if column.max is not None:
            assert values.max() <= column.max
        if column.required:
            assert not values.isna().any()


def test_a_delivery_holds_the_hours_it_is_about(story: Story) -> None:
    for delivery in story.deliveries:
        assert rows(delivery)["ts"].min() >= delivery.first
        assert rows(delivery)["ts"].max() <= delivery.last
        assert delivery.note


def test_from_week_5_on_the_thermometer_shows_fahrenheit(story: Story) -> None:
    weeks = of_kind(story, "normal", "corrected")
    celsius, fahrenheit = (rows(weeks[n])["temperature"] for n in (3, 4))
    assert celsius.max() < 35
    assert 32 < fahrenheit.median() < 90
    assert (fahrenheit.median() - 32) / 1.8 == pytest.approx(celsius.median(), abs=8)
    assert min(rows(week)["temperature"].median() for week in weeks[4:]) > 40
    notes = [week.note for week in weeks]
    assert "°F" in notes[plot.UNIT_WEEK - 1]
    assert "°F" not in "".join(notes[: plot.UNIT_WEEK - 1])


@pytest.mark.parametrize(
    "mistake",
    ["half of the hours", "text in humidity", "humidity beyond 100", "negative demand", "hours twice"],
    ids=["half", "text", "beyond", "negative", "twice"],
)
def test_the_broken_delivery_is_broken(story: Story, mistake: str) -> None:
    broken, corrected = (rows(d) for d in of_kind(story, "broken", "corrected"))
    humidity = pd.to_numeric(broken["humidity"], errors="coerce")
    found = {
        "half of the hours": broken["ts"].nunique() == len(corrected) // 2,
        "text in humidity": broken["humidity"].eq("n/a%").sum() > 5,
        "humidity beyond 100": humidity.gt(100).sum() > 5,
        "negative demand": broken["demand"].lt(0).sum() > 5,
        "hours twice": broken["ts"].duplicated().sum() == 6,
    }
    assert found[mistake]


def test_ingest_refuses_the_broken_week_and_takes_the_corrected_one(
    story: Story, dataset: DatasetSpec, tmp_path: Path, warehouse_url: str
) -> None:
    states = {}
    for delivery in of_kind(story, "broken", "corrected"):
        delivery.write(tmp_path)
        (batch,) = ingest(dataset, delivery.as_of, f"test/{delivery.kind}", folder=tmp_path)
        states[delivery.kind] = batch.state
    assert states == {"broken": "quarantined", "corrected": "published"}


def test_no_two_files_have_one_name(story: Story, tmp_path: Path) -> None:
    paths = [path for delivery in story.deliveries for path in delivery.write(tmp_path)]
    assert len(paths) == len(set(paths)) == len(list(tmp_path.iterdir())) == 18


def test_what_is_written_reads_back(story: Story, tmp_path: Path) -> None:
    (path,) = story.deliveries[1].write(tmp_path)
    assert (
        path.read_text(encoding="utf-8")
        .splitlines()[1]
        .startswith(f"{story.history_end:%Y-%m-%dT%H:%M:%SZ},")
    )
    read = pd.read_csv(path, parse_dates=["ts"])
    pd.testing.assert_frame_equal(read, rows(story.deliveries[1]).reset_index(drop=True), check_dtype=False)


class Interrupted(Exception):
    """Stands for a machine that dies while a file is written."""


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    class Dying:
        def __str__(self) -> str:
            raise Interrupted

    table = pd.DataFrame(
        {"ts": pd.to_datetime(["2025-01-01", "2025-01-02"], utc=True), "humidity": [1.0, Dying()]}
    )
    with pytest.raises(Interrupted):
        File("bike_hourly.csv", table).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rewrite_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for value in (1, 2):
        File("a.csv", pd.DataFrame({"x": [value]})).write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "x\n2\n"


def test_an_unknown_story_is_refused_with_the_known_names() -> None:
    with pytest.raises(TerminalError, match=r"'simulate'.*simulated, bike_sharing"):
        catalogue.get("simulate")
