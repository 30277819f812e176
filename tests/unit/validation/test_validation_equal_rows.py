"""Rows without a key of their own, and rows that a file holds twice."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation_room import AS_OF, Room, reading, spec

from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.batches.contents import contents
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import feature_query, views

NO_KEY = {"key": "generated"}
DAY = timedelta(days=1)


def values(room: Room, dataset: DatasetSpec) -> Counter[tuple[Any, ...]]:
    """The rows that are known, without their ids."""
    return Counter(row[:-1] for row in room.seen(dataset, AS_OF + 90 * DAY))


@pytest.mark.parametrize("way", ["bulk", "text"])
def test_rows_without_a_key_are_counted_by_their_content(room: Room, way: str) -> None:
    # A local time makes the file go the long way.
    zone = {"source": {"timezone": "Europe/Berlin" if way == "text" else "UTC"}}
    dataset = spec(**NO_KEY, **zone)
    first = [reading(0), reading(0), reading(1), reading(2, value=None)]
    for row in first:
        row["at"] = str(row["at"]).removesuffix("+00:00")
    room.land("a.csv", first)
    outcome = room.one(dataset)
    assert (outcome.rows_new, outcome.rows_read, outcome.rows_duplicate) == (4, 4, 0)
    known = values(room, dataset)
    assert sorted(known.values()) == [1, 1, 2]
    # The same rows in another file, in another order and with one that is new, and one more of an old one.
    room.land("b.csv", [first[2], first[0], {**first[2], "value": 2}, first[0], first[0], first[3]])
    outcome = room.one(dataset, AS_OF + DAY)
    assert (outcome.rows_new, outcome.rows_changed, outcome.rows_unchanged) == (2, 0, 4)
    assert values(room, dataset) - known == Counter(
        {key: n for key, n in (values(room, dataset) - known).items()}
    )
    assert sum((values(room, dataset) - known).values()) == 2
    assert not known - values(room, dataset)
    assert [r["n"] for r in room.rows("SELECT count(*) AS n FROM data.readings__history")] == [0]


def test_the_longest_name_of_a_dataset_leaves_room_for_all_tables_of_a_batch(room: Room) -> None:
    """PostgreSQL cuts names off after 63 bytes: two tables of one batch would have one name."""
    gone = {"ok": {"type": "boolean", "true": ["true"], "false": ["false"]}}
    dataset = spec(name="r" * 48, duplicates="drop", deleted="ok", columns=gone)
    room.land("a.csv", [reading(0), reading(0), reading(1, ok="false")])
    outcome = room.one(dataset)
    assert (outcome.state, outcome.rows_new, outcome.rows_duplicate) == ("published", 2, 1)
    assert room.staging() == []


def test_what_makes_rows_equal_is_their_values_and_not_how_they_are_written(room: Room) -> None:
    dataset = spec(**NO_KEY)
    room.land("a.csv", [reading(0, at="2024-02-01T00:00:00Z", value="1.50", ok="true")])
    room.ingest(dataset)
    room.land("b.csv", [reading(0, at="2024-02-01 01:00:00+01", value="15e-1", ok="t")])
    assert room.one(dataset).rows_unchanged == 1
    pq.write_table(
        pa.table({"at": pa.array(["2024-02-01T00:00:00Z"]), "sensor": ["a"], "value": [1.5], "count": [3],
                  "ok": [True], "kind": ["cold"]}),
        room.folder / "c.parquet",
    )  # fmt: skip
    assert room.one(dataset).rows_unchanged == 1


def test_a_column_that_the_spec_gains_makes_no_old_row_a_new_one(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec(**NO_KEY))
    wider = spec(**NO_KEY, columns={"extra": {"type": "float", "required": False}})
    room.land("b.csv", [reading(0, extra=""), reading(1, extra=1)], header=(*reading(0), "extra"))
    outcome = room.one(wider)
    assert (outcome.rows_new, outcome.rows_unchanged) == (1, 1)


def test_a_model_may_be_keyed_on_the_generated_column(room: Room) -> None:
    dataset = spec(**NO_KEY)
    room.land("a.csv", [reading(0), reading(0), reading(1)])
    room.ingest(dataset)
    model = ModelSpec.model_validate({
        "name": "m", "task": "regression", "datasets": ["readings"], "key": ["_row_id"], "event_time": "at",
        "label": {"column": "value", "delay": "1h"}, "features": {"numeric": ["count"]},
        "query": "SELECT _row_id, at, count, value FROM readings",
    })  # fmt: skip
    specs = Specs({"readings": dataset}, {"m": model})
    with connect() as conn:
        assert feature_query.check(specs, model) == []
        with views.reading(specs, model, AS_OF + DAY) as reader:
            rows = reader.rows(feature_query.feature_query(model, None, None))
        assert len({row["_key"] for row in rows}) == 3
        assert contents(conn, dataset, AS_OF + DAY).versions == 3


@pytest.mark.parametrize("mode", ["batch", "rows"])
def test_a_bad_row_without_a_key_is_held_with_its_line(room: Room, mode: str) -> None:
    dataset = spec(**NO_KEY, quarantine=mode, max_bad_rows=0.1)
    room.land("a.csv", [*map(reading, range(30)), reading(1, value=1000), reading(1, value="x")])
    outcome = room.ingest(dataset)[0]
    assert outcome.rows_held == (2 if mode == "rows" else 32)
    assert [(row.line, row.key) for f in outcome.failures for row in f.rows] in (
        [(33, ""), (32, "")],
        [(32, ""), (33, "")],
    )


KEYS = {"one-column": ["at"], "two-columns": ["at", "sensor"], "generated": "generated"}


@pytest.mark.parametrize("key", KEYS)
def test_full_duplicates_are_one_row_and_counted(room: Room, key: str) -> None:
    dataset = spec(key=KEYS[key], duplicates="drop")
    room.land("a.csv", [reading(0), reading(1), reading(0, value="1.50"), reading(0)])
    outcome = room.one(dataset)
    assert (outcome.state, outcome.rows_read, outcome.rows_new, outcome.rows_duplicate) == (
        "published",
        4,
        2,
        2,
    )
    evidence = room.rows("SELECT evidence FROM evergreen.decision")[0]["evidence"]
    assert evidence["rows_duplicate"] == 2
    (row,) = room.rows("SELECT * FROM evergreen.batch")
    parts = ("rows_new", "rows_changed", "rows_unchanged", "rows_duplicate", "rows_held")
    assert sum(row[name] for name in parts) == row["rows_read"] == 4


def test_duplicates_beside_held_rows_add_up(room: Room) -> None:
    dataset = spec(duplicates="drop", quarantine="rows", max_bad_rows=0.7)
    room.land(
        "a.csv", [reading(0), reading(0), reading(1, value=1000), reading(1, value=1000), reading(2, ok="?")]
    )
    outcome = room.one(dataset)
    assert (outcome.rows_new, outcome.rows_duplicate, outcome.rows_held, outcome.rows_read) == (1, 2, 2, 5)


@pytest.mark.parametrize("duplicates", ["hold", "drop"])
def test_equal_keys_with_other_values_are_held_whatever_the_spec_says(room: Room, duplicates: str) -> None:
    room.land("a.csv", [reading(0), reading(0, value=2)])
    assert room.one(spec(duplicates=duplicates)).state == "quarantined"


def test_full_duplicates_are_held_where_the_spec_says_nothing(room: Room) -> None:
    room.land("a.csv", [reading(0), reading(0)])
    assert room.one(spec()).failures[0].expectation == "expect_column_values_to_be_unique"


def test_a_spec_with_a_generated_key_survives_being_written_and_read(tmp_path: Path) -> None:
    dataset = spec(**NO_KEY)
    assert DatasetSpec.model_validate(dataset.model_dump()) == dataset
    assert (dataset.key, "_row_id" in dataset.columns, "_row_id" in dataset.delivered.columns) == (
        ("_row_id",),
        True,
        False,
    )


@pytest.mark.parametrize(
    "changes",
    [{"columns": {"_row_id": {"type": "text"}}}, {"columns": {"_row_id": {"type": "text"}}, **NO_KEY}],
)
def test_the_generated_columns_name_is_taken(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="_row_id: the name is Evergreen's own"):
        spec(**changes)
