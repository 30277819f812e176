"""Which cut-off a training takes, and which requests it answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.training.plan import Plan, answers_drift, plan_run

NOW = datetime(2026, 5, 20, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def request(number: int, as_of: datetime, reason: str = "data_drift") -> Decision:
    return Decision(
        as_of, "model/m", DecisionKind.RETRAIN_REQUESTED, reason, "monitor__m/r", f"k{number}", id=number
    )


OPEN = (request(1, NOW - 2 * DAY), request(2, NOW - DAY, "performance"))
CASES = {
    "nightly": ("scheduled", NOW, (), False, Plan(NOW, "schedule", ())),
    "nightly-sweeps-open-requests": ("scheduled", NOW, OPEN, False, Plan(NOW, "performance", (1, 2))),
    "woken": ("asset_triggered", NOW - DAY, OPEN, True, Plan(NOW - DAY, "performance", (1, 2))),
    "woken-by-an-old-event": (
        "asset_triggered",
        NOW - 9 * DAY,
        OPEN,
        True,
        Plan(NOW - DAY, "performance", (1, 2)),
    ),
    "woken-but-answered": ("asset_triggered", NOW, (), True, None),
    "by-hand": ("manual", NOW, OPEN, False, Plan(NOW, "manual", (1, 2))),
    "by-hand-in-the-past": ("manual", NOW - 2 * DAY, OPEN, False, Plan(NOW - 2 * DAY, "manual", (1,))),
    "woken-by-what-is-no-drift": (
        "asset_triggered",
        NOW,
        (request(3, NOW, "staleness"),),
        True,
        Plan(NOW, "staleness", (3,)),
    ),
    "nightly-sweeps-a-changed-spec": (
        "scheduled",
        NOW,
        (request(3, NOW - DAY, "code_change"),),
        False,
        Plan(NOW, "code_change", (3,)),
    ),
    "backfill-answers-nothing": ("backfill", NOW - 9 * DAY, OPEN, False, Plan(NOW - 9 * DAY, "schedule", ())),
}


@pytest.mark.parametrize(
    ("run_type", "as_of", "requests", "woken", "expected"), CASES.values(), ids=CASES.keys()
)
def test_plans(
    run_type: str, as_of: datetime, requests: tuple[Decision, ...], woken: bool, expected: Plan | None
) -> None:
    assert plan_run(run_type, as_of, requests, woken=woken) == expected


@pytest.mark.parametrize(
    ("reasons", "drift"),
    [
        ((), False),
        (("data_drift",), True),
        (("staleness",), False),
        (("a_reason_of_a_later_release",), False),
        (("new_data", "code_change"), False),
        (("staleness", "performance"), True),
    ],
)
def test_only_a_drift_asks_for_a_champion_that_is_no_better(conn, reasons, drift) -> None:
    asked = [
        ledger.append(
            conn, Decision(NOW, "model/m", DecisionKind.RETRAIN_REQUESTED, r, "monitor__m/r", f"k{n}")
        )
        for n, r in enumerate(reasons)
    ]
    assert answers_drift(conn, [d.id for d in asked if d.id]) is drift


def test_a_request_that_the_ledger_does_not_hold_is_no_excuse_for_a_champion_that_is_no_better(conn) -> None:
    assert not answers_drift(conn, [7])
