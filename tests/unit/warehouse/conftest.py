"""The demo's dataset in a warehouse, and lookups of features by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg2.extras
import pytest
from lookup_scene import HOURS, START

from evergreen.feeds import simulated
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features.lookup import Lookup
from evergreen.warehouse.migrate import ensure_dataset


@pytest.fixture
def bikes(warehouse_url: str, specs: Specs) -> str:
    """Four weeks of the demo's simulated city, each hour arrived when it had ended; the name of their database."""
    dataset = specs.datasets["bike_hourly"]
    table = simulated.hours(START, START + timedelta(hours=HOURS), 7)[list(dataset.columns)]
    rows = [
        (*(None if v != v else v for v in row), row[0] + timedelta(hours=1), 1)
        for row in table.itertuples(index=False)
    ]
    with connect() as conn, conn.cursor() as cursor:
        ensure_dataset(conn, dataset)
        psycopg2.extras.execute_values(cursor, "INSERT INTO data.bike_hourly VALUES %s", rows, page_size=1000)
    return warehouse_url.rpartition("/")[2]


@pytest.fixture
def asking() -> Iterator[Callable[..., Lookup]]:
    """Make lookups that are closed at the end."""
    made: list[Lookup] = []

    def make(specs: Specs, model: ModelSpec, **more: Any) -> Lookup:
        made.append(Lookup(specs, model, **more))
        return made[-1]

    yield make
    for lookup in made:
        lookup.close()
