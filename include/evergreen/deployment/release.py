"""`python -m evergreen.deployment.release v0.2.0`: prints what CHANGELOG.md says of that version, for the notes of its release.

Needs nothing but Python. It fails where the tag is not the version of pyproject.toml or has no section, so that a tag that was set too
early releases nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
_SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?\s*$", re.MULTILINE)
_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)
UNRELEASED = "Unreleased"


class NotReleasableError(Exception):
    """Why a tag is no release, and what to do."""


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """The sections of a changelog in their order: by version, or `Unreleased`, the date (empty: none) and the text."""
    heads = list(_SECTION.finditer(changelog))
    ends = [head.start() for head in heads[1:]] + [len(changelog)]
    return {
        head["name"]: (head["date"] or "", changelog[head.end() : end].strip())
        for head, end in zip(heads, ends, strict=True)
    }


def version(pyproject: str) -> str:
    """The version that a pyproject.toml names."""
    found = _VERSION.search(pyproject)
    if found is None:
        raise NotReleasableError('pyproject.toml has no line version = "…"; add it')
    return found[1]


def notes(tag: str, folder: Path = REPOSITORY) -> str:
    """The notes of a release.

    Args:
        tag: `v` and the version.
        folder: holds CHANGELOG.md and pyproject.toml.

    Raises:
        NotReleasableError: the tag is another version than the code's, or its section is missing, empty or without a date.
    """
    known = version((folder / "pyproject.toml").read_text(encoding="utf-8"))
    if tag != f"v{known}":
        raise NotReleasableError(
            f"the tag is {tag}, pyproject.toml has the version {known}; set both to the same, the tag with a v"
        )
    found = sections((folder / "CHANGELOG.md").read_text(encoding="utf-8"))
    if known not in found:
        raise NotReleasableError(
            f"CHANGELOG.md has no section ## [{known}] - DATE; write it, commit, and set the tag again"
        )
    date, text = found[known]
    if not date or not text:
        missing = "date" if not date else "text"
        raise NotReleasableError(
            f"the section {known} of CHANGELOG.md has no {missing}; add it, commit, and set the tag again"
        )
    return f"{text}\n"


def main(argv: list[str] | None = None) -> int:
    """Print the notes; exit status 1 with the reason where there are none."""
    parser = argparse.ArgumentParser(
        prog="python -m evergreen.deployment.release", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("tag", help="v and the version, such as v0.2.0")
    args = parser.parse_args(argv)
    try:
        sys.stdout.write(notes(args.tag))
    except (NotReleasableError, OSError) as error:
        print(f"{args.tag} is no release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
