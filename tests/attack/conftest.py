"""Attacks: many seeded tries of what must not do harm, each compared with an oracle of its own.

`make test` tries a small sample; `make attack` tries all (`--whole`) and writes the figures into docs/reliability.md.
`--seed N` tries others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attack_page import Attack, write

SEED = 20260501


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="all tries instead of a sample, and write the page")
    parser.addoption("--seed", type=int, default=SEED, help="of all that is drawn at random")


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    """How much to try, from which seed, and where the figures go."""
    attack = Attack(request.config.getoption("--whole", False), request.config.getoption("--seed", SEED))
    yield attack
    if attack.whole:
        write(attack.figures)
