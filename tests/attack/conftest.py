"""Attacks: many seeded tries of what must not do harm, each compared with an oracle of its own.

`make test` tries a small sample; `make attack` tries all (`--whole`) and writes the figures into docs/reliability.md.
`--seed N` tries others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from attack_page import Figures, write

SEED = 20260501


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="all tries instead of a sample, and write the page")
    parser.addoption("--seed", type=int, default=SEED, help="of all that is drawn at random")


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


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    """How much to try, from which seed, and where the figures go."""
    attack = Attack(request.config.getoption("--whole", False), request.config.getoption("--seed", SEED))
    yield attack
    if attack.whole:
        write(attack.figures)
