"""Where a spec asks for a person's approval, the demo says that a challenger waits, and where it is approved."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.stack import demo
from evergreen.warehouse.connection import connect

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def decide(kind: DecisionKind, reason: str, *answers: int) -> int:
    with connect() as conn:
        found = append(
            conn, Decision(NOW, f"model/{demo.MODEL}", kind, reason, "train__bike_demand/1", f"{kind}:1", version="1", answers=answers),
        )  # fmt: skip
    return found.id or 0


def test_a_challenger_that_waits_is_named_with_the_page_where_it_is_approved(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_AIRFLOW_URL", "https://airflow.example.org/team")
    waits = decide(DecisionKind.AWAITING_APPROVAL, "first_champion")
    said = demo.no_champion(demo.MODEL, "manual__1")
    assert said.startswith("version 1 passed and waits for a person, as the spec says gate.approval: manual")
    assert "https://airflow.example.org/team/dags/promote__bike_demand/required_actions" in said
    decide(DecisionKind.REJECTED, "refused", waits)
    assert "waits" not in demo.no_champion(demo.MODEL, "manual__1"), "a person has refused it"


def test_without_one_that_waits_the_run_is_named(warehouse_url: str) -> None:
    assert "no champion after run manual__1" in demo.no_champion(demo.SECOND_MODEL, "manual__1")
