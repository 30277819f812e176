"""CHANGELOG.md, and the notes of a release that are taken from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from releasing import release

REPOSITORY = Path(__file__).resolve().parents[3]
CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-24

### Added

- A thing.

## [0.1.0] - 2026-11-30

The first version.
"""


def folder(place: Path, changelog: str = CHANGELOG, version: str = "0.2.0") -> Path:
    (place / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (place / "pyproject.toml").write_text(f'[project]\nname = "x"\nversion = "{version}"\n', encoding="utf-8")
    return place


def test_the_newest_section_is_of_the_version_of_the_code():
    sections = release.sections((REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"))
    released = [name for name in sections if name != release.UNRELEASED]
    known = release.version((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert released[0] == known
    assert release.notes(f"v{known}").startswith(sections[known][1])
    dates = [sections[name][0] for name in released]
    assert all(dates)
    assert dates == sorted(dates, reverse=True)


def test_the_notes_are_the_section_alone(tmp_path):
    assert release.notes("v0.2.0", folder(tmp_path)) == "### Added\n\n- A thing.\n"
    assert release.notes("v0.1.0", folder(tmp_path, version="0.1.0")) == "The first version.\n"


@pytest.mark.parametrize(
    ("tag", "changelog", "said"),
    [
        ("v0.3.0", CHANGELOG, "the tag is v0.3.0, pyproject.toml has the version 0.2.0"),
        ("0.2.0", CHANGELOG, "the tag with a v"),
        ("v0.2.0", CHANGELOG.replace("[0.2.0]", "[0.2.1]"), "no section ## [0.2.0] - DATE"),
        ("v0.2.0", CHANGELOG.replace(" - 2026-12-24", ""), "has no date"),
        ("v0.2.0", CHANGELOG.replace("### Added\n\n- A thing.\n", ""), "has no text"),
    ],
    ids=["another version", "no v", "no section", "no date", "no text"],
)
def test_a_tag_that_is_no_release(tmp_path, capsys, monkeypatch, tag, changelog, said):
    place = folder(tmp_path, changelog)
    with pytest.raises(release.NotReleasableError, match=said.replace("[", r"\[").replace("]", r"\]")):
        release.notes(tag, place)
    monkeypatch.setattr(release.notes, "__defaults__", (place,))
    assert release.main(["notes", tag]) == 1
    shown = capsys.readouterr()
    assert (shown.out, said in shown.err) == ("", True)
