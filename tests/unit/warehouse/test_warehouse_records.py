"""A CSV file has one reading, or is refused with the line at fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import feed, formats, opened
from evergreen.warehouse.files.failure import UnreadableError
from evergreen.warehouse.files.landed_file import FORMATS, LandedFile, Version
from evergreen.warehouse.files.records import RECORD_BYTES

Read = Callable[..., tuple[list[tuple[str | None, ...]], feed.TextRows]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The rows of a file of this content, and its feed."""

    def rows(
        content: str | bytes, ending: str = ".csv", columns: Sequence[str] = ("at",), **source: Any
    ) -> tuple[list[tuple[str | None, ...]], feed.TextRows]:
        path = tmp_path / f"x{ending}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        dataset = DatasetSpec.model_validate({
            "name": "readings", "key": ["at"], "event_time": "at", "source": source,
            "columns": {name: {"type": "timestamp" if name == "at" else "text"} for name in columns},
        })  # fmt: skip
        landed = LandedFile(path, path.name, "", Version(0, 0, path.stat().st_size, 0, 0), FORMATS[ending])
        with formats.feed(dataset, landed) as opened_feed:
            found = [
                row
                for b in opened_feed.batches()
                for row in zip(*(c.to_pylist() for c in b.columns), strict=True)
            ]
        assert opened_feed.records == len(found)
        return found, opened_feed

    return rows


