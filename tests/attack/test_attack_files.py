"""Damaged CSV files: what the feed gives is what a small reader of RFC 4180 of its own reads, or the file is held.

Whatever reads a file into the warehouse reads it through the feed; what comes after it is counted against the feed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_page import Attack

from evergreen.spec import DatasetSpec
from evergreen.warehouse import feed, opened
from evergreen.warehouse.failure import UnreadableError
from evergreen.warehouse.landing import LandedFile, Version

Rows = list[list[str | None]]


class HeldError(Exception):
    """The file has no single reading."""


def oracle(text: str, delimiter: str) -> Rows:
    """Header and rows, character by character; empty is None."""
    rows: list[list[str]] = [[]]
    ends: list[str] = []
    at = 0
    while at < len(text):
        value, at = quoted(text, at, delimiter) if text[at] == '"' else plain(text, at, delimiter)
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
    if "\0" in text or len(set(ends[1:])) > 1 or rows[:1] in ([], [[""]]):
        raise HeldError
    if any(len(row) != len(rows[0]) for row in rows):
        raise HeldError
    return [rows[0], *([value or None for value in row] for row in rows[1:])]  # type: ignore[list-item]


def quoted(text: str, at: int, delimiter: str) -> tuple[str, int]:
    value = ""
    at += 1
    while at < len(text):
        if text[at] != '"':
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


def plain(text: str, at: int, delimiter: str) -> tuple[str, int]:
    begin = at
    while at < len(text) and text[at] not in f"{delimiter}\r\n":
        if text[at] == '"':
            raise HeldError
        at += 1
    return text[begin:at], at


def damaged(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Files with their delimiters: valid ones, of which most are damaged in a place or two."""
    while True:
        delimiter, width = chance.choice(",;|"), chance.choice([1, 3, 3])
        end = chance.choice(["\n", "\n", "\r\n", "\r"])
        lines = [delimiter.join("abc"[:width])]
        for _ in range(chance.randint(0, 8)):
            lines.append(delimiter.join(value(chance, delimiter) for _ in range(width)))
        text = end.join(lines) + chance.choice([end, end, ""])
        for _ in range(chance.choice([0, 1, 1, 2])):
            at = chance.randrange(len(text))
            new = chance.choice(['"', '""', "\n", "\r", "\r\n", delimiter, "", "x", "\0", "\\", "\\."])
            text = text[:at] + new + text[at + chance.choice([0, 1, 1, 5]) :]
        if text:
            yield text, delimiter


def value(chance: random.Random, delimiter: str) -> str:
    pieces = ["a", '"', "b c", delimiter, "\n", "\r\n", "é", "木", "5", "\\.", "\\", " ", "long" * 20]
    made = "".join(chance.choice(pieces) for _ in range(chance.choice([0, 1, 1, 2, 3])))
    if any(c in made for c in f'{delimiter}"\r\n') or chance.random() < 0.2:
        return '"' + made.replace('"', '""') + '"'
    return made


def read(path: Path, delimiter: str) -> Rows:
    dataset = DatasetSpec.model_validate({
        "name": "readings", "key": ["a"], "event_time": "a", "columns": {"a": {"type": "timestamp"}},
        "source": {"delimiter": delimiter},
    })  # fmt: skip
    file = LandedFile(path, path.name, "", Version(0, 0, path.stat().st_size, 0, 0))
    with feed.feed(dataset, file) as found:
        rows: Rows = [list(found.columns)]
        for batch in found.batches():
            rows += [list(row) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]
        assert found.records == len(rows) - 1
    return rows


def test_damaged_csv_files(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(attack.seed)
    tries = attack.count(sample=40, whole=1200)
    wrong: list[str] = []
    taken = 0
    path = tmp_path / "x.csv"
    for (text, delimiter), _ in zip(damaged(chance), range(tries), strict=False):
        monkeypatch.setattr(opened, "BLOCK_BYTES", chance.choice([1, 7, 64, 1 << 20]))
        path.write_bytes(text.encode())
        expected: Rows | None = None
        found: Rows | None = None
        with contextlib.suppress(HeldError):
            expected = oracle(text, delimiter)
        with contextlib.suppress(UnreadableError):
            found = read(path, delimiter)
        taken += found is not None
        if found != expected:
            wrong.append(f"{text!r} with {delimiter!r}: {found} instead of {expected}")
    attack.record(
        "damaged CSV files", tries, wrong, f"{taken} read whole, {tries - taken} refused with a reason"
    )
