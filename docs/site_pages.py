"""`make docs`: lays the pages out in build/docs for the builder of the site, with the place that they have in the repository.

So a link works on GitHub and on the site, unchanged. A link to a file of code leads on the site to a page that shows the file;
those pages are in no menu and are not searched.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET = REPOSITORY / "build" / "docs"
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md")
PICTURES = (".png", ".svg")
# What the pages link to and how it is written; another kind of file is added here.
LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".html": "html", ".txt": "text"}
LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")
HIDDEN = "---\nsearch:\n  exclude: true\n---\n"
FENCE = "`" * 8


def lay_out(target: Path = TARGET) -> int:
    """Write all pages below a folder, which is emptied first; returns how many files of code have a page.

    Raises:
        ValueError: a page links to something that is no page, no picture, and no code of a kind that is known.
    """
    shutil.rmtree(target, ignore_errors=True)
    linked: set[Path] = set()
    for page in sorted({page for pattern in PAGES for page in REPOSITORY.glob(pattern)}):
        text = page.read_text(encoding="utf-8")
        _write(target, page, LINK.sub(partial(_on_site, page, linked), text))
    for file in sorted(linked):
        if file.suffix in PICTURES:
            (place := target / file.relative_to(REPOSITORY)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
            continue
        name, language = file.relative_to(REPOSITORY).as_posix(), LANGUAGES[file.suffix]
        code = f"{HIDDEN}\n# {name}\n\n{FENCE}{language}\n{file.read_text(encoding='utf-8')}\n{FENCE}\n"
        _write(target, file.with_name(f"{file.name}.md"), code)
    return sum(file.suffix in LANGUAGES for file in linked)


def _on_site(page: Path, linked: set[Path], match: re.Match[str]) -> str:
    before, link, rest = match.groups()
    # Not resolved: what is a link in the repository has a page in its own place.
    file = Path(os.path.normpath(page.parent / link))
    if link.endswith(".md") or not file.exists():  # a page, or one that the builder says is not there
        return match[0]
    if file.suffix not in (*PICTURES, *LANGUAGES):
        raise ValueError(
            f"{page.name} links to {link}; docs/site_pages.py shows no such files: name it without a link"
        )
    linked.add(file)
    return f"{before}{link}{'' if file.suffix in PICTURES else '.md'}{rest}"


def _write(target: Path, file: Path, text: str) -> None:
    place = target / file.relative_to(REPOSITORY)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(f"{TARGET.relative_to(REPOSITORY)}: the pages, and {lay_out()} files of code that they name")
