"""Random histories and random as-of times: a snapshot must be what a recomputation in Python says was known then.

The oracle keeps every version that was ever published and looks at each as-of time through all of them: of each key the
version that had arrived last, if it was not gone by then. It shares nothing with the views but the rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import psycopg2.extras
import pyarrow.parquet as pq
from attack_page import Attack

from evergreen.errors import Reason, TerminalError
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse import snapshot
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.migrate import ensure_dataset

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
KEYS, HOURS, AS_OFS = 40, 60, 25  # of a world: hours of events and arrivals, as-of times that are asked
DELAY = 3 * HOUR

EVENTS = DatasetSpec.model_validate({
    "name": "events", "key": ["id"], "event_time": "at",
    "columns": {"id": {"type": "integer"}, "at": {"type": "timestamp"}, "place": {"type": "category", "required": False},
                "x": {"type": "float", "required": False}, "y": {"type": "float", "required": False}},
})  # fmt: skip
PLACES = DatasetSpec.model_validate({
    "name": "places", "key": ["place"], "event_time": "since",
    "columns": {"place": {"type": "category"}, "since": {"type": "timestamp"}, "size": {"type": "float", "required": False}},
})  # fmt: skip
MODEL = ModelSpec.model_validate({
    "name": "known", "task": "regression", "datasets": ["events", "places"], "key": ["id"], "event_time": "at",
    "label": {"column": "y", "delay": "3h"}, "features": {"numeric": ["x", "size"], "categorical": ["place"]},
    "training": {"window": "2d", "holdout": "6h"},
    "query": "SELECT e.id, e.at, e.x, e.y, e.place, p.size FROM events AS e LEFT JOIN places AS p USING (place);"
             " -- one statement; no more\n",
})  # fmt: skip
SPECS = Specs({d.name: d for d in (EVENTS, PLACES)}, {MODEL.name: MODEL})


@dataclass
class Table:
    """A dataset as it is published, and every version for the oracle: (key, values, arrived, gone)."""

    dataset: DatasetSpec
    versions: list[tuple[object, tuple[object, ...], datetime, datetime | None]] = field(default_factory=list)

    def publish(self, key: object, values: tuple[object, ...] | None, at: datetime) -> None:
        """A new version of a key at a time; without values the key is deleted."""
        for n, (other, old, arrived, gone) in enumerate(self.versions):
            if other == key and gone is None:
                self.versions[n] = (other, old, arrived, at)
        if values is not None:
            self.versions.append((key, values, at, None))

    def known(self, as_of: datetime) -> dict[object, tuple[object, ...]]:
        """The oracle."""
        found = {}
        for key, values, arrived, gone in self.versions:
            if arrived <= as_of and (gone is None or gone > as_of):
                assert key not in found
                found[key] = values
        return found

    def write(self, conn: Connection) -> None:
        """Put all versions where publishing keeps them."""
        ensure_dataset(conn, self.dataset)
        now = [(*v, arrived, 1) for _, v, arrived, gone in self.versions if gone is None]
        then = [(*v, arrived, 1, gone) for _, v, arrived, gone in self.versions if gone is not None]
        names = ", ".join((*self.dataset.columns, "_arrived_at", "_batch"))
        with conn.cursor() as cursor:
            for table, columns, rows in (
                (f"data.{self.dataset.name}", names, now),
                (f"data.{self.dataset.name}__history", f"{names}, _superseded_at", then),
            ):
                cursor.execute(f"TRUNCATE {table}")
                if rows:
                    psycopg2.extras.execute_values(cursor, f"INSERT INTO {table} ({columns}) VALUES %s", rows)


def world(chance: Random) -> tuple[Table, Table]:
    """A history: rows that come late or never, corrections, labels later than their rows, deletions, equal times."""
    events, places = Table(EVENTS), Table(PLACES)
    named = ["a", "b", "", "O'Brien", "now", None]
    for hour in range(HOURS):
        at = START + hour * HOUR
        for _ in range(chance.randint(0, 5)):
            key = chance.randrange(KEYS)
            held = events.known(at).get(key)
            if held is not None and chance.random() < 0.15:
                events.publish(key, None, at)
                continue
            x, y = (chance.choice([None, float("nan"), 0.0, chance.gauss(0, 1)]) for _ in range(2))
            event = (
                at
                - chance.choice([0, 0, 1, 5, 30]) * HOUR
                + chance.choice([0, 1]) * timedelta(microseconds=1)
            )
            if (
                held is not None and chance.random() < 0.6
            ):  # a label that came, or a correction of the same event
                event, x = held[1], held[3] if chance.random() < 0.5 else x
            place = chance.choice(named)
            events.publish(key, (key, event, place, x, y if chance.random() < 0.7 else None), at)
        if chance.random() < 0.4:
            place = chance.choice(named[:-1])
            gone = place in places.known(at) and chance.random() < 0.3
            places.publish(place, None if gone else (place, at, chance.gauss(0, 1)), at)
    return events, places


def brute(events: Table, places: Table, as_of: datetime) -> list[tuple[object, ...]]:
    """What the snapshot as of a time holds, in its order."""
    sizes = {key: values[2] for key, values in places.known(as_of).items()}
    rows = [
        (at, json.dumps([key]), x, sizes.get(place), place, y)
        for key, (_, at, place, x, y) in events.known(as_of).items()
        if as_of - 2 * 24 * HOUR <= at < as_of and at + DELAY <= as_of and y is not None
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (r[0], r[1]))


def as_ofs(chance: Random, count: int) -> Iterator[datetime]:
    """Times on and beside those at which something arrived."""
    for _ in range(count):
        beside = chance.choice(
            [timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1), HOUR / 2]
        )
        yield START + chance.randint(0, HOURS + 5) * HOUR + beside


def taken(as_of: datetime, folder: Path) -> tuple[str, list[tuple[object, ...]]]:
    """The fingerprint and the rows of the snapshot; nothing where no row qualifies."""
    try:
        found = snapshot.take(SPECS, MODEL, as_of, folder)
    except TerminalError as error:
        if error.reason is not Reason.NO_ROWS:
            raise
        return "", []
    rows = pq.read_table(found.path).to_pylist()
    names = ("_time", "_key", "x", "size", "place", "_label")
    return found.fingerprint, [
        (row["_time"].astimezone(timezone.utc), *(row[n] for n in names[1:])) for row in rows
    ]


def test_a_snapshot_is_what_was_known(attack: Attack, warehouse_url: str, tmp_path: Path) -> None:
    tries = attack.count(sample=10, whole=1500)
    wrong, rows, empty, number = [], 0, 0, 0
    fingerprints: dict[str, str] = {}
    for first in range(0, tries, AS_OFS):
        chance = Random(f"{attack.seed}/{first}")
        events, places = world(chance)
        with connect() as conn:
            events.write(conn)
            places.write(conn)
        for as_of in as_ofs(chance, min(AS_OFS, tries - first)):
            number += 1
            fingerprint, found = taken(as_of, tmp_path)
            expected = brute(events, places, as_of)
            rows, empty = rows + len(found), empty + (not found)
            if repr(found) != repr(expected):
                wrong.append(
                    f"world {first} as of {as_of.isoformat()}: {len(found)} rows, expected {len(expected)}"
                )
            if found and fingerprints.setdefault(repr(found), fingerprint) != fingerprint:
                wrong.append(
                    f"world {first} as of {as_of.isoformat()}: another fingerprint for the same rows"
                )
    attack.record(
        "snapshots: random histories, brute force",
        number,
        wrong,
        f"{rows:,} rows equal, {empty} without a row",
    )
    assert rows > 5 * number, "the worlds are too empty to say anything"
