"""The specs of a commit beside those of the working tree, and which of their files differ; git does the reading."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec.problem import printable

KINDS = ("datasets", "models")
_LINK, _FILES = "120000", ("100644", "100755")


@dataclass(frozen=True)
class Base:
    """The specs of a commit.

    Attributes:
        name: as it was asked for.
        commit: its full name.
        folder: holds `datasets/` and `models/` as the commit has them; gone when the block of `base` ends.
    """

    name: str
    commit: str
    folder: Path


@dataclass(frozen=True)
class Moved:
    """A file that differs: `before` is its name in the commit, `after` the one of now; None where it is not there."""

    before: str | None
    after: str | None


@contextmanager
def base(folder: Path, name: str) -> Iterator[Base]:
    """Lay out the specs of a commit.

    Args:
        folder: the specs of the working tree; those of the commit are the ones that lie at the same place in it.
        name: of the commit: a branch, a tag, a hash, `HEAD^1`.

    Raises:
        TerminalError: there is no git, no repository or no such commit; the message has the next step (BAD_SPEC).
    """
    commit = _commit(folder, name)
    with TemporaryDirectory(prefix="evergreen-base-") as place:
        laid = Path(place)
        for kind in KINDS:
            (laid / kind).mkdir()
        for entry in _git(folder, "ls-tree", "-r", "-z", commit, "--", *KINDS).split(b"\0")[:-1]:
            about, _, path = entry.partition(b"\t")
            mode, _, blob = about.decode().split()
            target = laid / os.fsdecode(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if mode in _FILES:
                target.write_bytes(_git(folder, "cat-file", "blob", blob))
            elif mode == _LINK:
                target.symlink_to(os.fsdecode(_git(folder, "cat-file", "blob", blob)))
        yield Base(name, commit, laid)


def moved(before: Base, folder: Path) -> list[tuple[str, Moved]]:
    """The files that differ between a commit and the working tree, each with its kind (`datasets`, `models`).

    What is not committed yet counts, added to git or not. A file under another name counts as the same one where git finds them
    alike.
    """
    with TemporaryDirectory(prefix="evergreen-none-") as empty:
        found = []
        for kind in KINDS:
            now = folder / kind if (folder / kind).is_dir() else Path(empty)
            found += [(kind, one) for one in _compared(before.folder / kind, now)]
    return found


def _compared(before: Path, after: Path) -> Iterator[Moved]:
    words = iter(
        _git(
            before, "diff", "--no-index", "--no-ext-diff", "--no-textconv", "--name-status", "--find-renames", "-z", "--",
            str(before), str(after), good=(0, 1),
        ).split(b"\0")[:-1]
    )  # fmt: skip
    for status in words:
        path = os.fsdecode(next(words))
        if status.startswith((b"R", b"C")):
            yield Moved(_in(before, path), _in(after, os.fsdecode(next(words))))
        else:
            yield Moved(
                None if status == b"A" else _in(before, path, after),
                None if status == b"D" else _in(after, path, before),
            )


def _in(folder: Path, path: str, other: Path | None = None) -> str:
    """The path below a folder; git names a file that both sides have by either."""
    for one in (folder, other):
        if one is not None and Path(path).is_relative_to(one):
            return str(Path(path).relative_to(one))
    return path


def _commit(folder: Path, name: str) -> str:
    try:
        _git(folder, "rev-parse", "--show-toplevel")
    except _Failed as error:
        raise TerminalError(
            f"{folder} is in no git repository that git reads ({error}); run the command in a clone, or without --changed",
            ErrorReason.BAD_SPEC,
        ) from error
    try:
        found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except _Failed as error:
        raise TerminalError(_unknown(folder, printable(name)), ErrorReason.BAD_SPEC) from error
    return found.decode().split()[-1]


def _unknown(folder: Path, name: str) -> str:
    if _git(folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
        return (
            f"this clone is shallow and does not hold {name}; fetch it with `git fetch --depth=1 origin {name}` and write "
            "--changed FETCH_HEAD, or fetch everything with `git fetch --unshallow` (in GitHub Actions: fetch-depth of the checkout)"
        )
    try:
        _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"origin/{name}^{{commit}}")
        return f"no commit is named {name} here; did you mean origin/{name}?"
    except _Failed:
        return f"no commit is named {name}; `git fetch origin` gets the newest ones, `git branch --all` lists the branches"


class _Failed(Exception):
    """What git said."""


def _git(folder: Path, *arguments: str, good: tuple[int, ...] = (0,)) -> bytes:
    try:
        # Only reads: not even the index is refreshed.
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError as error:
        what = "git is not installed" if folder.is_dir() else f"there is no folder {folder}"
        raise TerminalError(f"{what}; --changed needs both", ErrorReason.BAD_SPEC) from error
    if done.returncode not in good:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Failed(printable(said[0], 300) if said else f"exit code {done.returncode}")
    return done.stdout
