"""What was attacked, how often, and what came of it: for a test, and as the table of docs/reliability.md."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: written by `make attack` -->", "<!-- end of figures -->"
HEAD = ("attack", "tries", "did harm", "the others", "seconds", "seed", "commit, day")


@dataclass(frozen=True)
class Figures:
    """What came of one attack; see `Attack.record`."""

    what: str
    tried: int
    wrong: int
    outcome: str
    seconds: float
    seed: int


@dataclass
class Attack:
    """One attack: how much of it is tried, from which seed, and what came of it."""

    whole: bool
    seed: int
    started: float = field(default_factory=time.monotonic)
    figures: list[Figures] = field(default_factory=list)

    def count(self, *, sample: int, whole: int) -> int:
        """How many tries: all of them for `make attack`, else a sample."""
        return whole if self.whole else sample

    def record(self, what: str, tried: int, wrong: Sequence[str], outcome: str) -> None:
        """Note what came of it, for the page, and fail where something went wrong.

        Args:
            what: was tried, in a few words, for a reader of the page; the same at each run.
            tried: how often.
            wrong: a line for each try that did harm: what was tried, with what it takes to try it again.
            outcome: what became of the others in numbers, such as "731 published, 469 held".
        """
        self.figures.append(
            Figures(what, tried, len(wrong), outcome, time.monotonic() - self.started, self.seed)
        )
        assert not wrong, f"{len(wrong)} of {tried} did harm (seed {self.seed}):\n" + "\n".join(wrong[:20])


def write(found: Sequence[Figures], page: Path = PAGE) -> None:
    """Put the figures into the page's table; rows of other attacks stay.

    Raises:
        ValueError: the page has no place for a table.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs the lines {BEGIN} and {END}; the table goes between them")
    rows = {cells[0]: cells for cells in map(_cells, table.strip().splitlines()[2:])}
    at = f"{_commit()}, {datetime.now(UTC):%Y-%m-%d}"
    for f in found:
        rows[f.what] = [f.what, f"{f.tried:,}", str(f.wrong), f.outcome, f"{f.seconds:.0f}", str(f.seed), at]
    lines = [_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows.values())]
    page.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _commit() -> str:
    shown = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or "no commit"
