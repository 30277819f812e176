"""Files that landed: which there are in a folder, which wait, and whether one is still what it was.

A file is known by the SHA-256 of its content, so a second name for the same content is the same file. What is in the
folder and cannot be read is found all the same, with the reason: whoever put it there has to hear of it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened
from evergreen.warehouse.files.complete import changed, finished
from evergreen.warehouse.files.landed_file import (
    DONE,
    SUCCESS,
    UNFINISHED,
    LandedFile,
    OddError,
    Origin,
    Stamp,
    Version,
    ending_of,
    failed,
    kind_of,
    oddity,
    parts_of,
    printable,
    unread,
    unreadable,
    version_of,
)
from evergreen.warehouse.storage.bucket import Place

log = logging.getLogger(__name__)

# What these are known by goes back to when they were the only ones; of the others the ending counts, too, so that a
# file that had the wrong one is a new file under the right one.
_BY_CONTENT = (".csv", ".txt", ".parquet")


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
            file = unreadable(unread(path, name, status, failed(error)), error)
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
            file = LandedFile(path, name, "", version_of(path), kind_of(path), parts_of(path))
            if why := finished(dataset, folder, file, now).waiting:
                found.append(Waits(name, _time(changed(file, now)), why))
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
            return unreadable(unread(path, name, None, failed(error)), error)
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
        return version_of(file.path) == file.version
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
            return version_of(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # as only escapes can be
                raise
    return None


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


def _looked_at(path: Path, name: str, status: os.stat_result) -> LandedFile | None:
    """The file; None where it changes.

    Raises:
        OddError: it is none that is read.
        OSError: it cannot be read.
    """
    if odd := oddity(path, status):
        raise odd
    return _hashed(path, name)


def _hashed(path: Path, name: str) -> LandedFile | None:
    ending = ending_of(path)
    digest = hashlib.sha256(b"" if ending in _BY_CONTENT else f"evergreen {ending}\n".encode())
    before, parts = version_of(path), parts_of(path)
    for part in parts or (path,):
        with opened.binary(part) as content:
            while block := content.read(opened.BLOCK_BYTES):
                digest.update(block)
    if before != version_of(path) or parts != parts_of(path):
        return None
    return LandedFile(path, name, digest.hexdigest(), before, kind_of(path), parts)


def _stamp(path: Path, name: str) -> Stamp:
    return LandedFile(path, name, "", version_of(path)).stamp
