"""Corrections by hand: the past stays what was known, and what is known now is what ought to be."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sleeping_insert import SLEEP, execute, napping, wait_for
from validation_room import AS_OF, HEADER, Room, Row, reading, spec

import clean_fork
from evergreen import ledger
from evergreen.alerting import delivery
from evergreen.errors import TerminalError
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec, Specs
from evergreen.validation import undo
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)


def correct(
    room: Room, action: Any, file: str, as_of: datetime, dataset: DatasetSpec | None = None, **other: Any
) -> undo.Undone:
    """A correction as a run of its own."""
    room.runs += 1
    given = {"why": "it was wrong", "by": "ada", "folder": room.folder, **other}
    return undo.correct(
        dataset or spec(), action, file, as_of, given.pop("run_id", f"correct/{room.runs}"), **given
    )


def values(room: Room, as_of: datetime, dataset: DatasetSpec | None = None) -> dict[int, float]:
    """The known values by hour."""
    dataset = dataset or spec()
    names = list(dataset.columns)
    rows = [dict(zip(names, row, strict=True)) for row in room.seen(dataset, as_of)]
    return {r["at"].hour + 24 * (r["at"].day - 1): r["value"] for r in rows}


def counted(done: undo.Undone) -> dict[str, int]:
    """What changed, by name, without what is nothing."""
    assert done.decision is not None
    return {k: v for k, v in done.decision.evidence.to_json()["corrected"].items() if v}


def landed(room: Room, name: str, rows: list[Row], day: int, dataset: DatasetSpec | None = None) -> None:
    room.land(name, rows)
    assert room.one(dataset or spec(), AS_OF + day * DAY).state == "published"


def test_a_wrong_time_zone_is_mended_and_the_past_stays_what_was_known(room: Room) -> None:
    rows = [reading(h, at=f"2024-02-01 {h:02}:30", value=float(h)) for h in range(6)]
    landed(room, "a.csv", rows, 0)
    before = room.seen(spec(), AS_OF + DAY)
    right = spec(source={"timezone": "Asia/Kolkata"})
    done = correct(room, "judge_again", "a.csv", AS_OF + 2 * DAY, right)
    assert counted(done) == {"gone": 6, "new": 6}
    assert room.seen(spec(), AS_OF + DAY) == before
    times = sorted(row[0] for row in room.seen(right, AS_OF + 2 * DAY))
    assert times == [datetime(2024, 1, 31, 19 + h, tzinfo=UTC) if h < 5 else datetime(2024, 2, 1, tzinfo=UTC)
                     for h in range(6)]  # fmt: skip
    (old, new) = room.rows("SELECT id, state, replaced_by FROM evergreen.batch ORDER BY id")
    assert (old["state"], old["replaced_by"]) == ("withdrawn", new["id"])
    assert new["state"] == "published"
    assert room.ingest(right, AS_OF + 3 * DAY) == [], "the file is decided"
    assert room.ingest(right, AS_OF + 3 * DAY, force=True) == []


def test_judging_again_keeps_supersedes_changes_and_adds_rows(room: Room) -> None:
    by_row = {"quarantine": "rows", "max_bad_rows": 0.9}
    rows = [reading(0), reading(1, value=-5), reading(2, value=500)]
    landed(room, "a.csv", rows, 0, spec(**by_row))
    assert values(room, AS_OF + DAY) == {0: 1.5, 1: -5.0}
    mended = spec(**by_row, columns={"value": {"type": "float", "required": False, "min": 0, "max": 1000}})
    done = correct(room, "judge_again", "a.csv", AS_OF + 2 * DAY, mended)
    assert counted(done) == {"gone": 1, "new": 1, "unchanged": 1}
    assert values(room, AS_OF + DAY) == {0: 1.5, 1: -5.0}
    assert values(room, AS_OF + 2 * DAY) == {0: 1.5, 2: 500.0}
    held = room.rows("SELECT row_number FROM quarantine.readings")
    assert [h["row_number"] for h in held] == [2]
    changed = spec(
        **by_row, source={"missing": "1.5"}, columns={"value": {"type": "float", "required": False}}
    )
    done = correct(room, "judge_again", "a.csv", AS_OF + 3 * DAY, changed)
    assert counted(done) == {"changed": 1, "new": 1, "unchanged": 1}
    assert values(room, AS_OF + 3 * DAY) == {0: None, 1: -5.0, 2: 500.0}
    done = correct(room, "judge_again", "a.csv", AS_OF + 4 * DAY, changed)
    assert counted(done) == {"unchanged": 3}, "once more changes nothing"
    (batch,) = room.rows(
        "SELECT rows_read, rows_new, rows_changed, rows_unchanged, rows_held FROM evergreen.batch WHERE state = 'published'"
    )
    assert batch == {"rows_read": 3, "rows_new": 0, "rows_changed": 0, "rows_unchanged": 3, "rows_held": 0}


def test_a_file_that_would_be_held_changes_nothing_and_says_why(room: Room) -> None:
    landed(room, "a.csv", [reading(h, value=50) for h in range(3)], 0)
    before = room.rows("SELECT id, state FROM evergreen.batch")
    strict = spec(columns={"value": {"type": "float", "max": 10}})
    with pytest.raises(
        TerminalError, match=r"a\.csv would be held back .* nothing was changed: value: .*at most 10"
    ):
        correct(room, "judge_again", "a.csv", AS_OF + DAY, strict)
    assert values(room, AS_OF + DAY) == {0: 50, 1: 50, 2: 50}
    assert room.rows("SELECT id, state FROM evergreen.batch") == before
    assert room.rows("SELECT count(*) AS n FROM data.readings__history") == [{"n": 0}]
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 1}]
    assert room.staging() == []


@pytest.mark.parametrize("how", ["gone", "other-content"])
def test_a_file_that_is_not_as_it_was_cannot_be_judged_again(room: Room, how: str) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    path = room.folder / "a.csv"
    if how == "gone":
        path.unlink()
    else:
        room.land("a.csv", [reading(0), reading(1)])
    with pytest.raises(TerminalError, match=r"put it back|put the file back"):
        correct(room, "judge_again", "a.csv", AS_OF + DAY)


def test_a_held_batch_is_judged_again_and_its_spell_ends(room: Room) -> None:
    room.land("a.csv", [reading(h, value=500) for h in range(3)])
    assert room.one(spec()).state == "quarantined"
    wide = spec(columns={"value": {"type": "float", "max": 1000}})
    done = correct(room, "judge_again", "a.csv", AS_OF + DAY, wide)
    assert counted(done) == {"new": 3}
    assert done.decision is not None
    assert len(done.decision.answers) == 1
    kinds = [r["kind"] for r in room.rows("SELECT kind FROM evergreen.mail ORDER BY id")]
    assert kinds == ["batch_quarantined", "batch_corrected", "recovered"]


# Each row of a story is a step: a batch's values by hour, or what is withdrawn or judged again; then what is known.
A, B, C = {0: 1.0, 1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0, 3: 2.0}, {2: 3.0}
STORIES: dict[str, list[tuple[str, dict[int, float]]]] = {
    "the-earlier": [("a", A), ("b", {0: 1, 1: 2, 2: 2, 3: 2}), ("-a", B), ("-b", {})],
    "the-one-between": [("a", A), ("b", {0: 1, 1: 2, 2: 2, 3: 2}), ("c", {0: 1, 1: 2, 2: 3, 3: 2}), ("-b", {0: 1, 1: 1, 2: 3}),
                        ("-c", A)],
    "back-in-its-place": [("a", A), ("b", {0: 1, 1: 2, 2: 2, 3: 2}), ("-a", B), ("+a", {0: 1, 1: 2, 2: 2, 3: 2}), ("-b", A)],
    "the-earlier-judged-again-comes-back-as-judged": [
        ("a", A), ("b", {0: 1, 1: 2, 2: 2, 3: 2}), ("c", {0: 1, 1: 2, 2: 3, 3: 2}), ("*a", {0: 10, 1: 2, 2: 3, 3: 2}),
        ("-c", {0: 10, 1: 2, 2: 2, 3: 2}), ("-b", {0: 10, 1: 10, 2: 10})],
    "landed-after": [("a", A), ("-a", {}), ("c", C), ("b", B), ("+a", {0: 1, **B})],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_what_is_known_after_batches_are_withdrawn(
    room: Room, story: list[tuple[str, dict[int, float]]]
) -> None:
    batches = {"a": A, "b": B, "c": C}
    seen: list[tuple[datetime, dict[int, float]]] = []
    for number, (step, expected) in enumerate(story):
        now = AS_OF + number * DAY
        name = step[-1]
        if step == name:
            landed(
                room,
                f"{name}.csv",
                [reading(h, value=v, count=int(10 * v)) for h, v in batches[name].items()],
                number,
            )
        elif step[0] == "-":
            correct(room, "withdraw", f"{name}.csv", now)
        else:
            columns = {
                "value": {"type": "float", "from": "count"},
                "count": {"type": "integer", "from": "count"},
            }
            scaled = spec(columns=columns, source={"extra_columns": "ignore"})
            correct(room, "judge_again", f"{name}.csv", now, scaled if step[0] == "*" else None)
        assert values(room, now) == expected, step
        seen.append((now, expected))
    for as_of, expected in seen:
        assert values(room, as_of) == expected, "the past"


def test_a_file_that_was_withdrawn_is_not_landed_again_and_withdrawing_twice_is_nothing(room: Room) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    first = correct(room, "withdraw", "a.csv", AS_OF + DAY)
    assert counted(first) == {"gone": 1}
    for force in (False, True):
        assert room.ingest(spec(), AS_OF + 2 * DAY, force=force) == []
    (room.folder / "a.csv").touch()
    assert room.ingest(spec(), AS_OF + 2 * DAY) == [], "touched, with the same content"
    again = correct(room, "withdraw", "a.csv", AS_OF + 3 * DAY)
    assert again.decision is None
    assert "withdrawn already" in again.message
    assert values(room, AS_OF + 3 * DAY) == {}
    assert room.rows("SELECT count(*) AS n FROM data.readings__history") == [{"n": 1}]


def test_a_key_that_lands_again_arrives_not_before_it_was_gone(room: Room) -> None:
    known = spec(arrival={"delay": "1h"})
    landed(room, "a.csv", [reading(h) for h in range(3)], 0, known)
    before = room.seen(known, AS_OF)
    assert len(before) == 3
    correct(room, "withdraw", "a.csv", AS_OF + DAY, known)
    landed(room, "b.csv", [reading(h, value=2) for h in range(3)], 2, known)
    assert room.seen(known, AS_OF) == before
    assert values(room, AS_OF + DAY, known) == {}
    assert values(room, AS_OF + 2 * DAY, known) == {0: 2, 1: 2, 2: 2}


def test_what_later_files_confirmed_is_said(room: Room) -> None:
    landed(room, "a.csv", [reading(0), reading(1)], 0)
    landed(room, "b.csv", [reading(1), reading(2)], 1)
    done = correct(room, "withdraw", "a.csv", AS_OF + 2 * DAY)
    assert done.decision is not None
    assert done.decision.evidence.to_json()["later_with_equal_rows"] == ["b.csv"]
    assert values(room, AS_OF + 2 * DAY) == {2: 1.5}
    correct(room, "judge_again", "b.csv", AS_OF + 3 * DAY)
    assert values(room, AS_OF + 3 * DAY) == {1: 1.5, 2: 1.5}


KEYS = {
    "csv": "sensor,at\na,2024-02-01T01:00:00Z\na,2024-02-01T02:00:00+00:00\na,2024-02-09T00:00:00Z\n",
    "with-other-columns": "at,sensor,note\n2024-02-01 01:00,a,x\n2024-02-01 02:00,a,y\n2024-02-09,a,z\n",
    "json-lines": "".join(
        json.dumps({"at": f"2024-02-01T0{h}:00:00Z", "sensor": "a"}) + "\n" for h in (1, 2, 7)
    ),
}


@pytest.mark.parametrize("form", KEYS)
def test_keys_of_a_file_are_deleted_and_come_back(room: Room, form: str) -> None:
    rows = [reading(h, value=float(h)) for h in range(4)]
    landed(room, "a.csv", rows, 0)
    name = f"erase.{'jsonl' if form == 'json-lines' else 'csv'}"
    keys = room.folder / "keys"
    keys.mkdir()
    (keys / name).write_text(KEYS[form])
    done = correct(room, "delete_keys", f"keys/{name}", AS_OF + DAY)
    assert counted(done) == {"gone": 2}
    assert "1 of it were not there" in done.message
    assert values(room, AS_OF) == {h: float(h) for h in range(4)}
    assert values(room, AS_OF + DAY) == {0: 0, 3: 3}
    again = correct(room, "delete_keys", f"keys/{name}", AS_OF + 2 * DAY)
    assert again.decision is None, "they are gone already"
    correct(room, "judge_again", "a.csv", AS_OF + 3 * DAY)
    assert values(room, AS_OF + 3 * DAY) == {0: 0, 3: 3}, "an old file does not bring deleted keys back"
    landed(room, "b.csv", [reading(1, value=9)], 4)
    assert values(room, AS_OF + 4 * DAY) == {0: 0, 1: 9, 3: 3}, "a new one does"
    assert counted(correct(room, "delete_keys", f"keys/{name}", AS_OF + 5 * DAY)) == {"gone": 1}
    second = room.rows("SELECT max(id) AS id FROM evergreen.batch")[0]["id"]
    correct(room, "withdraw", str(second), AS_OF + 6 * DAY)
    assert values(room, AS_OF + 6 * DAY) == {0: 0, 1: 9, 3: 3}
    assert values(room, AS_OF + 5 * DAY) == {0: 0, 3: 3}


BAD_KEYS = {
    "missing": ("nothing.csv", None, "there is no file"),
    "outside": ("../secret.csv", "at,sensor\n", "below"),
    "no-key": ("keys/k.csv", "sensor\na\n", "at"),
    "not-a-time": ("keys/k.csv", "sensor,at\na,soon\n", "not all can be read"),
    "no-row": ("keys/k.csv", "sensor,at\n", "no key was deleted"),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_keys_that_cannot_be_read_delete_nothing(
    room: Room, name: str, content: str | None, said: str
) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    (room.folder / "keys").mkdir()
    if content is not None:
        (room.folder / name).write_text(content)
    with pytest.raises(TerminalError, match=said):
        correct(room, "delete_keys", name, AS_OF + DAY)
    assert values(room, AS_OF + DAY) == {0: 1.5}
    assert room.rows("SELECT count(*) AS n FROM evergreen.batch") == [{"n": 1}]
    assert room.staging() == []


def test_a_dismissed_batch_is_not_told_again(room: Room) -> None:
    room.land("a.csv", [reading(h, value=500) for h in range(3)])
    assert room.one(spec()).state == "quarantined"
    done = correct(room, "dismiss", "a.csv", AS_OF + DAY)
    assert done.decision is not None
    assert (done.decision.kind, done.decision.evidence.to_json()["why"], done.decision.evidence.to_json()["by"]) == (
        DecisionKind.BATCH_DISMISSED, "it was wrong", "ada"
    )  # fmt: skip
    assert room.ingest(spec(), AS_OF + 2 * DAY, force=True) == []
    assert correct(room, "dismiss", "a.csv", AS_OF + 2 * DAY).decision is None
    ended = room.rows(
        "SELECT reason, evidence->>'message' AS message FROM evergreen.decision WHERE kind = 'recovered'"
    )
    assert [e["message"] for e in ended] == ["a.csv was dismissed: its 3 rows stay held back"]
    wide = spec(columns={"value": {"type": "float", "max": 1000}})
    assert counted(correct(room, "judge_again", "a.csv", AS_OF + 3 * DAY, wide)) == {"new": 3}


def test_a_file_that_cannot_be_read_is_dismissed_too(room: Room) -> None:
    room.land("a.csv", "at,sensor\n")
    assert room.one(spec()).state == "quarantined"
    done = correct(room, "dismiss", "a.csv", AS_OF + DAY)
    assert done.message == "a.csv was dismissed: it stays held back"
    with pytest.raises(TerminalError, match="would be held back"):
        correct(room, "judge_again", "a.csv", AS_OF + 2 * DAY)


def test_held_rows_of_a_published_batch_are_dismissed_and_the_others_stay(room: Room) -> None:
    by_row = spec(quarantine="rows", max_bad_rows=0.9)
    room.land("a.csv", [reading(0), reading(1, value=500)])
    room.ingest(by_row)
    correct(room, "dismiss", "a.csv", AS_OF + DAY, by_row)
    assert values(room, AS_OF + DAY) == {0: 1.5}
    assert correct(room, "dismiss", "a.csv", AS_OF + DAY, by_row).decision is None
    assert len(room.rows("SELECT 1 FROM evergreen.decision WHERE kind = 'recovered'")) == 1


WRONG = {
    "no-reason": ({"why": "  "}, "a.csv", "needs a reason"),
    "no-batch": ({}, "b.csv", "did you mean a.csv"),
    "in-the-past": ({"as_of": AS_OF - DAY}, "a.csv", "choose a later as-of time"),
}


@pytest.mark.parametrize(("given", "file", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_done_is_said(room: Room, given: dict[str, Any], file: str, said: str) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    with pytest.raises(TerminalError, match=said):
        correct(room, "withdraw", file, given.pop("as_of", AS_OF + DAY), **given)
    with pytest.raises(TerminalError, match="is for batches that are quarantined or published"):
        correct(room, "dismiss", "a.csv", AS_OF + DAY)


def test_a_name_that_fits_two_batches_is_refused_with_their_numbers(room: Room) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    landed(room, "a.csv", [reading(0, value=3)], 1)
    with pytest.raises(TerminalError, match=r"names 2 batches .*\(1: published .* 2: published"):
        correct(room, "withdraw", "a.csv", AS_OF + 2 * DAY)
    correct(room, "withdraw", "2", AS_OF + 2 * DAY)
    assert values(room, AS_OF + 2 * DAY) == {0: 1.5}
    correct(room, "withdraw", "a.csv", AS_OF + 3 * DAY)
    assert values(room, AS_OF + 3 * DAY) == {}


def test_a_dry_run_changes_nothing(room: Room) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    right = spec(source={"missing": "1.5"})
    for action in ("withdraw", "judge_again"):
        done = correct(room, action, "a.csv", AS_OF + DAY, right, dry_run=True)
        assert done.message.startswith("dry run, nothing is changed: a.csv was")
    assert values(room, AS_OF + DAY) == {0: 1.5}
    assert room.rows("SELECT state FROM evergreen.batch") == [{"state": "published"}]
    assert room.rows("SELECT count(*) AS n FROM evergreen.decision") == [{"n": 1}]
    assert room.staging() == []


@pytest.mark.parametrize("action", ["withdraw", "judge_again", "delete_keys"])
def test_killed_in_the_middle_it_has_changed_nothing_and_the_next_try_does_it(
    room: Room, action: str
) -> None:
    landed(room, "a.csv", [reading(h, value=5) for h in range(3)], 0)
    (room.folder / "keys").mkdir()
    (room.folder / "keys" / "k.csv").write_text("at,sensor\n2024-02-01,a\n")
    file = "keys/k.csv" if action == "delete_keys" else "a.csv"
    changed = spec(source={"missing": "5"})
    before, before_rows = (
        room.rows("SELECT id, state, replaced_by FROM evergreen.batch"),
        room.seen(changed, AS_OF + DAY),
    )
    execute(SLEEP.format(table="evergreen.decision"))
    try:
        folder = room.folder
        child = clean_fork.start(
            lambda: undo.correct(
                changed, action, file, AS_OF + DAY, "dag/killed", why="x", by="ada", folder=folder
            )
        )
        wait_for(lambda: napping(room) or not child.is_alive())
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        wait_for(lambda: not napping(room), 20)
    finally:
        execute("DROP TRIGGER nap ON evergreen.decision")
    assert values(room, AS_OF + DAY) == {0: 5, 1: 5, 2: 5}
    assert room.rows("SELECT id, state, replaced_by FROM evergreen.batch") == before
    first = correct(room, action, file, AS_OF + DAY, changed, run_id="dag/killed")
    known = room.seen(changed, AS_OF + DAY)
    assert known != before_rows
    history = room.rows("SELECT count(*) AS n FROM data.readings__history")
    again = correct(room, action, file, AS_OF + DAY, changed, run_id="dag/killed")
    assert again.decision == first.decision
    assert room.seen(changed, AS_OF + DAY) == known
    assert room.rows("SELECT count(*) AS n FROM data.readings__history") == history
    assert room.staging() == []


def test_it_waits_for_an_ingest_that_is_running(room: Room) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    done: list[undo.Undone] = []
    asked = threading.Thread(target=lambda: done.append(correct(room, "withdraw", "a.csv", AS_OF + DAY)))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('evergreen.ingest'), hashtext('readings'))")
        asked.start()
        wait_for(lambda: room.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        assert values(room, AS_OF + DAY) == {0: 1.5}
    asked.join()
    assert counted(done[0]) == {"gone": 1}


def test_the_owner_is_told_once_and_scoring_is_woken(room: Room) -> None:
    dataset = spec(alerts=["ada@example.org"])
    landed(room, "a.csv", [reading(h) for h in range(3)], 0)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.owed_event")
    done = correct(room, "withdraw", "a.csv", AS_OF + DAY, dataset)
    assert done.decision is not None
    assert [r["asset"] for r in room.rows("SELECT asset FROM evergreen.owed_event")] == ["dataset/readings"]
    sent: list[Any] = []
    assert delivery.deliver(Specs({dataset.name: dataset}, {}), sent.append).sent == 1
    (letter,) = sent
    assert letter["Subject"] == "[Evergreen] readings: a.csv was withdrawn: keys gone: 3"
    text = letter.get_body(("plain",)).get_content()
    assert "it was wrong" in text
    assert "ada" in text
    assert "Also recorded" not in text
    with connect() as conn:
        assert ledger.find(conn, kinds=[DecisionKind.BATCH_WITHDRAWN])[0].id == done.decision.id


def test_a_warehouse_of_an_earlier_release_is_corrected_too(room: Room) -> None:
    landed(room, "a.csv", [reading(0)], 0)
    landed(room, "b.csv", [reading(0, value=2), reading(1)], 1)
    execute("UPDATE evergreen.batch SET place = NULL, rows_unchanged = NULL, rows_duplicate = NULL")
    correct(room, "withdraw", "b.csv", AS_OF + 2 * DAY)
    assert values(room, AS_OF + 2 * DAY) == {0: 1.5}
    correct(room, "judge_again", "b.csv", AS_OF + 3 * DAY)
    assert values(room, AS_OF + 3 * DAY) == {0: 2, 1: 1.5}


DELETED = {
    "columns": {"gone": {"type": "boolean", "required": False, "true": ["D"], "false": ["I", "U"]}},
    "deleted": "gone",
}
WITH_FLAG = ("at", "sensor", "value", "count", "ok", "kind", "gone")


def flagged(hour: int, gone: str, **other: Any) -> Row:
    """A row of a log of changes; a deletion has its key and nothing else."""
    nothing = dict.fromkeys(("value", "count", "ok", "kind")) if gone == "D" else {}
    return {**reading(hour, **other), **nothing, "gone": gone}


def test_a_row_that_says_so_is_deleted_from_its_arrival_on_and_may_come_again(room: Room) -> None:
    dataset = spec(**DELETED)
    room.land("a.csv", [flagged(h, "I") for h in range(4)], WITH_FLAG)
    room.ingest(dataset, AS_OF)
    room.land("b.csv", [flagged(1, "D"), flagged(2, "U", value=7), flagged(9, "D")], WITH_FLAG)
    outcome = room.one(dataset, AS_OF + DAY)
    assert (outcome.state, outcome.rows_held) == ("published", 0), "it need not have what other rows must"
    assert values(room, AS_OF, dataset) == {0: 1.5, 1: 1.5, 2: 1.5, 3: 1.5}
    assert values(room, AS_OF + DAY, dataset) == {0: 1.5, 2: 7, 3: 1.5}
    (row,) = room.rows(
        "SELECT evidence->'rows_deleted' AS n FROM evergreen.decision ORDER BY id DESC LIMIT 1"
    )
    assert row == {"n": 2}
    room.land("c.csv", [flagged(1, "I", value=5), flagged(9, "U")], WITH_FLAG)
    room.ingest(dataset, AS_OF + 2 * DAY)
    assert values(room, AS_OF + 2 * DAY, dataset) == {0: 1.5, 1: 5, 2: 7, 3: 1.5, 9: 1.5}
    correct(room, "withdraw", "c.csv", AS_OF + 3 * DAY, dataset)
    assert values(room, AS_OF + 3 * DAY, dataset) == {0: 1.5, 2: 7, 3: 1.5}
    correct(room, "withdraw", "b.csv", AS_OF + 4 * DAY, dataset)
    assert values(room, AS_OF + 4 * DAY, dataset) == {0: 1.5, 1: 1.5, 2: 1.5, 3: 1.5}


def test_a_deleted_row_needs_its_key_and_others_are_judged_as_before(room: Room) -> None:
    dataset = spec(**DELETED, quarantine="rows", max_bad_rows=0.9)
    rows = [
        flagged(0, "D"),
        flagged(0, "I"),
        flagged(1, "D"),
        flagged(2, "I", value=500),
        flagged(3, "I", ok=None),
    ]
    room.land("a.csv", rows, WITH_FLAG)
    outcome = room.one(dataset)
    assert (outcome.rows_new, outcome.rows_held) == (1, 4), (
        "a key that is there twice, a bad value, a missing one"
    )
    room.land("b.csv", [flagged(h, "D") for h in range(5)], WITH_FLAG)
    assert room.one(dataset, AS_OF + DAY).rows_held == 0
    assert room.seen(dataset, AS_OF + DAY) == set()


BAD_SPECS = {
    "unknown": ({"deleted": "gnoe", "columns": {"gone": {"type": "boolean"}}}, "did you mean gone"),
    "a-number": ({"deleted": "count"}, "make it boolean"),
    "the-key": ({"deleted": "at"}, "name a column of its own"),
    "always-there": (
        {"deleted": "gone_at", "columns": {"gone_at": {"type": "timestamp"}}},
        "set required: false",
    ),
    "no-key": ({"deleted": "ok", "key": "generated"}, "give the dataset a key"),
}


@pytest.mark.parametrize(("given", "said"), BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_a_column_that_cannot_say_that_a_row_is_deleted_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec(**given)


def test_a_time_of_deletion_deletes(room: Room) -> None:
    dataset = spec(columns={"gone_at": {"type": "timestamp", "required": False}}, deleted="gone_at")
    header = (*HEADER, "gone_at")
    room.land("a.csv", [reading(0, gone_at=None), reading(1, gone_at="2024-02-03T00:00:00Z")], header)
    room.ingest(dataset)
    assert values(room, AS_OF, dataset) == {0: 1.5}
