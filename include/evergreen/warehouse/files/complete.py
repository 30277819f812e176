"""Whether a landed file is whole, as `source.complete` says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened
from evergreen.warehouse.files.failure import Failure
from evergreen.warehouse.files.landed_file import BINARY, DONE, SUCCESS, LandedFile, ending_of

_SECOND = 1_000_000_000


def finished(dataset: DatasetSpec, folder: Path, file: LandedFile, now: datetime) -> LandedFile:
    """The file with what it waits for, or what is wrong where it waited in vain, as `source.complete` says."""
    rule, quiet = dataset.source.complete, dataset.source.quiet
    still = now.timestamp() - changed(file, now) >= quiet.total_seconds()
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
            waiting=f"changed less than {_minutes(quiet.total_seconds())} ago"
            + ("" if ended else f", {what}"),
        )
    return replace(
        file,
        problem=Failure(
            "file_complete", None, what, "a line end after the last line",
            remedy="the file may be cut off: deliver it again, whole, with a line end after the last line, or set "
            "source.complete to quiet",
        ),
    )  # fmt: skip


def changed(file: LandedFile, now: datetime) -> float:
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


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min"
