"""A client of the prediction service, for tests of what was served online: its records are encoded as the service does, and logged so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2.extras

from evergreen import registry
from evergreen.registry.models import predict
from evergreen.serving.kept import Version
from evergreen.serving.records import Encoder
from evergreen.warehouse.connection import connect, fetch

if TYPE_CHECKING:
    from conftest import World

NUMBERS = itertools.count()
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SERVED = 31
"""The first day (from the start) of the three whose rows are asked for; they are compared after the midnight that ends them."""


class Client:
    """Asks the prediction service for the rows of three days, and has each answer logged as the service does."""

    def __init__(self, world: World, start: datetime) -> None:
        """Of a world whose version 1 is there."""
        self.world, self.start = world, start
        self.loaded = registry.load(world.model, "1")
        encoding = self.loaded.encoding
        self.encoder = Encoder(Version("1", "r", "f", encoding.numeric, encoding.categorical, {}, {}, {}, {}))

    @property
    def evening(self) -> datetime:
        """When the last of the three days is almost over, and their rows are there."""
        return self.start + (SERVED + 3) * DAY - HOUR

    def rows(self) -> list[dict[str, Any]]:
        """What the warehouse has of the three days."""
        return fetch_rows(self.start + SERVED * DAY, self.start + (SERVED + 3) * DAY)

    def ask(
        self,
        at: datetime,
        rows: Sequence[dict[str, Any]] | None = None,
        *,
        sends: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        keeps: Sequence[str] = ("hour", "x", "kind"),
        answers: Callable[[float], float] = float,
        client: str = "shop",
    ) -> None:
        """Ask for rows at a time; `sends` changes what is sent, `keeps` names what is logged of it, `answers` changes the answer."""
        told = []
        for row in self.rows() if rows is None else rows:
            features = {name: row[name] for name in ("hour", "x", "kind")}
            features = sends(features) if sends else features
            values = self.encoder.encode([features]).rows
            value = answers(float(predict(self.loaded.booster, values)[0]))
            kept = json.dumps({name: features[name] for name in keeps}) if keeps else None
            key = json.dumps([row["ts"].isoformat()])
            told.append((f"r-{next(NUMBERS)}", client, at, key, row["ts"], value, kept))
        with connect() as conn, conn.cursor() as cursor:
            psycopg2.extras.execute_values(
                cursor,
                "INSERT INTO evergreen.request (id, client, asked_at, key, event_time, prediction, features, position, model, version, source)"
                " VALUES %s",
                told,
                template="(%s, %s, %s, %s, %s, %s, %s, 0, 'rides', '1', 'record')",
            )


def fetch_rows(start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The rides of some hours, with their features."""
    with connect() as conn:
        return fetch(
            conn,
            "SELECT ts, extract(hour FROM ts)::float8 AS hour, x, kind FROM data.rides_hourly WHERE ts >= %s AND ts < %s ORDER BY ts",
            (start, end),
        )
