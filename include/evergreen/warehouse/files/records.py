"""The records of a CSV file by RFC 4180, counted and checked before anything else reads them.

The readers of CSV differ in what they make of a quote inside a value, of a line `\\.`, of an empty line, and what they
make of it can swallow rows. So this looks at every byte first, by a rule that leaves one reading: each quote opens a
value (after a delimiter or a line end), closes one (before a delimiter or a line end), or is one of two inside a
value. What passes is cut into blocks of whole records, which every reader reads alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.opened import Read

RECORD_BYTES = 16 << 20  # of one record; a longer one is refused, so that memory stays bounded
_QUOTE, _LF, _CR, _BACKSLASH = 34, 10, 13, 92
_NAMES = {b"\n": "\\n", b"\r\n": "\\r\\n", b"\r": "\\r"}
# A quoted value in which a backslash escapes; possessive, so that a long value is not tried twice.
_ESCAPED = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_PAIR = re.compile(rb'\\(["\\])')

Positions = NDArray[np.int64]
_NONE: Positions = np.empty(0, np.int64)


@dataclass(frozen=True)
class Block:
    """Some whole records as UTF-8, quoted as RFC 4180 has it; `first_line` of the file, counted from 1."""

    data: bytes
    records: int
    first_line: int


class Records:
    """The records of one file, in their order."""

    def __init__(self, read: Read, delimiter: str, escape: str | None = None) -> None:
        """A reader at the begin of a file.

        Args:
            read: gives the next block of UTF-8, nothing at the end.
            delimiter: one ASCII character, neither a quote nor a line end.
            escape: a backslash where the file escapes quotes by it; else they are doubled.
        """
        self.delimiter = delimiter
        self.records = 0
        self.ended = True  # whether the last line has a line end, once all is read
        self.lines = 0  # line ends so far
        self._read = read
        self._delimiter = ord(delimiter)
        self._escape = escape
        self._window = b""
        self._final = False
        self._line_end = b""
        self._quoted: tuple[bytes | None, Positions, Positions] = (None, _NONE, _NONE)

    @property
    def line_end(self) -> bytes:
        """How the lines end; nothing before it is known."""
        return self._line_end

    def header(self, *, take: bool = True) -> tuple[bytes, int]:
        """Take the first record off: its bytes without the line end, and its line; nothing of an empty file.

        The line ends after it may be of another kind.

        Args:
            take: False: only look at it, it is a record as the others are.
        """
        line = self.lines + 1
        while True:
            ends = self._ends()
            end = int(ends[0]) + 1 if ends.size else len(self._window)
            self._refuse_stray(end)
            if ends.size or self._final:
                break
            self._more()
        record = self._window[:end]
        self._refuse_nul(record)
        self.ended = bool(ends.size)
        if take:
            self._take(end)
            self._line_end = b""
        return self._plain(record.rstrip(b"\r\n")), line

    def blocks(self, *, empty_lines: bool) -> Iterator[Block]:
        """The records that are left.

        Args:
            empty_lines: an empty line is a record, as it is where there is one column; else it is refused.

        Raises:
            UnreadableError: a quote, a line end, a character or a record that is not as it must be, with its line.
        """
        while True:
            self._refuse_stray(len(self._window))
            ends = self._ends()
            self._refuse_mixed(ends)
            self._refuse_nul(self._window)
            if not ends.size and not self._final:
                self._more()
                continue
            if not ends.size and not self._window:
                return
            end, count = (int(ends[-1]) + 1, len(ends)) if ends.size else (0, 0)
            if self._final and end < len(self._window):
                end, count, self.ended = len(self._window), count + 1, False
            if not empty_lines:
                self._refuse_empty(ends)
            data, line = self._window[:end], self.lines + 1
            self._take(end)
            self.records += count
            yield Block(self._plain(data), count, line)

    def line_of(self, block: Block, number: int) -> int:
        """The line on which a record of a block begins; number: 1 for the first.

        Right also where values hold line ends, as long as nothing in them is escaped.
        """
        kept = self._window, self._final, self._escape
        self._window, self._final, self._escape = block.data, True, None
        ends = self._ends()
        begin = int(ends[number - 2]) + 1 if number > 1 else 0
        self._window, self._final, self._escape = kept
        return block.first_line + self._line_ends(block.data[:begin])

    def _more(self) -> None:
        if len(self._window) > RECORD_BYTES:
            raise self._refused(
                0, f"a record of more than {RECORD_BYTES >> 20} MiB", f"records of at most {RECORD_BYTES >> 20} MiB",
                "a quote that is opened and never closed makes one value of the rest; shorten the value or close the quote",
            )  # fmt: skip
        block = self._read()
        self._window += block
        self._final = not block

    def _take(self, end: int) -> None:
        self.lines += self._line_ends(self._window[:end])
        self._window = self._window[end:]

    def _line_ends(self, data: bytes) -> int:
        return data.count(b"\r" if self._line_end == b"\r" else b"\n")

    def _ends(self) -> Positions:
        """Where the whole records of the window end."""
        quotes = self._quotes()[0]
        if not self._line_end:
            self._line_end = self._first_line_end(quotes)
        ends = _NONE
        if self._line_end:
            data = np.frombuffer(self._window, np.uint8)
            ends = _outside(np.flatnonzero(data == self._line_end[-1]), quotes)
        if self._final and quotes.size % 2:
            raise self._refused(
                int(quotes[-1]), "unterminated CSV quoted field: a quote that is opened here is not closed",
                "quotes in pairs", "the file is cut short, or a quote is not closed; deliver the file again, whole",
            )  # fmt: skip
        return ends

    def _quotes(self) -> tuple[Positions, Positions]:
        """Where quotes open and close values in the window, in turn, and where escaped ones are."""
        if self._quoted[0] is not self._window:
            self._quoted = (self._window, *_quotes(self._window, self._escape is not None))
        return self._quoted[1:]

    def _refuse_stray(self, end: int) -> None:
        """Refuse a quote before `end` that neither opens nor closes a value; right after `end` none is looked at."""
        quotes, escaped = self._quotes()
        if not quotes.size and not escaped.size:
            return
        data = np.frombuffer(self._window, np.uint8)
        quotes, escaped = quotes[quotes < end], escaped[escaped < end]
        opening, closing = quotes[::2], quotes[1::2]
        before = data[np.maximum(opening - 1, 0)]
        good = self._bounds(before) | (opening == 0)
        good[1:] |= opening[1:] == closing[: max(len(opening) - 1, 0)] + 1
        behind = data[np.minimum(closing + 1, len(data) - 1)]
        closes = self._bounds(behind) | (closing == len(data) - 1)
        paired = min(len(closing), max(len(opening) - 1, 0))
        closes[:paired] |= opening[1 : paired + 1] == closing[:paired] + 1
        stray = [*opening[~good][:1].tolist(), *closing[~closes][:1].tolist()]
        stray += escaped[np.searchsorted(quotes, escaped) % 2 == 0][:1].tolist()
        if not stray:
            return
        raise self._refused(
            min(stray), "a quote inside a value: it neither opens nor closes it",
            'quotes around a whole value, and doubled inside it ("5"" pipe")',
            'quote the value and double each quote in it; a file that writes \\" needs source.escape: "\\\\"',
        )  # fmt: skip

    def _bounds(self, characters: NDArray[np.uint8]) -> NDArray[np.bool_]:
        bounds: NDArray[np.bool_] = (
            (characters == self._delimiter) | (characters == _LF) | (characters == _CR)
        )
        return bounds

    def _first_line_end(self, quotes: Positions) -> bytes:
        window = self._window
        if not quotes.size:
            found = [p for p in (window.find(b"\n"), window.find(b"\r")) if p >= 0]
        else:
            data = np.frombuffer(window, np.uint8)
            found = _outside(np.flatnonzero((data == _LF) | (data == _CR)), quotes)[:1].tolist()
        if not found:
            return b""
        first = min(found)
        if window[first] == _LF:
            return b"\n"
        if window[first + 1 : first + 2] == b"\n":
            return b"\r\n"
        return b"\r" if first + 1 < len(window) or self._final else b""

    def _refuse_mixed(self, ends: Positions) -> None:
        if not self._line_end or (self._line_end == b"\n" and b"\r" not in self._window):
            return
        data, quotes = np.frombuffer(self._window, np.uint8), self._quotes()[0]
        other = _LF if self._line_end == b"\r" else _CR
        others = _outside(np.flatnonzero(data == other), quotes)
        if other == _CR and not self._final:  # what it belongs to may come with the next block
            others = others[others < len(data) - 1]
        if self._line_end == b"\r\n":
            lone = ends[(ends == 0) | (data[np.maximum(ends - 1, 0)] != _CR)]
            unpaired = others[data[np.minimum(others + 1, len(data) - 1)] != _LF]
            others = np.union1d(lone, unpaired)
        if not others.size:
            return
        at = int(others[0])
        kind = (
            self._window[at : at + 2] if self._window[at : at + 2] == b"\r\n" else self._window[at : at + 1]
        )
        raise self._refused(
            at, f"mixed line ends: this line ends with {_NAMES[kind]}, those before it with {_NAMES[self._line_end]}",
            "line ends of one kind", "write all line ends alike, or quote the value that holds one",
        )  # fmt: skip

    def _refuse_nul(self, data: bytes) -> None:
        if b"\0" in data:
            raise self._refused(
                data.index(b"\0"), "invalid byte sequence: a NUL (0x00)", "text without NUL",
                "take it out; a file full of them is in another encoding (source.encoding: utf-16)",
            )  # fmt: skip

    def _refuse_empty(self, ends: Positions) -> None:
        width = len(self._line_end)
        begins = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1)) if ends.size else ends
        empty = np.flatnonzero(ends - begins == width - 1)
        if empty.size:
            raise self._refused(
                int(begins[empty[0]]), "an empty line", "a record on each line",
                "take the empty line out, at the end of the file, too",
            )  # fmt: skip

    def _refused(
        self, at: int, observed: str, limit: str, remedy: str = "mend the line and deliver the file again"
    ) -> UnreadableError:
        line = self.lines + self._line_ends(self._window[:at]) + 1
        return UnreadableError(
            Failure("file_readable", None, f"line {line}: {observed}", limit, remedy=remedy)
        )

    def _plain(self, data: bytes) -> bytes:
        """Records without escapes: what a backslash protects, in a quoted value, as RFC 4180 writes it."""
        if not self._escape or b"\\" not in data:
            return data
        return _ESCAPED.sub(lambda field: _PAIR.sub(_unescaped, field[0]), data)


def _unescaped(pair: re.Match[bytes]) -> bytes:
    return b'""' if pair[1] == b'"' else b"\\"


def _quotes(window: bytes, escapes: bool) -> tuple[Positions, Positions]:
    if b'"' not in window:
        return _NONE, _NONE
    data = np.frombuffer(window, np.uint8)
    quotes: Positions = np.flatnonzero(data == _QUOTE)
    if not escapes or b"\\" not in window:
        return quotes, _NONE
    after = quotes[(quotes > 0) & (data[np.maximum(quotes - 1, 0)] == _BACKSLASH)]
    escaped = np.array([p for p in after.tolist() if _backslashes(window, p) % 2], np.int64)
    return np.setdiff1d(quotes, escaped, assume_unique=True), escaped


def _outside(positions: Positions, quotes: Positions) -> Positions:
    """Those positions that are in no quoted value."""
    if not quotes.size:
        return positions
    return positions.compress(np.searchsorted(quotes, positions) % 2 == 0)


def _backslashes(window: bytes, before: int) -> int:
    count = 0
    while count < before and window[before - count - 1] == _BACKSLASH:
        count += 1
    return count
