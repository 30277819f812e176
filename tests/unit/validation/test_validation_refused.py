"""A file that PostgreSQL refuses is held back with the server's reason, and the files after it are taken."""

from __future__ import annotations

import random
import string

import pytest
from validation_room import Room, reading, spec

from evergreen import ledger
from evergreen.errors import ErrorReason, TransientError
from evergreen.validation.batch_failures import STORABLE
from evergreen.validation.verdict import judge_batch
from evergreen.warehouse.batches import bulk
from evergreen.warehouse.batches.staging import SuiteFinding
from evergreen.warehouse.connection import connect
from evergreen.warehouse.files.failure import Failure

# Letters at random: PostgreSQL would compress a key that repeats itself to less than the limit.
LONG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=4000))


def test_long_key_is_held_and_the_next_file_is_taken(room: Room) -> None:
    room.land("a.csv", [reading(0), reading(1, sensor=LONG)])
    room.land("b.csv", [reading(2)])
    first, second = room.ingest(spec())
    assert (first.file, first.state, first.rows_read, first.rows_held) == ("a.csv", "quarantined", 2, 2)
    assert (second.file, second.state, second.rows_new, room.published()) == ("b.csv", "published", 1, 1)
    failure = first.failures[0]
    assert "exceeds btree" in failure.observed
    assert "54000" in failure.observed
    assert "2.7 kB" in failure.remedy
    assert LONG[:20] not in str(first.to_dict())
    assert room.staging() == []
    with connect() as conn:
        decision = ledger.find(conn, ids=(first.decision_id,))[0]
    assert decision.reason == "unpublishable"
    assert [m["decision_id"] for m in room.rows("SELECT decision_id FROM evergreen.mail")] == [
        first.decision_id
    ]
    assert room.ingest(spec()) == []


CLASSES = {
    "data": "numeric_value_out_of_range",
    "constraint": "unique_violation",
    "limit": "program_limit_exceeded",
}


def refuse_secret_sensors(room: Room, condition: str) -> None:
    """Make the table refuse a value that no expectation foresaw."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE FUNCTION data.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                       f" RAISE EXCEPTION 'no room' USING ERRCODE = '{condition}', DETAIL = NEW.sensor; END $$")  # fmt: skip
        cursor.execute("CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON data.readings FOR EACH ROW"
                       " WHEN (NEW.sensor LIKE 'secret%') EXECUTE FUNCTION data.refuse()")  # fmt: skip


@pytest.mark.parametrize("case", CLASSES)
def test_each_class_of_refusal_is_settled(room: Room, case: str) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    refuse_secret_sensors(room, CLASSES[case])
    room.land("b.csv", [reading(1, sensor="secret-b")])
    room.land("c.csv", [reading(2)])
    held, taken = room.ingest(spec())
    assert (held.state, taken.state, room.published()) == ("quarantined", "published", 2)
    assert "no room" in held.failures[0].observed
    assert "secret-b" not in str(held.to_dict())
    still = room.one(spec(), force=True)
    assert (still.state, still.decision_id > taken.decision_id) == ("quarantined", True)


def test_a_server_that_is_in_trouble_blames_no_file(room: Room) -> None:
    room.land("a.csv", [reading(0)])
    room.ingest(spec())
    refuse_secret_sensors(room, "disk_full")
    room.land("b.csv", [reading(1, sensor="secret-b")])
    with pytest.raises(TransientError) as caught:
        room.ingest(spec())
    assert caught.value.reason is ErrorReason.NO_SPACE
    assert "no room" in str(caught.value)
    assert "secret-b" not in str(caught.value)
    assert len(room.rows("SELECT 1 FROM evergreen.batch")) == 1


def test_the_dataset_stays_locked_while_the_next_file_is_taken(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.land("a.csv", [reading(0, sensor=LONG)])
    room.land("b.csv", [reading(1)])
    seen, load = [], bulk.load

    def loads(*args, **limits):  # type: ignore[no-untyped-def]
        if args[2].name == "b.csv":
            with pytest.raises(TransientError), connect() as other, other.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = 50")
                cursor.execute("SELECT pg_advisory_lock(hashtext('evergreen.ingest'), hashtext('readings'))")
            seen.append("locked")
        return load(*args, **limits)

    monkeypatch.setattr(bulk, "load", loads)
    room.ingest(spec())
    assert seen == ["locked"]


def test_unpublishable_is_told_from_unreadable() -> None:
    refused = SuiteFinding(Failure(STORABLE, None, "", ""))
    assert judge_batch(spec(), 3, 0, [refused]).reason == "unpublishable"
    assert judge_batch(spec(), 0, 0, [refused]).reason == "unpublishable"
    assert judge_batch(spec(), 0, 0, []).reason == "unreadable"
