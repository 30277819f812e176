"""How text is laid out: what a terminal would obey is shown, widths are counted as it counts, colours are for people."""

from __future__ import annotations

import io

import pytest
from terminal_scene import HOSTILE

from evergreen.terminal.page import Page
from evergreen.terminal.text import clean, cut, pad, width, wrapped


class Screen(io.StringIO):
    """A terminal that a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a b c"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eabc", "\\u202eabc"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
        ("  größer  漢字 ", "größer 漢字"),
    ],
    ids=["breaks", "escape", "escape of one byte", "direction", "half a pair", "tag", "other scripts"],
)
def test_nothing_in_a_text_moves_the_cursor(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("ｶ", 1), ("🚲", 2)], ids=["plain", "wide", "combining", "narrow kana", "picture"]
)  # fmt: skip
def test_a_width_is_what_a_terminal_takes(text: str, columns: int) -> None:
    assert width(text) == columns
    assert width(pad(text, 9)) == 9


@pytest.mark.parametrize("most", [5, 6, 7, 8])
def test_wide_text_is_cut_between_characters(most: int) -> None:
    shown = cut("漢字漢字漢字", most)
    assert width(shown) in (most, most - 1)
    assert shown.endswith("…")


def test_a_long_word_is_broken_after_a_slash() -> None:
    assert wrapped("see http://127.0.0.1:8080/dags/train__x/runs/1 there", 30) == [
        "see",
        "http://127.0.0.1:8080/dags/",
        "train__x/runs/1 there",
    ]
    assert wrapped("漢" * 9, 5) == ["漢漢"] * 4 + ["漢"]


def test_lines_that_are_left_out_are_seen() -> None:
    assert wrapped("one two three four five", 9, 2) == ["one two", "three…"]


def test_a_table_is_as_wide_as_it_may_be_and_loses_nothing() -> None:
    out = io.StringIO()
    Page(out).table(("NAME", "WHY"), [("漢字" * 10, "word " * 40), (HOSTILE, "x" * 300)], indent=2)
    lines = out.getvalue().splitlines()
    assert max(map(width, lines)) <= 80
    assert out.getvalue().count("word") == 40
    assert out.getvalue().count("x") >= 300
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "no colour", "dumb terminal"],
)
def test_colours_are_for_a_person_who_wants_them(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    screen = Screen()
    Page(screen).line("bad news", style="bad")
    assert ("\x1b[31m" in screen.getvalue()) is coloured


def test_a_narrow_terminal_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    screen = Screen()
    Page(screen).line("word " * 30)
    assert max(map(width, screen.getvalue().splitlines())) <= 50


def test_a_stream_that_cannot_write_all_characters_writes_the_others() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Page(stream).line("größer 漢")
    assert raw.getvalue() == b"gr??er ?\n"
