"""Tables that are too wide: what PostgreSQL cannot hold is said with its limit and a way out."""

from __future__ import annotations

import pytest
from validation_room import Room, reading, spec

from evergreen.spec.dataset import MOST_COLUMNS


def wide(count: int) -> dict[str, dict[str, str]]:
    return {f"c{number}": {"type": "float"} for number in range(count)}


def test_more_columns_than_a_table_has_are_refused_with_the_limit() -> None:
    own = len(spec().columns)
    assert len(spec(columns=wide(MOST_COLUMNS - own)).columns) == MOST_COLUMNS
    with pytest.raises(ValueError, match=r"1598 are more than the 1,597.*two datasets"):
        spec(columns=wide(MOST_COLUMNS - own + 1))


def test_a_row_wider_than_a_page_is_not_told_to_shorten_its_key(room: Room) -> None:
    columns = wide(1100)
    room.land("x.csv", [{**reading(0), **dict.fromkeys(columns, "1.5")}], header=(*reading(0), *columns))
    (failure,) = room.one(spec(columns=columns)).failures
    assert "row is too big" in failure.observed
    assert "8 kB" in failure.remedy
    assert "two datasets" in failure.remedy
    assert "shorten" not in failure.remedy
