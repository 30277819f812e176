"""Which files of a folder are specs, and their text. Nothing that lies there can stop or hold up the reading of the others.

Skipped without a word: hidden names (an editor's lock and swap files, a mounted volume's own), names with another ending,
and what vanished while the folder was read. Told as a problem: what has the name of a spec and is no file. A link counts as
what it leads to: volumes of Kubernetes are links.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from evergreen.spec.problem import Problem

ENDINGS = (".yaml", ".yml")
MOST_BYTES = 1_000_000
MOST_SQL_BYTES = 100_000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(Exception):
    """A file that cannot be read as text; the message says why and what to do."""


def short(path: Path) -> str:
    """A file as problems name it: `models/NAME.yaml`."""
    return f"{path.parent.name}/{path.name}"


def files(folder: Path, name: str | None = None) -> tuple[list[Path], list[Problem]]:
    """The specs of a folder in the order of their names, and what is wrong with the rest.

    Args:
        folder: `datasets` or `models`; one that is not there holds nothing.
        name: only the specs of this name, without ending.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [
            Problem(f"{folder.name}/", "", "", f"cannot be read ({error.strerror}); it must be a folder")
        ]
    found: list[Path] = []
    problems: list[Problem] = []
    for each in names:
        path = folder / each
        hidden, other = each.startswith("."), path.suffix.lower() not in ENDINGS
        if hidden or other or (name is not None and path.stem != name):
            continue
        wrong = _no_spec(path, path.suffix)
        if wrong:
            problems.append(Problem(short(path), "", "", wrong))
        elif wrong is None:
            found.append(path)
    return _single(found, problems), problems


def text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of at most so many bytes, UTF-8.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: anything else.
    """
    content = _bytes(path, most)
    if content.startswith(_UTF16):
        raise Unreadable("is UTF-16, not UTF-8; save it as UTF-8")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unreadable(
            f"line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from error
    if "\x00" in decoded:
        line = decoded.count("\n", 0, decoded.index("\x00")) + 1
        raise Unreadable(f"line {line} holds a NUL character, which no text has; remove it")
    return decoded


def _bytes(path: Path, most: int) -> bytes:
    try:
        # Opening a pipe waits for its writer; with this it does not, and what was opened is looked at, not the name.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable("is no file; put a file there, or remove it")
            parts = [os.read(handle, most + 1)]
            while parts[-1] and sum(map(len, parts)) <= most:
                parts.append(os.read(handle, most + 1))
        finally:
            os.close(handle)
    except FileNotFoundError:
        if path.is_symlink():
            raise Unreadable(_DANGLING) from None
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    content = b"".join(parts)
    if len(content) > most:
        raise Unreadable(f"is larger than {most:,} bytes, the most that is read; a spec is a page or two")
    return content


_DANGLING = "is a link that leads nowhere; mend or remove it"


def _no_spec(path: Path, ending: str) -> str | None:
    """What keeps a directory entry from being a spec; None if nothing does, empty if it is not there any more."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _DANGLING if path.is_symlink() else ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "is a folder, and a spec is a file; rename it, or move it elsewhere"
    if not stat.S_ISREG(mode):
        return "is no file (a pipe, a socket or a device); remove it"
    if ending not in ENDINGS:
        return f"has the ending {ending}; write it in small letters, {ending.lower()}"
    return None


def _single(found: Iterable[Path], problems: list[Problem]) -> list[Path]:
    """Those whose name stands there with one ending only; which of two counts nobody can tell."""
    by_name: dict[str, list[Path]] = {}
    for path in found:
        by_name.setdefault(path.stem, []).append(path)
    for same in by_name.values():
        problems += [
            Problem(
                short(p), "", "", f"{short(o)} has the same name; keep one of the two, and remove the other"
            )
            for p in same
            for o in same
            if p != o
        ]
    return [same[0] for same in by_name.values() if len(same) == 1]
