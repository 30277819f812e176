"""The ledger keeps every decision, refuses every change, and answers questions about the present."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import Connection, connect

AS_OF = datetime(2026, 5, 1, tzinfo=UTC)


def decision(kind: DecisionKind, key: str, **more: object) -> Decision:
    return Decision(
        as_of=AS_OF,
        subject="model/m",
        kind=kind,
        reason="manual",
        run_id="train__m/r1",
        dedupe_key=key,
        **more,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evergreen.decision SET reason = 'better'",
        "DELETE FROM evergreen.decision",
        "TRUNCATE evergreen.decision CASCADE",
    ],
    ids=["update", "delete", "truncate"],
)
def test_the_database_refuses_changes(warehouse_url: str, statement: str) -> None:
    with connect() as conn:
        ledger.append(conn, decision(DecisionKind.PROMOTED, "a", version="1"))
    with pytest.raises(psycopg2.Error, match="append-only"), connect() as conn, conn.cursor() as cursor:
        cursor.execute(statement)
    with connect() as conn:
        assert [d.reason for d in ledger.find(conn)] == ["manual"]


def test_the_same_decision_twice_is_one_row(conn: Connection) -> None:
    first = ledger.append(conn, decision(DecisionKind.PROMOTED, "a", version="1", evidence={"rmse": 1.0}))
    again = ledger.append(conn, decision(DecisionKind.PROMOTED, "a", version="1", evidence={"rmse": 2.0}))
    assert again == first
    assert len(ledger.find(conn)) == 1


def test_nan_is_no_evidence(conn: Connection) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.append(conn, decision(DecisionKind.PROMOTED, "a", evidence={"rmse": float("nan")}))


def test_a_request_is_open_until_a_decision_answers_it(conn: Connection) -> None:
    one = ledger.append(conn, decision(DecisionKind.RETRAIN_REQUESTED, "r1"))
    two = ledger.append(conn, decision(DecisionKind.RETRAIN_REQUESTED, "r2"))
    assert [d.id for d in ledger.open_requests(conn, "m")] == [one.id, two.id]
    assert ledger.open_requests(conn, "other") == []
    ledger.append(conn, decision(DecisionKind.REJECTED, "x", answers=(one.id,)))
    assert [d.id for d in ledger.open_requests(conn, "m")] == [two.id]


def test_open_requests_of_many_models_are_told_by_the_same_rule(conn: Connection) -> None:
    for name in ("m", "n"):
        for key in ("1", "2", "3"):
            asked = decision(DecisionKind.RETRAIN_REQUESTED, f"{name}{key}")
            ledger.append(conn, replace(asked, subject=ledger.model_subject(name)))
    (first, *_) = ledger.open_requests(conn, "n")
    answer = decision(DecisionKind.PROMOTED, "x", answers=(first.id,))
    ledger.append(conn, replace(answer, subject=ledger.model_subject("n")))

    def open_(**more: int) -> dict[str, int]:
        found = ledger.unanswered(conn, ("m", "n", "o"), DecisionKind.RETRAIN_REQUESTED, **more)
        return Counter(one.model for one in found)

    assert open_() == {"m": 3, "n": 2}
    assert open_(newest=1) == {"m": 1, "n": 1}


def test_champions_newest_first(conn: Connection) -> None:
    for key, kind, version in (
        ("a", DecisionKind.PROMOTED, "1"),
        ("b", DecisionKind.PROMOTED, "2"),
        ("c", DecisionKind.REJECTED, "3"),
        ("d", DecisionKind.ROLLED_BACK, "1"),
    ):
        ledger.append(conn, decision(kind, key, version=version))
    assert [d.version for d in ledger.champions(conn, "m")] == ["1", "2", "1"]


def test_champions_as_of_a_time_leave_out_later_decisions(conn: Connection) -> None:
    for key, kind, version, days in (
        ("a", DecisionKind.PROMOTED, "1", 0),
        ("b", DecisionKind.PROMOTED, "2", 2),
        ("c", DecisionKind.ROLLED_BACK, "1", 4),
    ):
        ledger.append(conn, replace(decision(kind, key, version=version), as_of=AS_OF + timedelta(days=days)))
    seen = {
        days: [d.version for d in ledger.champions(conn, "m", AS_OF + timedelta(days=days))]
        for days in (-1, 0, 2, 3, 4)
    }
    assert seen == {-1: [], 0: ["1"], 2: ["2", "1"], 3: ["2", "1"], 4: ["1", "2", "1"]}


def test_the_lock_serialises_two_changes(warehouse_url: str) -> None:
    with connect() as one:
        ledger.lock(one, "m")
        with pytest.raises(Exception, match="lock"), connect() as two, two.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
            ledger.lock(two, "m")
