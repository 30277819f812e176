"""What the newest promotions came to is the sum of what their watches saw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from scipy import stats

from evergreen import ledger
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.reasons import DecisionKind
from evergreen.training.gate.past_holdouts import KINDS, realised
from evergreen.warehouse.connection import connect

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
# Of one look's bound: a doubt of 5 % over seven looks.
Z = float(stats.norm.isf(0.05 / 7))


def looked(promotion, point, deviation=0.02, *, days=0.0, kind=DecisionKind.WATCH_ENDED, **more):
    ends = (None, None) if point is None else (point - Z * deviation, point + Z * deviation)
    told = {
        "promotion": promotion, "improvement": point, "at_least": ends[0], "at_most": ends[1], "confidence": 0.95, "looks": 7, **more,
    }  # fmt: skip
    subject = model_subject("rides")
    when = AS_OF - days * DAY
    return Decision(
        when, subject, kind, "r", "m/1", f"watch:{promotion}:{days}", {"watch": told}, str(promotion)
    )


def test_small_harms_add_up_and_so_does_their_doubt():
    found = realised([looked(n, -0.02) for n in range(4)], AS_OF)
    assert found.promotions == 4
    assert found.point == pytest.approx(1 - 1.02**4)
    # Four times the variance is twice the deviation, of the logarithm.
    assert found.low == pytest.approx(1 - 1.02**4 * (1 + 2 * 0.02 / 1.02), abs=1e-3)
    assert found.harmful
    assert not realised([looked(n, -0.02, 0.08) for n in range(4)], AS_OF).harmful, "that may be chance"
    assert not realised([looked(n, 0.02) for n in range(4)], AS_OF).harmful


def test_each_promotion_counts_once_with_its_last_word():
    rows = [
        looked(1, None),
        looked(1, -0.03, days=1, kind=DecisionKind.WATCHED),
        looked(1, 0.5, days=2, kind=DecisionKind.WATCHED),
        looked(2, -0.03, days=3),
        looked(3, -0.03, days=4),
    ]
    found = realised(rows, AS_OF)
    assert (found.promotions, found.point) == (3, pytest.approx(1 - 1.03**3))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no promotion"),
        pytest.param([looked(1, -0.5), looked(2, -0.5)], id="two"),
        pytest.param([looked(n, None) for n in range(5)], id="none could be compared"),
        pytest.param([looked(n, -0.5, days=366 + n) for n in range(5)], id="more than a year ago"),
        pytest.param([looked(n, -0.5, days=-1) for n in range(5)], id="of a later time"),
        pytest.param([looked(n, 1.0) for n in range(5)], id="a champion that was perfect"),
        pytest.param([looked(n, -0.5, confidence=None) for n in range(5)], id="of an earlier release"),
    ],
)
def test_too_little_is_known(rows):
    assert realised(rows, AS_OF) is None


def test_the_newest_twelve_count():
    rows = [looked(n, 0.01) for n in range(12)] + [looked(n, -0.9) for n in range(12, 20)]
    assert realised(rows, AS_OF).promotions == 12
    assert realised(rows, AS_OF).point > 0


def test_a_training_asks_the_ledger(world, mlflow_url, start, change):
    made = world.with_model(
        change(world.model, gate={"on_drift": "unless_worse", "otherwise": "unless_worse"})
    )
    made.land(start, 45)
    made.promote(start + 30 * DAY, "dag/first")
    as_of = start + 31 * DAY
    with connect() as conn:
        for number in range(3):
            row = looked(number, -0.1, days=(AS_OF - as_of) / DAY + 1)
            ledger.append(conn, row)
        assert len(ledger.find(conn, model_subject("rides"), KINDS)) == 3
    told = {c.check: c for c in made.train(as_of, "dag/second").verdict.checks}
    assert told["realised_gain"].sentence.startswith("the newest 3 promotions together made ")
    assert "beats_champion" in told
    assert "not_surely_worse" not in told
