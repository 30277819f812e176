"""Public data sets land as they were published: no file is rewritten, the spec says how each is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from validation_room import Room

from evergreen.spec import DatasetSpec

FOLDER = os.environ.get("EVERGREEN_DATA_DIR", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="EVERGREEN_DATA_DIR names the folder of the public data sets; it is not set"
)
NUMBER = {"type": "float", "required": False}


def spec(key: list[str], event_time: str, columns: dict[str, Any], **source: Any) -> DatasetSpec:
    content = {"name": "readings", "key": key, "event_time": event_time, "columns": columns, "source": source}
    return DatasetSpec.model_validate(content)


def land(room: Room, dataset: DatasetSpec, name: str) -> pd.DataFrame:
    """Land a file and return what was published, in the order of the event time."""
    path = Path(FOLDER) / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    shutil.copy(path, room.folder / path.name)
    outcome = room.one(dataset)
    assert outcome.failures == ()
    rows = pd.DataFrame(room.rows(f'SELECT * FROM data.readings ORDER BY "{dataset.event_time}"'))
    assert outcome.rows_new == len(rows)
    return rows


def raw(name: str) -> pd.DataFrame:
    path = Path(FOLDER) / name
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def test_bike_sharing(room: Room) -> None:
    name = "bike_sharing/hour.csv"
    columns = {
        "at": {"type": "timestamp", "from": ["dteday", "hr"], "format": "%Y-%m-%d %H"},
        "day": {"type": "date", "from": "dteday"},
        "demand": {"type": "integer", "from": "cnt"},
        "holiday": {"type": "boolean"},
        "temperature": {"type": "float", "from": "temp"},
    }
    rows, file = land(room, spec(["at"], "at", columns, extra_columns="ignore"), name), raw(name)
    assert len(rows) == len(file)
    assert rows["demand"].tolist() == file["cnt"].tolist()
    expected = pd.to_datetime(file["dteday"], utc=True) + pd.to_timedelta(file["hr"], unit="h")
    assert pd.to_datetime(rows["at"], utc=True).tolist() == expected.tolist()


def test_tetouan(room: Room) -> None:
    name = "tetouan_power/Tetuan_City_power_consumption.csv"
    columns = {
        "at": {"type": "timestamp", "from": "DateTime", "format": "%m/%d/%y %H:%M", "min": "2017-01-01"},
        "wind": {"type": "float", "from": "Wind Speed"},
        "zone_3": {"type": "float", "from": "Zone 3 Power Consumption"},
    }
    rows, file = land(room, spec(["at"], "at", columns, extra_columns="ignore"), name), raw(name)
    assert len(rows) == len(file) == 52_416
    assert rows["zone_3"].tolist() == file["Zone 3 Power Consumption"].tolist()
    expected = pd.to_datetime(file["DateTime"], format="%m/%d/%y %H:%M", utc=True)
    assert pd.to_datetime(rows["at"], utc=True).tolist() == expected.tolist()


def test_seoul(room: Room) -> None:
    name = "seoul_bike/SeoulBikeData.csv"
    columns = {
        "at": {"type": "timestamp", "from": ["Date", "Hour"], "format": "%d/%m/%Y %H"},
        "rented": {"type": "integer", "from": "Rented Bike Count"},
        "season": {"type": "category", "from": "Seasons"},
        "holiday": {"type": "boolean", "from": "Holiday", "true": ["Holiday"], "false": ["No Holiday"]},
        "open": {"type": "boolean", "from": "Functioning Day"},
    }
    source = {"timezone": "Asia/Seoul", "extra_columns": "ignore"}
    rows, file = land(room, spec(["at"], "at", columns, **source), name), raw(name)
    assert len(rows) == len(file) == 8_760
    assert rows["rented"].tolist() == file["Rented Bike Count"].tolist()
    assert rows["holiday"].tolist() == (file["Holiday"] == "Holiday").tolist()
    local = pd.to_datetime(file["Date"], format="%d/%m/%Y") + pd.to_timedelta(file["Hour"], unit="h")
    assert pd.to_datetime(rows["at"], utc=True).tolist() == local.dt.tz_localize("Asia/Seoul").tolist()


def test_appliances(room: Room) -> None:
    name = "appliances_energy/energydata_complete.parquet"
    columns = {
        "at": {"type": "timestamp", "from": "date"},
        "energy": {"type": "integer", "from": "Appliances"},
        "t_out": {"type": "float", "from": "T_out"},
    }
    # Central European time without a summer: the file has the night of March and no gap.
    source = {"timezone": "Etc/GMT-1", "extra_columns": "ignore"}
    rows, file = land(room, spec(["at"], "at", columns, **source), name), raw(name)
    assert len(rows) == len(file) == 19_735
    assert rows["t_out"].tolist() == file["T_out"].tolist()
    local = pd.to_datetime(file["date"]).dt.tz_localize("Etc/GMT-1")
    assert pd.to_datetime(rows["at"], utc=True).tolist() == local.tolist()


def test_weather(room: Room) -> None:
    name = "nyc_flights13/weather.parquet"
    columns = {
        "at": {"type": "timestamp", "from": "time_hour"},
        "origin": {"type": "category"},
        "wind_gust": NUMBER,
        "temp": NUMBER,
    }
    rows, file = land(room, spec(["at", "origin"], "at", columns, extra_columns="ignore"), name), raw(name)
    assert len(rows) == len(file) == 26_115
    assert rows["wind_gust"].isna().sum() == file["wind_gust"].isna().sum()
    assert rows["temp"].sum() == pytest.approx(file["temp"].sum())


def test_flights(room: Room) -> None:
    name = "nyc_flights13/flights.parquet"
    columns = {
        "day_of": {"type": "timestamp", "from": ["year", "month", "day"], "format": "%Y %m %d"},
        "flight": {"type": "integer"},
        "carrier": {"type": "category"},
        "origin": {"type": "category"},
        "dest": {"type": "category"},
        "dep_time": {"type": "integer", "required": False},
        "dep_delay": NUMBER,
    }
    key = ["day_of", "carrier", "flight", "origin", "dest"]
    source = {"timezone": "America/New_York", "extra_columns": "ignore"}
    file = raw(name)
    if file.duplicated(["year", "month", "day", "carrier", "flight", "origin", "dest"]).any():
        pytest.skip("the flights have no key of their own in the file")
    rows = land(room, spec(key, "day_of", columns, **source), name)
    assert len(rows) == len(file) == 336_776
    assert rows["dep_delay"].isna().sum() == file["dep_delay"].isna().sum() == 8_255


def test_bank_without_a_year_is_told_by_its_spec() -> None:
    """Its rows have a day and a month and no year, which no file can be asked for."""
    columns = {"at": {"type": "timestamp", "from": ["day", "month"], "format": "%d %b"}}
    with pytest.raises(ValueError, match="names no year; add the column that holds it"):
        spec(["at"], "at", columns)
