"""A simulated city and its rented bikes, hour by hour, for a demo that needs no download.

The same seed gives the same bytes: random numbers are taken from PCG64's raw stream, whose values NumPy
promises never to change (`numpy.random.Generator`'s methods carry no such promise), and readings are rounded
to a sensor's digits, which hides the last bit in which mathematical libraries differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd

from evergreen.feeds import plot
from evergreen.feeds.story import Story

SEED = 7
START = datetime(2024, 8, 26, tzinfo=UTC)
HISTORY_WEEKS = 56

WEATHER = ("clear", "mist", "light_rain", "heavy_rain")
PRICE, NEW_PRICE = 2.5, 3.2
YEAR_HOURS = 365.2425 * 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# From one hour to the next, in the order of WEATHER: a clear spell lasts a day, rain six hours.
TRANSITIONS = (
    (0.920, 0.062, 0.018, 0.000),
    (0.105, 0.830, 0.060, 0.005),
    (0.060, 0.120, 0.790, 0.030),
    (0.050, 0.150, 0.400, 0.400),
)
RIDES_IN = (1.0, 0.8, 0.34, 0.16)
COOLING = (0.0, 0.8, 1.8, 2.6)
DAMPNESS = (0.0, 12.0, 24.0, 31.0)

# Rides of an hour at 15 °C in dry and calm weather.
WORKING_DAY = (
    22, 14, 9, 7, 9, 28, 105, 270, 390, 230, 165, 175, 205, 205, 190, 205, 290, 430, 395, 275, 190, 140, 95, 50,
)  # fmt: skip
FREE_DAY = (
    70, 52, 38, 24, 14, 13, 22, 42, 85, 140, 205, 260, 295, 305, 300, 290, 275, 250, 215, 170, 130, 108, 90, 72,
)  # fmt: skip
WEEKDAY = (0.97, 1.0, 1.02, 1.01, 0.98, 1.03, 0.95)
COMMUTING = frozenset({6, 7, 8, 9, 16, 17, 18, 19})

FIXED_HOLIDAYS = frozenset({(1, 1), (5, 1), (8, 15), (10, 3), (11, 1), (12, 25), (12, 26)})


NOTES = (
    "week 1: quiet",
    "week 2: quiet",
    "week 3: quiet",
    "week 4: the corrected delivery; the week itself was quiet",
    "week 5: the temperature sensor reports °F from now on; the weather and the riders are as before",
    "week 6: still °F, the second week of it",
    "week 7: °F is the usual now; quiet for a model that knows it",
    "week 8: quiet",
    "week 9: a ride costs 3.20 instead of 2.50 and commuters get a season pass; leisure rides fall, peaks rise",
    "week 10: the new price, the second week of it",
    "week 11: the new price is the usual now; quiet for a model that knows it",
    "week 12: quiet",
)


def story(*, seed: int = SEED, start: datetime = START) -> Story:
    """The story on the simulated city: 56 weeks of history, then twelve weeks.

    Args:
        seed: of the simulation. Every seed has the same truth; how clearly a model shows it differs a little.
        start: first hour, a Monday, 00:00 UTC. The default puts the changes into autumn, in a spell of falling
            demand: an error that rises there rises because of the change and not because there are more rides.

    Raises:
        TerminalError: the start is no Monday.
    """
    plot.check_monday(start)
    history_end = start + HISTORY_WEEKS * plot.WEEK
    changes = Changes(
        fahrenheit=history_end + (plot.UNIT_WEEK - 1) * plot.WEEK,
        price=history_end + (plot.BEHAVIOUR_WEEK - 1) * plot.WEEK,
    )
    table = hours(start, history_end + plot.WEEKS * plot.WEEK, seed, changes)
    note = f"history: {HISTORY_WEEKS} weeks of a simulated city, seed {seed}"
    return plot.tell("simulated", table, history_end, NOTES, note)


@dataclass(frozen=True)
class Changes:
    """What happens to the city for good, and when (aware times; None: never)."""

    fahrenheit: datetime | None = None
    """The thermometer reports °F instead of °C; the weather and the riders are as before."""
    price: datetime | None = None
    """Single rides cost more and commuters get a season pass: peaks rise, leisure rides fall."""


def hours(start: datetime, end: datetime, seed: int, changes: Changes = Changes()) -> pd.DataFrame:
    """Simulate every hour from `start` to before `end`.

    Args:
        start: first hour (aware); the weather's chain begins here, so another start is another weather.
        end: the hour after the last; a later end adds hours and changes none.
        seed: of the random numbers; the same call gives the same table everywhere.
        changes: what happens to the city on the way. Hours before a change do not depend on it.

    Returns:
        One row per hour with the columns of the dataset `bike_hourly`; `ts` is in UTC, which is also the city's
        clock. A missing reading is NaN.
    """
    count = (end - start) // timedelta(hours=1)
    times = [start + timedelta(hours=n) for n in range(count)]
    clock = np.array([(t - EPOCH) / timedelta(hours=1) for t in times])
    hour = np.array([t.hour for t in times], dtype=int)
    free = np.array([is_holiday(t.date()) for t in times], dtype=bool)
    working = ~free & np.array([t.weekday() < 5 for t in times], dtype=bool)
    draws = Draws(seed)

    weather = _weather(draws.uniform(0, count))
    season = -np.cos(2 * np.pi * (clock / YEAR_HOURS - 20 / 365.2425))
    temperature = (
        16.0 + 7.0 * season - 3.0 * np.cos(2 * np.pi * (hour - 3) / 24)
        + 3.8 * _persistent(draws.normal(1, count), 0.975) - np.take(COOLING, weather)
    )  # fmt: skip
    dry = 58.0 + 7.0 * np.cos(2 * np.pi * (hour - 4) / 24) + 9.0 * _persistent(draws.normal(2, count), 0.97)
    humidity = np.clip(dry + np.take(DAMPNESS, weather), 12.0, 100.0)
    wind = np.clip(12.0 + 5.5 * _persistent(draws.normal(3, count), 0.93) + 1.5 * (weather == 3), 0.0, 80.0)

    usual = np.where(working, np.take(WORKING_DAY, hour), np.take(FREE_DAY, hour)).astype(float)
    usual *= np.take(WEEKDAY, [t.weekday() for t in times])
    usual *= np.exp(0.035 * (np.minimum(temperature, 27.0) - 15.0)) * (1.0 + 0.06 * season)
    usual *= np.take(RIDES_IN, weather) * (1.0 - 0.002 * (humidity - 60.0)) * (1.0 - 0.005 * (wind - 12.0))
    if changes.price is not None:
        usual *= np.where([t >= changes.price for t in times], _with_season_pass(hour, working), 1.0)
    usual *= 1.0 + 0.09 * _persistent(draws.normal(4, count), 0.94) + 0.11 * draws.normal(5, count)
    demand = np.maximum(np.rint(usual + np.sqrt(np.maximum(usual, 0.0)) * draws.normal(6, count)), 0.0)

    reading = np.round(temperature, 1)
    if changes.fahrenheit is not None:
        reading = np.where([t >= changes.fahrenheit for t in times], plot.to_fahrenheit(temperature), reading)
    price = np.full(count, PRICE)
    if changes.price is not None:
        price[[t >= changes.price for t in times]] = NEW_PRICE
    return pd.DataFrame(
        {
            "ts": pd.DatetimeIndex(times),
            "holiday": free,
            "workingday": working,
            "weather": np.take(WEATHER, weather),
            "temperature": _with_gaps(reading, draws.uniform(7, count)),
            "humidity": _with_gaps(np.round(humidity, 0), draws.uniform(8, count)),
            "windspeed": _with_gaps(np.round(wind, 1), draws.uniform(9, count)),
            "price": price,
            "demand": demand.astype(int),
        }
    )


def is_holiday(day: date) -> bool:
    """The city's public holidays: seven fixed days and the first Monday of May and of September."""
    moving = day.month in (5, 9) and day.weekday() == 0 and day.day <= 7
    return moving or (day.month, day.day) in FIXED_HOLIDAYS


