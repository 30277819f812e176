"""What a champion learnt is read from its files: columns beside the newest window, and the candidates that were tried."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from monitoring_scene import at

from evergreen.errors import TerminalError
from evergreen.health.learnt import learnt
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.warehouse.connection import connect


def test_each_column_of_the_reference_stands_beside_the_newest_window(scene: Any) -> None:
    world = scene(trigger={"m": 1, "n": 1})
    world.champion()
    with connect() as conn:
        alone = learnt(conn, "watched")
    assert alone.window == ""
    assert {column.now for column in alone.columns} == {()}
    world.live(1, change=lambda f: f.assign(amount=f["amount"] * 2))
    judge_windows(world.specs, world.spec, at(1))
    with connect() as conn:
        found = learnt(conn, "watched")
    assert found.version == "1"
    assert found.rows.startswith("3,360 rows, ")
    assert found.window.startswith("2024-05-20")
    columns = {column.column: column for column in found.columns}
    for column in columns.values():
        assert len(column.bins) == len(column.reference) == len(column.now), column.column
        assert sum(column.reference) == pytest.approx(1.0)
        assert sum(column.now) == pytest.approx(1.0)
    amount = columns["amount"]
    middle = [sum(i * share for i, share in enumerate(shares)) for shares in (amount.reference, amount.now)]
    assert middle[1] > 1.2 * middle[0], "twice as much lies further right"
    assert "reference: mean " in amount.words
    assert "; now: mean " in amount.words
    assert found.leaderboard is None, "nothing was searched"


def test_the_candidates_are_told_with_parameters_that_a_person_reads(
    world: Any, mlflow_url: str, start: Any
) -> None:
    world.land(start, 40)
    spec = {"holdout": "3d", "folds": 2, "min_rows": 100, "tune": {"trials": 1}, "params": {"max_depth": 3}}
    world.with_model(training=spec).promote(start + timedelta(days=40), "train__rides/1")
    with connect() as conn:
        found = learnt(conn, "rides")
    table = found.leaderboard
    assert table is not None
    place = table.columns.index("Parameters")
    assert "Chosen" not in table.columns
    assert sum(table.emphasis) == 1
    assert any("max_depth 3" in row[place] for row in table.rows)
    assert not any("{" in cell for row in table.rows for cell in row)
    gains = [column.gain or 0.0 for column in found.columns]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0


def test_a_model_without_a_champion_learnt_nothing(warehouse_url: str) -> None:
    with connect() as conn, pytest.raises(TerminalError, match="has no champion yet"):
        learnt(conn, "rides")
