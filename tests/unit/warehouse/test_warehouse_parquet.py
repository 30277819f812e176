"""Each type of a Parquet column as text: what the value is, not how it was stored."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import formats, landing, shape
from evergreen.warehouse.files.failure import UnreadableError

AT = datetime(2024, 3, 31, 14, 0)
MICRO = timedelta(microseconds=1)


def dataset() -> DatasetSpec:
    return DatasetSpec.model_validate(
        {"name": "readings", "key": ["at"], "event_time": "at", "columns": {"at": {"type": "timestamp"}}}
    )


def texts(folder: Path) -> dict[str, list[str | None]]:
    """The columns of the only file."""
    (file,) = landing.find(dataset(), folder)
    with formats.feed(dataset(), file) as opened:
        found: dict[str, list[str | None]] = {c: [] for c in opened.columns}
        for batch in opened.batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                assert column.type == pa.string()
                found[name] += column.to_pylist()
        assert opened.records == len(next(iter(found.values())))
    return found


PLAIN: dict[str, tuple[pa.Array, list[str | None]]] = {
    "whole-floats": (pa.array([5.0, 1e10, -3e15, None]), ["5", "10000000000", "-3000000000000000", None]),
    "floats": (pa.array([0.1, 1e22, 2.5e-7, float("nan")]), ["0.1", "1e+22", "2.5e-7", "nan"]),
    "largest-whole-float": (pa.array([2.0**53 + 2, 2.0**62]), ["9007199254740994", "4611686018427387904"]),
    "short-floats": (pa.array([0.1, 16777216.0], pa.float32()), ["0.1", "16777216"]),
    "half-floats": (pa.array(np.array([1.5, 2048], np.float16)), ["1.5", "2048"]),
    "decimals": (pa.array([Decimal("5.00"), Decimal("-1.50"), None]), ["5", "-1.50", None]),
    "long-decimals": (pa.array([Decimal("12345678901234567890123.40")]), ["12345678901234567890123.40"]),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    "small-integers": (pa.array([-128, None], pa.int8()), ["-128", None]),
    "booleans": (pa.array([True, False, None]), ["true", "false", None]),
    "nothing": (pa.array([None, None]), [None, None]),
    "texts": (pa.array(["", "a\nb", 'c"d', "\\.", None]), [None, "a\nb", 'c"d', "\\.", None]),
    "large-texts": (pa.array(["a"], pa.large_string()), ["a"]),
    "text-views": (pa.array(["a"], pa.string_view()), ["a"]),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "days": (pa.array([date(2024, 3, 31), date(1, 1, 1)]), ["2024-03-31", "0001-01-01"]),
    "times-of-day": (pa.array([time(14, 0)]), ["14:00:00.000000"]),
    "unique-ids": (pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()), [str(uuid.UUID(int=5)), None]),
    "seconds": (pa.array([AT], pa.timestamp("s")), ["2024-03-31 14:00:00.000"]),
    "wall-clock": (pa.array([AT + MICRO], pa.timestamp("us")), ["2024-03-31 14:00:00.000001"]),
    "nanoseconds": (pa.array([AT + MICRO], pa.timestamp("ns")), ["2024-03-31 14:00:00.000001"]),
    "fine-nanoseconds": (pa.array([1711893600000000001], pa.timestamp("ns")), ["2024-03-31 14:00:00.000000001"]),
    "utc": (pa.array([AT], pa.timestamp("us", "UTC")), ["2024-03-31 14:00:00.000000Z"]),
    "zoned": (pa.array([AT], pa.timestamp("us", "Europe/Berlin")), ["2024-03-31 14:00:00.000000Z"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PLAIN)
def test_type_as_text(tmp_path: Path, case: str) -> None:
    values, expected = PLAIN[case]
    pq.write_table(pa.table({"x": values}), tmp_path / "x.parquet")
    assert texts(tmp_path)["x"] == expected


@pytest.mark.parametrize("scale", [0, 2, 17])
def test_numbers_are_what_they_were(tmp_path: Path, scale: int) -> None:
    rng = np.random.default_rng(scale)
    values = [None, *np.round(rng.normal(size=500) * 10.0 ** rng.integers(-5, 18, 500), scale).tolist()]
    pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), tmp_path / "x.parquet")
    found = texts(tmp_path)["x"]
    assert [None if t is None else float(t) for t in found] == values
    assert all(t is None or ("." not in t and "e" not in t) == float(t).is_integer() for t in found)


@pytest.mark.parametrize("writer", ["spark", "impala"])
def test_int96_is_a_moment_unless_impala_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    values = [AT, datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)]
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": pa.array(values, pa.timestamp("us"))}), path, use_deprecated_int96_timestamps=True
    )
    if writer == "impala":  # who wrote it stands in the footer, after the data
        content = path.read_bytes()
        assert content.count(b"parquet-cpp-arrow") == 1
        path.write_bytes(content.replace(b"parquet-cpp-arrow", b"impala-cpp-arrow "))
    end = "Z" if writer == "spark" else ""
    assert texts(tmp_path)["x"] == [
        f"{v.isoformat(' ')}.000000{end}".rjust(26 + len(end), "0") for v in values
    ]


@pytest.mark.parametrize("zone", [None, "UTC"], ids=["wall clock", "utc"])
@pytest.mark.parametrize("int96", [False, True], ids=["as it is", "as Spark writes it"])
def test_midnight_is_a_day_and_another_hour_is_none(tmp_path: Path, zone: str | None, int96: bool) -> None:
    midnights = pa.array([datetime(2024, 3, 31), None, AT], pa.timestamp("us", zone))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"at": midnights}), path, use_deprecated_int96_timestamps=int96)
    spec = {"name": "days", "key": ["at"], "event_time": "at", "columns": {"at": {"type": "date"}}}
    days = DatasetSpec.model_validate(spec)
    with formats.feed(days, landing.find(days, tmp_path)[0]) as opened:
        (batch,) = shape.rows(days, opened)
    found = batch.column("at").to_pylist()
    assert found[:2] == ["2024-03-31", None]
    assert found[2].startswith("2024-03-31 14:00")


REFUSED: dict[str, pa.Array] = {
    "list": pa.array([[1], [2]]),
    "struct": pa.array([{"a": 1}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "bytes": pa.array([b"x"]),
    "duration": pa.array([timedelta(1)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_type_without_plain_values_is_refused_by_name(tmp_path: Path, case: str) -> None:
    pq.write_table(pa.table({"odd": REFUSED[case]}), tmp_path / "x.parquet")
    with pytest.raises(UnreadableError) as refused:
        texts(tmp_path)
    assert (refused.value.failure.column, refused.value.failure.observed[:11]) == ("odd", "a column of")


@pytest.mark.parametrize("values", [["", None], ["", ""], ["", "a"]], ids=["all-empty", "no-null", "some"])
def test_empty_text_is_no_value_also_where_all_are(tmp_path: Path, values: list[str | None]) -> None:
    pq.write_table(pa.table({"a": values, "b": pa.array(values).dictionary_encode()}), tmp_path / "x.parquet")
    assert texts(tmp_path) == {name: [value or None for value in values] for name in "ab"}


def test_names_with_points_and_names_twice_keep_their_columns(tmp_path: Path) -> None:
    columns = [pa.array([str(n)]) for n in range(4)]
    pq.write_table(pa.Table.from_arrays(columns, names=["a", "a.b", "c", "a"]), tmp_path / "x.parquet")
    (file,) = landing.find(dataset(), tmp_path)
    with formats.feed(dataset(), file) as opened:
        assert opened.columns == ("a", "a.b", "c", "a")
        rows: list[Any] = [[c.to_pylist() for c in b.columns] for b in opened.batches([3, 1, 0])]
    assert rows == [[["3"], ["1"], ["0"]]]


def parts(folder: Path, **other: Any) -> Path:
    where = folder / "x.parquet"
    where.mkdir()
    for n in range(3):
        pq.write_table(pa.table({"a": [f"a{n}"], "b": [n], **other}), where / f"part-{n:04}.snappy.parquet")
    return where


def test_folder_of_parts_is_one_file(tmp_path: Path) -> None:
    where = parts(tmp_path)
    for name in ("_SUCCESS", "_metadata", ".part-0000.crc"):
        (where / name).write_bytes(b"")
    pq.write_table(pa.table({"b": [3], "a": ["a3"]}), where / "part-0003.parquet")
    assert texts(tmp_path) == {"a": ["a0", "a1", "a2", "a3"], "b": ["0", "1", "2", "3"]}
    (file,) = landing.find(dataset(), tmp_path)
    assert landing.unchanged(file)
    (where / "part-0003.parquet").unlink()
    assert not landing.unchanged(file)


ODD_PARTS = {
    "other-columns": lambda w: pq.write_table(pa.table({"a": ["x"]}), w / "part-9.parquet"),
    "partition-folder": lambda w: (w / "day=2024-01-01").mkdir(),
    "another-format": lambda w: (w / "part-9.orc").write_bytes(b"ORC"),
    "link": lambda w: (w / "part-9.parquet").symlink_to(w / "part-0000.snappy.parquet"),
    "damaged": lambda w: (w / "part-9.parquet").write_bytes(b"PAR1"),
}


@pytest.mark.parametrize("case", ODD_PARTS)
def test_part_that_does_not_fit_is_said(tmp_path: Path, case: str) -> None:
    ODD_PARTS[case](parts(tmp_path))
    (file,) = landing.find(dataset(), tmp_path)
    if file.problem is None:
        with pytest.raises(UnreadableError):
            texts(tmp_path)
    else:
        assert "in a folder of Parquet parts" in file.problem.observed


def test_one_value_of_a_giant_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": ["a", "b" * (17 << 20), "c"] + ["d"] * 60_000}), tmp_path / "x.parquet")
    with pytest.raises(UnreadableError, match="17 MiB"):
        texts(tmp_path)