TAKEN = {
    "plain": ("a,b\n1,2\n", [("1", "2")]),
    "no-line-end-at-the-end": ("a,b\n1,2", [("1", "2")]),
    "windows": ("a,b\r\n1,2\r\n3,4\r\n", [("1", "2"), ("3", "4")]),
    "old-macintosh": ("a,b\r1,2\r3,4", [("1", "2"), ("3", "4")]),
    "header-ends-otherwise": ("a,b\r\n1,2\n3,4\n", [("1", "2"), ("3", "4")]),
    "doubled-quotes": ('a,b\n"5"" pipe","7"""\n', [('5" pipe', '7"')]),
    "only-quotes": ('a,b\n"""",""""""\n', [('"', '""')]),
    "empty-and-quoted-empty": ('a,b\n,""\n', [(None, None)]),
    "line-ends-in-quotes": ('a,b\n"1\n2","3\r4\r\n5"\n', [("1\n2", "3\r4\r\n5")]),
    "delimiter-in-quotes": ('a,b\n"1,2",3\n', [("1,2", "3")]),
    "end-of-data-marker": ("a,b\n\\.,2\n3,\\.\n", [("\\.", "2"), ("3", "\\.")]),
    "end-of-data-marker-alone": ("a\n1\n\\.\n2\n", [("1",), ("\\.",), ("2",)]),
    "empty-line-of-one-column": ("a\n1\n\n2\n", [("1",), (None,), ("2",)]),
    "byte-order-mark": ("\ufeffa,b\n1,2\n", [("1", "2")]),
    "words-for-nothing": ("a,b\nNULL,NaN\n", [("NULL", "NaN")]),
    "excel-in-quotes": ('"sep=,"\na,b\n1,2\n', [("1", "2")]),
    "excel-saved-again": ("sep=,,\na,b\n1,2\n", [("1", "2")]),
    "excel": ("sep=,\na,b\n1,2\n", [("1", "2")]),
    "not-ascii": ("a,b\nKäthe,木\n", [("Käthe", "木")]),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", TAKEN)
def test_what_has_one_reading_is_read(
    read: Read, monkeypatch: pytest.MonkeyPatch, case: str, block: int
) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", block)
    content, expected = TAKEN[case]
    assert read(content)[0] == expected


REFUSED = {
    "two-stray-quotes": ('a,b\n1,2\n3,5" pipe\n4,7" pipe\n5,6\n', "line 3: a quote inside a value"),
    "quote-after-the-closing-one": ('a,b\n1,"2" 3\n', "line 2: a quote inside"),
    "blank-before-the-opening-one": ('a,b\n1, "2"\n', "line 2: a quote inside"),
    "backslash-escaped": ('a,b\n1,"5\\" pipe"\n2,"7\\" pipe"\n', "line 2: a quote inside"),
    "after-a-quoted-line-end": ('a,b\n"1\n\n2",x\n3,5" pipe\n', "line 5: a quote inside"),
    "never-closed": ('a,b\n1,2\n3,"4\n5,6\n', "line 3: unterminated CSV quoted field"),
    "stray-in-the-header": ('a,5" b\n1,2\n', "header: line 1: a quote inside"),
    "open-in-the-header": ('a,"b\n1,2\n', "header: line 1: unterminated"),
    "mixed-line-ends": ("a,b\n1,2\n3,4\r\n5,6\n", "line 3: mixed line ends: this line ends with \\r\\n"),
    "mixed-the-other-way": ("a,b\r\n1,2\r\n3,4\n5,6\r\n", "line 3: mixed line ends: this line ends with \\n"),
    "lone-carriage-return": ("a,b\n1,2\n3,x\ry\n", "line 3: mixed line ends: this line ends with \\r"),
    "nul": ("a,b\n1,2\n3,\0\n", "line 3: invalid byte sequence"),
    "nul-in-the-header": ("a,\0b\n1,2\n", "header: line 1: invalid byte sequence"),
    "empty-line": ("a,b\n1,2\n\n3,4\n", "line 3: an empty line"),
    "empty-line-at-the-end": ("a,b\r\n1,2\r\n\r\n", "line 3: an empty line"),
    "empty-line-at-once": ("a,b\n\n1,2\n", "line 2: an empty line"),
    "too-few": ("a,b,c\n1,2,3\n4,5\n", 'line 3: missing data for column "c"'),
    "too-few-after-a-quoted-line-end": ('a,b,c\n1,"\n\n",3\n4,5\n', 'line 5: missing data for column "c"'),
    "cut-off": ("a,b,c\n1,2,3\n4,5", 'line 3: missing data for column "c"; it is the last and has no line end'),
    "too-many": ("a,b\n1,2\n3,4,5\n", "line 3: extra data after last expected column"),
    "delimiter-at-the-end": ("a,b\n1,2,\n", "line 2: extra data after last expected column, the line ends with a del"),
    "blank-first-line": ("\na,b\n1,2\n", "header: line 1 is blank"),
    "blanks-in-the-first-line": ("  \t\na,b\n1,2\n", "header: line 1 is blank"),
    "empty-row-of-excel": (",\na,b\n1,2\n", "header: line 1 is blank"),
    "sep-of-excel-saved-again": ("sep=;,,\na,b\n1,2\n", "Excel's sep= names the delimiter ';'"),
    "sep-of-excel": ("sep=;\na;b\n1;2\n", "Excel's sep= names the delimiter ';'"),
    "nothing": ("", "0 bytes"),
    "byte-order-mark-alone": ("\ufeff", "no characters"),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_not_is_refused_with_its_line(
    read: Read, monkeypatch: pytest.MonkeyPatch, case: str, block: int
) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", block)
    content, observed = REFUSED[case]
    with pytest.raises(UnreadableError) as refused:
        read(content)
    assert observed in refused.value.failure.observed
    assert refused.value.failure.remedy


def test_delimiter_of_the_spec_bounds_values(read: Read) -> None:
    assert read('a;b\n"1;2";3,4\n', delimiter=";")[0] == [("1;2", "3,4")]
    assert read('a\tb\n"1\t2"\t3,4\n', ".tsv")[0] == [("1\t2", "3,4")]
    with pytest.raises(UnreadableError, match="line 2: a quote inside"):
        read('a;b\n1,"2";3\n', delimiter=";")
    with pytest.raises(ValueError, match="'é' cannot stand between two values"):
        read("a,b\n", delimiter="é")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis"])
def test_other_encodings_are_read_by_the_same_rule(read: Read, encoding: str) -> None:
    value = "木" if encoding == "shift_jis" else "5é"
    assert read(f'a,b\r\n"1,\r\n",{value}\r\n'.encode(encoding), encoding=encoding)[0] == [("1,\r\n", value)]
    with pytest.raises(UnreadableError, match="line 2: a quote inside"):
        read(f'a,b\r\n{value}",2\r\n'.encode(encoding), encoding=encoding)


def test_byte_of_another_encoding_is_named_with_its_place(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", 5)
    with pytest.raises(UnreadableError, match="byte 0xe4 at position 11"):
        read("a,b\n1,ä\n2,".encode() + b"\xe4\n")
    with pytest.raises(UnreadableError, match="byte 0xc3 at position 6"):
        read("a,b\n1,ä".encode()[:-1])


_TIMES = [f"2024-02-01T0{hour}:00:00Z" for hour in range(5)]
SWALLOWED = {
    "one-line": ('at,a,n\n{0},"5 pipe,1\n{1},7 pipe",2\n{2},x,3\n', "line 2: a quoted value goes on to line 3"),
    "three-lines": ('at,a,n\n{0},x,1\n{1},"5 pipe,1\n{2},x,3\n{3},7 pipe",2\n', "line 3: a quoted value goes on to line 5"),
    "lone-quotes": ('at,a,n\n{0},",1\n{1},",2\n', "line 2: a quoted value goes on to line 3"),
    "time-in-the-last-column": ('a,n,at\n"5 pipe,1,{0}\n7 pipe",2,{1}\n', "line 2: a quoted value goes on"),
    "windows": ('at,a,n\r\n{0},"x\ny",1\r\n{1},"5 pipe,1\r\n{2},7 pipe",2\r\n', "line 4: a quoted value goes on to line 5"),
    "without-a-header": ('{0},"5 pipe,1\n{1},7 pipe",2\n', "line 1: a quoted value goes on to line 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", SWALLOWED)
def test_quotes_that_swallow_whole_records_are_refused(read: Read, case: str) -> None:
    content, observed = SWALLOWED[case]
    columns = ["at", "a", "n"]
    more = {"header": False, "columns": columns} if case == "without-a-header" else {}
    with pytest.raises(UnreadableError) as refused:
        read(content.format(*_TIMES), **more)
    assert observed in refused.value.failure.observed


@pytest.mark.parametrize(
    "text",
    ["one\ntwo", "Sir,\nI came,\nI saw", "a,1\nb,2", "on 2024-02-01, at 9\n2024, again", "\n\n"],
    ids=["lines", "letter", "table", "dates", "empty-lines"],
)
def test_text_of_several_lines_is_no_swallowed_record(read: Read, text: str) -> None:
    assert read(f'at,a\n{_TIMES[0]},"{text}"\n')[0] == [(_TIMES[0], text)]
    assert read(f'at,a,n\n{_TIMES[0]},"{text}",1\n')[0] == [(_TIMES[0], text, "1")]


ESCAPED = {
    "quote": ('"5\\" pipe",x', ('5" pipe', "x")),
    "backslash-before-the-closing-quote": ('"C:\\\\",x', ("C:\\", "x")),
    "both": ('"a\\\\\\"b",x', ('a\\"b', "x")),
    "other-backslashes-stay": ('"a\\nb",c\\d', ("a\\nb", "c\\d")),
    "two-backslashes-outside-stay": ("a\\\\b,x", ("a\\\\b", "x")),
    "line-end-and-delimiter": ('"\\",\n",x', ('",\n', "x")),
    "doubled-all-the-same": ('"5"" pipe",x', ('5" pipe', "x")),
}


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("case", ESCAPED)
def test_escaped_quotes_are_read_where_the_spec_says_so(
    read: Read, monkeypatch: pytest.MonkeyPatch, case: str, block: int
) -> None:
    monkeypatch.setattr(opened, "BLOCK_BYTES", block)
    line, expected = ESCAPED[case]
    assert read(f"a,b\n{line}\n1,2\n", escape="\\")[0] == [expected, ("1", "2")]


def test_escape_outside_a_quoted_value_is_refused(read: Read) -> None:
    with pytest.raises(UnreadableError, match="line 3: a quote inside"):
        read('a,b\n"1\n2",5\\" pipe\n', escape="\\")


def test_record_without_an_end_is_refused_before_it_fills_the_memory(read: Read) -> None:
    rest = b"x" * (RECORD_BYTES + (2 << 20)) + b"\n"
    with pytest.raises(UnreadableError, match="line 3: a record of more than 16 MiB"):
        read(b"a,b\n1,2\n3," + rest)
    with pytest.raises(UnreadableError, match="line 2: a record of more than 16 MiB"):
        read(b'a,b\n1,"' + rest * 2)
    with pytest.raises(UnreadableError, match="header: line 1: a record of more than 16 MiB"):
        read(b"a" * (RECORD_BYTES + (2 << 20)))


def test_position_and_name_of_columns_are_the_files_own(read: Read) -> None:
    _, found = read("b,,a,a\n1,2,3,4\n")
    assert found.columns == ("b", "", "a", "a")
    assert found.ended
    assert not read("a,b\n1,2")[1].ended
