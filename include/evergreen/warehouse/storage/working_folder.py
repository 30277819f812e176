"""Working folders: held by a lock while somebody works in them, removed when nobody does.

A lock ends with its process, however that ends, so what can be locked is left over from work that was killed. Ages and
process ids do not tell: a training may take days, and a worker elsewhere may have the same process id.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".work-"
_LOCK = "lock"
_UNBORN_S = 3600


@contextmanager
def folder(beside: Path) -> Iterator[Path]:
    """Make a folder in another one and remove it at the end; what killed work left there goes too."""
    beside.mkdir(parents=True, exist_ok=True)
    for left in beside.glob(f"{PREFIX}*"):
        if _abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
    try:
        with (made / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def old(path: Path) -> bool:
    """Whether nothing was changed there for an hour."""
    try:
        return time.time() - path.stat().st_mtime > _UNBORN_S
    except FileNotFoundError:
        return False


def _abandoned(left: Path) -> bool:
    """Whether nobody holds the folder's lock."""
    try:
        with (left / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        # Just made, and about to be locked; or its making was cut short.
        return old(left)
