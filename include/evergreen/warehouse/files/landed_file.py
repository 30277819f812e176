"""A landed file: what it is known by, how it is read, and what cannot be read as one."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from evergreen.warehouse.files import opened
from evergreen.warehouse.files.failure import Failure
from evergreen.warehouse.storage.bucket import Store

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"
}  # fmt: skip
# Of these the whole file says where it ends, and nobody packs it again; all others are text, with a line for each record or more.
BINARY: frozenset[Format] = frozenset({"parquet"})
UNFINISHED = (".part", ".tmp", ".partial", ".filepart", ".crdownload")
DONE = ".done"
SUCCESS = "_SUCCESS"


class Version(NamedTuple):
    """What tells a file from its earlier self without reading it; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Stamp(NamedTuple):
    """What is remembered of a file that was decided. ctime: a time of the last change that nobody can set."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int | None
    inode: int | None


@dataclass(frozen=True)
class Origin:
    """Where a file was fetched from that does not lie on this machine's disk: the prefix, and what is remembered of it there."""

    folder: Store
    stamp: Stamp


@dataclass(frozen=True)
class LandedFile:
    """A file, or a folder of Parquet parts, that stood still while it was hashed.

    Args:
        path: where it is.
        name: in the landing folder; bytes that are no UTF-8, and characters that do not print, are written as escapes.
        checksum: of its content; of one that is not read: of its name, size and time.
        version: as it was when it was hashed.
        format: how it is read.
        parts: the files of a folder of Parquet parts.
        problem: why it cannot be read at all.
        passing: the problem may be gone at the next try though the file is the same.
        waiting: why it is not taken yet: it may be unfinished.
        origin: of a file that was fetched; `path` and `version` are those of the copy.
    """

    path: Path
    name: str
    checksum: str
    version: Version
    format: Format = "csv"
    parts: tuple[Path, ...] = ()
    problem: Failure | None = None
    passing: bool = False
    waiting: str | None = None
    origin: Origin | None = None

    @property
    def where(self) -> str:
        """Its path, or its URL, as text that can be shown."""
        return f"{self.origin.folder.url}/{self.name}" if self.origin else printable(self.path)

    @property
    def stamp(self) -> Stamp:
        """What to remember of it."""
        if self.origin:
            return self.origin.stamp
        v = self.version
        return Stamp(self.name, v.size, v.mtime_ns, v.ctime_ns, v.inode)


class OddError(Exception):
    """What is there cannot be read as a file of the dataset."""

    def __init__(self, observed: str, limit: str, remedy: str) -> None:
        super().__init__(observed)
        self.failure = Failure("file_readable", None, observed[:200], limit, remedy=remedy)


def printable(path: Path) -> str:
    """A path as text that PostgreSQL, a terminal and a mail take: what is no UTF-8 or does not print as an escape."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def ending_of(path: Path) -> str:
    """The ending by which a file is read, with that of the compression; empty where it is another one."""
    name = path.name.lower()
    for packed in ("", *opened.COMPRESSED):
        for ending, kind in FORMATS.items():
            if name.endswith(ending + packed) and not (packed and kind in BINARY):
                return ending + packed
    return ""


def kind_of(path: Path) -> Format:
    """How a file is read, by its ending."""
    return next(kind for e, kind in FORMATS.items() if ending_of(path).startswith(e))


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files of a folder of Parquet parts, sorted by name; none of a file.

    Raises:
        OddError: something else is in it.
    """
    if not path.is_dir():
        return ()
    inside = sorted(p for p in path.iterdir() if not p.name.startswith((".", "_")))
    for part in inside:
        if part.is_symlink() or not part.is_file() or part.suffix.lower() != ".parquet":
            raise OddError(
                f"{printable(Path(part.name))} in a folder of Parquet parts", "*.parquet files and nothing else",
                "write the parts without folders of partitions in it (no partitionBy), or land the files one by one",
            )  # fmt: skip
    if not inside:
        raise OddError(
            "a folder without a part", "at least one *.parquet file in it", "write the folder again"
        )
    return tuple(inside)


def oddity(path: Path, status: os.stat_result) -> OddError | None:
    """Why what is there is none that is read; None where it is one."""
    ending = ending_of(path)
    if stat.S_ISLNK(status.st_mode):
        return OddError("a symbolic link", "a file", "links are not followed; move or copy the file here")
    if stat.S_ISDIR(status.st_mode):
        if ending != ".parquet":
            return OddError(
                "a folder", "a file", "put the files themselves here, or a pattern such as */*.csv into source.pattern"
            )  # fmt: skip
    elif not stat.S_ISREG(status.st_mode):
        return OddError("a pipe, socket or device", "a file", "land a file")
    elif not ending:
        return OddError(
            f"a file that ends in {path.suffix[:20] or 'nothing'}",
            f"one that ends in {', '.join(FORMATS)}; text also with {' or '.join(opened.COMPRESSED)}",
            "deliver it in one of these forms, or leave such files out by source.pattern, such as *.csv",
        )
    return None


def version_of(path: Path) -> Version:
    """What tells a file, or a folder of parts, from its earlier self; links are not followed."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return _of(status)
    every = [status, *(part.lstat() for part in path.iterdir())]
    return Version(
        status.st_dev, status.st_ino, sum(s.st_size for s in every[1:]),
        max(s.st_mtime_ns for s in every), max(s.st_ctime_ns for s in every),
    )  # fmt: skip


def _of(status: os.stat_result) -> Version:
    return Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def unread(
    path: Path, name: str, status: os.stat_result | None, problem: Failure, version: Version | None = None
) -> LandedFile:
    """A file that is not read, known by what can be seen from outside.

    Args:
        path: where it is.
        name: in the landing folder.
        status: of the path; None where `version` is given, or the path's can be asked for.
        problem: why it is not read.
        version: what tells it from its earlier self; default: the path's own.
    """
    if version is None:
        try:
            version = version_of(path)
        except OSError:
            assert status is not None
            version = _of(status)
    seen = f"evergreen unread\n{problem.observed}\n{name}\n{version.size}\n{version.mtime_ns}"
    return LandedFile(path, name, hashlib.sha256(seen.encode()).hexdigest(), version, problem=problem)


def unreadable(file: LandedFile, error: OSError) -> LandedFile:
    """The file as one that could not be read this time: it is told, and tried again by the next run."""
    told = unread(file.path, file.name, None, failed(error), file.version)
    return replace(told, passing=True, origin=file.origin)


def failed(error: OSError) -> Failure:
    """That a file cannot be read."""
    return Failure(
        "file_readable", None, f"it cannot be read ({error.strerror or type(error).__name__})", "a file that can be read",
        remedy="give the Airflow user the right to read it, and see that the disk is well; each run tries it again",
    )  # fmt: skip
