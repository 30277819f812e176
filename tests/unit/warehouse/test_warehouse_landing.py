"""What lies in a landing folder: what is a file, what is told, and what is left for the next run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.errors import TerminalError
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import landed_file, landing

LATER = datetime(2030, 1, 1, tzinfo=UTC)
WHOLE = b"a\n1\n"


def dataset(**source: Any) -> DatasetSpec:
    return DatasetSpec.model_validate({
        "name": "readings", "key": ["at"], "event_time": "at", "columns": {"at": {"type": "timestamp"}}, "source": source,
    })  # fmt: skip


def only(folder: Path, now: datetime | None = None, **source: Any) -> landed_file.LandedFile:
    (file,) = landing.find(dataset(**source), folder, now=now)
    return file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(path))


ODD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "foreign-ending": ("x.xlsx", lambda p: p.write_bytes(b"PK"), "ends in .xlsx"),
    "no-ending": ("data", lambda p: p.write_bytes(WHOLE), "ends in nothing"),
    "zip": ("x.csv.zip", lambda p: p.write_bytes(b"PK"), "ends in .zip"),
    "packed-without-format": ("x.gz", lambda p: p.write_bytes(b"\x1f\x8b"), "ends in .gz"),
    "packed-parquet": ("x.parquet.gz", lambda p: p.write_bytes(b"\x1f\x8b"), "ends in .gz"),
    "backup": ("x.csv.bak", lambda p: p.write_bytes(WHOLE), "ends in .bak"),
    "link": ("x.csv", lambda p: p.symlink_to("/etc/passwd"), "symbolic link"),
    "link-to-nothing": ("x.csv", lambda p: p.symlink_to("nowhere"), "symbolic link"),
    "link-to-itself": ("x.csv", lambda p: p.symlink_to("x.csv"), "symbolic link"),
    "folder": ("x.csv", lambda p: p.mkdir(), "a folder"),
    "empty-folder-of-parts": ("x.parquet", lambda p: p.mkdir(), "without a part"),
    "pipe": ("x.csv", fifo, "a pipe"),
    "socket": ("x.csv", listening, "a pipe, socket"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_cannot_be_read_is_found_with_its_reason(tmp_path: Path, case: str) -> None:
    name, make, observed = ODD[case]
    make(tmp_path / name)
    file = only(tmp_path, LATER)
    assert file.problem is not None
    assert observed in file.problem.observed
    assert file.problem.remedy
    assert file.name == name
    assert landing.find(dataset(), tmp_path, {file.stamp}) == []
    assert landing.unchanged(file)


def test_links_to_folders_are_told_once_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for n in range(3):
        (tmp_path / "elsewhere" / f"{n}.csv").write_bytes(WHOLE + b"%d\n" % n)
    folder = tmp_path / "landing"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    file = only(folder, pattern="*/*.csv")
    assert file.name == "linked"
    assert "symbolic link" in str(file.problem)


def test_landing_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.csv").write_bytes(WHOLE)
    (tmp_path / "landing").symlink_to(tmp_path / "real")
    assert only(tmp_path / "landing").problem is None


@pytest.mark.parametrize(
    "name", [b"m\xe9t\xe9o.csv", b"a\nb.csv", b"\x1b[2J.csv", "Käthe 木.csv".encode(), b"-rf.csv"]
)
def test_any_name_is_a_name(tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(WHOLE)
    (tmp_path / "z.csv").write_bytes(WHOLE + b"2\n")
    files = landing.find(dataset(), tmp_path)
    assert [f.problem for f in files] == [None, None]
    other = next(f for f in files if f.name != "z.csv")
    assert other.name.isprintable()
    assert other.name.encode()
    assert landing.unchanged(other)


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="is not there; make it"):
        landing.find(dataset(), tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TerminalError, match="is not there; make it"):
        landing.find(dataset(), tmp_path / "file")


def test_content_under_another_ending_that_is_read_otherwise_is_another_file(tmp_path: Path) -> None:
    known = set()
    for name in ("x.csv", "x.tsv", "x.jsonl", "x.csv.gz", "x.tsv.gz", "x.data"):
        for old in tmp_path.iterdir():
            old.unlink()
        (tmp_path / name).write_bytes(WHOLE)
        known.add(only(tmp_path).checksum)
    assert len(known) == 6
    (tmp_path / "x.data").rename(tmp_path / "y.txt")
    assert only(tmp_path).checksum in known  # read as x.csv is


def aged(path: Path, minutes: float, now: datetime) -> None:
    at = int((now - timedelta(minutes=minutes)).timestamp() * 1e9)
    os.utime(path, ns=(at, at))


NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
CUT, TAKEN, HELD, WAITS = b"a\n1", "taken", "held", "waits"
COMPLETE = {
    "line-end": ({}, WHOLE, 0, TAKEN),
    "line-end-of-windows": ({}, b"a\r\n1\r\n", 0, TAKEN),
    "line-end-of-two-bytes": ({}, "a\n1\n".encode("utf-16"), 0, TAKEN),
    "cut-off": ({}, CUT, 4.9, WAITS),
    "cut-off-and-quiet": ({}, CUT, 5, TAKEN),
    "longer-quiet-time": ({"quiet": "1h"}, CUT, 59, WAITS),
    "empty": ({}, b"", 0, TAKEN),
    "strict-and-whole": ({"complete": "line_end"}, WHOLE, 0, TAKEN),
    "strict-and-cut-off": ({"complete": "line_end"}, CUT, 1, WAITS),
    "strict-cut-off-and-quiet": ({"complete": "line_end"}, CUT, 6, HELD),
    "by-quiet-time-alone": ({"complete": "quiet"}, WHOLE, 1, WAITS),
    "by-quiet-time-and-quiet": ({"complete": "quiet"}, CUT, 6, TAKEN),
    "without-its-marker": ({"complete": "marker"}, WHOLE, 600, WAITS),
}


@pytest.mark.parametrize("case", COMPLETE)
def test_file_is_taken_when_the_spec_says_that_it_is_whole(tmp_path: Path, case: str) -> None:
    source, content, minutes, expected = COMPLETE[case]
    (tmp_path / "x.csv").write_bytes(content)
    aged(tmp_path / "x.csv", minutes, NOW)
    file = only(tmp_path, NOW, **source)
    assert (WAITS if file.waiting else HELD if file.problem else TAKEN) == expected


def test_marker_has_to_be_newer_than_its_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(CUT)
    (tmp_path / "x.csv.done").write_bytes(b"")
    aged(tmp_path / "x.csv", 0, NOW)
    aged(tmp_path / "x.csv.done", 1, NOW)
    assert only(tmp_path, NOW, complete="marker").waiting
    aged(tmp_path / "x.csv.done", 0, NOW)
    assert not only(tmp_path, NOW, complete="marker").waiting


def test_success_marks_the_files_of_its_own_sub_folder(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "x.csv").write_bytes(CUT)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    by = {"complete": "marker", "pattern": "**/*"}
    assert only(tmp_path, NOW, **by).waiting
    (tmp_path / "day" / "_SUCCESS").write_bytes(b"")
    assert not only(tmp_path, NOW, **by).waiting


@pytest.mark.parametrize("case", ["fresh", "quiet", "success"])
def test_folder_of_parts_needs_its_marker_or_a_quiet_time(tmp_path: Path, case: str) -> None:
    where = tmp_path / "x.parquet"
    where.mkdir()
    pq.write_table(pa.table({"a": [1]}), where / "part-0.parquet")
    if case == "success":
        (where / "_SUCCESS").write_bytes(b"")
    now = datetime.now(UTC) + timedelta(minutes=6 if case == "quiet" else 1)
    assert bool(only(tmp_path, now).waiting) == (case == "fresh")


def test_time_that_is_still_to_come_does_not_hold_a_file_for_ever(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    (tmp_path / "x.csv").write_bytes(CUT)
    aged(tmp_path / "x.csv", -60 * 24 * 365, now)
    assert only(tmp_path, now).waiting
    assert not only(tmp_path, now + timedelta(minutes=6)).waiting
