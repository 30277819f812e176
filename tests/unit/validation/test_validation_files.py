"""What a file can be, and what becomes of it as a whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation_room import AS_OF, HEADER, Room, reading, spec

from evergreen.errors import TerminalError, TransientError
from evergreen.validation.ingest import ingest
from evergreen.warehouse.files import formats, landed_file, landing, opened

GOOD = [reading(0), reading(1, kind="it's hot"), reading(2, value=None, count=None)]


def csv(*lines: str, header: str = ",".join(HEADER)) -> str:
    return "\n".join([header, *lines]) + "\n"


LINE = "2024-02-01 00:00:00+00,a,1.5,3,true,cold"
BROKEN = {
    "empty": ("", "file_not_empty", "0 bytes"),
    "header-only": (csv(), "file_not_empty", "no rows"),
    "missing-column": (csv("2024-02-01,a,1,1,cold", header="at,sensor,value,count,kind"), "columns_to_match_set", "missing ok"),
    "extra-column": (csv(LINE + ",9", header=",".join(HEADER) + ",price"), "columns_to_match_set", "unknown price"),
    "column-twice": (csv(LINE + ",9", header=",".join(HEADER) + ",kind"), "columns_to_match_set", "named twice"),
    "half-a-file": (csv(LINE, LINE[:25]).rstrip("\n"), "file_readable", "line 3: missing data for column"),
    "extra-field": (csv(LINE, LINE + ",1"), "file_readable", "line 3: extra data after last expected column"),
    "open-quote": (csv(LINE, '2024-02-01,"a,1,1,t,cold'), "file_readable", "unterminated CSV quoted field"),
    "open-quote-in-header": (csv(LINE, header='"at,sensor'), "file_readable", "header"),
    "wrong-encoding": (csv("2024-02-01,Käthe,1,1,t,cold").encode("latin-1"), "file_encoding", "byte 0xe4 at position 42"),
    "nul-byte": (csv("2024-02-01,a\x00b,1,1,t,cold"), "file_readable", "line 2: invalid byte sequence"),
    "wrong-delimiter": (csv(LINE).replace(",", ";"), "columns_to_match_set", "missing at, sensor"),
    "not-a-parquet": (b"PAR1 and nothing else", "file_readable", "Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_held_as_a_whole_and_says_why(room: Room, case: str) -> None:
    content, expectation, observed = BROKEN[case]
    room.land("x.parquet" if "parquet" in case else "x.csv", content)
    outcome = room.one(spec(quarantine="rows"))
    assert (outcome.state, len(outcome.failures)) == ("quarantined", 1)
    failure = outcome.failures[0]
    assert expectation in failure.expectation
    assert observed in failure.observed
    assert failure.limit
    assert failure.remedy
    assert room.published() == 0
    assert room.staging() == []
    assert room.ingest(spec()) == []


def test_error_of_copy_does_not_quote_the_line(room: Room) -> None:
    room.land("x.csv", csv("2024-02-01,secret-person"))
    outcome = room.one(spec())
    assert "secret-person" not in str(outcome.to_dict())


TAKEN = {
    "plain": lambda text: text.encode(),
    "byte-order-mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows-line-ends": lambda text: text.replace("\n", "\r\n").encode(),
    "no-newline-at-the-end": lambda text: text.rstrip("\n").encode(),
    "quoted-header": lambda text: text.replace("at,sensor", '"at","sensor"', 1).encode(),
    "quoted-empty-is-null": lambda text: text.replace("a,,,", 'a,"","",').encode(),
}


@pytest.mark.parametrize("case", TAKEN)
def test_harmless_forms_give_the_same_rows(room: Room, case: str) -> None:
    content = room.land("x.csv", GOOD).read_text()
    room.land("x.csv", TAKEN[case](content))
    assert room.one(spec()).rows_new == 3
    rows = room.rows('SELECT sensor, value, "count", kind FROM data.readings ORDER BY "at"')
    assert [r["value"] for r in rows] == [1.5, 1.5, None]
    assert [r["kind"] for r in rows] == ["cold", "it's hot", "cold"]
    assert rows[2]["count"] is None


def test_reordered_columns_are_matched_by_name(room: Room) -> None:
    room.land("x.csv", GOOD, header=tuple(reversed(HEADER)))
    assert room.one(spec()).state == "published"
    assert room.rows("SELECT DISTINCT sensor, ok FROM data.readings") == [{"sensor": "a", "ok": True}]


def test_declared_encoding_and_delimiter_are_used(room: Room) -> None:
    room.land("x.csv", csv("2024-02-01;Käthe;1;1;t;cold", header=";".join(HEADER)).encode("latin-1"))
    assert room.one(spec(source={"encoding": "latin-1", "delimiter": ";"})).state == "published"
    assert room.rows("SELECT sensor FROM data.readings") == [{"sensor": "Käthe"}]


def parquet(path: Path, rows: int = 3, **columns: pa.Array) -> Path:
    times = [f"2024-02-01T{h:02d}:00:00" for h in range(rows)]
    table = {
        "kind": pa.array(["cold"] * rows).dictionary_encode(),
        "at": pa.array(times).cast(pa.timestamp("us")).cast(pa.timestamp("us", "Europe/Berlin")),
        "sensor": pa.array(["a\nb"] * rows, pa.string_view()),
        "value": pa.array([0.1] * (rows - 1) + [None]),
        "count": pa.array([5.0] * (rows - 1) + [None]),
        "ok": pa.array([True] * rows),
        **columns,
    }
    pq.write_table(pa.table(table), path, row_group_size=2)
    return path


def test_parquet_gives_the_same_types(room: Room) -> None:
    parquet(room.folder / "x.parquet")
    outcome = room.one(spec())
    assert outcome.failures == ()
    assert outcome.rows_new == 3
    rows = room.rows('SELECT "at"::text, sensor, value, "count" FROM data.readings ORDER BY 1')
    assert rows[0] == {"at": "2024-02-01 00:00:00+00", "sensor": "a\nb", "value": 0.1, "count": 5}
    assert (rows[2]["value"], rows[2]["count"]) == (None, None)


PARQUET = {
    "half-a-file": (lambda p: p.write_bytes(p.read_bytes()[:500]), "file_readable"),
    "nested-column": (lambda p: parquet(p, kind=pa.array([["cold"]] * 3)), "file_readable"),
    "missing-column": (lambda p: pq.write_table(pq.read_table(p).drop(["ok"]), p), "columns_to_match_set"),
    "nan": (lambda p: parquet(p, value=pa.array([1.0, float("nan"), 2.0])), "to_be_finite"),
    "no-rows": (
        lambda p: parquet(p, rows=1) and pq.write_table(pq.read_table(p).slice(1), p),
        "file_not_empty",
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_broken_parquet_is_held(room: Room, case: str) -> None:
    path = parquet(room.folder / "x.parquet")
    PARQUET[case][0](path)
    outcome = room.one(spec())
    assert outcome.state == "quarantined"
    assert PARQUET[case][1] in outcome.failures[0].expectation


def test_memory_holds_blocks_not_the_file(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", 4096)
    row = (",".join(str(reading()[c]) for c in HEADER) + "\n").encode()
    room.land("x.csv", ",".join(HEADER).encode() + b"\n" + row * 60_000)
    file = landing.find(spec(), room.folder)[0]
    with formats.feed(spec(), file) as feed:
        sizes = [batch.num_rows for batch in feed.batches()]
    assert max(sizes) <= 2 * 4096 / len(row)
    assert (sum(sizes), feed.records) == (60_000, 60_000)


def test_unfinished_and_hidden_files_and_markers_are_left_alone(room: Room) -> None:
    for name in ("a.csv.part", "b.tmp", ".c.csv", "d.csv.done", "_SUCCESS"):
        room.land(name, "anything")
    (room.folder / ".sync").mkdir()
    room.land(".sync/e.csv", GOOD)
    (room.folder / "archive").mkdir()
    assert room.ingest(spec(source={"pattern": "**/*"})) == []


def test_file_that_changes_while_hashed_is_left_for_the_next_run(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = room.land("x.csv", GOOD)
    version, calls = landing.version_of, []

    def version_of_a_growing_file(p: Path) -> landed_file.Version:
        calls.append(p)
        if len(calls) == 2:
            with path.open("a") as file:
                file.write(LINE.replace(",a,", ",b,") + "\n")
        return version(p)

    with monkeypatch.context() as patch:
        patch.setattr(landing, "version_of", version_of_a_growing_file)
        assert room.ingest(spec()) == []
    assert room.one(spec()).rows_new == 4


def test_file_that_changes_while_copied_is_left_for_the_next_run(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = room.land("x.csv", GOOD)
    blocks = formats.feed

    def feed_of_a_growing_file(*args):  # type: ignore[no-untyped-def]
        with path.open("a") as file:
            file.write(LINE.replace(",a,", ",b,") + "\n")
        return blocks(*args)

    with monkeypatch.context() as patch:
        patch.setattr(formats, "feed", feed_of_a_growing_file)
        assert room.ingest(spec()) == []
    assert (room.published(), room.staging()) == (0, [])
    assert room.one(spec()).rows_new == 4


def test_same_content_is_decided_once_under_any_name(room: Room) -> None:
    room.land("x.csv", GOOD)
    room.land("y.csv", GOOD)
    assert [o.file for o in room.ingest(spec())] == ["x.csv"]
    room.land("z.csv", GOOD)
    assert room.ingest(spec()) == []
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 1}]


def test_files_go_in_the_order_of_their_names(room: Room) -> None:
    room.land("b.csv", [reading(0, value=2)])
    room.land("a.csv", [reading(0, value=1)])
    assert [o.file for o in room.ingest(spec())] == ["a.csv", "b.csv"]
    assert room.rows("SELECT value FROM data.readings") == [{"value": 2.0}]


MISTAKES = {
    "absolute-pattern": (dict(source={"pattern": "/tmp/*.csv"}), "source.pattern '/tmp/*.csv'"),
    "expectation": (dict(expectations=[{"type": "expect_wonders"}]), "expect_wonders"),
    "expectation-argument": (
        dict(
            expectations=[
                {"type": "expect_column_values_to_be_between", "kwargs": {"column": "value", "mostly": 7}}
            ]
        ),
        "expect_column_values_to_be_between",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_in_the_spec_stops_and_decides_nothing(room: Room, case: str) -> None:
    room.land("x.csv", GOOD)
    changes, named = MISTAKES[case]
    with pytest.raises(TerminalError, match=re.escape(named)):
        room.ingest(spec(**changes))
    assert room.rows("SELECT count(*) AS n FROM evergreen.batch") == [{"n": 0}]
    assert room.one(spec()).state == "published"
    assert room.staging() == []


def test_folder_by_hand_must_exist(room: Room) -> None:
    with pytest.raises(TerminalError, match="is not there; make it"):
        ingest(spec(), AS_OF, "r", folder=room.folder / "nowhere")


def test_default_folder_is_the_landing_folder_of_the_dataset(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_LANDING", str(room.folder))
    assert ingest(spec(), AS_OF, "r/0") == []
    room.land("readings/x.csv", GOOD)
    assert [o.file for o in ingest(spec(), AS_OF, "r/1")] == ["x.csv"]
    (room.folder / "readings").rename(room.folder / "away")
    with pytest.raises(TerminalError, match=r"landing folder of readings, .*/readings, is not there"):
        ingest(spec(), AS_OF, "r/2")
    with pytest.raises(TerminalError, match="is not there; make it"):
        ingest(spec(name="others", source={"folder": "misspelt"}), AS_OF, "r/3")


def test_warehouse_that_does_not_answer_is_transient(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.land("x.csv", GOOD)
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(TransientError):
        room.ingest(spec())


def test_staging_of_another_dataset_is_not_swept(room: Room) -> None:
    with psycopg2.connect(os.environ["EVERGREEN_WAREHOUSE_URL"]) as conn, conn.cursor() as cursor:
        for name in ("readings_0123456789ab", "readings_0123456789ab_t", "readings_b_0123456789ab"):
            cursor.execute(f"CREATE TABLE staging.{name} ()")
    conn.close()
    room.land("x.csv", GOOD)
    room.ingest(spec())
    assert room.staging() == ["readings_b_0123456789ab"]
