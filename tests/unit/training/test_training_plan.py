"""Which cut-off a training takes, and which requests it answers."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from evergreen.ledger import Decision, Kind
from evergreen.training.plan import Plan, plan_run

NOW = datetime(2026, 5, 20, 2, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def request(number: int, as_of: datetime, reason: str = "data_drift") -> Decision:
    return Decision(as_of, "model/m", Kind.RETRAIN_REQUESTED, reason, "monitor__m/r", f"k{number}", id=number)


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
    "backfill-answers-nothing": ("backfill", NOW - 9 * DAY, OPEN, False, Plan(NOW - 9 * DAY, "schedule", ())),
}


@pytest.mark.parametrize(
    ("run_type", "as_of", "requests", "woken", "expected"), CASES.values(), ids=CASES.keys()
)
def test_plans(
    run_type: str, as_of: datetime, requests: tuple[Decision, ...], woken: bool, expected: Plan | None
) -> None:
    assert plan_run(run_type, as_of, requests, woken=woken) == expected
