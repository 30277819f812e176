"""Tables of the real data sets in `EVERGREEN_DATA_DIR`, as their datasets in `benchmarks/specs` have them.

Their clocks are local ones, taken as UTC, so that an hour of the day keeps its meaning all year. None of the files is part of
the project; sources and licences:

- `bank_marketing/bank_full.csv`: Moro, S., Cortez, P. and Rita, P. (2014), UCI 222, CC BY 4.0. It has no year: it begins in May
  2008, and a year ends where the number of the month falls. Calls of a day follow each other by a second, in the file's order.
- `nyc_flights13/flights.parquet`, `weather.parquet`: R package nycflights13, CC0. The scheduled minute is the minute of
  departure less the delay; a cancelled flight has neither, nor a label, and counts as one at noon.
- `tetouan_power/Tetuan_City_power_consumption.csv`: Salam, A. and El Hibaoui, A. (2018), UCI 849, CC BY 4.0.
- `appliances_energy/energydata_complete.parquet`: Candanedo, L. (2017), UCI 374, CC BY 4.0.
- `seoul_bike/SeoulBikeData.csv`: UCI 560, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def place(name: str) -> Path:
    """Where a file of a data set is.

    Raises:
        TerminalError: it is not there (NO_ROWS).
    """
    path = settings.DATA_DIR.path() / name if settings.DATA_DIR.read() else None
    if path is None or not path.is_file():
        raise TerminalError(f"{name} is not in EVERGREEN_DATA_DIR", ErrorReason.NO_ROWS)
    return path


def bank() -> pd.DataFrame:
    """45,211 calls, 2008 to 2010: did the customer make a deposit? Without the call's duration, which is known only after it."""
    raw = pd.read_csv(place("bank_marketing/bank_full.csv"))
    month = raw["month"].map(MONTHS.index) + 1
    year = 2008 + (month.diff() < 0).cumsum()
    day = pd.to_datetime({"year": year, "month": month, "day": raw["day"]}, utc=True)
    second = raw.groupby(day).cumcount()
    table = raw.drop(columns=["duration", "day", "month"]).rename(columns={"default": "in_default"})
    table["deposit"] = (raw["deposit"] == "yes").astype(int)
    return _numbered(table, day + pd.to_timedelta(9 * 3600 + second, unit="s"))


def flights() -> pd.DataFrame:
    """336,776 flights of 2013 with the weather of the hour at their airport: more than 15 minutes late? NULL: cancelled."""
    raw = pd.read_parquet(place("nyc_flights13/flights.parquet"))
    minute = (60 * raw["hour"] + raw["minute"] - raw["dep_delay"]) % 1440
    ts = pd.to_datetime(raw[["year", "month", "day"]], utc=True) + pd.to_timedelta(
        minute.fillna(720), unit="min"
    )
    weather = pd.read_parquet(place("nyc_flights13/weather.parquet"))
    seen = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
    weather = weather.drop_duplicates(["origin", "year", "month", "day", "hour"])
    raw = raw.assign(scheduled=ts.dt.hour.where(minute.notna()))
    joined = raw.merge(
        weather[["origin", "year", "month", "day", "hour", *seen]].rename(columns={"hour": "scheduled"}),
        how="left", on=["origin", "year", "month", "day", "scheduled"],
    )  # fmt: skip
    table = joined[["carrier", "origin", "dest", "distance", *seen]].copy()
    delay = joined["dep_delay"]
    table["late"] = (delay > 15).astype("Int64").mask(delay.isna())
    table["minutes"] = delay
    return _numbered(table, ts.reset_index(drop=True))


def tetouan() -> pd.DataFrame:
    """52,416 times of ten minutes in 2017: the power that three zones of Tetouan take."""
    raw = pd.read_csv(place("tetouan_power/Tetuan_City_power_consumption.csv"))
    ts = pd.to_datetime(raw.pop("DateTime"), format="%m/%d/%y %H:%M", utc=True)
    raw.columns = ["temperature", "humidity", "windspeed", "zone_1", "zone_2", "zone_3"]
    raw.insert(0, "ts", ts)
    return raw


def appliances() -> pd.DataFrame:
    """19,735 times of ten minutes, January to May 2016: what the appliances and lights of a house take. Without its two columns of noise."""
    raw = pd.read_parquet(place("appliances_energy/energydata_complete.parquet"))
    ts = pd.to_datetime(raw["date"], utc=True)
    table = raw.drop(columns=["date", "rv1", "rv2"])
    table.columns = [name.lower() for name in table.columns]
    table.insert(0, "ts", ts)
    return table


def seoul() -> pd.DataFrame:
    """8,760 hours, December 2017 to November 2018: bikes rented in Seoul."""
    raw = pd.read_csv(place("seoul_bike/SeoulBikeData.csv"), encoding="latin-1")
    ts = pd.to_datetime(raw["Date"], format="%d/%m/%Y", utc=True) + pd.to_timedelta(raw["Hour"], unit="h")
    raw = raw.drop(columns=["Date", "Hour"])
    raw.columns = [
        "rented", "temperature", "humidity", "windspeed", "visibility", "dew_point", "solar", "rainfall", "snowfall",
        "season", "holiday", "functioning",
    ]  # fmt: skip
    raw.insert(0, "ts", ts)
    return raw


def shuffled(table: pd.DataFrame, *fixed: str, seed: int = 0) -> pd.DataFrame:
    """The same rows in an order that means nothing: what lies beside `fixed` (the key, the time) is dealt anew.

    Nothing changes over time in such a table, so each alarm on it is false.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    return (
        table.drop(columns=list(fixed))
        .iloc[order]
        .reset_index(drop=True)
        .assign(**{n: table[n].to_numpy() for n in fixed})[list(table.columns)]
    )


def _numbered(table: pd.DataFrame, ts: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"id": np.arange(len(table)), "ts": ts, **{n: table[n].array for n in table.columns}})
