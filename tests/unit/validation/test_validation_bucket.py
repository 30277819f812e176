"""Files that land in a bucket: judged as those in a folder, fetched one at a time, and known again without being read."""

from __future__ import annotations

import gzip
import io
import os
import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import validation_room
from validation_room import AS_OF, HEADER, Room, empty, reading, spec

import clean_fork
import s3_server
from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.validation import ingest as module
from evergreen.validation.undo import correct
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.storage.bucket import GoneError, Store

LATER = timedelta(hours=1)


@dataclass
class BucketRoom(Room):
    """A prefix of a bucket and its warehouse."""

    bucket: object = None

    def land(self, name, content, header=HEADER):
        if not isinstance(content, (str, bytes)):
            lines = [header, *([row[c] for c in header] for row in content)]
            content = "".join(",".join("" if v is None else str(v) for v in line) + "\n" for line in lines)
        self.bucket.put(f"landing/readings/{name}", content)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(settings.HOME.name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def there(room, bucket, monkeypatch):
    monkeypatch.setenv(settings.LANDING.name, f"{bucket.url}/landing")
    return BucketRoom(landing_store.place_of(spec()), bucket=bucket)


@pytest.fixture
def fetched(monkeypatch):
    """The keys that are fetched, in turn."""
    keys, fetch = [], Store.fetch

    def noted(self, key, target):
        keys.append(key)
        return fetch(self, key, target)

    monkeypatch.setattr(Store, "fetch", noted)
    return keys


def parquet(*hours):
    found = io.BytesIO()
    rows = [{**reading(h), "at": f"2024-02-01T{h:02d}:00:00Z"} for h in hours]
    pq.write_table(pa.Table.from_pylist(rows), found)
    return found.getvalue()


def text(*hours, end="\n"):
    rows = [reading(h) for h in hours]
    return (
        "".join(
            ",".join(map(str, line)) + "\n" for line in [HEADER, *([r[c] for c in HEADER] for r in rows)]
        )[:-1]
        + end
    )


CASES = {
    "of every kind": (
        {
            "a.csv": text(1), "b.csv": text(2, 3), "packed.csv.gz": gzip.compress(text(4).encode()), "same.csv": text(1),
            "p.parquet": parquet(5, 6), "d.parquet/_SUCCESS": "", "d.parquet/1.parquet": parquet(7),
            "d.parquet/2.parquet": parquet(8), "e.parquet/1.parquet": parquet(9), "e.parquet/x.csv": "1", "sub/a.csv": text(10),
            ".hidden.csv": text(11), "b.csv.part": text(12), "c.csv.done": "", "_SUCCESS": "", "book.xlsx": "x", "empty.csv": "",
            "header.csv": ",".join(HEADER) + "\n", "broken.csv": text(13).replace("1.5", "1000"), "open.csv": text(14, end=""),
            "ä b\u0007.csv": text(15),
        }, {},
    ),
    "cut off": ({"a.csv": text(1, 2, end=""), "b.csv": text(3)}, {"complete": "line_end"}),
    "marked": (
        {"a.csv": text(1), "b.csv": text(2), "b.csv.done": "", "d/a.csv": text(3), "d/_SUCCESS": "", "d/e/a.csv": text(4)},
        {"complete": "marker", "pattern": "**/*.csv"},
    ),
}  # fmt: skip


def told(outcomes):
    return [
        (o.file, o.state, o.rows_read, [(f.expectation, f.observed) for f in o.failures]) for o in outcomes
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_bucket_is_judged_as_a_folder_is(case, room, there, validation_warehouse):
    files, source = CASES[case]
    for name, content in files.items():
        (room.folder / name).parent.mkdir(parents=True, exist_ok=True)
        room.land(name, content)
        there.land(name, content)
    dataset = spec(source=source)
    expected, rows = told(room.ingest(dataset)), room.published()
    empty(validation_warehouse)
    assert told(there.ingest(dataset)) == expected
    assert there.published() == rows
    assert told(there.ingest(dataset, run_id="ingest/again")) == [t for t in expected if t[1] == "waiting"]


@pytest.mark.parametrize("complete", ["line_end_or_quiet", "line_end", "quiet", "marker"])
def test_one_that_is_being_written_waits_and_is_not_fetched(there, complete, fetched):
    there.land("a.csv", text(1, end=""))
    dataset, now = spec(source={"complete": complete}), datetime.now(UTC) + timedelta(seconds=90)
    outcome = there.one(dataset, now=now)
    assert outcome.state == "waiting"
    assert fetched == []
    (waits,) = landing_store.waits(dataset, there.folder, set(), now)
    assert (waits.name, waits.why) == ("a.csv", outcome.failures[0].observed)
    there.land("a.csv", text(1))
    there.land("a.csv.done", "")
    assert there.one(dataset, now=now + LATER).state == "published"
    assert fetched == ["a.csv"]


def test_what_was_decided_is_not_fetched_again(there, fetched, home):
    for hour in range(3):
        there.land(f"{hour}.csv", text(hour))
    there.land("d.parquet/1.parquet", parquet(7))
    assert len(there.ingest(spec())) == 4
    assert len(fetched) == 4
    assert there.ingest(spec()) == []
    assert len(fetched) == 4
    there.land("1.csv", text(5))
    assert there.one(spec()).file == "1.csv"
    assert fetched[4:] == ["1.csv"]
    there.land("d.parquet/2.parquet", parquet(8))
    assert there.one(spec()).file == "d.parquet"
    assert not list((home / "cache" / "landing").rglob("*")), "what was fetched is gone"


def test_one_that_is_so_young_that_its_time_may_come_twice_is_looked_at_once_more(
    there, fetched, monkeypatch
):
    """Replaced in the same second by one as long, it has the name, the size and the time of the one that was decided."""
    now, objects = datetime.now(UTC), Store.objects
    second = int(now.timestamp()) * 1_000_000_000
    monkeypatch.setattr(Store, "objects", lambda self: [replace(o, mtime_ns=second) for o in objects(self)])
    there.land("a.csv", text(1))
    assert there.one(spec(), now=now).state == "published"
    there.land("a.csv", text(2))
    assert there.one(spec(), now=now).state == "published"
    assert there.published() == 2
    assert there.ingest(spec(), now=now + LATER) == []
    assert len(fetched) == 3
    assert there.ingest(spec(), now=now + LATER) == []
    assert len(fetched) == 3


def test_one_that_is_replaced_while_it_is_fetched_is_left_for_the_next_run(there, monkeypatch):
    there.land("a.csv", text(1))
    there.land("b.csv", text(2))
    fetch = Store.fetch

    def replaced(self, key, target):
        digest = fetch(self, key, target)
        if key == "a.csv" and b"T01" in target.read_bytes():
            there.land("a.csv", text(3))
            raise GoneError("changed", ErrorReason.BUSY)
        return digest

    monkeypatch.setattr(Store, "fetch", replaced)
    assert [o.file for o in there.ingest(spec())] == ["b.csv"]
    assert [o.file for o in there.ingest(spec())] == ["a.csv"]
    assert there.published() == 2


def test_one_that_became_another_since_the_listing_is_left_for_the_next_run(there, monkeypatch):
    there.land("a.csv", text(1))
    objects = Store.objects

    def listed(self):
        found = objects(self)
        there.land("a.csv", text(1, 2))
        return found

    monkeypatch.setattr(Store, "objects", listed)
    assert there.ingest(spec()) == []
    monkeypatch.setattr(Store, "objects", objects)
    assert there.one(spec()).state == "published"
    assert there.published() == 2


def test_one_that_vanishes_is_no_matter(there, monkeypatch, bucket):
    there.land("a.csv", text(1))
    there.land("b.csv", text(2))
    objects = Store.objects

    def listed(self):
        found = objects(self)
        bucket.delete("landing/readings/a.csv")
        return found

    monkeypatch.setattr(Store, "objects", listed)
    assert [(o.file, o.state) for o in there.ingest(spec())] == [("b.csv", "published")]


def test_one_that_may_not_be_read_is_told_and_tried_again(there, bucket):
    there.land("a.csv", text(1))
    bucket.deny("s3:GetObject")
    outcome = there.one(spec(source={"complete": "quiet"}))
    assert outcome.state == "quarantined"
    assert "may not be read" in outcome.failures[0].observed
    assert "docs/storage.md" in outcome.failures[0].remedy
    bucket.server.allow(s3_server.page_policy(bucket.name))
    assert there.one(spec()).state == "published"


def test_a_bucket_that_may_not_be_listed_or_is_away_decides_nothing(there, bucket, monkeypatch):
    there.land("a.csv", text(1))
    bucket.deny("s3:ListBucket")
    with pytest.raises(TerminalError, match="may not be listed") as raised:
        there.ingest(spec())
    assert raised.value.reason is ErrorReason.NO_ACCESS
    away = replace(there, folder=Store.at(there.folder.url))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(TransientError, match="does not answer"):
        away.ingest(spec())
    assert there.published() == 0


def test_a_full_disk_under_the_copies_is_told(there, monkeypatch):
    there.land("a.csv", text(1))

    def full(self, key, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "fetch", full)
    with pytest.raises(TransientError, match=r"fetching s3://.*a.csv: no space left") as raised:
        there.ingest(spec())
    assert raised.value.reason is ErrorReason.NO_SPACE


@pytest.mark.parametrize("key", ["a//b.csv", "x" * 300 + ".csv"])
def test_a_key_that_is_no_path_is_told(there, key):
    there.land(key, text(1))
    there.land("good.csv", text(2))
    outcomes = {o.state: o for o in there.ingest(spec())}
    assert outcomes["published"].file == "good.csv"
    assert "no file can have" in outcomes["quarantined"].failures[0].observed
    assert there.ingest(spec()) == []
    assert there.ingest(spec(source={"pattern": "*.jsonl"})) == []


def test_a_disk_that_is_full_of_hollow_files_is_no_fault_of_a_key(there, monkeypatch):
    there.land("a.csv", text(1))

    def full(self, one):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(landing_store._Mirror, "_stand_in", full)
    with pytest.raises(TransientError, match=r"listing s3://.*no space left"):
        there.ingest(spec())
    assert there.rows("SELECT 1 AS x FROM evergreen.batch") == []


def test_the_decision_and_its_mail_name_the_url(there, bucket):
    there.land("a.csv", text(1).replace("1.5", "1000"))
    there.one(spec())
    (row,) = there.rows("SELECT evidence FROM evergreen.decision")
    assert row["evidence"]["path"] == f"{bucket.url}/landing/readings/a.csv"
    # The spell ends when the file is gone, and with it what was held back.
    bucket.delete("landing/readings/a.csv")
    there.land("b.csv", text(2))
    there.one(spec())
    kinds = [r["kind"] for r in there.rows("SELECT kind FROM evergreen.mail ORDER BY id")]
    assert kinds[0] == "batch_quarantined"
    assert len(kinds) == 2


def test_what_is_held_back_stays_so_while_its_file_lies_there(there):
    there.land("a.csv", text(1).replace("1.5", "1000"))
    there.one(spec())
    there.land("b.csv", text(2))
    there.one(spec())
    assert len(there.rows("SELECT kind FROM evergreen.mail")) == 1


def test_corrections_find_their_files_in_the_bucket(there, bucket):
    there.land("a.csv", text(1).replace("1.5", "1000"))
    there.land("b.csv", text(2, 3))
    there.ingest(spec())
    wide = spec(columns={"value": {"type": "float", "required": False, "min": -100, "max": 2000}})
    later = AS_OF + timedelta(days=1)
    done = correct(wide, "judge_again", "a.csv", later, "correct/1", why="wider", by="me")
    assert done.decision is not None
    assert there.published() == 3
    bucket.put("landing/keys.csv", "at,sensor\n" + text(2).splitlines()[1].rsplit(",", 4)[0] + "\n")
    done = correct(wide, "delete_keys", "keys.csv", later, "correct/2", why="wrong", by="me")
    assert done.decision is not None
    assert len(there.seen(wide, later)) == 2
    with pytest.raises(TerminalError, match="is not in s3://"):
        bucket.delete("landing/readings/b.csv")
        correct(wide, "judge_again", "b.csv", later, "correct/3", why="gone", by="me")


def test_a_worker_killed_in_mid_ingest_leaves_what_the_next_one_finishes(there, home, tmp_path, monkeypatch):
    for hour in range(3):
        there.land(f"{hour}.csv", text(hour))
    place = there.folder

    def killed():
        fetch = Store.fetch

        def die(self, key, target):
            if key == "1.csv":
                target.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return fetch(self, key, target)

        Store.fetch = die
        module.ingest(spec(), AS_OF, "ingest/1", folder=place, now=datetime.now(UTC) + LATER)

    process = clean_fork.start(killed, modules=(validation_room,))
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    assert list((home / "cache" / "landing").glob(".work-*"))
    assert there.published() == 1
    monkeypatch.setenv(settings.HOME.name, str(tmp_path / "another worker"))
    there.runs = 0
    assert [(o.file, o.state) for o in there.ingest(spec())] == [(f"{h}.csv", "published") for h in range(3)]
    assert there.published() == 3


def test_a_missing_prefix_is_one_in_which_nothing_landed(there):
    assert there.ingest(spec()) == []
