"""Files that landed: which there are, what they are known by, and whether they are whole.

A file is known by the SHA-256 of its content, so a second name for the same content is the same file. What is in the
folder and cannot be read is found all the same, with the reason: whoever put it there has to hear of it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened
from evergreen.warehouse.files.failure import Failure
from evergreen.warehouse.storage.bucket import Place, Store

log = logging.getLogger(__name__)

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"
}  # fmt: skip
# Of these the whole file says where it ends, and nobody packs it again; all others are text, with a line for each record or more.
BINARY: frozenset[Format] = frozenset({"parquet"})
UNFINISHED = (".part", ".tmp", ".partial", ".filepart", ".crdownload")
DONE = ".done"
SUCCESS = "_SUCCESS"
# What these are known by goes back to when they were the only ones; of the others the ending counts, too, so that a
# file that had the wrong one is a new file under the right one.
_BY_CONTENT = (".csv", ".txt", ".parquet")
_SECOND = 1_000_000_000


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


@dataclass(frozen=True)
class Waits:
    """A file in a landing folder that is not taken yet.

    Attributes:
        name: in the landing folder.
        since: when it last changed, aware.
        why: what it waits for.
    """

    name: str
    since: datetime
    why: str


class OddError(Exception):
    """What is there cannot be read as a file of the dataset."""

    def __init__(self, observed: str, limit: str, remedy: str) -> None:
        super().__init__(observed)
        self.failure = Failure("file_readable", None, observed[:200], limit, remedy=remedy)


def find(
    dataset: DatasetSpec, folder: Path, decided: Collection[Stamp] = frozenset(), now: datetime | None = None
) -> list[LandedFile]:
    """The files of a dataset in a folder, sorted by name, one for each content.

    Hidden files, unfinished ones (*.part, *.tmp) and markers (*.done, _SUCCESS) are left out. Links are not followed.
    A file that changes while it is hashed is left for the next run; of two files with the same content the first by
    name counts. Whatever is wrong with one file is in its `problem`.

    Args:
        dataset: whose files.
        folder: where they are.
        decided: files that are left out unread as long as all of their stamp is as it was.
        now: the time on the clock, to tell which files may be unfinished; None: every file counts as finished.

    Raises:
        TerminalError: there is no such folder, or a pattern that cannot be used.
        TransientError: a folder that may not be read.
    """
    found: dict[str, LandedFile] = {}
    names = {stamp.name for stamp in decided}
    for path in paths(dataset, folder):
        name = printable(path.relative_to(folder))
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and not ending_of(path):
                continue
            if name in names and _stamp(path, name) in decided:
                continue
            file = _looked_at(path, name, status)
        except FileNotFoundError:
            log.info("%s: %s is gone again", dataset.name, name)
            continue
        except OddError as odd:
            file = unread(path, name, status, odd.failure)
        except OSError as error:
            file = unreadable(unread(path, name, status, _failed(error)), error)
        if file is None:
            log.info("%s: %s is still changing; the next run takes it", dataset.name, name)
            continue
        if now is not None and file.problem is None:
            file = finished(dataset, folder, file, now)
        found.setdefault(file.checksum, file)
    return list(found.values())


def waits(dataset: DatasetSpec, folder: Path, decided: Collection[Stamp], now: datetime) -> list[Waits]:
    """The files of a dataset that an ingest would leave for a later run, oldest first; none is read.

    Those under the name of an unfinished one (*.part) count, too, where the name without it is one of the dataset's.
    Arguments and errors are `find`'s.
    """
    found, names = [], {stamp.name for stamp in decided}
    for path in paths(dataset, folder):
        name = printable(path.relative_to(folder))
        try:
            status = path.lstat()
            if (name in names and _stamp(path, name) in decided) or oddity(path, status):
                continue
            file = LandedFile(path, name, "", _version(path), kind_of(path), parts_of(path))
            if why := finished(dataset, folder, file, now).waiting:
                found.append(Waits(name, _time(_changed(file, now)), why))
        except (OSError, OddError):  # the next ingest tells of it
            continue
    for path in folder.rglob("*"):
        rest = path.relative_to(folder).with_suffix("")
        if path.suffix.lower() in UNFINISHED and _meant(rest, dataset.source.pattern) and path.is_file():
            why = f"its name ends in {path.suffix}; it is taken once it is renamed to {printable(Path(rest.name))}"
            found.append(Waits(printable(path.relative_to(folder)), _time(path.lstat().st_mtime), why))
    return sorted(found, key=lambda one: (one.since, one.name))


def _meant(path: Path, pattern: str) -> bool:
    """Whether a pattern would find a path that is not there yet."""
    parts = Path(pattern).parts
    if any(part.startswith(".") for part in path.parts):
        return False
    return (
        fnmatch(path.name, parts[-1])
        if "**" in parts
        else len(parts) == len(path.parts) and path.match(pattern)
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def named(dataset: DatasetSpec, folder: Path, name: str) -> LandedFile | None:
    """The file of a name, hashed now; None where there is none, or it changes. Other arguments and errors are `find`'s."""
    for path in paths(dataset, folder):
        if printable(path.relative_to(folder)) != name:
            continue
        try:
            status = path.lstat()
            try:
                return _looked_at(path, name, status)
            except OddError as odd:
                return unread(path, name, status, odd.failure)
        except FileNotFoundError:
            return None
        except OSError as error:
            return unreadable(unread(path, name, None, _failed(error)), error)
    return None


