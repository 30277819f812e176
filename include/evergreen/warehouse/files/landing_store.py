"""Files that landed in a folder or in a bucket: the same rules for both.

What lies in a bucket is seen through a folder on this machine that has a hollow file for each object, as long and as old as
that; `landing` looks at it as at any other. Only a file that is due is fetched, and goes again when its turn is over. What
names an object's content is its name, size and time, all of the store's own: nobody can set them, as nobody can set the ctime
of a file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from evergreen import settings
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import landed_file, landing, opened
from evergreen.warehouse.files.complete import finished
from evergreen.warehouse.files.failure import Failure
from evergreen.warehouse.files.landed_file import LandedFile, OddError, Origin, Stamp, Version
from evergreen.warehouse.files.landing import Waits
from evergreen.warehouse.storage import working_folder
from evergreen.warehouse.storage.bucket import GoneError, NoAccessError, Object, Place, Store, moment, place
from evergreen.warehouse.storage.full_disk import room

log = logging.getLogger(__name__)

# S3's times are whole seconds, and another machine's clock: a file that is younger may be replaced by one with the same size and
# time, so it is looked at once more.
SETTLED = timedelta(minutes=1)
_TAIL_BYTES = 4
# What a file system says of a key that cannot be a path in it.
_NO_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
_NO_INODE = 0


def place_of(dataset: DatasetSpec) -> Place:
    """Where the files of a dataset land: `source.folder`, or its name, below EVERGREEN_LANDING.

    Raises:
        TerminalError: a URL that cannot be used.
    """
    return place(settings.LANDING, dataset.source.folder or dataset.name)


def find(
    dataset: DatasetSpec, where: Place, decided: Collection[Stamp] = frozenset(), now: datetime | None = None
) -> Generator[LandedFile, None, None]:
    """The files of a dataset, sorted by name, one for each content; see `landing.find`.

    One from a bucket is there until the next one is asked for. A prefix below which nothing lies is one in which nothing landed.

    Raises:
        TerminalError: no such folder or bucket, it may not be listed, or a pattern that cannot be used.
        TransientError: the folder may not be read, the store does not answer, or the disk is full (NO_SPACE).
    """
    if isinstance(where, Path):
        yield from landing.find(dataset, where, decided, now)
        return
    left = _undecided(where.objects(), decided)
    seen: set[str] = set()
    with _mirrored(where, left) as mirror:
        wanted = PurePosixPath(dataset.source.pattern).name
        yield from (file for file in mirror.odd if fnmatch(PurePosixPath(file.name).name, wanted))
        for path in landing.paths(dataset, mirror.root):
            file = mirror.looked_at(dataset, path, now)
            if file is not None and file.checksum not in seen:
                seen.add(file.checksum)
                yield file
            mirror.let_go(path)


@contextmanager
def named(dataset: DatasetSpec, where: Place, name: str) -> Iterator[LandedFile | None]:
    """The file of a name, hashed now, for as long as the context lasts; None where there is none, or it changes.

    Errors are `find`'s.
    """
    if isinstance(where, Path):
        yield landing.named(dataset, where, name)
        return
    with _mirrored(where, _of_name(where.objects(), name)) as mirror:
        paths = landing.paths(dataset, mirror.root)
        found = next((p for p in paths if landed_file.printable(p.relative_to(mirror.root)) == name), None)
        yield (
            mirror.looked_at(dataset, found, None)
            if found
            else next((f for f in mirror.odd if f.name == name), None)
        )


def standing(where: Place, name: str) -> Version | None:
    """What stands by the name that a `LandedFile` has; None: nothing does.

    Raises:
        OSError: it cannot be told.
        EvergreenError: likewise, of a bucket.
    """
    if isinstance(where, Path):
        return landing.standing(where, name)
    if not (found := _of_name(where.objects(), name)):
        return None
    stamp = _stamp(name, found)
    return Version(0, _NO_INODE, stamp.size, stamp.mtime_ns, stamp.mtime_ns)


def waits(dataset: DatasetSpec, where: Place, decided: Collection[Stamp], now: datetime) -> list[Waits]:
    """The files of a dataset that an ingest would leave for a later run, oldest first; see `landing.waits`. Errors are `find`'s."""
    if isinstance(where, Path):
        return landing.waits(dataset, where, decided, now)
    with _mirrored(where, _undecided(where.objects(), decided)) as mirror:
        for path in landing.paths(dataset, mirror.root):
            try:
                mirror.end(dataset, path)
            except (GoneError, NoAccessError, OSError):  # the next ingest tells of it
                path.unlink(missing_ok=True)
        return landing.waits(dataset, mirror.root, frozenset(), now)


