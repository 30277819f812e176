"""What a file says, by code of its own: its records, which of them are good, and what a warehouse holds after some files.

Nothing of Evergreen reads here. Text is read character by character after RFC 4180; what a text is as a number or a time,
PostgreSQL is asked by itself, value by value.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

TYPES = {"a": "text", "b": "text", "x": "float", "n": "integer", "at": "timestamp"}
REQUIRED = ("a", "at")
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """A time as microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


EARLIEST, LATEST = micros(datetime(1990, 1, 1, tzinfo=UTC)), micros(AS_OF + timedelta(hours=24))

Record = dict[str, Any]  # of a text file: texts; of a typed one: numbers, texts, and times in microseconds


class HeldError(Exception):
    """The file has no single reading."""


@dataclass(frozen=True)
class Writing:
    """How a group of files is written, and what is asked of it: one spec."""

    columns: tuple[str, ...]
    key: tuple[str, ...] | str
    ending: str
    encoding: str = "utf-8"
    delimiter: str = ","
    escape: bool = False
    header: bool = True
    decimal: str = "."
    missing: tuple[str, ...] = ()
    duplicates: str = "hold"
    quarantine: str = "rows"
    max_bad_rows: float = 1.0

    @property
    def kind(self) -> str:
        """csv, jsonl or parquet."""
        return {"jsonl": "jsonl", "parquet": "parquet"}.get(self.ending.split(".")[0], "csv")

    def spec(self, name: str) -> dict[str, Any]:
        """The content of the dataset's spec."""
        columns: dict[str, Any] = {
            c: {"type": TYPES[c], "required": c in REQUIRED, **({"from": n} if not self.header else {})}
            for n, c in enumerate(self.columns, 1)
        }
        if "x" in columns and self.missing:
            columns["x"]["missing"] = list(self.missing)
        if self.decimal != ".":
            for name_ in {"x", "n"} & set(columns):
                columns[name_]["decimal"] = self.decimal
        source = {"encoding": self.encoding, "header": self.header, "delimiter": self.delimiter}
        return {
            "name": name, "columns": columns, "event_time": "at", "duplicates": self.duplicates,
            "key": self.key if isinstance(self.key, str) else list(self.key),
            "quarantine": self.quarantine, "max_bad_rows": self.max_bad_rows,
            "source": {**source, **({"escape": "\\"} if self.escape else {})},
        }  # fmt: skip


# --- the records of a file


def csv_rows(
    text: str, delimiter: str, *, header: bool = True, escape: bool = False
) -> list[list[str | None]]:
    """The lines of a CSV text, character by character; empty is None in all but the header."""
    rows: list[list[str]] = [[]]
    ends: list[str] = []
    at = 0
    if "\0" in text or text[:1] in ("", "\r", "\n"):
        raise HeldError
    while at < len(text):
        if text[at] == '"':
            value, at = _quoted(text, at, delimiter, escape)
        else:
            value, at = _plain(text, at, delimiter)
        rows[-1].append(value)
        if at < len(text) and text[at] == delimiter:
            at += 1
            if at == len(text):
                rows[-1].append("")
        elif at < len(text):
            end = "\r\n" if text[at : at + 2] == "\r\n" else text[at]
            ends.append(end)
            rows.append([])
            at += len(end)
    rows = [row for row in rows if row]
    if len(set(ends[header:])) > 1 or any(len(row) != len(rows[0]) for row in rows):
        raise HeldError
    first = [list[str | None](rows[0])] if header else []
    return [*first, *([value or None for value in row] for row in rows[header:])]


def _quoted(text: str, at: int, delimiter: str, escape: bool) -> tuple[str, int]:
    value = ""
    at += 1
    while at < len(text):
        if escape and text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            value += text[at + 1]
            at += 2
        elif text[at] != '"':
            value += text[at]
            at += 1
        elif text[at + 1 : at + 2] == '"':
            value += '"'
            at += 2
        elif at + 1 == len(text) or text[at + 1] in f"{delimiter}\r\n":
            return value, at + 1
        else:
            raise HeldError
    raise HeldError


def _plain(text: str, at: int, delimiter: str) -> tuple[str, int]:
    begin = at
    while at < len(text) and text[at] not in f"{delimiter}\r\n":
        if text[at] == '"':
            raise HeldError
        at += 1
    return text[begin:at], at


def unpacked(content: bytes) -> bytes:
    """The content of a gzip file of any number of members; zeros may follow."""
    found = b""
    while content.strip(b"\0"):
        member = zlib.decompressobj(31)
        try:
            found += member.decompress(content)
        except zlib.error as error:
            raise HeldError from error
        if not member.eof:
            raise HeldError
        content = member.unused_data.lstrip(b"\0")
    return found


