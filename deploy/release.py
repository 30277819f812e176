"""What is done to release a version, by `make release` and by CI.

`deploy/release.py notes v0.2.0` prints what CHANGELOG.md says of that version. It fails where the tag is not the version of pyproject.toml
or has no section, so that a tag that was set too early releases nothing.

`deploy/release.py wheel FILE --evergreen PROGRAM` looks at a wheel, what is in it and what it declares, and tries the program that was
installed from it in folders that know nothing of a checkout.

Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

REPOSITORY = Path(__file__).resolve().parents[1]
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


PACKAGES = ("evergreen", "evergreen_airflow")


def contents(repository: Path = REPOSITORY) -> set[str]:
    """What a wheel must hold beside its metadata: each file of the packages but links to nowhere and what Python compiled."""
    return {
        str(path.relative_to(repository / "include"))
        for package in PACKAGES
        for path in (repository / "include" / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def metadata(wheel: Path) -> tuple[Message, str]:
    """What a wheel declares: its METADATA, and the text of its entry points."""
    with ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        told = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        return told, archive.read(f"{folder}/entry_points.txt").decode()


def faults_of_content(wheel: Path, repository: Path = REPOSITORY) -> list[str]:
    """What is wrong with the files and the metadata of a wheel; nothing, if all is well."""
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = contents(repository)
    faults = [f"{name} is missing" for name in sorted(wanted - held)]
    faults += [f"{name} does not belong in it" for name in sorted(held - wanted)]
    told, entries = metadata(wheel)
    known = version((repository / "pyproject.toml").read_text(encoding="utf-8"))
    if told["Version"] != known:
        faults.append(f"it is version {told['Version']}, and pyproject.toml has {known}")
    if not told.get_all("Requires-Dist"):
        faults.append("it declares no dependency")
    faults += [
        f"it has no entry point {line}"
        for line in (
            "evergreen = evergreen.cli:main",
            "evergreen = evergreen_airflow.plugin:EvergreenPlugin",
        )
        if line not in entries
    ]
    return faults


RUNS = {
    ("--help",): (0, "usage: evergreen"),
    ("--version",): (0, ""),
    ("check",): (1, "no specs were found"),
    ("status",): (1, "No warehouse is named here"),
}
"""Commands in a folder that holds nothing, with their exit status and a word of what they say."""


def faults_of_commands(evergreen: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """What is wrong with an installed Evergreen, tried in `/`, in an empty folder and in a first project; nothing, if all is well.

    Args:
        evergreen: the program.
        environment: for it; default: this process'.
    """
    faults = []

    def expect(folder: str, arguments: tuple[str, ...], status: int, word: str) -> None:
        done = subprocess.run(
            [*evergreen, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        if done.returncode != status or word not in said or "Traceback" in said:
            faults.append(
                f"`evergreen {' '.join(arguments)}` in {folder}: exit status {done.returncode}, not {status} with {word!r}: {said[-800:]}"
            )

    with tempfile.TemporaryDirectory(prefix="evergreen-release-") as empty:
        for folder in ("/", empty):
            for arguments, (status, word) in RUNS.items():
                expect(folder, arguments, status, word)
        project = f"{empty}/project"
        Path(project).mkdir()
        expect(empty, ("init", project), 0, "is a project")
        expect(project, ("check",), 0, "no problem found")
    return faults


def release_notes(tag: str) -> int:
    """Print the notes; exit status 1 with the reason where there are none."""
    try:
        sys.stdout.write(notes(tag))
    except (NotReleasableError, OSError) as error:
        print(f"{tag} is no release: {error}", file=sys.stderr)
        return 1
    return 0


def check_wheel(wheel: Path, evergreen: Path | None) -> int:
    """Print what is wrong with a wheel and with the program that was installed from it; exit status 1 where anything is."""
    faults = faults_of_content(wheel) + (faults_of_commands([str(evergreen)]) if evergreen else [])
    for fault in faults:
        print(f"{wheel.name}: {fault}", file=sys.stderr)
    if not faults:
        print(f"{wheel}: good")
    return 1 if faults else 0


def main(argv: list[str] | None = None) -> int:
    """Run one of the two; return the exit status."""
    parser = argparse.ArgumentParser(prog="deploy/release.py", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    told = commands.add_parser("notes", help="print the notes of a tag")
    told.add_argument("tag", help="v and the version, such as v0.2.0")
    looked = commands.add_parser("wheel", help="look at a wheel")
    looked.add_argument("wheel", type=Path, help="the file")
    looked.add_argument("--evergreen", type=Path, help="the program that was installed from it")
    args = parser.parse_args(argv)
    return release_notes(args.tag) if args.command == "notes" else check_wheel(args.wheel, args.evergreen)


if __name__ == "__main__":
    sys.exit(main())
