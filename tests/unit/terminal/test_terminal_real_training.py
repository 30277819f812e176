"""`evergreen why` of trainings that the library did itself, so that every check of the gate is one that it really makes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from terminal_scene import Terminal

from evergreen.ledger import find
from evergreen.ledger.evidence import SettledEvidence
from evergreen.warehouse.connection import connect


def test_each_check_of_a_real_training_is_told(
    terminal: Terminal, world: Any, mlflow_url: str, start: datetime
) -> None:
    world.land(start, 30)
    world.promote(start + timedelta(days=30), "train__rides/1")
    world.land(start + timedelta(days=30), 8, seed=2)
    world.settle(world.train(start + timedelta(days=38), "train__rides/2"), "train__rides/2")
    with connect() as conn:
        newest = SettledEvidence.shown(find(conn, "model/rides")[0])
    assert len(newest.checks) > 10
    for version in ("1", "2"):
        told = terminal("why", "rides", version)
        assert told.status == 0
    shown = " ".join(told.out.split())
    for check in newest.checks:
        provenance = check.check.startswith(("challenger_", "champion_", "baseline_")) and check.passed
        assert provenance or " ".join(check.sentence.split()) in shown, check
    assert terminal("history", "rides").status == 0
