"""`evergreen quarantine`: the rows that are held back, as real files left them."""

from __future__ import annotations

from pathlib import Path

from terminal_scene import Terminal, land, row

from evergreen.warehouse.connection import connect


def flat(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_each_row_is_told_with_line_column_value_and_rule(life: Terminal) -> None:
    told = life("quarantine", "bike_hourly")
    assert told.status == 0
    assert told.out.startswith("bike_hourly: 4 rows of 1 file held back.\n")
    assert "2026-02-02.csv  (batch 2)" in told.out or "2026-02-02.csv (batch 2)" in told.out
    assert "   3  temperature  700         must be between: min_value -60" in told.out
    assert "   4  weather      漢字の天気  must be in set: one of clear, mist" in told.out
    assert "action=judge_again file=2026-02-02.csv" in told.out
    assert "ingest__bike_hourly takes it" in flat(told.out)


def test_the_json_has_the_whole_rows(life: Terminal) -> None:
    told = life("quarantine", "bike_hourly", "--json").json
    assert sorted(told) == ["batches", "dataset", "held", "rows_held", "rows_shown"]
    (held,) = told["held"]
    assert sorted(held) == ["batch", "more", "rows"]
    first = held["rows"][0]
    assert sorted(first) == ["batch", "broken", "file", "line", "row", "values"]
    assert (first["file"], first["line"], first["values"]["temperature"]) == ("2026-02-02.csv", 3, "700")
    assert first["broken"] == [{"column": "temperature", "value": "700", "rule": "be between", "expected": "min_value -60, max_value 140"}]  # fmt: skip


def test_a_limit_is_told(life: Terminal) -> None:
    told = life("quarantine", "bike_hourly", "--limit", "1")
    assert "漢字の天気" not in told.out
    assert "Here are 1; more are kept: `evergreen quarantine bike_hourly --limit 10`" in flat(told.out)


def test_a_file_that_was_mended_is_shown_only_by_its_number(life: Terminal, tmp_path: Path) -> None:
    land(
        tmp_path / "landing" / "bike_hourly",
        "2026-02-02.csv",
        [row(12), row(13), row(14, weather="mist"), row(15)],
    )
    assert life("quarantine", "bike_hourly").out == "Nothing of bike_hourly is held back.\n"
    assert "漢字の天気" in life("quarantine", "bike_hourly", "2").out


def test_a_hostile_file_is_shown_and_gets_into_no_command(life: Terminal, tmp_path: Path) -> None:
    name = "a'; rm -rf $(x) \x1b[2J漢.csv"
    land(
        tmp_path / "landing" / "bike_hourly",
        name,
        [row(16, weather="\x1b]0;x\x07" + "漢" * 100), row(17, temperature="1e9")],
    )
    told = life("quarantine", "bike_hourly", "3")
    assert "a'; rm -rf $(x) \\x1b[2J漢.csv" in told.out
    assert "file=3 reason=" in told.out
    assert told.out.count("rm -rf") == 1


def test_a_file_of_which_nothing_can_be_read_has_no_rows(life: Terminal, tmp_path: Path) -> None:
    land(tmp_path / "landing" / "bike_hourly", "odd.csv", ["1,2"])
    told = life("quarantine", "bike_hourly", "3")
    assert told.status == 0
    assert "odd.csv" in told.out
    assert "LINE" not in told.out


def test_what_is_not_there_is_told(terminal: Terminal, warehouse_url: str) -> None:
    assert terminal("quarantine", "bike_hourly").out == "Nothing of bike_hourly is held back.\n"
    assert "has no batch 7" in terminal("quarantine", "bike_hourly", "7").err
    assert "did you mean bike_hourly" in terminal("quarantine", "bike_hurly").err
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT to_regclass('quarantine.bike_hourly')")
        assert cursor.fetchone() == (None,), "to look makes nothing"
