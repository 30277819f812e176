"""The real data in a warehouse of its own, with its specs, for what replays it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import yaml

from benchmarks import electricity, sets
from benchmarks.place import warehouse
from evergreen import settings
from evergreen.feeds import bike_sharing
from evergreen.spec import ModelSpec, Specs, load_specs
from evergreen.validation.ingest import ingest

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Real:
    """Real data and the model that is replayed on it.

    Attributes:
        name: what rows of the tables call it.
        folder: holds its specs in `datasets/` and `models/`.
        dataset: the dataset's name.
        model: the model's name.
        table: reads the data; raises a TerminalError where it is not to be had.
        begin: where its windows begin.
        replayed: where replays begin, with enough history before.
        end: where it ends.
        of_the_demo: sections of `monitoring` that its spec has for the demo's simulated year; here the defaults count.
    """

    name: str
    folder: Path
    dataset: str
    model: str
    table: Callable[[], pd.DataFrame]
    begin: datetime
    replayed: datetime
    end: datetime
    of_the_demo: tuple[str, ...] = ()

    def load(self, specs: Path) -> Specs:
        """Copy its specs into a folder, and read them."""
        for kind, name in (
            ("datasets", f"{self.dataset}.yaml"),
            ("models", f"{self.model}.yaml"),
            ("models", f"{self.model}.sql"),
        ):
            (specs / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / kind / name, specs / kind / name)
        written = specs / "models" / f"{self.model}.yaml"
        spec = yaml.safe_load(written.read_text(encoding="utf-8"))
        for section in self.of_the_demo:
            del spec["monitoring"][section]
        if self.of_the_demo:
            written.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return load_specs(specs)


BIKES = Real(
    "bike",
    REPOSITORY / "include",
    "bike_hourly",
    "bike_demand",
    lambda: bike_sharing.convert(bike_sharing.find()),
    datetime(2011, 1, 1, tzinfo=UTC),
    datetime(2011, 5, 9, tzinfo=UTC),
    datetime(2013, 1, 1, tzinfo=UTC),
    ("performance", "trigger"),
)
RUSH = replace(BIKES, name="bike rush", model="bike_rush", of_the_demo=("performance",))
ELECTRICITY = Real(
    "electricity",
    Path(__file__).with_name("specs"),
    "electricity",
    "price_up",
    lambda: electricity.convert(electricity.obtain()),
    datetime(1996, 5, 7, tzinfo=UTC),
    datetime(1996, 9, 9, tzinfo=UTC),
    datetime(1998, 12, 6, tzinfo=UTC),
)


def _utc(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def _set(name: str, dataset: str, model: str, begin: datetime, replayed: datetime, end: datetime) -> Real:
    return Real(
        name, Path(__file__).with_name("specs"), dataset, model, getattr(sets, dataset), begin, replayed, end
    )


BANK = _set("bank", "bank", "bank_deposit", _utc(2008, 5, 5), _utc(2009, 1, 5), _utc(2010, 11, 22))
LATE = _set("flights late", "flights", "flight_late", _utc(2013, 1, 1), _utc(2013, 3, 4), _utc(2014, 1, 6))
MINUTES = _set(
    "flights minutes", "flights", "flight_minutes", _utc(2013, 1, 1), _utc(2013, 3, 4), _utc(2014, 1, 6)
)
ZONE_1 = _set("tetouan 1", "tetouan", "power_zone_1", _utc(2017, 1, 1), _utc(2017, 3, 6), _utc(2018, 1, 1))
# Until August the power of a week before is far better than any model of these features, and the gate lets no first champion pass.
ZONE_3 = _set("tetouan 3", "tetouan", "power_zone_3", _utc(2017, 1, 1), _utc(2017, 8, 7), _utc(2018, 1, 1))
APPLIANCES = _set(
    "appliances", "appliances", "appliances_use", _utc(2016, 1, 11), _utc(2016, 2, 18), _utc(2016, 5, 28)
)
LIGHTS = _set("lights", "appliances", "lights_use", _utc(2016, 1, 11), _utc(2016, 2, 18), _utc(2016, 5, 28))
SEOUL = _set("seoul", "seoul", "seoul_rented", _utc(2017, 12, 1), _utc(2018, 2, 26), _utc(2018, 12, 3))
STREAMS = (BIKES, RUSH, ELECTRICITY, BANK, LATE, MINUTES, ZONE_1, ZONE_3, APPLIANCES, LIGHTS, SEOUL)


@contextmanager
def landed(data: Real) -> Iterator[Specs]:
    """A PostgreSQL with all of the data; `EVERGREEN_SPECS` names a copy of its specs."""
    table = data.table()
    with warehouse():
        specs = data.load(settings.SPECS.path())
        folder = Path(os.environ[settings.LANDING.name]) / data.dataset
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "rows.csv", index=False)
        (outcome,) = ingest(specs.datasets[data.dataset], data.end, "rows")
        if outcome.state != "published":
            raise RuntimeError(f"the rows of {data.name} are {outcome.state}: {outcome}")
        yield specs


def changed(model: ModelSpec, **changes: object) -> ModelSpec:
    """A model that differs: sections are merged, other fields replaced."""
    # A default may mean more than its value: `monitoring.freshness` is a hard limit only where it is set.
    content = model.model_dump(exclude_unset=True)
    for name, value in changes.items():
        content[name] = {**content.get(name, {}), **value} if isinstance(value, dict) else value
    return ModelSpec.model_validate(content)
