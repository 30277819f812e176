"""Publishing: upsert, history, and what every as-of time keeps seeing."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from validation_room import AS_OF, HEADER, Room, Row, reading, spec

from evergreen import ledger
from evergreen.errors import TerminalError
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
COLUMN = {
    "columns": {"told": {"type": "timestamp"}},
    "arrival": {"column": "told"},
    "future_tolerance": "3650d",
}
HEADER_TOLD = (*HEADER, "told")


def value_of(row: Row) -> Any:
    return row["value"]


def test_upsert_counts_new_changed_and_nothing_for_identical(room: Room) -> None:
    room.land("a.csv", [reading(h) for h in range(5)])
    room.land("b.csv", [reading(0), reading(1, value=9), reading(2, value=None), *map(reading, range(3, 7))])
    first, second = room.ingest(spec())
    assert (first.rows_new, first.rows_changed) == (5, 0)
    assert (second.rows_new, second.rows_changed) == (2, 2)
    assert room.published() == 7
    assert room.rows("SELECT value FROM data.readings__history") == [{"value": 1.5}, {"value": 1.5}]
    batches = room.rows("SELECT _batch, count(*) AS n FROM data.readings GROUP BY 1 ORDER BY 1")
    assert [b["n"] for b in batches] == [3, 4]


def test_identical_rows_are_not_written_again(room: Room) -> None:
    room.land("a.csv", [reading(h) for h in range(5)])
    room.ingest(spec())
    before = room.rows("SELECT ctid::text, xmin::text, xmax::text FROM data.readings")
    room.land("b.csv", [reading(h) for h in reversed(range(5))])
    outcome = room.one(spec())
    assert (outcome.state, outcome.rows_new, outcome.rows_changed) == ("published", 0, 0)
    assert room.rows("SELECT ctid::text, xmin::text, xmax::text FROM data.readings") == before


def test_the_planner_knows_a_large_batch_at_once(room: Room) -> None:
    """Otherwise the scoring seconds later is planned for an empty table, and a join of 100,000 rows takes minutes."""

    def known(table: str) -> float:
        (row,) = room.rows(f"SELECT reltuples FROM pg_class WHERE oid = 'data.{table}'::regclass")
        return float(row["reltuples"])

    room.land("a.csv", [reading(h) for h in range(100)])
    room.ingest(spec())
    assert known("readings") == 100
    room.land("b.csv", [reading(h) for h in range(100, 160)])
    room.ingest(spec())
    assert known("readings") == 100, "60 more are for autovacuum to see: 10 % and 50 rows are its rule"
    room.land("c.csv", [reading(h, value=9) for h in range(100)])
    room.ingest(spec())
    assert (known("readings"), known("readings__history")) == (160, 100)


def test_a_batch_does_not_wait_for_who_analyses_the_table_already(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    with connect() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE data.readings IN SHARE UPDATE EXCLUSIVE MODE")
        room.land("b.csv", [reading(h) for h in range(1, 100)])
        assert room.one(spec()).state == "published"
    assert room.published() == 100


ARRIVALS = {
    "as-of": ({}, AS_OF),
    "delay": ({"arrival": {"delay": "36h"}}, datetime(2024, 2, 2, 12, tzinfo=UTC)),
    "column": (COLUMN, datetime(2024, 2, 20, tzinfo=UTC)),
}


@pytest.mark.parametrize("case", ARRIVALS)
def test_new_row_is_known_from_its_arrival(room: Room, case: str) -> None:
    changes, arrival = ARRIVALS[case]
    dataset = spec(**changes)
    room.land("a.csv", [reading(0, told="2024-02-20")], header=HEADER_TOLD if case == "column" else HEADER)
    room.ingest(dataset)
    assert room.seen(dataset, arrival - timedelta(microseconds=1)) == set()
    assert len(room.seen(dataset, arrival)) == 1


def test_fresh_row_with_a_delay_is_not_known_before_it(room: Room) -> None:
    dataset = spec(arrival={"delay": "2h"})
    room.land("a.csv", [reading(0, at=AS_OF.isoformat())])
    room.ingest(dataset)
    assert room.seen(dataset, AS_OF + HOUR) == set()
    assert len(room.seen(dataset, AS_OF + 2 * HOUR)) == 1


@pytest.mark.parametrize("case", ARRIVALS)
def test_correction_is_known_from_the_run_that_brings_it(room: Room, case: str) -> None:
    dataset = spec(**ARRIVALS[case][0])
    header = HEADER_TOLD if case == "column" else HEADER
    room.land("a.csv", [reading(0, told="2024-02-20")], header=header)
    room.ingest(dataset, AS_OF)
    before = room.seen(dataset, AS_OF)
    corrected = AS_OF + 5 * DAY
    room.land("b.csv", [reading(0, value=7, told=corrected.isoformat())], header=header)
    assert room.one(dataset, corrected).rows_changed == 1
    assert room.seen(dataset, AS_OF) == before
    assert room.seen(dataset, corrected - timedelta(microseconds=1)) == before
    assert {row[2] for row in room.seen(dataset, corrected)} == {7.0}


def test_correction_never_arrives_before_the_row_it_corrects(room: Room) -> None:
    dataset = spec(arrival={"delay": "10d"})
    at = (AS_OF - HOUR).isoformat()
    room.land("a.csv", [reading(0, at=at)])
    room.ingest(dataset, AS_OF)
    room.land("b.csv", [reading(0, at=at, value=7)])
    room.ingest(dataset, AS_OF + DAY)
    assert room.seen(dataset, AS_OF + 9 * DAY) == set()
    assert {row[2] for row in room.seen(dataset, AS_OF + 10 * DAY)} == {7.0}


def test_correction_whose_arrival_column_did_not_move_arrives_with_its_run(room: Room) -> None:
    dataset = spec(**COLUMN)
    for name, value, as_of in (("a.csv", 1, AS_OF), ("b.csv", 2, AS_OF + DAY)):
        room.land(name, [reading(0, value=value, told="2024-02-20")], header=HEADER_TOLD)
        room.ingest(dataset, as_of)
    assert {row[2] for row in room.seen(dataset, AS_OF)} == {1.0}
    assert {row[2] for row in room.seen(dataset, AS_OF + DAY)} == {2.0}


def test_version_told_again_after_a_later_one_changes_nothing(room: Room) -> None:
    dataset = spec(**COLUMN)
    for name, rows in {
        "a.csv": [reading(0, value=1, told="2024-02-20")],
        "b.csv": [reading(0, value=2, told="2024-02-21")],
        "c.csv": [reading(0, value=1, told="2024-02-20"), reading(1, value=5, told="2024-02-20")],
    }.items():
        room.land(name, rows, header=HEADER_TOLD)
    outcomes = room.ingest(dataset)
    assert [(o.rows_new, o.rows_changed) for o in outcomes] == [(1, 0), (0, 1), (1, 0)]
    assert {row[2] for row in room.seen(dataset, AS_OF)} == {2.0, 5.0}


def random_files(chance: random.Random, files: int) -> list[list[Row]]:
    """Files of versions of six keys; each version of a key has an arrival time of its own."""
    times = {key: chance.sample(range(60), files) for key in range(6)}
    return [
        [
            reading(key, value=chance.randint(0, 3), told=(datetime(2024, 2, 10, tzinfo=UTC) + times[key][f] * HOUR).isoformat())
            for key in chance.sample(range(6), chance.randint(1, 6))
        ]
        for f in range(files)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_order_of_files_does_not_matter_where_the_arrival_column_decides(room: Room, seed: int) -> None:
    chance = random.Random(seed)
    files = random_files(chance, 5)
    dataset = spec(**COLUMN)
    order = chance.sample(range(5), 5)
    for place, index in enumerate(order):
        room.land(f"{place}.csv", files[index], header=HEADER_TOLD)
        room.ingest(dataset, AS_OF + place * DAY)
    told = {datetime.fromisoformat(row["told"]) for row in itertools.chain(*files)}
    for moment in sorted(told | {min(told) - HOUR}):
        known: dict[str, Row] = {}
        for row in sorted(itertools.chain(*files), key=lambda r: r["told"]):
            if datetime.fromisoformat(row["told"]) <= moment:
                known[row["at"]] = row
        expected = {
            (datetime.fromisoformat(r["at"]), float(r["value"]), datetime.fromisoformat(r["told"]))
            for r in known.values()
        }
        assert {(s[0], s[2], s[-1]) for s in room.seen(dataset, moment)} == expected, (order, moment)


@pytest.mark.parametrize(
    "arrival", [{}, {"delay": "3h"}, {"delay": "400d"}], ids=["as-of", "delay", "long-delay"]
)
@pytest.mark.parametrize("seed", range(2))
def test_every_as_of_time_keeps_seeing_what_it_saw(room: Room, arrival: dict[str, str], seed: int) -> None:
    """Against a model of the rules in plain Python, after every file and at every moment."""
    chance = random.Random(seed)
    dataset = spec(arrival=arrival, future_tolerance="3650d")
    versions: dict[str, list[tuple[datetime, float]]] = {}
    for step in range(5):
        as_of = AS_OF + step * DAY
        keys = chance.sample(range(8), chance.randint(1, 8))
        rows = [reading(24 * key + 500, value=chance.randint(0, 2)) for key in keys]
        room.land(f"{step}.csv", rows)
        room.ingest(dataset, as_of)
        for row in rows:
            known = versions.setdefault(row["at"], [])
            delay = dataset.arrival.delay
            if not known:
                known.append(
                    (
                        as_of if delay is None else datetime.fromisoformat(row["at"]) + delay,
                        float(row["value"]),
                    )
                )
            elif known[-1][1] != row["value"]:
                known.append((max(as_of, known[-1][0]), float(row["value"])))
        if step % 2:
            continue
        moments = sorted({a + d for v in versions.values() for a, _ in v for d in (-HOUR, HOUR * 0, HOUR)})
        for moment in moments:
            expected = set()
            for at, known in versions.items():
                before = [value for arrived, value in known if arrived <= moment]
                if before:
                    expected.add((datetime.fromisoformat(at), before[-1]))
            assert {(s[0], s[2]) for s in room.seen(dataset, moment)} == expected


def test_held_rows_do_not_touch_the_table(room: Room) -> None:
    room.land("a.csv", [reading(h) for h in range(30)])
    room.land("b.csv", [reading(0, value=1000), *(reading(h, value=2) for h in range(1, 30))])
    _, second = room.ingest(spec(quarantine="rows"))
    assert (second.rows_changed, second.rows_held) == (29, 1)
    assert room.rows("SELECT count(*) AS n FROM data.readings WHERE value = 1.5") == [{"n": 1}]


def test_quarantine_is_in_the_ledger_and_owes_a_mail(room: Room) -> None:
    room.land("x.csv", [reading(0, value=1000)])
    outcome = room.one(spec())
    with connect() as conn:
        decision = ledger.find(conn, "dataset/readings")[0]
    assert (decision.id, decision.kind, decision.as_of) == (
        outcome.decision_id,
        DecisionKind.BATCH_QUARANTINED,
        AS_OF,
    )
    assert decision.dedupe_key == f"batch:readings:{outcome.checksum}"
    assert decision.evidence.to_json()["file"] == "x.csv"
    assert decision.evidence.to_json()["failures"][0]["sample"] == ["1000.0"]
    mails = room.rows("SELECT incident, subject, kind, decision_id FROM evergreen.mail")
    assert mails == [
        {"incident": f"batch:readings:{outcome.checksum}", "subject": "dataset/readings", "kind": "batch_quarantined",
         "decision_id": outcome.decision_id}
    ]  # fmt: skip


def test_published_batch_is_in_the_ledger_and_owes_no_mail(room: Room) -> None:
    room.land("x.csv", [reading(0)])
    outcome = room.one(spec())
    with connect() as conn:
        decision = ledger.find(conn, "dataset/readings")[0]
    assert (decision.kind, decision.reason, decision.evidence.to_json()["rows_new"]) == (
        DecisionKind.BATCH_PUBLISHED,
        "passed",
        1,
    )
    assert decision.id == outcome.decision_id
    assert room.rows("SELECT * FROM evergreen.mail") == []


def test_force_judges_a_quarantined_batch_again_and_answers_it(room: Room) -> None:
    room.land("x.csv", [reading(0, value=1000)])
    held = room.one(spec())
    assert room.ingest(spec()) == []
    still = room.one(spec(), force=True)
    assert (still.state, still.decision_id > held.decision_id) == ("quarantined", True)
    mended = spec(columns={"value": {"type": "float", "max": 2000}})
    outcome = room.one(mended, AS_OF + DAY, force=True)
    assert (outcome.state, outcome.rows_new, room.published()) == ("published", 1, 1)
    assert room.ingest(mended, force=True) == []
    with connect() as conn:
        decision = ledger.find(conn, "dataset/readings", (DecisionKind.BATCH_PUBLISHED,))[0]
    assert decision.answers == (held.decision_id, still.decision_id)
    assert len(room.rows("SELECT 1 FROM evergreen.batch")) == 1
    *mails, over = room.rows("SELECT incident, decision_id FROM evergreen.mail ORDER BY id")
    assert [m["decision_id"] for m in mails] == [held.decision_id, still.decision_id]
    assert mails[1]["incident"] == f"batch:readings:{held.checksum}:again:ingest/3"
    assert over["incident"] == f"recovered:batch:readings:{held.checksum}"


def test_force_that_publishes_with_held_rows_owes_a_mail_of_its_own(room: Room) -> None:
    room.land("x.csv", [reading(0, value=1000), *map(reading, range(1, 30))])
    held = room.one(spec())
    partly = room.one(spec(quarantine="rows"), force=True, run_id="dag/forced")
    assert (held.state, partly.state, partly.rows_held) == ("quarantined", "published", 1)
    mails = room.rows("SELECT decision_id FROM evergreen.mail ORDER BY id")
    assert [m["decision_id"] for m in mails] == [held.decision_id, partly.decision_id]
    assert room.ingest(spec(quarantine="rows"), force=True, run_id="dag/forced") == [partly]
    assert len(room.rows("SELECT 1 FROM evergreen.mail")) == 2


def test_same_run_gives_the_same_outcomes_again(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.land("b.csv", [reading(1, value=1000)])
    first = room.ingest(spec(), run_id="dag/run")
    assert room.ingest(spec(), run_id="dag/run") == first
    assert [o.state for o in first] == ["published", "quarantined"]
    assert room.ingest(spec(), run_id="dag/other") == []
    forced = room.ingest(spec(), run_id="dag/forced", force=True)
    assert room.ingest(spec(), run_id="dag/forced", force=True) == forced
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 3}]


def test_new_column_of_the_spec_reaches_the_table(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    wider = spec(columns={"extra": {"type": "integer", "required": False}})
    room.land("b.csv", [reading(0, extra=4)], header=(*HEADER, "extra"))
    assert room.one(wider, AS_OF + DAY).rows_changed == 1
    assert {row[-1] for row in room.seen(wider, AS_OF)} == {None}
    assert {row[-1] for row in room.seen(wider, AS_OF + DAY)} == {4}


CHANGED: dict[str, dict[str, Any]] = {
    "type": {"columns": {"count": {"type": "float", "required": False}}},
    "key": {"key": ["at"]},
}


@pytest.mark.parametrize("what", CHANGED)
def test_shape_that_contradicts_the_published_table_stops(room: Room, what: str) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    room.land("b.csv", [reading(1)])
    with pytest.raises(TerminalError, match="Published rows keep their shape"):
        room.ingest(spec(**CHANGED[what]))
    assert room.published() == 1
    assert room.one(spec()).state == "published"


def test_date_as_event_time(room: Room) -> None:
    dataset = DatasetSpec.model_validate(
        {"name": "readings", "key": ["day"], "event_time": "day", "arrival": {"delay": "1d"},
         "columns": {"day": {"type": "date"}, "value": {"type": "float"}}}
    )  # fmt: skip
    room.land("a.csv", "day,value\n2024-02-28,1\n")
    room.land("b.csv", "day,value\n2024-03-03,1\n")
    room.land("c.csv", "day,value\n2024-03-01 06:00:00,1\n")
    assert [o.state for o in room.ingest(dataset)] == ["published", "quarantined", "quarantined"]
    assert room.seen(dataset, datetime(2024, 2, 28, 23, tzinfo=UTC)) == set()
    assert len(room.seen(dataset, datetime(2024, 2, 29, tzinfo=UTC))) == 1


def test_arrival_time_must_be_there_and_not_in_the_future(room: Room) -> None:
    dataset = spec(
        **{**COLUMN, "columns": {"told": {"type": "timestamp", "required": False}}, "future_tolerance": "1h"}
    )
    room.land("a.csv", [reading(0, told="")], header=HEADER_TOLD)
    room.land("b.csv", [reading(0, told="9999-01-01")], header=HEADER_TOLD)
    outcomes = room.ingest(dataset)
    assert [o.state for o in outcomes] == ["quarantined", "quarantined"]
    assert [o.failures[0].column for o in outcomes] == ["told", "told"]
