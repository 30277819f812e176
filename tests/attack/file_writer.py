"""Files as a source may write them, most of them damaged in a place or two; all that is drawn follows from a seed."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from file_oracle import Record, Writing, micros

# Of each twenty groups of files so many are of this kind.
KINDS = ("csv",) * 14 + ("jsonl",) * 3 + ("parquet",) * 3
TIMES = (
    "2024-01-31T23:59:59.5Z", "2024-02-01T01:00:00+02:00", "2024-02-03 04:05", "2024-02-03T04:05:06+00:00", "2024-02-29",
    "1969-12-31T23:59:59Z", "2024-03-05T00:00:00Z", "", "24-01-01", "2024-02-30T00:00:00Z",
)  # fmt: skip
NUMBERS = (
    "1.5",
    "0",
    "-200",
    "-200.0",
    "1e5",
    " 7",
    "5.",
    ".5",
    "",
    "NA",
    "nan",
    "1e999",
    "-0.0",
    "12345678901234567",
)
WHOLE = ("1", "0", "-7", "", "2.0", "9223372036854775807", "9223372036854775808", "+3", " 4 ")


def writings(chance: random.Random) -> Iterator[Writing]:
    """Ways to write a group of files, without end."""
    while True:
        kind = chance.choice(KINDS)
        columns = chance.choice(
            [("at",), ("a", "at"), ("a", "b", "at"), ("a", "b", "x", "n", "at"), ("a", "x", "at", "n", "b")]
        )
        keys = ["generated", ("at",), *([("a",), ("a", "at")] if "a" in columns else [])]
        asked = {
            "columns": columns, "key": chance.choice(keys), "duplicates": chance.choice(["hold", "hold", "drop"]),
            "quarantine": chance.choice(["rows", "rows", "rows", "batch"]), "max_bad_rows": chance.choice([1.0, 1.0, 0.4]),
        }  # fmt: skip
        if kind == "parquet":
            yield Writing(ending=kind, **asked)
            continue
        missing = chance.choice([(), (), ("NA", "-200")])
        packed = chance.choice(["", "", "", "", ".gz", ".gz", ".zst"])
        if kind == "jsonl":
            yield Writing(ending=kind + packed, missing=missing, **asked)
            continue
        yield Writing(
            ending=chance.choice(["csv", "csv", "txt", "tsv"]) + packed,
            encoding=chance.choice(["utf-8"] * 5 + ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig"]),
            delimiter=chance.choice(",;|\t"), escape=chance.random() < 0.2, header=chance.random() < 0.85,
            decimal=chance.choice([".", ".", ".", ","]), missing=missing, **asked,
        )  # fmt: skip


def a_file(chance: random.Random, writing: Writing) -> tuple[bytes, list[Record] | None]:
    """A file, and of a Parquet file its records; None where it must be held, and of a text file, which an oracle reads."""
    if writing.kind == "parquet":
        return _parquet(chance, writing)
    end = (
        chance.choice(["\n", "\n", "\r\n", "\r"]) if writing.kind == "csv" else chance.choice(["\n", "\r\n"])
    )
    make = _csv_line if writing.kind == "csv" else _json_line
    head = [_delimiter(writing).join(writing.columns)] if writing.kind == "csv" and writing.header else []
    lines = head + [make(chance, writing, n) for n in range(chance.choice([0, 1, 2, 5, 12]))]
    text = end.join(lines) + chance.choice([end, end, end, ""])
    for _ in range(chance.choice([0, 0, 1, 2])):
        at = chance.randrange(len(text) + 1)
        new = chance.choice(
            [
                '"',
                '""',
                "\n",
                "\r",
                "\r\n",
                _delimiter(writing),
                "",
                "é",
                "\0",
                "\\",
                "\\.",
                "\\\n",
                "\n\\.\n",
                "\ufeff",
                "{",
                "}",
            ]
        )
        text = text[:at] + new + text[at + chance.choice([0, 1, 1, 5]) :]
    wrong = chance.random() < 0.08  # another encoding than the spec says
    encoding = "utf-8" if writing.kind == "jsonl" else writing.encoding
    encoding = chance.choice(["latin-1", "utf-16", "utf-8-sig", "cp1252"]) if wrong else encoding
    content = text.encode(encoding, "replace")
    if chance.random() < 0.06:
        content = content[: chance.randrange(len(content) + 1)]
    if encoding in ("utf-8", "utf-16-le") and chance.random() < 0.1:
        content = "\ufeff".encode(encoding) + content
    return _packed(chance, content, writing.ending), None


def _delimiter(writing: Writing) -> str:
    return "\t" if writing.ending.startswith("tsv") else writing.delimiter


def _value(chance: random.Random, name: str, number: int, decimal: str = ".") -> str:
    good = chance.random() < 0.7
    if name == "at":
        moment = datetime(2024, 1, 5, tzinfo=UTC) + timedelta(minutes=number)
        return moment.isoformat() if good else chance.choice(TIMES)
    if name in "xn":
        found = chance.choice(("1.5", "-2.25", "30") if name == "x" else ("1", "20"))
        return (found if good else chance.choice(NUMBERS if name == "x" else WHOLE)).replace(".", decimal)
    if name == "a" and good:
        return f"k{number}"
    pieces = ["a", '"', "b c", ",", ";", "\n", "\r\n", "é", "木", "€", "5", "\\.", "\\", " ", "long" * 20]
    return "".join(chance.choice(pieces) for _ in range(chance.choice([0, 1, 1, 2, 3])))


def _csv_line(chance: random.Random, writing: Writing, number: int) -> str:
    number = chance.choice([number, number, number, 0])
    return _delimiter(writing).join(
        _quoted(chance, _value(chance, name, number, writing.decimal), writing) for name in writing.columns
    )


def _quoted(chance: random.Random, value: str, writing: Writing) -> str:
    if chance.random() < 0.2 or any(c in value for c in f'{_delimiter(writing)}"\r\n'):
        if writing.escape:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{value}"'
        return '"' + value.replace('"', '""') + '"'
    return value


def _json_line(chance: random.Random, writing: Writing, number: int) -> str:
    number = chance.choice([number, number, number, 0])
    row: dict[str, Any] = {}
    for name in writing.columns:
        value: Any = _value(chance, name, number)
        if name in "xn" and chance.random() < 0.8:
            value = (
                chance.choice([3, 0, -200, -200.0, 1.5, 10**15, True, None])
                if name == "x"
                else chance.choice([3, 0, None])
            )
        if value != "" or chance.random() < 0.5:
            row[name] = value
    return json.dumps(row, ensure_ascii=chance.random() < 0.5)


def _packed(chance: random.Random, content: bytes, ending: str) -> bytes:
    if ending.endswith(".gz"):
        cut = chance.choice([0, 0, 0, len(content) // 2])
        members = [content[:cut], content[cut:]] if cut else [content]
        found = b"".join(gzip.compress(m, mtime=0) for m in members)
        damage = chance.choice(["", "", "", "", "cut", "flip", "zeros", "garbage", "more"])
    elif ending.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        found, damage = sink.getvalue().to_pybytes(), chance.choice(["", "", "", "", "cut"])
    else:
        return content
    if damage == "cut":
        return found[: chance.randrange(1, len(found))]
    if damage == "flip":  # not in the first member's header, of which nothing is read
        at = chance.randrange(10, len(found))
        return found[:at] + bytes([found[at] ^ (1 << chance.randrange(8))]) + found[at + 1 :]
    return found + {"zeros": b"\0" * 20, "garbage": b"garbage", "more": gzip.compress(b"")}.get(damage, b"")


def _parquet(chance: random.Random, writing: Writing) -> tuple[bytes, list[Record] | None]:
    count = chance.choice([0, 1, 2, 5, 12])
    arrays, records = [], [dict[str, Any]() for _ in range(count)]
    for name in writing.columns:
        array, values = _array(chance, name, [chance.choice([n, n, n, 0]) for n in range(count)])
        arrays.append(array)
        for record, value in zip(records, values, strict=True):
            record[name] = None if value == "" else value
    names = list(writing.columns)
    damage = chance.choice([""] * 7 + ["cut", "tail", "name", "twice"])
    if damage == "name":
        names[chance.randrange(len(names))] = "other"
    if damage == "twice":
        names, arrays = [*names, names[0]], [*arrays, arrays[0]]
    table = pa.Table.from_arrays(arrays, names=names)
    sink = io.BytesIO()
    flavor = chance.choice([None, None, "spark"])
    ns = any(pa.types.is_timestamp(array.type) and array.type.unit == "ns" for array in arrays)
    pq.write_table(
        table, sink, compression=chance.choice(["none", "snappy", "zstd"]), flavor=flavor, use_dictionary=chance.random() < 0.5,
        row_group_size=chance.choice([2, 1000]), version="2.6" if ns else chance.choice(["1.0", "2.4", "2.6"]),
    )  # fmt: skip
    content = sink.getvalue()
    if damage == "cut":
        content = content[: chance.randrange(len(content))]
    if damage == "tail":
        content += b"tail"
    return content, records if not damage else None


def _array(chance: random.Random, name: str, numbers: list[int]) -> tuple[pa.Array, list[Any]]:
    gap = chance.choice([0.0, 0.1])

    def some(values: list[Any]) -> list[Any]:
        return [None if chance.random() < gap else v for v in values]

    if name == "at":
        begin = datetime(2024, 1, 5, tzinfo=UTC)
        moments = some([begin + timedelta(minutes=n) for n in numbers])
        kind = pa.timestamp(
            chance.choice(["s", "ms", "us", "ns"]), chance.choice([None, "UTC", "Asia/Kolkata"])
        )
        plain = [m.replace(tzinfo=None) if m and kind.tz is None else m for m in moments]
        return pa.array(plain, kind), [m and micros(m) for m in moments]
    if name == "x":
        values = some([chance.choice([1.5, -2.25, 30.0, 0.0, 1e12, 2.0**60]) for _ in numbers])
        kind = chance.choice([pa.float64(), pa.float32(), pa.decimal128(30, 2), pa.decimal256(60, 3)])
        exact = [v if v is None or not pa.types.is_decimal(kind) else Decimal(v) for v in values]
        if pa.types.is_float32(kind):
            values = exact = [v if v is None or v != 1e12 else 3.0 for v in values]
        return pa.array(exact, kind), values
    if name == "n":
        whole = some([chance.choice([1, 20, -7, 10**11, 0]) for _ in numbers])
        kind = chance.choice(
            [pa.int64(), pa.float64(), pa.decimal128(20, 0), pa.decimal128(20, 2), pa.uint64()]
        )
        if kind == pa.uint64():
            whole = [v and abs(v) for v in whole]
        return pa.array(
            [v if v is None or not pa.types.is_floating(kind) else float(v) for v in whole], kind
        ), whole
    if name == "a" and chance.random() < 0.3:
        return pa.array(numbers, chance.choice([pa.int64(), pa.uint8()])), [str(n) for n in numbers]
    texts = some([_value(chance, name, n) for n in numbers])
    kind = chance.choice([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
    return pa.array(texts, pa.string()).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(texts, pa.string()).dictionary_encode(), texts  # fmt: skip
