"""The real bike data in a warehouse of its own, with the project's specs, for what replays it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.place import warehouse
from evergreen import settings
from evergreen.feeds import bike_sharing
from evergreen.spec import ModelSpec, Specs, load_specs
from evergreen.validation.ingest import ingest

END = datetime(2013, 1, 1, tzinfo=timezone.utc)


@contextmanager
def landed() -> Iterator[Specs]:
    """A PostgreSQL with the two years of rides; `EVERGREEN_SPECS` names a copy of the project's specs."""
    with warehouse():
        own = settings.SPECS.path()
        for kind, name in (
            ("datasets", "bike_hourly.yaml"),
            ("models", "bike_demand.yaml"),
            ("models", "bike_demand.sql"),
        ):
            shutil.copy(settings.REPOSITORY / "include" / kind / name, own / kind / name)
        specs = load_specs(own)
        folder = Path(os.environ[settings.LANDING.name]) / "bike_hourly"
        folder.mkdir(parents=True, exist_ok=True)
        bike_sharing.convert(bike_sharing.find()).to_csv(folder / "rides.csv", index=False)
        (outcome,) = ingest(specs.datasets["bike_hourly"], END, "rides")
        if outcome.state != "published":
            raise RuntimeError(f"the rides are {outcome.state}: {outcome}")
        yield specs


def changed(model: ModelSpec, **changes: object) -> ModelSpec:
    """A model that differs: sections are merged, other fields replaced."""
    content = model.model_dump()
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return ModelSpec.model_validate(content)
