"""The real data: UCI Bike Sharing (Washington, D.C., 2011 and 2012), as the dataset `bike_hourly`.

The file is never part of the project. It is taken from $EVERGREEN_DATA_DIR, else from the cache, else from UCI,
and only a file with the known checksum is used.

Source: Fanaee-T, H. and Gama, J. (2013), Bike Sharing Dataset, UCI Machine Learning Repository, CC BY 4.0,
https://doi.org/10.24432/C5W894
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from evergreen.feeds import plot
from evergreen.feeds.real_file import URL, find, obtain
from evergreen.feeds.story import Story

__all__ = ["convert", "find", "obtain", "story"]

HISTORY_END = datetime(2012, 1, 16, tzinfo=UTC)
PRICE = 1.0
WEATHER = {1: "clear", 2: "mist", 3: "light_rain", 4: "heavy_rain"}
TEMPERATURE_MAX, WINDSPEED_MAX = 41.0, 67.0
COLUMNS = ["dteday", "hr", "holiday", "workingday", "weathersit", "temp", "hum", "windspeed", "cnt"]

NOTES = (
    "week 1 (real, January 2012): quiet",
    "week 2 (real): quiet",
    "week 3 (real): quiet",
    "week 4 (real): the corrected delivery; the week itself was quiet",
    "week 5: injected: the temperature is given in °F from now on; everything else is real",
    "week 6: still °F (injected), the second week of it",
    "week 7: °F is the usual now; quiet for a model that knows it",
    "week 8 (real, besides °F): quiet",
    "week 9 (real, March 2012): spring breaks in and the young bike scheme leaps: a third more rides than the week before",
    "week 10 (real): the leap stays",
    "week 11 (real): the new level is the usual now; quiet for a model that knows it",
    "week 12 (real): quiet",
)


def story(url: str = URL) -> Story:
    """The story on the real data: 2011 and the first half of January 2012, then twelve weeks.

    The rides, the weather and the change of behaviour (the leap of March 2012) are real; the broken delivery and
    the sensor's change to °F are injected, and the notes say so.

    Raises:
        TerminalError: see `obtain`.
    """
    table = convert(obtain(url))
    fahrenheit = table["ts"] >= HISTORY_END + (plot.UNIT_WEEK - 1) * plot.WEEK
    table["temperature"] = table["temperature"].mask(fahrenheit, plot.to_fahrenheit(table["temperature"]))
    return plot.tell(
        "bike_sharing", table, HISTORY_END, NOTES, "history: the real rides of 2011 in Washington, D.C."
    )


def convert(path: Path) -> pd.DataFrame:
    """Read `hour.csv` as the columns of `bike_hourly`.

    - `ts`: day and hour as the file has them: Washington's clock, taken as UTC, so that an hour of the day keeps
      its meaning all year. The 165 hours that the file leaves out stay missing.
    - `temperature` °C and `humidity` %: the file's shares times 41 and 100, `windspeed`: times 67, as its readme says.
    - `weather`: situations 1 to 4. `demand`: casual and registered riders together.
    - `price`: the file has none; a constant 1.0, which teaches a model nothing.
    """
    raw = pd.read_csv(path, usecols=COLUMNS)
    return pd.DataFrame(
        {
            "ts": pd.to_datetime(raw["dteday"], utc=True) + pd.to_timedelta(raw["hr"], unit="h"),
            "holiday": raw["holiday"] == 1,
            "workingday": raw["workingday"] == 1,
            "weather": raw["weathersit"].map(WEATHER),
            "temperature": (raw["temp"] * TEMPERATURE_MAX).round(2),
            "humidity": (raw["hum"] * 100.0).round(1),
            "windspeed": (raw["windspeed"] * WINDSPEED_MAX).round(3),
            "price": PRICE,
            "demand": raw["cnt"],
        }
    )
