"""Files and folders of work that may be killed: held by a lock while somebody works on them, removed when nobody does.

A lock ends with its process, however that ends, so what can be locked is a leftover. Ages and process ids do not tell: a
training may take days, and a worker elsewhere may have the same process id.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNBORN_S = 3600.0


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file, which is made if it is not there, as long as this lasts."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep(folder: Path, pattern: str, lock: str = "") -> None:
    """Remove what killed work left in a folder.

    Args:
        folder: where to look.
        pattern: of names; what others keep there must not match it.
        lock: the file inside that is held, where folders are looked for.
    """
    for left in folder.glob(pattern):
        if not _abandoned(left, left / lock):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _abandoned(left: Path, lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A file without content may just have been made, and be about to be locked.
        return lock != left or lock.stat().st_size > 0 or _old(left)
    except BlockingIOError:
        return False
    except FileNotFoundError:  # likewise a folder
        return _old(left)


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > UNBORN_S
    except FileNotFoundError:
        return False
