"""Work that another worker may have to go on with, and results that outlive theirs: files below EVERGREEN_HOME, in a bucket too.

EVERGREEN_PROGRESS names the bucket; without it nothing here does anything. A file has there the path that it has below
EVERGREEN_HOME.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evergreen import settings
from evergreen.errors import TransientError
from evergreen.warehouse.storage.bucket import GoneError, Store
from evergreen.warehouse.storage.full_disk import room

log = logging.getLogger(__name__)

EVERY_S = 30.0


def where(path: Path) -> str:
    """Where people find a file: its URL in the bucket, or its path."""
    store, key = _placed(path)
    return store.where(key) if store else str(path)


def fetch(path: Path) -> None:
    """Get a file that only grows, where there is more of it in the bucket than here. Errors are `fetch_folder`'s."""
    store, key = _placed(path)
    if store and (store.size(key) or 0) > (path.stat().st_size if path.exists() else 0):
        _fetch(store, key, path)


def fetch_folder(folder: Path, last: Callable[[str], bool]) -> None:
    """Get the files of a folder that are not here.

    Args:
        folder: the folder.
        last: tells of a file's path in it whether others must be there before it.

    Raises:
        TerminalError: no such bucket (BAD_SPEC), or it may not be listed or read (NO_ACCESS).
        TransientError: the store does not answer, or the disk is full (NO_SPACE).
    """
    store, key = _placed(folder)
    if not store:
        return
    below = store.under(key)
    for one in sorted(below.objects(), key=lambda o: (last(o.key), o.key)):
        path = folder / one.key
        if not one.size:  # its upload was given up before its first byte
            continue
        if not path.exists() and ".." not in Path(one.key).parts:
            _fetch(below, one.key, path)


def send(path: Path) -> None:
    """Put a file into the bucket; where the store is away it is put there the next time.

    Raises:
        TerminalError: no such bucket (BAD_SPEC), or it may not be written (NO_ACCESS).
    """
    store, key = _placed(path)
    if not store:
        return
    try:
        store.put(path, key)
    except TransientError as error:
        log.warning("%s is kept on this worker alone for now: %s", path, error)


class Sender:
    """Puts what is new in a folder into the bucket, now and then.

    Args:
        folder: the folder.
        wanted: tells of a file's path in it whether it is put there.
        last: see `fetch_folder`.
    """

    def __init__(self, folder: Path, wanted: Callable[[str], bool], last: Callable[[str], bool]) -> None:
        self._folder, self._wanted, self._last = folder, wanted, last
        self._store, self._key = _placed(folder)
        self._sent: dict[str, tuple[int, int]] = {}
        self._next = time.monotonic() + EVERY_S

    def now_and_then(self) -> None:
        """Send if it is time to; where the store is away the next time does. Errors are `send`'s."""
        if self._store and time.monotonic() >= self._next:
            try:
                self.send()
            except TransientError as error:
                log.warning("%s is kept on this worker alone for now: %s", self._folder, error)
            self._next = time.monotonic() + EVERY_S

    def send(self) -> None:
        """Send all that is new.

        Raises:
            TerminalError: no such bucket (BAD_SPEC), or it may not be written (NO_ACCESS).
            TransientError: the store does not answer.
        """
        if not self._store:
            return
        # Listed first and sent last: what a file of these tells of was there before it.
        ends = [name for name in self._names() if self._last(name)]
        for name in [*(n for n in self._names() if not self._last(n)), *ends]:
            with suppress(FileNotFoundError):  # it was replaced by another one
                status = (self._folder / name).stat()
                seen = (status.st_size, status.st_mtime_ns)
                if self._sent.get(name) != seen:
                    self._store.put(self._folder / name, f"{self._key}/{name}")
                    self._sent[name] = seen

    def _names(self) -> list[str]:
        found = (str(p.relative_to(self._folder)) for p in self._folder.rglob("*") if p.is_file())
        return sorted(filter(self._wanted, found))


def _placed(path: Path) -> tuple[Store | None, str]:
    """The bucket, and the key of a file below EVERGREEN_HOME; no bucket where there is none, or the file lies elsewhere."""
    url, home = settings.PROGRESS.read(), settings.HOME.path()
    if not url or not path.is_relative_to(home):
        return None, ""
    return Store.at(url), path.relative_to(home).as_posix()


def _fetch(store: Store, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with room(f"fetching {store.where(key)}", path.parent):
            store.fetch(key, part)
        part.replace(path)
    except GoneError:
        log.info("%s is gone again", store.where(key))
    finally:
        part.unlink(missing_ok=True)
