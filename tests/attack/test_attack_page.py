"""The page of figures: rows are replaced by name, others stay, and a page without a place is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from attack_page import BEGIN, END, PAGE, Figures, write


def figures(what: str, tried: int = 5, wrong: int = 0) -> Figures:
    return Figures(what, tried, wrong, "all held", 1.4, 7)


def test_rows_are_replaced_by_name_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{BEGIN}\n{END}\n\ntail\n", encoding="utf-8")
    write([figures("files"), figures("kills", 1300, 2)], page)
    write([figures("files", 6)], page)
    text = page.read_text(encoding="utf-8")
    assert "| files | 6 | 0 | all held | 1 | 7 |" in text
    assert "| kills | 1,300 | 2 |" in text
    assert text.count("| files |") == 1
    assert text.startswith("# Head\n")
    assert text.endswith("\n\ntail\n")


def test_page_without_a_place_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="needs the lines"):
        write([figures("files")], page)


def test_page_of_the_project_has_a_place() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert BEGIN in text
    assert END in text