def fetched(path: Path, name: str, origin: Origin) -> LandedFile | None:
    """The file that a copy is of, hashed now; None where somebody else writes into the copy.

    Raises:
        OddError: a folder of parts has something else in it.
        OSError: the copy cannot be read.
    """
    found = _hashed(path, name)
    return replace(found, origin=origin) if found else None


def folder_of(file: LandedFile) -> Place:
    """The folder in which a file landed, of which its name is a path."""
    return file.origin.folder if file.origin else file.path.parents[len(Path(file.name).parts) - 1]


def unchanged(file: LandedFile) -> bool:
    """Whether the file is still the one that was hashed."""
    try:
        return _version(file.path) == file.version
    except OSError:
        return False


def standing(folder: Path, name: str) -> Version | None:
    """What stands in a folder by the name that a `LandedFile` has, links not followed; None: nothing does.

    Raises:
        OSError: it cannot be told.
    """
    paths = [folder / name]
    if "\\" in name:  # it may be written with escapes
        paths += [path for path in folder.rglob("*") if printable(path.relative_to(folder)) == name]
    for path in paths:
        try:
            return _version(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # as only escapes can be
                raise
    return None


def unreadable(file: LandedFile, error: OSError) -> LandedFile:
    """The file as one that could not be read this time: it is told, and tried again by the next run."""
    told = unread(file.path, file.name, None, _failed(error), file.version)
    return replace(told, passing=True, origin=file.origin)


def printable(path: Path) -> str:
    """A path as text that PostgreSQL, a terminal and a mail take: what is no UTF-8 or does not print as an escape."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paths(dataset: DatasetSpec, folder: Path) -> list[Path]:
    """What a dataset's pattern finds in a folder, sorted; markers, hidden and unfinished files are left out. Errors are `find`'s."""
    try:
        with os.scandir(folder):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TerminalError(
            f"the landing folder of {dataset.name}, {folder}, is not there; make it (mkdir -p), mount it, or mend "
            f"source.folder in datasets/{dataset.name}.yaml or EVERGREEN_LANDING",
            ErrorReason.BAD_SPEC,
        ) from error
    except OSError as error:
        raise TransientError(
            f"{folder} cannot be read ({error.strerror}); give the Airflow user the right to read it, then run again"
        ) from error
    try:
        paths = sorted(folder.glob(dataset.source.pattern))
    except (NotImplementedError, ValueError) as error:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.pattern {dataset.source.pattern!r} cannot be used ({error}); "
            "write one relative to the folder, such as *.csv",
            ErrorReason.BAD_SPEC,
        ) from error
    wanted: dict[Path, None] = {}
    for path in paths:
        parts = path.relative_to(folder).parts
        parents = [folder.joinpath(*parts[: n + 1]) for n in range(len(parts))]
        # A link stands for all that lies behind it, a folder of Parquet parts for what is in it.
        stop = next((p for p in parents[:-1] if p.is_symlink() or p.suffix.lower() == ".parquet"), path)
        if not any(part.startswith(".") for part in parts) and not _marks(path):
            wanted[stop] = None
    return list(wanted)


def _marks(path: Path) -> bool:
    return path.name == SUCCESS or path.suffix.lower() in (*UNFINISHED, DONE)


def ending_of(path: Path) -> str:
    """The ending by which a file is read, with that of the compression; empty where it is another one."""
    name = path.name.lower()
    for packed in ("", *opened.COMPRESSED):
        for ending, kind in FORMATS.items():
            if name.endswith(ending + packed) and not (packed and kind in BINARY):
                return ending + packed
    return ""


def _looked_at(path: Path, name: str, status: os.stat_result) -> LandedFile | None:
    """The file; None where it changes.

    Raises:
        OddError: it is none that is read.
        OSError: it cannot be read.
    """
    if odd := oddity(path, status):
        raise odd
    return _hashed(path, name)


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


def _hashed(path: Path, name: str) -> LandedFile | None:
    ending = ending_of(path)
    digest = hashlib.sha256(b"" if ending in _BY_CONTENT else f"evergreen {ending}\n".encode())
    before, parts = _version(path), parts_of(path)
    for part in parts or (path,):
        with opened.binary(part) as content:
            while block := content.read(opened.BLOCK_BYTES):
                digest.update(block)
    if before != _version(path) or parts != parts_of(path):
        return None
    return LandedFile(path, name, digest.hexdigest(), before, kind_of(path), parts)


def kind_of(path: Path) -> Format:
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


def _version(path: Path) -> Version:
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


def _stamp(path: Path, name: str) -> Stamp:
    return LandedFile(path, name, "", _version(path)).stamp


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
            version = _version(path)
        except OSError:
            assert status is not None
            version = _of(status)
    seen = f"evergreen unread\n{problem.observed}\n{name}\n{version.size}\n{version.mtime_ns}"
    return LandedFile(path, name, hashlib.sha256(seen.encode()).hexdigest(), version, problem=problem)


def _failed(error: OSError) -> Failure:
    return Failure(
        "file_readable", None, f"it cannot be read ({error.strerror or type(error).__name__})", "a file that can be read",
        remedy="give the Airflow user the right to read it, and see that the disk is well; each run tries it again",
    )  # fmt: skip


def finished(dataset: DatasetSpec, folder: Path, file: LandedFile, now: datetime) -> LandedFile:
    """The file with what it waits for, or what is wrong where it waited in vain, as `source.complete` says."""
    rule, quiet = dataset.source.complete, dataset.source.quiet
    still = now.timestamp() - _changed(file, now) >= quiet.total_seconds()
    if rule == "marker":
        marked = _marked(folder, file)
        return file if marked else replace(file, waiting=f"no {file.path.name}{DONE} that is newer than it")
    if file.parts:
        ended = any(marker.name == SUCCESS for marker in file.path.iterdir())
    else:
        ended = file.format in BINARY or ending_of(file.path).endswith(opened.COMPRESSED) or _ends(file.path)
    if (ended and rule != "quiet") or (still and (rule != "line_end" or file.parts)):
        return file
    what = f"no {SUCCESS} in it" if file.parts else "its last line has no line end"
    if not still:
        return replace(
            file,
            waiting=f"changed less than {_told(quiet.total_seconds())} ago" + ("" if ended else f", {what}"),
        )
    return replace(
        file,
        problem=Failure(
            "file_complete", None, what, "a line end after the last line",
            remedy="the file may be cut off: deliver it again, whole, with a line end after the last line, or set "
            "source.complete to quiet",
        ),
    )  # fmt: skip


def _changed(file: LandedFile, now: datetime) -> float:
    """When it was last written; a time that is still to come was set by somebody, and the system's own counts."""
    written = file.version.mtime_ns / _SECOND
    return written if written <= now.timestamp() else file.version.ctime_ns / _SECOND


def _marked(folder: Path, file: LandedFile) -> bool:
    markers: Iterator[Path] = iter((file.path.with_name(file.path.name + DONE),))
    if file.parts:
        markers = iter((*markers, file.path / SUCCESS))
    elif file.path.parent != folder:
        markers = iter((*markers, file.path.parent / SUCCESS))
    newest = max((p.lstat().st_mtime_ns for p in file.parts), default=file.version.mtime_ns)
    for marker in markers:
        try:
            if marker.lstat().st_mtime_ns >= newest:
                return True
        except OSError:
            continue
    return False


def _ends(path: Path) -> bool:
    """Whether a text file ends with a line end, also one of two or four bytes; an empty one has nothing to be cut."""
    with opened.binary(path) as content:
        size = content.seek(0, os.SEEK_END)
        content.seek(max(size - 4, 0))
        return not size or content.read().replace(b"\0", b"").endswith((b"\n", b"\r"))


def _told(seconds: float) -> str:
    return f"{seconds / 60:g} min"
