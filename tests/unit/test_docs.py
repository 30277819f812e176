"""The pages for people: every link and anchor leads somewhere, every path that is named exists, the glossary names what the code has."""

from __future__ import annotations

import re
import runpy
import subprocess
from functools import cache
from pathlib import Path

import pytest

from evergreen.ledger.reasons import OF_A_DRIFT, OF_UPKEEP, GateReason, Hold
from evergreen.spec import METRICS
from evergreen.warehouse.files.landed_file import FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "benchmarks").glob("*.md"),
    ]
)
LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
# The worked example makes its own files; the changelog tells of what was.
MAKES_ITS_OWN = ("your-own-table.md", "CHANGELOG.md")
# Of a path in code letters that is written from the top of the repository.
TOP = ("include/", "docs/", "dags/", "plugins/", "tests/", "deploy/", "benchmarks/", ".github/")
NO_HEADING = "no such heading, or not the same one on GitHub and on the site"
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[*<>{}$…]")


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^(```+).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings that are the same on GitHub and on the site, which makes one dash of several."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ +(.*?) *#*$", prose(path.read_text(encoding="utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        if not count and slug == re.sub("-+", "-", slug).strip("-"):
            found.add(slug)
    return frozenset(found)


def wrong(page: Path, link: str) -> str:
    """What is wrong with a link of a page; empty where it leads somewhere."""
    place, _, anchor = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    if not target.is_relative_to(REPOSITORY):
        return "leaves the repository"
    if not target.is_file():
        return "no such file; a link to a folder has no page on the site"
    if named(target) not in tracked():
        return "git does not know the file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return NO_HEADING
    return ""


@cache
def tracked() -> frozenset[str]:
    shown = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(shown.stdout.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_link_and_anchor_leads_somewhere(page: Path) -> None:
    links = [
        link
        for link in LINK.findall(prose(page.read_text(encoding="utf-8")))
        if not re.match(r"[a-z]+:", link)
    ]
    assert {link: problem for link in links if (problem := wrong(page, link))} == {}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("gate.md", ""),
        ("gate.md#what-is-asked", ""),
        ("../README.md#security", ""),
        ("#alerts", ""),
        ("gate.md#what-is-not-asked", NO_HEADING),
        ("../README.md#nothing", NO_HEADING),
        ("nothing.md", "no such file; a link to a folder has no page on the site"),
        ("../include/evergreen", "no such file; a link to a folder has no page on the site"),
        ("../../elsewhere.md", "leaves the repository"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, problem: str) -> None:
    assert wrong(REPOSITORY / "docs" / "alerts.md", link) == problem


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in MAKES_ITS_OWN], ids=named)
def test_each_path_that_is_named_exists(page: Path) -> None:
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page.read_text(encoding="utf-8")))
    words = {word.partition("::")[0].rstrip(".,:;") for span in spans for word in span.split()}
    paths = {word for word in words if word.startswith(TOP) and not PLACEHOLDER.search(word)}
    assert sorted(path for path in paths if not (REPOSITORY / path).exists()) == []


def links_of(page: Path) -> list[str]:
    """Its links to files."""
    links = LINK.findall(prose(page.read_text(encoding="utf-8")))
    return [link for link in links if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("folder", ["docs", "docs/adr"])
def test_every_page_is_in_the_index_and_in_the_menu_of_the_site(folder: str) -> None:
    index = REPOSITORY / folder / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    wanted = set(index.parent.glob("*.md")) - {index}
    assert sorted(map(named, wanted - linked)) == []
    menu = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert [named(page) for page in wanted if not re.search(rf" {re.escape(named(page))}$", menu, re.M)] == []


def test_the_pages_of_the_site_lead_to_pages_and_pictures_of_the_site(tmp_path: Path) -> None:
    assert runpy.run_path(str(REPOSITORY / "docs" / "site_pages.py"))["lay_out"](tmp_path) > 250
    for page in PAGES:
        copy = tmp_path / named(page)
        targets = [copy.parent / link.partition("#")[0] for link in links_of(copy)]
        assert [target for target in targets if not target.is_file()] == [], page
        assert {target.suffix for target in targets} <= {".md", ".png"}, page
    code = tmp_path / "include" / "evergreen" / "check.py.md"
    assert (REPOSITORY / "include" / "evergreen" / "check.py").read_text(encoding="utf-8") in code.read_text(
        encoding="utf-8"
    )


def codes(page: str) -> set[str]:
    """What stands in code letters in the rows of a page's tables."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return {
        code for line in text.splitlines() if line.startswith("|") for code in re.findall(r"`([^`]+)`", line)
    }


def test_every_reason_for_a_training_and_every_hold_is_explained() -> None:
    wanted = {reason.value for reason in (*OF_A_DRIFT, *OF_UPKEEP, *Hold)}
    assert sorted(wanted - codes("trigger-policy.md")) == []


def test_every_reason_of_the_gate_is_explained() -> None:
    assert sorted({reason.value for reason in GateReason} - codes("gate.md")) == []


def test_every_metric_is_explained() -> None:
    assert sorted({name for names in METRICS.values() for name in names} - codes("late-labels.md")) == []


def test_every_ending_of_a_file_is_named() -> None:
    text = (REPOSITORY / "docs" / "files.md").read_text(encoding="utf-8")
    assert [ending for ending in FORMATS if f"`{ending}`" not in text] == []


def glossary() -> list[tuple[str, str]]:
    """Word and place of each row."""
    text = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [(cells[0], cells[2]) for cells in rows if cells[0] not in ("word", "---")]


def test_each_word_of_the_glossary_stands_once() -> None:
    words = [word for cell, _ in glossary() for word in cell.split(", ")]
    assert len(words) > 40
    assert [word for word in words if words.count(word) > 1] == []


@pytest.mark.parametrize(("word", "where"), glossary(), ids=[word for word, _ in glossary()])
def test_what_the_glossary_points_to_is_there(word: str, where: str) -> None:
    for path, names in re.findall(r"\[[^\]]*\]\(([^)]+)\)((?:,? ?`[^`]+`)*)", where):
        text = (REPOSITORY / "docs" / path).read_text(encoding="utf-8")
        assert [name for name in re.findall(r"`([^`]+)`", names) if not re.search(rf"\b{name}\b", text)] == []
