"""Local time against Python's own zones, one by one; and the hour that the clock shows twice, by the file's order."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from evergreen.warehouse.files.localtime import WallClock, offsets

ORIGIN = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
ZONES = (
    "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Monrovia",
    "Asia/Kolkata", "Pacific/Apia", "Europe/London", "Asia/Tehran", "Etc/GMT+2", "UTC",
)  # fmt: skip


def micros(times: list[datetime]) -> np.ndarray:
    return np.array([(t - ORIGIN) // MICROSECOND for t in times], np.int64)


def changes(zone: ZoneInfo) -> list[datetime]:
    """Local times on which the zone's offset is another one than a day before."""
    days = [datetime(1900, 1, 1) + timedelta(days=n) for n in range(366 * 140)]
    offset = [d.replace(tzinfo=zone).utcoffset() for d in days]
    return [day for day, new, old in zip(days[1:], offset[1:], offset, strict=False) if new != old]


@pytest.mark.parametrize("zone", ZONES)
def test_offsets_are_those_of_zoneinfo(zone: str) -> None:
    chance, place = random.Random(5), ZoneInfo(zone)
    times = [
        datetime(1880, 1, 1) + timedelta(seconds=chance.randrange(160 * 365 * 86400)) for _ in range(500)
    ]
    times += [d - timedelta(minutes=chance.randrange(48 * 60)) for d in changes(place) for _ in range(4)]
    times += [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)]
    found = offsets(micros(times), zone)
    for index, time in enumerate(times):
        told = [time.replace(tzinfo=place, fold=fold).utcoffset() for fold in (0, 1)]
        assert [int(found.first[index]) * MICROSECOND, int(found.second[index]) * MICROSECOND] == told, time


def autumn(
    *minutes: int, fold: str | None = "by_order", group: str = "", zone: str = "Europe/Berlin"
) -> list[str]:
    """The UTC clock time of local times, each so many minutes after midnight of the 29th October 2023; `?` if not told."""
    local = micros([datetime(2023, 10, 29) + timedelta(minutes=m) for m in minutes])
    told = WallClock(zone, fold).utc(local, [group] if group else [])  # type: ignore[arg-type]
    times = [ORIGIN + int(u) * MICROSECOND for u in told.utc]
    return ["?" if twice else f"{t:%H:%M}" for t, twice in zip(times, told.twice, strict=True)]


ORDERS = {
    "hourly": ((60, 120, 120, 180), ["23:00", "00:00", "01:00", "02:00"]),
    "half-hours": ((90, 120, 150, 120, 150, 180), ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]),
    "gap-in-the-first": ((90, 150, 120, 150, 180), ["23:30", "00:30", "01:00", "01:30", "02:00"]),
    "newest-first": ((180, 150, 120, 150, 120, 90), ["02:00", "01:30", "01:00", "00:30", "00:00", "23:30"]),
    "newest-first-hourly": ((240, 180, 120, 120, 60), ["03:00", "02:00", "01:00", "00:00", "23:00"]),
    "one-pass-alone": ((60, 120, 180), ["23:00", "00:00", "02:00"]),
    "third-pass": ((60, 120, 120, 120), ["23:00", "00:00", "01:00", "?"]),
}


@pytest.mark.parametrize("case", ORDERS)
def test_order_tells_the_pass(case: str) -> None:
    minutes, expected = ORDERS[case]
    assert autumn(*minutes) == expected


def test_each_series_has_passes_of_its_own() -> None:
    assert autumn(120, 120, 120, 120, group="abab") == ["00:00", "00:00", "01:00", "01:00"]
    assert (
        autumn(90, 120, 120, 180, 90, 120, 120, 180, group="aaaabbbb")
        == ["23:30", "00:00", "01:00", "02:00"] * 2
    )


def test_first_second_and_nothing_said() -> None:
    assert autumn(60, 120, 179, 180, fold="first") == ["23:00", "00:00", "00:59", "02:00"]
    assert autumn(60, 120, 179, 180, fold="second") == ["23:00", "01:00", "01:59", "02:00"]
    assert autumn(60, 120, 179, 180, fold=None) == ["23:00", "?", "?", "02:00"]


def test_order_goes_on_from_block_to_block() -> None:
    clock = WallClock("Europe/Berlin", "by_order")
    blocks = [micros([datetime(2023, 10, 29, 2, m)]) for m in (0, 30, 0, 30)]
    assert [int(clock.utc(b).utc[0]) // 60_000_000 % 1440 for b in blocks] == [0, 30, 60, 90]


def test_two_autumns_do_not_mix() -> None:
    clock = WallClock("Europe/Berlin", "by_order")
    times = [
        datetime(2022, 10, 30, 2),
        datetime(2022, 10, 30, 2),
        datetime(2023, 10, 29, 2),
        datetime(2023, 10, 29, 2),
    ]
    told = clock.utc(micros(times))
    assert [(ORIGIN + int(u) * MICROSECOND).hour for u in told.utc] == [0, 1, 0, 1]


@pytest.mark.parametrize("fold", [None, "first", "second", "by_order"])
def test_hour_that_spring_leaves_out_is_never_told(fold: str | None) -> None:
    times = micros([datetime(2023, 3, 26, 1, 59), datetime(2023, 3, 26, 2), datetime(2023, 3, 26, 3)])
    told = WallClock("Europe/Berlin", fold).utc(times)  # type: ignore[arg-type]
    assert told.never.tolist() == [False, True, False]
