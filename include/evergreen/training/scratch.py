"""The folder for a training's working files: beside its snapshot, and gone when the training is."""

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
    """Make a folder in another one and remove it at the end; what killed trainings left there goes too."""
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


def _abandoned(left: Path) -> bool:
    """Whether nobody holds the folder's lock; the lock ends with the process, however that ends."""
    try:
        with (left / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        # Just made, and about to be locked; or its making was cut short.
        try:
            return time.time() - left.stat().st_mtime > _UNBORN_S
        except FileNotFoundError:
            return False
