"""Asset events that are owed: in the transaction of what they tell, until they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from evergreen.ledger import Decision, append, events
from evergreen.ledger.events import Owed
from evergreen.ledger.reasons import ANNOUNCED, DecisionKind
from evergreen.warehouse.connection import Connection, fetch

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
ASSET = "model/small"


def decided(conn: Connection, kind: DecisionKind, key: str = "a", **evidence: str) -> None:
    append(conn, Decision(AS_OF, ASSET, kind, "why", "train__small/r", key, evidence=evidence, version="2"))


@pytest.mark.parametrize("kind", DecisionKind, ids=lambda k: k.value)
def test_what_another_dag_waits_for_owes_an_event(conn: Connection, kind: DecisionKind) -> None:
    decided(conn, kind)
    assert (events.owed(conn, ASSET) is not None) == (kind in ANNOUNCED)


def test_a_decision_owes_once_and_goes_with_its_transaction(conn: Connection) -> None:
    decided(conn, DecisionKind.PROMOTED)
    conn.rollback()
    assert events.owed(conn, ASSET) is None
    decided(conn, DecisionKind.PROMOTED)
    decided(conn, DecisionKind.PROMOTED)
    assert len(fetch(conn, "SELECT 1 FROM evergreen.owed_event")) == 1


def test_a_version_that_waited_is_announced_as_of_the_approval(conn: Connection) -> None:
    later = AS_OF + timedelta(days=2)
    decided(conn, DecisionKind.PROMOTED, effective_from=later.isoformat())
    left = events.owed(conn, ASSET)
    assert left is not None
    assert left.as_of == later


def test_what_is_told_is_forgotten_and_what_came_since_is_not(conn: Connection) -> None:
    for day in (0, 5, 3):
        events.owe(conn, ASSET, AS_OF + timedelta(days=day), "r")
    events.owe(conn, "model/other", AS_OF, "r")
    left = events.owed(conn, ASSET)
    assert left == Owed(left.upto if left else 0, AS_OF + timedelta(days=5))
    events.owe(conn, ASSET, AS_OF, "r")
    events.forget(conn, ASSET, left.upto if left else 0)
    assert events.owed(conn, ASSET) == Owed((left.upto if left else 0) + 2, AS_OF)
    assert events.owed(conn, "model/other") is not None
