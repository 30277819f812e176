"""Random histories and random as-of times: a snapshot must be what a recomputation in Python says was known then.

The oracle keeps every version that was ever published and looks at each as-of time through all of them: of each key the
version that had arrived last, if it was not gone by then. It shares nothing with the views but the rule.

Histories are written as publishing keeps them, or made by publishing and correcting batches: withdrawn, judged again, keys
deleted. What ought to be known then is, of each key, what the last batch that counts says of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import psycopg2.extras
import pyarrow.parquet as pq
import pytest
from attack_page import Attack
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.validation import batch_rows
from evergreen.warehouse.batches import correction, publish
from evergreen.warehouse.batches.staging import Staged
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import snapshot
from evergreen.warehouse.features.views import as_known
from evergreen.warehouse.files.landed_file import LandedFile, Version
from evergreen.warehouse.migrate import ensure_dataset

START = datetime(2024, 1, 1, tzinfo=UTC)
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


def taken(as_of: datetime, folder: Path, specs: Specs = SPECS) -> tuple[str, list[tuple[object, ...]]]:
    """The fingerprint and the rows of the snapshot; nothing where no row qualifies."""
    try:
        found = snapshot.take(specs, MODEL, as_of, folder)
    except TerminalError as error:
        if error.reason is not ErrorReason.NO_ROWS:
            raise
        return "", []
    rows = pq.read_table(found.path).to_pylist()
    names = ("_time", "_key", "x", "size", "place", "_label")
    return found.fingerprint, [(row["_time"].astimezone(UTC), *(row[n] for n in names[1:])) for row in rows]


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
        "snapshots",
        number,
        wrong,
        f"{rows:,} rows equal, {empty} without a row",
    )
    assert rows > 5 * number, "the worlds are too empty to say anything"


Values = tuple[object, ...]


@dataclass
class Batch:
    """A batch as the oracle keeps it: what it says of keys (None: the key is gone), where it stands, whether it counts."""

    id: int
    place: int
    says: dict[object, Values | None]
    of_keys: bool = False
    counts: bool = True


@dataclass
class Corrections:
    """A dataset that lands and is corrected batch by batch, and beside it what ought to be known."""

    conn: Connection
    table: Table
    batches: list[Batch] = field(default_factory=list)
    files: int = 0

    def land(self, rows: dict[object, Values], at: datetime) -> None:
        """A file that is new."""
        now = self.current()
        batch = self._decided(at)
        self._stage(rows, batch)
        publish.upsert(self.conn, self.table.dataset, self._staged(batch), batch, at)
        # Of a row that is there with these values nothing is kept.
        says = {key: v for key, v in rows.items() if repr(now.get(key)) != repr(v)}
        self.batches.append(Batch(batch, len(self.batches), dict(says)))
        self._expect(at, set(says), landed=True)

    def withdraw(self, batch: Batch, at: datetime) -> None:
        """Take a batch back."""
        batch_rows.set_state(self.conn, batch.id, "withdrawn")
        correction.settle(self.conn, self.table.dataset, batch.id, at, of_keys=batch.of_keys)
        batch.counts = False
        self._expect(at, set())

    def judge_again(self, batch: Batch, rows: dict[object, Values], at: datetime) -> None:
        """Another reading of a batch's file."""
        old, place = batch.id, batch_rows.make_way(self.conn, batch.id)
        batch.id, batch.says, batch.counts = self._decided(at, place), dict(rows), True
        batch_rows.replaced(self.conn, old, batch.id)
        self._stage(rows, batch.id)
        correction.settle(self.conn, self.table.dataset, old, at, reading=(self._staged(batch.id), batch.id))
        self._expect(at, set(rows))

    def delete(self, keys: list[object], at: datetime) -> None:
        """A file of keys."""
        there = set(keys) & set(self.current())
        batch = batch_rows.keys_deleted(self.conn, self.table.dataset, self._file(), at, len(keys))
        self._stage({key: (key, at, None, None, None) for key in keys}, batch)
        correction.mark_deleted(self.conn, self.table.dataset, self._staged(batch), batch, at)
        correction.settle(self.conn, self.table.dataset, batch, at, of_keys=True)
        self.batches.append(Batch(batch, len(self.batches), dict.fromkeys(there), of_keys=True))
        self._expect(at, set())

    def current(self) -> dict[object, Values]:
        """The newest version of each key that is not gone."""
        return {key: values for key, values, _, gone in self.table.versions if gone is None}

    def seen(self, as_of: datetime) -> list[Values]:
        """What the warehouse says was known."""
        rows = fetch(
            self.conn, sql.SQL("{}SELECT * FROM events").format(as_known([self.table.dataset], as_of))
        )
        found = [tuple(row[c] for c in self.table.dataset.columns) for row in rows]
        return sorted(found, key=repr)

    def _expect(self, at: datetime, fresh: set[object], *, landed: bool = False) -> None:
        """Note the versions that a step makes: of each key what the last batch that counts says of it."""
        ought: dict[object, tuple[Values | None, bool]] = {}
        for batch in sorted(self.batches, key=lambda b: b.place):
            for key, values in batch.says.items() if batch.counts else ():
                ought[key] = (values, batch.id == self.newest)
        now, delay = self.current(), self.table.dataset.arrival.delay
        for key in sorted({*ought, *now}, key=repr):
            values, newest = ought.get(key, (None, False))
            if repr(values) == repr(now.get(key)):
                continue
            times = [at]
            before = [(arrived, gone) for k, _, arrived, gone in self.table.versions if k == key]
            if newest and values is not None and delay is not None and key in fresh:
                told = values[1] + delay  # type: ignore[operator]
                if landed and key not in now and not before:
                    times = [told]
                elif not landed or key not in now:
                    times.append(told)
            times += [gone or arrived for arrived, gone in before]
            self.table.publish(key, values, max(times))

    @property
    def newest(self) -> int:
        """The id of the last batch that was decided."""
        return int(fetch(self.conn, "SELECT max(id) AS id FROM evergreen.batch")[0]["id"])

    def _file(self) -> LandedFile:
        self.files += 1
        return LandedFile(Path("x"), f"{self.files}.csv", f"{self.files:012x}", Version(0, 0, 0, 0, 0))

    def _decided(self, at: datetime, place: int | None = None) -> int:
        publish.prepare(self.conn, self.table.dataset)
        return batch_rows.decided(self.conn, self.table.dataset, self._file(), at, "published", place)

    def _staged(self, batch: int) -> Staged:
        return Staged("", f"events_{batch}", 0, 0)

    def _stage(self, rows: dict[object, Values], batch: int) -> None:
        with self.conn.cursor() as cursor:
            cursor.execute(
                f"CREATE UNLOGGED TABLE staging.events_{batch}"
                " (_row bigint, id bigint, at timestamptz, place text, x double precision, y double precision)"
            )
            numbered = [(n, *v) for n, v in enumerate(rows.values())]
            psycopg2.extras.execute_values(cursor, f"INSERT INTO staging.events_{batch} VALUES %s", numbered)
        publish.mark_held(self.conn, [])


