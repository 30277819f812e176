"""A full disk, told as such: whichever library meets it, and however it words it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evergreen.errors import ErrorReason, TransientError

FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = ("No space left on device", "Disk quota exceeded", "database or disk is full")
SERVER_FULL = "53100"  # PostgreSQL's disk_full


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk: of this machine, of the database, or of a server that says so."""
    while error is not None:
        code = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
        if (
            (isinstance(error, OSError) and error.errno in FULL)
            or code == SERVER_FULL
            or any(said in str(error) for said in SAID)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def room(doing: str, where: Path, needs: Callable[[], int | None] = lambda: None) -> Iterator[None]:
    """Tell a disk that is full inside as such, with what is needed.

    Args:
        doing: what is done, for the message: `taking the snapshot of rides`.
        where: the folder that is written to.
        needs: how many bytes about, as far as it is known when the disk is full; None if it is not.

    Raises:
        TransientError: the disk is full (NO_SPACE); once something is freed the same step succeeds.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error) or getattr(error, "reason", None) is ErrorReason.NO_SPACE:
            raise
        wanted = needs()
        raise full(
            f"{doing}: no space left on the disk of {where}, {_size(_free(where))} are free"
            + (f", it needs about {_size(wanted)}" if wanted else ""),
            error,
        ) from error


def full(what: str, error: Exception) -> TransientError:
    """The error that a full disk is to a task; only its first line, as PostgreSQL's further ones may quote a row."""
    line = " ".join(str(error).strip().partition("\n")[0].split())[:200]
    return TransientError(
        f"{what} ({line}). Nothing was decided: free some, then try again", ErrorReason.NO_SPACE
    )


def _free(where: Path) -> int:
    place = next((p for p in (where, *where.parents) if p.exists()), Path("/"))
    return shutil.disk_usage(place).free


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
