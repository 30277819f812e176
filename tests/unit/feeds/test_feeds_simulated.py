"""The simulated city: the same seed is the same bytes, and its changes are what they say."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import TerminalError
from evergreen.feeds import simulated
from evergreen.feeds.simulated import Changes, Draws, hours
from evergreen.feeds.story import File

START = datetime(2024, 1, 1, tzinfo=UTC)
HALF = START + timedelta(weeks=4)
END = START + timedelta(weeks=8)


def digest(table: pd.DataFrame, folder: Path) -> str:
    return hashlib.sha256(File("city.csv", table).write(folder).read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    # The digest is written down: another platform or NumPy that gives other bytes breaks the promise.
    expected = "82451ca7ba947ae2dd2b09909f71833f101b06d92e8692f9409de83446fb61da"
    assert digest(hours(START, END, 7, Changes(HALF, HALF)), tmp_path) == expected


def test_another_seed_gives_another_city(tmp_path: Path) -> None:
    assert digest(hours(START, HALF, 7), tmp_path) != digest(hours(START, HALF, 8), tmp_path)


def test_a_longer_table_begins_with_the_shorter_one() -> None:
    pd.testing.assert_frame_equal(hours(START, HALF, 7), hours(START, END, 7).iloc[: 4 * 168])


@pytest.mark.parametrize("change", ["fahrenheit", "price"])
def test_hours_before_a_change_do_not_depend_on_it(change: str) -> None:
    changed, as_ever = hours(START, END, 7, Changes(**{change: HALF})), hours(START, END, 7)
    before = as_ever["ts"] < HALF
    pd.testing.assert_frame_equal(changed[before], as_ever[before])
    assert not changed[~before].equals(as_ever[~before])


def test_the_unit_change_is_fahrenheit_and_nothing_else() -> None:
    changed, as_ever = hours(START, END, 7, Changes(fahrenheit=HALF)), hours(START, END, 7)
    after = as_ever["ts"] >= HALF
    # Both readings are rounded to a tenth, so they agree to 1.8 half tenths and a half.
    apart = (changed["temperature"] - (as_ever["temperature"] * 1.8 + 32.0))[after].dropna().abs()
    assert len(apart) > 600
    assert apart.max() <= 0.1401
    pd.testing.assert_frame_equal(changed.drop(columns="temperature"), as_ever.drop(columns="temperature"))


def test_the_price_change_changes_behaviour() -> None:
    changed, as_ever = hours(START, END, 7, Changes(price=HALF)), hours(START, END, 7)
    after = as_ever["ts"] >= HALF
    assert changed["price"][after].eq(3.2).all()
    ratio = changed["demand"][after] / as_ever["demand"][after].clip(lower=1)
    hour, working = as_ever["ts"].dt.hour[after], as_ever["workingday"][after]
    assert ratio[working & hour.isin([8, 17])].median() > 1.15
    assert ratio[working & hour.between(10, 14)].median() < 0.6
    assert ratio[~working & hour.between(10, 18)].median() < 0.5
    assert changed["demand"][after].sum() < 0.95 * as_ever["demand"][after].sum()


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    return hours(START, START + timedelta(days=366), 7)


def test_working_days_and_free_days_differ_in_shape(year: pd.DataFrame) -> None:
    shape = year.groupby(["workingday", year["ts"].dt.hour])["demand"].mean()
    assert shape[True].idxmax() in (8, 17, 18)
    assert shape[False].idxmax() in range(11, 17)


def test_summer_is_warmer_and_busier_than_winter(year: pd.DataFrame) -> None:
    by_month = year.groupby(year["ts"].dt.month)[["temperature", "demand"]].mean()
    assert by_month["temperature"][7] > by_month["temperature"][1] + 8
    assert by_month["demand"][7] > 1.2 * by_month["demand"][1]


def test_weather_persists_and_rain_empties_the_streets(year: pd.DataFrame) -> None:
    same = (year["weather"] == year["weather"].shift()).mean()
    chance = (year["weather"].value_counts(normalize=True) ** 2).sum()
    assert same > 0.8 > 2 * chance - 0.1
    noon = year[year["workingday"] & (year["ts"].dt.hour == 17)].groupby("weather")["demand"].mean()
    assert noon["clear"] > noon["mist"] > noon["light_rain"]


def test_a_few_readings_are_missing_and_no_week_loses_many(year: pd.DataFrame) -> None:
    lost = year.iloc[: 52 * 168][["temperature", "humidity", "windspeed"]].isna()
    assert (lost.mean() > 0.001).all()
    assert (lost.groupby(np.arange(len(lost)) // 168).mean() < 0.02).all(axis=None)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (datetime(2025, 12, 25).date(), True),
        (datetime(2025, 5, 5).date(), True),
        (datetime(2025, 9, 8).date(), False),
        (datetime(2025, 7, 16).date(), False),
    ],
    ids=["christmas", "first-monday-of-may", "second-monday-of-september", "plain-wednesday"],
)
def test_holidays(day: datetime, expected: bool) -> None:
    assert simulated.is_holiday(day) is expected


def test_normal_draws_are_normal_enough_and_streams_are_independent() -> None:
    first, second = Draws(3).normal(1, 20_000), Draws(3).normal(2, 20_000)
    assert abs(first.mean()) < 0.03
    assert abs(first.std() - 1) < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


@pytest.mark.parametrize(
    "start",
    [
        datetime(2024, 8, 27, tzinfo=UTC),
        datetime(2024, 8, 26, 1, tzinfo=UTC),
        datetime(2024, 8, 26, tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=["tuesday", "one-o-clock", "another-zone"],
)
def test_a_story_that_does_not_begin_on_a_monday_is_refused(start: datetime) -> None:
    with pytest.raises(TerminalError, match="Monday at 00:00 UTC"):
        simulated.story(start=start)


def test_a_story_can_begin_at_another_time() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    story = simulated.story(start=start)
    assert story.start == start
    assert story.deliveries[-1].end == start + timedelta(weeks=68)