def text_records(content: bytes, writing: Writing) -> list[Record]:
    """The records of a text file, unpacked.

    Raises:
        HeldError: it has no single reading, or not the columns of the spec.
    """
    if content.startswith(b"\xef\xbb\xbf") and not writing.encoding.startswith("utf-8"):
        raise HeldError
    try:
        text = content.decode("utf-8" if writing.kind == "jsonl" else writing.encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise HeldError from error
    if writing.kind == "jsonl":
        rows = [_object(line) for line in text.split("\n") if line.strip(" \t\r\v\f")]
        names = {name for row in rows for name in row}
    else:
        delimiter = "\t" if writing.ending.startswith("tsv") else writing.delimiter
        lines = csv_rows(text, delimiter, header=writing.header, escape=writing.escape)
        if writing.header:
            head: Sequence[str | None] = lines.pop(0)
        else:
            head = [*writing.columns, *["more"] * len(lines[0])][: len(lines[0])]
        if len(set(head)) < len(head):
            raise HeldError
        names = {name or "" for name in head}
        rows = [dict(zip((h or "" for h in head), line, strict=True)) for line in lines]
    if names - set(writing.columns) or set(REQUIRED) & set(writing.columns) - names:
        raise HeldError
    return [{c: row.get(c) for c in writing.columns} for row in rows]


def _number(text: str) -> str:
    """A number as JSON has it; to JSON 5.0 is 5."""
    whole = abs(float(text)) < 9e18 and Fraction(text).denominator == 1
    return str(Fraction(text).numerator) if whole else text


def _object(line: str) -> Record:
    def once(pairs: list[tuple[str, Any]]) -> Record:
        if len({name for name, _ in pairs}) < len(pairs):
            raise HeldError
        return dict(pairs)

    try:
        value = json.loads(
            line.removeprefix("\ufeff"), object_pairs_hook=once, parse_float=_number, parse_int=str
        )
    except ValueError as error:
        raise HeldError from error
    if not isinstance(value, dict):
        raise HeldError
    return {name: _json_text(v) for name, v in value.items()}


def _json_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)) or (isinstance(value, str) and re.search("[\0\ud800-\udfff]", value)):
        raise HeldError
    return str(value)


# --- what the values are, and what is published


Reads = Callable[[str, Iterable[str]], dict[str, Any]]
"""Of a type and texts: those that are of it, with their values; PostgreSQL says."""


@dataclass
class Verdict:
    """What is to become of a file: its rows in order of the file, None for one that is held."""

    records: int
    published: list[tuple[Any, ...]] | None  # None: the whole file is held
    held: int = 0
    duplicates: int = 0
    held_texts: list[tuple[Any, Any]] = field(default_factory=list)


def judged(records: list[Record], writing: Writing, reads: Reads) -> Verdict:
    """Which records are good, as the spec says."""
    if not records:
        raise HeldError
    typed = _typed(records, writing, reads)
    fit = [(n, row) for n, row in enumerate(typed) if row is not None]
    duplicates = 0
    if writing.duplicates == "drop":
        seen: set[tuple[Any, ...]] = set()
        kept = []
        for n, row in fit:
            if row not in seen:
                kept.append((n, row))
            seen.add(row)
        duplicates, fit = len(fit) - len(kept), kept
    where = [writing.columns.index(k) for k in writing.key] if not isinstance(writing.key, str) else []
    times = Counter(tuple(row[w] for w in where) for _, row in fit)
    at = writing.columns.index("at")
    needed = [writing.columns.index(c) for c in REQUIRED if c in writing.columns]
    good = [
        (n, row)
        for n, row in fit
        if all(row[w] is not None for w in needed)
        and EARLIEST <= row[at] <= LATEST
        and (not where or times[tuple(row[w] for w in where)] == 1)
    ]
    held = len(records) - duplicates - len(good)
    of = len(records) - duplicates
    whole = held and (writing.quarantine == "batch" or held >= of or held > writing.max_bad_rows * of)
    if whole:
        return Verdict(len(records), None)
    bad = set(range(len(records))) - {n for n, _ in good}
    texts = [] if duplicates else [(records[n].get("a"), records[n].get("b")) for n in sorted(bad)]
    return Verdict(len(records), [row for _, row in good], held, duplicates, texts)


def _typed(records: list[Record], writing: Writing, reads: Reads) -> list[tuple[Any, ...] | None]:
    columns = []
    for name in writing.columns:
        values = [_written(record[name], name, writing) for record in records]
        if TYPES[name] != "text":
            texts = {v for v in values if isinstance(v, str)}
            known = reads(TYPES[name], texts)
            values = [known.get(v, HeldError) if isinstance(v, str) else v for v in values]
        columns.append(values)
    rows = zip(*columns, strict=True)
    return [None if HeldError in row else row for row in rows]


def _written(value: Any, name: str, writing: Writing) -> Any:
    """A text of the file as a type reads it: without a marker, with a point; HeldError for one in another form."""
    if not isinstance(value, str) or TYPES[name] not in ("float", "integer"):
        return value
    text = value.strip(" \t")
    words = writing.missing if name == "x" else ()
    if value.strip(" \t\u00a0\u202f") in words or (words and _same_number(text, writing)):
        return None
    if re.search(
        "[_xob]", text, re.IGNORECASE
    ):  # 1_000, 0x1F, 0b1: PostgreSQL reads them, and nobody writes them
        return HeldError
    if writing.decimal == "." or writing.kind == "jsonl":
        return value
    point = re.escape(writing.decimal)
    if not re.fullmatch(rf"[+-]?([0-9]+({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?", text):
        return HeldError
    return text.replace(writing.decimal, ".")


def _same_number(text: str, writing: Writing) -> bool:
    def number(of: str) -> float | None:
        if writing.kind == "csv":
            if writing.decimal != "." and "." in of:
                return None
            of = of.replace(writing.decimal, ".")
        return float(of) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", of) else None

    return number(text) is not None and number(text) in [number(word) for word in writing.missing]


class Table:
    """The rows that are published, file after file."""

    def __init__(self, writing: Writing) -> None:
        self.generated = isinstance(writing.key, str)
        self.where = [writing.columns.index(k) for k in writing.key] if not self.generated else []
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def publish(self, rows: list[tuple[Any, ...]]) -> tuple[int, int, int]:
        """Publish a file; returns how many rows are new, changed, and as they were."""
        counts, nth = Counter[str](), Counter[tuple[Any, ...]]()
        for row in rows:
            nth[row] += 1
            key = (*row, nth[row]) if self.generated else tuple(row[w] for w in self.where)
            there = self.rows.get(key)
            counts["new" if there is None else "unchanged" if there == row else "changed"] += 1
            self.rows[key] = row
        return counts["new"], counts["changed"], counts["unchanged"]
