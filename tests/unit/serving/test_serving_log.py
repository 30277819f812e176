"""The log of requests: on this disk first, then in the warehouse, each record once; what is lost is counted."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from evergreen.serving import deliver, spool
from evergreen.serving.spool import Answered, Made, Minute, Spool
from evergreen.spec import Specs
from evergreen.warehouse.connection import fetch

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
ROW = ("[5]", "2026-01-05T11:00:00+00:00")


def answered(number: int, *records: Made, at: datetime = AT, names: tuple[str, ...] = ("x",)) -> Answered:
    return Answered(
        f"r-{number}",
        "rides",
        "tester",
        at.timestamp(),
        "record",
        names,
        list(records) or (Made("1", 0.1 + number, *ROW, (1.5,)),),
    )


@pytest.fixture
def waiting(home):
    """A function that leaves requests and minutes on the disk, as one file."""

    def leave(*requests: Answered, minutes: tuple[Minute, ...] = ()) -> None:
        log = Spool("here")
        for one in requests:
            log.add(one)
        for minute in minutes:
            log.add_minute(minute)
        log.flush()

    return leave


def rows(conn, table):
    return fetch(conn, f"SELECT * FROM evergreen.{table} ORDER BY 1, 2")


def test_a_request_is_a_row_and_a_prediction_of_its_key(conn, waiting):
    odd = Made(
        "1",
        1 / 3,
        '["a\\tb\\\\"]',
        ROW[1],
        ('tab\t, "quote", \\ and ü\n\u0000', None, 0.1),
    )
    waiting(
        answered(1),
        answered(2, odd, Made("1", 2.0), names=("text", "none", "x")),
        minutes=(Minute("rides", "1", AT.timestamp(), 3, 3, 0, 0, 0, 0.5, 2.5),),
    )
    (path,) = spool.waiting()
    assert deliver.deliver(conn, path) == 3
    assert spool.waiting() == []
    first, second, third = rows(conn, "request")
    assert (first["key"], first["prediction"], first["features"], first["asked_at"], first["client"]) == (
        "[5]",
        1.1,
        {"x": 1.5},
        AT,
        "tester",
    )
    assert (second["key"], second["prediction"]) == (odd.key, 1 / 3)
    assert second["features"] == {"text": 'tab\t, "quote", \\ and ü\n', "none": None, "x": 0.1}
    assert (third["position"], third["key"], third["features"]) == (1, None, None)
    made = sorted(rows(conn, "prediction"), key=lambda row: row["prediction"])
    assert [(m["key"], m["prediction"], m["as_of"], m["scored_at"], m["run_id"]) for m in made] == [
        (odd.key, 1 / 3, AT, AT, "online/here"), ("[5]", 1.1, AT, AT, "online/here"),
    ]  # fmt: skip
    assert [(t["requests"], t["p99_ms"]) for t in rows(conn, "traffic")] == [(3, 2.5)]


def test_a_file_that_was_written_and_not_deleted_changes_nothing(conn, waiting):
    waiting(answered(1), answered(2))
    (path,) = spool.waiting()
    kept = path.read_bytes()
    deliver.deliver(conn, path)
    before = rows(conn, "request"), rows(conn, "prediction")
    path.write_bytes(kept)
    deliver.deliver(conn, path)
    assert (rows(conn, "request"), rows(conn, "prediction")) == before


def test_the_first_prediction_of_a_key_stays_whoever_made_it(conn, waiting):
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id) VALUES ('rides', '1', '[5]', %s, 7, %s, 'score')",
            (ROW[1], AT),
        )
    waiting(answered(1), answered(2), answered(3, Made("2", 9.0, *ROW)))
    for path in spool.waiting():
        deliver.deliver(conn, path)
    assert [(r["version"], r["prediction"]) for r in rows(conn, "prediction")] == [("1", 7.0), ("2", 9.0)]
    assert len(rows(conn, "request")) == 3


def test_what_was_predicted_beside_is_never_among_the_served(conn, waiting):
    waiting(
        answered(1, Made("1", 1.0, *ROW, None, "2", 2.0)),
        answered(2, Made("1", 3.0, None, None, None, "2", 4.0)),
    )
    deliver.deliver(conn, spool.waiting()[0])
    assert [(r["version"], r["prediction"]) for r in rows(conn, "prediction")] == [("1", 1.0)]
    assert [(r["version"], r["prediction"], r["key"]) for r in rows(conn, "shadow_prediction")] == [
        ("2", 2.0, "[5]")
    ]


def test_a_warehouse_that_refuses_leaves_the_file_and_nothing_of_it(conn, waiting):
    waiting(answered(1))
    (path,) = spool.waiting()
    with conn.cursor() as cursor:
        cursor.execute("ALTER TABLE evergreen.prediction ADD CONSTRAINT small CHECK (prediction < 1)")
    conn.commit()
    with pytest.raises(psycopg2.errors.CheckViolation):
        deliver.deliver(conn, path)
    conn.rollback()
    assert (rows(conn, "request"), spool.waiting()) == ([], [path])


def test_a_damaged_file_is_put_aside_and_the_next_one_is_written(conn, waiting):
    waiting(answered(1))
    spool.waiting()[0].write_bytes(b'{"instance": "here", "answ')
    waiting(answered(2))
    assert [deliver.deliver(conn, path) for path in spool.waiting()] == [0, 1]
    assert (spool.waiting(), len(list(spool.folder().glob(f"*{deliver.DAMAGED}")))) == ([], 1)


def test_what_the_warehouse_can_never_take_is_put_aside_and_the_next_one_is_written(conn, waiting):
    waiting(answered(1), answered(2, Made("1", 2.0, "[6]", "no time")))
    waiting(answered(3, Made("1", 2.0, *ROW, ("a\\u0000b\0",)), names=("text",)))
    assert [deliver.deliver(conn, path) for path in spool.waiting()] == [0, 1]
    assert [r["features"] for r in rows(conn, "request")] == [{"text": "a\\u0000b"}]
    assert len(list(spool.folder().glob(f"*{deliver.DAMAGED}"))) == 1


def test_a_key_that_no_index_takes_is_put_aside_and_the_next_file_is_written(conn, waiting):
    # The service refuses such a key; a file of an earlier release may have one.
    waiting(answered(1, Made("1", 1.0, f'["{secrets.token_hex(8000)}"]', ROW[1])))
    waiting(answered(2))
    assert [deliver.deliver(conn, path) for path in spool.waiting()] == [0, 1]
    assert (spool.waiting(), len(list(spool.folder().glob(f"*{deliver.DAMAGED}")))) == ([], 1)


def test_a_process_whose_clock_is_fast_does_not_live_on_when_it_has_ended(conn, home, monkeypatch):
    log = Spool("here")
    monkeypatch.setattr(
        "evergreen.serving.spool.time.time", lambda: datetime.now(UTC).timestamp() + 5 * 86400
    )
    log.live()
    log.flush()
    deliver.deliver(conn, spool.waiting()[0])
    assert rows(conn, "serving_process")[0]["alive_at"] <= datetime.now(UTC)


def test_what_there_is_no_room_for_is_counted_and_told_once_a_minute(home, monkeypatch, caplog):
    log = Spool("here")
    monkeypatch.setattr(spool, "MOST_GATHERED", 1000)
    for number in range(5):
        log.add(answered(number))
    # An unknown category may be as long as a request.
    log.add(answered(5, *(Made("1", 1.0, *ROW, ("é" * 200,)) for _ in range(3))))
    log.add(answered(6))
    assert log.lost == {"rides": 3}
    log.flush()
    monkeypatch.setattr(spool, "MOST_BYTES", 1)
    for _ in range(3):
        log.add(answered(9))
        log.flush()
    assert log.lost == {"rides": 6}
    assert len(spool.waiting()) == 1
    assert len([r for r in caplog.records if "lost from the log" in r.getMessage()]) == 1
    monkeypatch.setattr(spool, "MOST_BYTES", 1 << 20)
    log.add(answered(10))
    log.flush()
    assert len(spool.waiting()) == 2


def test_a_full_disk_holds_no_answer_up(home, monkeypatch):
    log = Spool("here")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    log.add(answered(1))
    log.flush()
    assert (log.lost, list(spool.folder().iterdir())) == ({"rides": 1}, [])


def test_requests_are_forgotten_after_the_time_that_the_spec_says(conn, waiting, rides, change):
    now = datetime.now(UTC)
    model = change(rides, serving={"log": {"keep": "2d"}})
    waiting(answered(1, at=now - timedelta(days=3)), answered(2, at=now - timedelta(days=1)))
    deliver.deliver(conn, spool.waiting()[0])
    assert deliver.forget_old(conn, Specs({}, {"rides": model})) == 1
    assert [r["id"] for r in rows(conn, "request")] == ["r-2"]


def test_a_process_has_one_row_that_says_when_it_last_lived(conn, home, monkeypatch):
    def said(instance, *moments):
        log = Spool(instance)
        for at in moments:
            monkeypatch.setattr("evergreen.serving.spool.time.time", lambda at=at: at.timestamp())
            log.live()
            log.flush()
            log.flush()

    said("here", AT, AT + timedelta(minutes=1))
    said("there", AT)
    assert len(spool.waiting()) == 3
    for path in sorted(spool.waiting(), key=lambda path: spool.read(path).alive, reverse=True):
        assert deliver.deliver(conn, path) == 0
    found = [(row["instance"], row["alive_at"]) for row in rows(conn, "serving_process")]
    assert found == [("here", AT + timedelta(minutes=1)), ("there", AT)], "an older file says nothing new"


def test_processes_that_are_gone_are_forgotten_but_for_the_newest_sign_of_life(conn, home):
    now = datetime.now(UTC)

    def left(**ages):
        with conn.cursor() as cursor:
            cursor.execute("DELETE FROM evergreen.serving_process")
            for name, days in ages.items():
                at = now - timedelta(days=days)
                cursor.execute("INSERT INTO evergreen.serving_process VALUES (%s, %s)", (name, at))
        deliver.forget_old(conn, Specs())
        return [row["instance"] for row in rows(conn, "serving_process")]

    assert left(lives=0, beside=0.9, gone=1.1, long_gone=90) == ["beside", "lives"]
    assert left(last=40, before=41) == ["last"], "since when the service is away"


def test_a_service_that_nobody_asks_goes_on_saying_that_it_lives(kept_scene, with_service, conn, monkeypatch):
    monkeypatch.setattr("evergreen.serving.service.LIVE_S", 0.3)
    monkeypatch.setattr("evergreen.serving.service.FLUSH_S", 0.1)
    began = datetime.now(UTC)

    async def idle(running):
        await asyncio.sleep(1.5)

    with_service(idle)
    files = spool.waiting()
    assert len(files) >= 3
    seen = []
    for path in files:
        deliver.deliver(conn, path)
        seen += rows(conn, "serving_process")
    assert len({row["instance"] for row in seen}) == 1
    assert timedelta(seconds=1) < seen[-1]["alive_at"] - seen[0]["alive_at"] < timedelta(seconds=10)
    assert began <= seen[0]["alive_at"]
    assert rows(conn, "traffic") == []


def test_a_file_lies_with_its_owner_alone(home, waiting):
    waiting(answered(1))
    assert spool.waiting()[0].stat().st_mode & 0o077 == 0
    assert spool.folder().stat().st_mode & 0o077 == 0


def test_files_come_in_the_order_in_which_they_were_written(home, waiting):
    for number in range(3):
        waiting(answered(number))
        time.sleep(0.002)
    assert [spool.read(p).answered[0].id for p in spool.waiting()] == ["r-0", "r-1", "r-2"]


def test_a_minute_counts_once_though_it_is_written_twice(conn, waiting):
    minute = Minute("rides", "1", AT.timestamp(), 3, 3, 0, 0, 0, 0.5, 2.5)
    waiting(minutes=(minute,))
    waiting(minutes=(minute,))
    for path in spool.waiting():
        deliver.deliver(conn, path)
    assert len(rows(conn, "traffic")) == 1