@dataclass(frozen=True)
class Draws:
    """Independent streams of random numbers, one per purpose, so that a change of one leaves the others alone."""

    seed: int

    def uniform(self, stream: int, count: int) -> np.ndarray:
        """`count` numbers in [0, 1)."""
        raw = np.random.PCG64(np.random.SeedSequence([self.seed, stream])).random_raw(count)
        return (raw >> np.uint64(11)) * 2.0**-53

    def normal(self, stream: int, count: int) -> np.ndarray:
        """`count` numbers of mean 0 and variance 1: sums of twelve uniforms, which need no logarithm."""
        parts = self.uniform(stream, 12 * count).reshape(count, 12)
        total = np.zeros(count)
        for part in parts.T:
            total = total + part
        return total - 6.0


def _weather(uniform: np.ndarray) -> np.ndarray:
    edges = [tuple(np.cumsum(row)[:-1]) for row in TRANSITIONS]
    states = np.zeros(len(uniform), dtype=int)
    state = 0
    for n, u in enumerate(uniform):
        state = sum(u >= edge for edge in edges[state])
        states[n] = state
    return states


def _persistent(shocks: np.ndarray, memory: float) -> np.ndarray:
    """A first-order autoregression of variance 1."""
    scale = float(np.sqrt(1.0 - memory**2))
    values = np.empty(len(shocks))
    value = 0.0
    for n, shock in enumerate(shocks):
        value = memory * value + scale * float(shock)
        values[n] = value
    return values


def _with_season_pass(hour: np.ndarray, working: np.ndarray) -> np.ndarray:
    commuting = working & np.isin(hour, list(COMMUTING))
    return np.where(commuting, 1.25, np.where(working, 0.45, 0.35))


def _with_gaps(values: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Drop readings: one outage in every 168 hours, of no to three hours, so that no week loses many."""
    holed = values.copy()
    for begin in range(0, len(values) - 1, 168):
        first = begin + int(uniform[begin] * 165)
        holed[first : first + int(uniform[begin + 1] * 4)] = np.nan
    return holed