class _Mirror:
    """A folder with a hollow file for each object of a prefix."""

    def __init__(self, store: Store, root: Path, objects: list[Object]) -> None:
        self.root, self.odd = root, list[LandedFile]()
        self._store, self._objects, self._units = store, objects, _units(objects)
        for one in objects:
            try:
                self._stand_in(one)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_PATH:
                    raise
                if not any(part.startswith(".") for part in one.key.split("/")):
                    self.odd.append(self._cannot_be_named(one))
        for key in self._units.keys() - {one.key for one in objects}:
            self._date(key)

    def looked_at(self, dataset: DatasetSpec, path: Path, now: datetime | None) -> LandedFile | None:
        """What is at a path, fetched and hashed if it is due; None where there is nothing to take.

        Args:
            dataset: whose it is.
            path: in the mirror.
            now: see `landing.find`.
        """
        name = landed_file.printable(path.relative_to(self.root))
        status = path.lstat()
        if path.is_dir() and not landed_file.ending_of(path):
            return None
        origin = Origin(self._store, self._stamp(path, name, now))
        if odd := landed_file.oddity(path, status):
            return replace(landed_file.unread(path, name, status, odd.failure), origin=origin)
        try:
            parts = landed_file.parts_of(path)
            version = Version(0, _NO_INODE, origin.stamp.size, origin.stamp.mtime_ns, time.time_ns())
            file = LandedFile(path, name, "", version, landed_file.kind_of(path), parts, origin=origin)
            if now is not None:
                self.end(dataset, path)
                file = finished(dataset, self.root, file, now)
            if file.waiting:
                return replace(file, checksum=_known_by(file))
            for part in parts or (path,):
                self._fetch(part)
            found = landing.fetched(path, name, origin)
        except OddError as odd_one:
            return replace(landed_file.unread(path, name, status, odd_one.failure), origin=origin)
        except GoneError as error:
            log.info("%s: %s changes or is gone; the next run takes it (%s)", dataset.name, name, error)
            return None
        except NoAccessError as error:
            failure = Failure(
                "file_readable", None, f"it cannot be read ({error})"[:200], "a file that can be read",
                remedy="give the credentials of the workers the right to read it (docs/storage.md); each run tries it again",
            )  # fmt: skip
            return replace(landed_file.unread(path, name, status, failure), passing=True, origin=origin)
        return replace(found, problem=file.problem) if found else None

    def let_go(self, path: Path) -> None:
        """Remove what was fetched."""
        if path.is_dir() and landed_file.ending_of(path):
            shutil.rmtree(path, ignore_errors=True)
        elif not path.is_dir():
            path.unlink(missing_ok=True)

    def end(self, dataset: DatasetSpec, path: Path) -> None:
        """Write the last bytes of a text into its hollow file, where they tell whether it is finished."""
        of_text = (
            path.is_file()
            and landed_file.ending_of(path)
            and landed_file.kind_of(path) not in landed_file.BINARY
        )
        if (
            not of_text
            or landed_file.ending_of(path).endswith(opened.COMPRESSED)
            or dataset.source.complete == "marker"
        ):
            return
        size, mtime = path.stat().st_size, path.stat().st_mtime_ns
        content = self._store.tail(self._key(path), _TAIL_BYTES)
        if not size:
            return
        with path.open("r+b") as file:
            file.seek(max(size - len(content), 0))
            file.write(content)
        os.utime(path, ns=(mtime, mtime))
        if path.stat().st_size != size:
            raise GoneError(f"{self._store.where(self._key(path))} became shorter")

    def _fetch(self, path: Path) -> None:
        size, mtime = path.stat().st_size, path.stat().st_mtime_ns
        key, copy = self._key(path), self.root.with_name("fetched")
        with room(f"fetching {self._store.where(key)}", self.root, lambda: size):
            self._store.fetch(key, copy)
        if copy.stat().st_size != size:
            raise GoneError(f"{self._store.where(key)} is another one than it was when the bucket was listed")
        os.utime(copy, ns=(mtime, mtime))
        copy.replace(path)
        if (folder := self._key(path.parent)) in self._units:
            self._date(folder)

    def _stand_in(self, one: Object) -> None:
        parts = one.key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(one.key)
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.truncate(one.size)
        os.utime(path, ns=(one.mtime_ns, one.mtime_ns))

    def _date(self, key: str) -> None:
        """Give a folder of Parquet parts the time of the newest object in it."""
        newest = max(o.mtime_ns for o in self._units[key])
        with suppress(OSError, ValueError):  # where its name is odd there is none
            os.utime(self.root / key, ns=(newest, newest))

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _stamp(self, path: Path, name: str, now: datetime | None) -> Stamp:
        key = self._key(path)
        unit = self._units.get(key) or [o for o in self._objects if o.key.startswith(f"{key}/")]
        return _stamp(name, unit, now or datetime.now(UTC))

    def _cannot_be_named(self, one: Object) -> LandedFile:
        name = landed_file.printable(Path(one.key))
        failure = Failure(
            "file_readable", None, "a key that no file can have as its path", "a name without empty parts, . and .., and no longer "
            "than 255 bytes between two slashes, that is no folder of others",
            remedy="give the object another key",
        )  # fmt: skip
        version = Version(0, _NO_INODE, one.size, one.mtime_ns, one.mtime_ns)
        origin = Origin(self._store, _stamp(name, [one]))
        file = LandedFile(self.root / "odd", name, "", version, problem=failure, origin=origin)
        return replace(file, checksum=_known_by(file))