def reading(chance: Random, at: datetime, before: dict[object, Values]) -> dict[object, Values]:
    """The rows of a file: some that were there, some of them with other values."""
    rows: dict[object, Values] = {}
    for key in chance.sample(range(KEYS // 3), chance.randint(1, 6)):
        event = at - chance.choice([0, 1, 5, 30]) * HOUR
        x, y = (chance.choice([None, float("nan"), 0.0, chance.gauss(0, 1)]) for _ in range(2))
        rows[key] = (key, event, chance.choice(["a", "b", "", None]), x, y)
        if key in before and chance.random() < 0.6:
            rows[key] = before[key] if chance.random() < 0.3 else (*before[key][:3], x, y)
    return rows


def corrected(chance: Random, conn: Connection, dataset: DatasetSpec) -> tuple[Table, list[str]]:
    """A history that is landed and corrected, and what a correction did to the past, which is nothing."""
    made, wrong = Corrections(conn, Table(dataset)), []
    for step in range(HOURS // 2):
        at = START + 2 * step * HOUR
        past = [at - timedelta(microseconds=1), START + chance.randint(0, 2 * step) * HOUR - HOUR / 2]
        before = [made.seen(t) for t in past if t < at]
        what = chance.random()
        chosen = chance.choice(made.batches) if made.batches else None
        if chosen is None or what < 0.45:
            name = "landed"
            made.land(reading(chance, at, made.current()), at)
        elif what < 0.65 and chosen.counts:
            name = "withdrawn"
            made.withdraw(chosen, at)
        elif what < 0.85 and not chosen.of_keys:
            name = "judged again"
            made.judge_again(chosen, reading(chance, at, made.current()), at)
        else:
            name = "keys deleted"
            made.delete(chance.sample(range(KEYS // 3), 3), at)
        if name != "landed" and repr(before) != repr([made.seen(t) for t in past if t < at]):
            wrong.append(f"step {step} ({name}) changed what was known before")
        found = made.seen(at)
        if repr(found) != repr(sorted(made.table.known(at).values(), key=repr)):
            wrong.append(f"step {step} ({name}): {len(found)} rows are known, not those that ought to be")
    return made.table, wrong


def test_what_two_batches_say_alike_is_there_until_neither_says_it(warehouse_url: str) -> None:
    """Found by the attack: the batch that said it first was forgotten when the second was read anew, with the same row."""
    row: Values = (5, START, "a", 1.0, 2.0)
    with connect() as conn:
        ensure_dataset(conn, EVENTS)
        made = Corrections(conn, Table(EVENTS))
        made.land({5: row}, START)
        made.land({6: (6, START, "b", None, None)}, START + HOUR)
        first, second = made.batches
        made.judge_again(second, {5: row}, START + 2 * HOUR)
        assert made.seen(START + 2 * HOUR) == [row]
        made.judge_again(second, {6: (6, START, "b", None, None)}, START + 3 * HOUR)
        assert made.seen(START + 3 * HOUR) == [row, (6, START, "b", None, None)]
        made.withdraw(first, START + 4 * HOUR)
        assert made.seen(START + 4 * HOUR) == [(6, START, "b", None, None)]


@pytest.mark.parametrize("arrival", ["as-of", "delay"])
def test_a_corrected_history_is_what_was_known(
    attack: Attack, warehouse_url: str, tmp_path: Path, arrival: str
) -> None:
    tries = attack.count(sample=5, whole=250)
    wrong, rows, number = [], 0, 0
    delay = {"arrival": {"delay": "3h"}} if arrival == "delay" else {}
    dataset = DatasetSpec.model_validate({**EVENTS.model_dump(exclude={"source", "arrival"}), **delay})
    specs = replace(SPECS, datasets={**SPECS.datasets, "events": dataset})
    for first in range(0, tries, AS_OFS):
        chance = Random(f"{attack.seed}/corrected/{arrival}/{first}")
        _, places = world(chance)
        with connect() as conn:
            with conn.cursor() as cursor:
                cursor.execute(
                    "DROP TABLE IF EXISTS data.events, data.events__history; TRUNCATE evergreen.batch CASCADE"
                )
            ensure_dataset(conn, dataset)
            events, found = corrected(chance, conn, dataset)
            wrong += [f"world {first}: {line}" for line in found]
            places.write(conn)
        for as_of in as_ofs(chance, min(AS_OFS, tries - first)):
            number += 1
            _, known = taken(as_of, tmp_path, specs)
            rows += len(known)
            if repr(known) != repr(brute(events, places, as_of)):
                wrong.append(
                    f"world {first} as of {as_of.isoformat()}: {len(known)} rows, others than expected"
                )
    attack.record(
        f"snapshots: batches withdrawn, judged again, keys deleted ({arrival})",
        number,
        wrong,
        f"{rows:,} rows equal",
    )
