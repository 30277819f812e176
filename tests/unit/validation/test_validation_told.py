"""What people are told of files that were held back: one table, where it stands, and an end only when nothing is left."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from validation_room import Room, Row, reading, spec

from evergreen.alerting.delivery import deliver
from evergreen.spec import DatasetSpec, Specs
from evergreen.warehouse.files.failure import Example

BAD = {"value": 1000}
MODES = {"batch": spec(), "rows": spec(quarantine="rows", max_bad_rows=0.5)}


def sent(dataset: DatasetSpec) -> list[EmailMessage]:
    letters: list[EmailMessage] = []
    deliver(Specs({dataset.name: dataset}), letters.append)
    return letters


def text_of(letter: EmailMessage) -> str:
    return " ".join(letter.get_body(("plain",)).get_content().split())  # type: ignore[union-attr]


def file_of(number: int, *, bad: bool) -> list[Row]:
    rows = [reading(10 * number + h) for h in range(4)]
    return [*rows[:3], {**rows[3], **BAD}] if bad else rows


@pytest.mark.parametrize("mode", MODES)
def test_many_files_half_of_them_bad_are_one_table_and_open(room: Room, mode: str) -> None:
    dataset = MODES[mode]
    for number in range(8):
        room.land(f"{number}.csv", file_of(number, bad=number % 2 == 0))
    room.ingest(dataset)
    (letter,) = sent(dataset)
    what = "4 of 8 files quarantined" if mode == "batch" else "rows of 4 files held back"
    assert letter["Subject"] == f"[Evergreen] readings: {what}"
    text = text_of(letter)
    assert [text.count(f"{number}.csv") for number in range(8)] == [1, 0, 1, 0, 1, 0, 1, 0]
    assert text.count("What failed") == 0
    assert "1000 (line 5)" in text
    for number in range(8, 10):
        room.land(f"{number}.csv", file_of(number, bad=False))
    room.ingest(dataset)
    assert sent(dataset) == [], "four files are still held back"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("limit", "why"),
    [
        pytest.param("MOST_NAMED", [BAD, BAD, BAD], id="names-of-files-that-failed-alike"),
        pytest.param(
            "MOST_FILES", [BAD, {"value": "x"}, {"kind": "lukewarm"}], id="files-that-failed-each-in-its-way"
        ),
    ],
)
def test_a_long_list_of_files_is_cut_and_says_so(
    room: Room, mode: str, limit: str, why: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"evergreen.alerting.letters.batches.{limit}", 2)
    dataset = MODES[mode]
    for number, bad in enumerate(why):
        rows = file_of(number, bad=False)
        room.land(f"{number}.csv", [*rows[:3], {**rows[3], **bad}])
    room.ingest(dataset)
    text = text_of(sent(dataset)[0])
    assert ("and 1 more" in text, "2.csv" in text) == (True, False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["same-name", "other-name", "removed"])
def test_the_end_is_told_once_when_nothing_is_left(room: Room, mode: str, way: str) -> None:
    dataset = MODES[mode]
    paths = [room.land(f"{number}.csv", file_of(number, bad=True)) for number in range(2)]
    room.ingest(dataset)
    assert len(sent(dataset)) == 1
    for number, path in enumerate(paths):
        if way == "removed":
            path.unlink()
        else:
            room.land(
                f"{number}.csv" if way == "same-name" else f"{number}-mended.csv", file_of(number, bad=False)
            )
        if way != "removed" or number == 1:
            room.land(f"other-{number}.csv", [reading(100 + number)])
        room.ingest(dataset)
        letters = sent(dataset)
        assert [("recovered" in m["Subject"]) for m in letters] == ([True] if number == 1 else [])
    assert letters[0]["Subject"].startswith("[Evergreen] readings: recovered, nothing is held back any more")
    assert ("0.csv, 1.csv" in text_of(letters[0])) == (way == "removed")


def test_part_of_the_rows_that_come_again_end_nothing(room: Room) -> None:
    dataset = MODES["batch"]
    room.land("a.csv", file_of(0, bad=True))
    room.ingest(dataset)
    room.land("b.csv", file_of(0, bad=False)[1:])
    room.ingest(dataset)
    assert "recovered" not in " ".join(m["Subject"] for m in sent(dataset))
    room.land("c.csv", file_of(0, bad=False)[:1])
    room.ingest(dataset)
    assert "recovered" in sent(dataset)[-1]["Subject"]


def test_a_row_whose_key_cannot_be_read_is_missing_until_its_file_is_dealt_with(room: Room) -> None:
    dataset = MODES["rows"]
    path = room.land("a.csv", [*file_of(0, bad=False), reading(7, at="yesterday")])
    room.ingest(dataset)
    room.land("b.csv", [*file_of(0, bad=False), reading(7), reading(8)])
    room.ingest(dataset)
    assert room.rows("SELECT 1 AS one FROM evergreen.decision WHERE kind = 'recovered'") == []
    path.unlink()
    room.land("c.csv", [reading(9)])
    room.ingest(dataset)
    assert len(room.rows("SELECT 1 AS one FROM evergreen.decision WHERE kind = 'recovered'")) == 1


def test_a_batch_that_is_judged_again_and_passes_is_not_left(room: Room) -> None:
    room.land("a.csv", file_of(0, bad=True))
    room.ingest(spec())
    wide = spec(columns={"value": {"type": "float", "max": 5000}})
    room.ingest(wide, force=True)
    assert "recovered" in sent(wide)[-1]["Subject"]


def test_each_different_value_is_told_once_with_line_and_key(room: Room) -> None:
    rows = [reading(h) for h in range(40)]
    for number in (5, 6, 7, 8, 9, 10):
        rows[number]["value"] = 1000
    rows[20]["value"], rows[30]["value"] = 2000, -3000
    rows[2]["sensor"] = '"two\nlines"'
    dataset = spec(quarantine="rows", max_bad_rows=0.1)
    path = room.land("x.csv", rows)
    outcome = room.one(dataset)
    (failure,) = outcome.failures
    assert (failure.failed_rows, failure.sample) == (8, ("1000", "2000", "-3000"))
    key = "2024-02-0{}T{:02}:00:00+00:00, a"
    assert failure.rows == (
        Example(6, "1000", key.format(1, 5), 8),
        Example(21, "2000", key.format(1, 20), 23),
        Example(31, "-3000", key.format(2, 6), 33),
    )
    text = text_of(sent(dataset)[0])
    for said in (
        str(path),
        "line 23",
        "2000",
        key.format(1, 20),
        "max_bad_rows allows 0.1",
        "8 of 40 rows fail (20.0%)",
    ):
        assert said in text, said
    assert text.count("-3000") == 1
    assert "Also recorded" not in text


def test_a_doubled_key_names_its_rows(room: Room) -> None:
    room.land("x.csv", [*map(reading, range(3)), reading(1, value=2)])
    (failure,) = room.one(spec()).failures
    assert [(row.row, row.line, row.value) for row in failure.rows] == [
        (2, 3, "2024-02-01T01:00:00+00:00, a")
    ]