@contextmanager
def _mirrored(store: Store, objects: list[Object]) -> Iterator[_Mirror]:
    beside = settings.HOME.path() / "cache" / "landing"
    with working_folder.folder(beside) as work:
        root = work / "files"
        root.mkdir()
        with room(f"listing {store}", beside):
            mirror = _Mirror(store, root, objects)
        yield mirror


def _units(objects: list[Object]) -> dict[str, list[Object]]:
    """The objects that are one file each, by its key: a folder of Parquet parts is one, with all that lies in it."""
    found: dict[str, list[Object]] = {}
    for one in objects:
        parents = reversed(PurePosixPath(one.key).parents)
        folder = next((p for p in parents if p.suffix.lower() == ".parquet"), None)
        found.setdefault(str(folder or one.key), []).append(one)
    return found


def _undecided(objects: list[Object], decided: Collection[Stamp]) -> list[Object]:
    """The objects without those of files that are as they were when they were decided."""
    units = _units(objects)
    return [
        one
        for key, unit in units.items()
        if _stamp(landed_file.printable(Path(key)), unit) not in decided
        for one in unit
    ]


def _of_name(objects: list[Object], name: str) -> list[Object]:
    """The objects of a file with a name as a `LandedFile` has it."""
    return next(
        (unit for key, unit in _units(objects).items() if landed_file.printable(Path(key)) == name), []
    )


def _stamp(name: str, unit: list[Object], now: datetime | None = None) -> Stamp:
    """What is remembered of a file; where it is too young to be told from the next one of its name: without what leaves it out."""
    size, mtime = sum(o.size for o in unit), max(o.mtime_ns for o in unit)
    if now is not None and now - moment(mtime) < SETTLED:
        return Stamp(name, size, mtime, None, None)
    return Stamp(name, size, mtime, mtime, _NO_INODE)


def _known_by(file: LandedFile) -> str:
    """What a file is known by that is not read."""
    stamp = file.stamp
    return hashlib.sha256(
        f"evergreen unread\n{stamp.name}\n{stamp.size}\n{stamp.mtime_ns}".encode()
    ).hexdigest()
