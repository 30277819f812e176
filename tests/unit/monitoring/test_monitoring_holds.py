"""The budget and the least number of new rows: what they suppress, what they say, and where they end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from monitoring_scene import CUTOFF, WEEK, model

from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind, Hold
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.decide import decide
from evergreen.monitoring.trigger.verdict import Action
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What

AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
DAY = timedelta(days=1)
NOW = CUTOFF + 2 * WEEK
QUICK = model(trigger={"m": 2, "n": 3, "cooldown": "12h"})


def drifted() -> list[Judgement]:
    """Two windows in violation."""
    starts = [CUTOFF, CUTOFF + WEEK]
    return [
        Judgement(
            "watched", "3", start, start + WEEK, 1, start + WEEK, Status.VIOLATION, 168, 168, 168,
            violations=(AMOUNT,), id=number,
        )
        for number, start in enumerate(starts)
    ]  # fmt: skip


def answered(number: int, ago: timedelta, reason: str = "data_drift") -> list[Decision]:
    """A request about another drift, and the rejection that answered it."""
    asked = Decision(
        NOW - ago, "model/watched", DecisionKind.RETRAIN_REQUESTED, reason, "m/1", f"policy:{number}", {"drifted": ["x:y"]}, "3",
        id=number,
    )  # fmt: skip
    answer = Decision(
        NOW - ago, "model/watched", DecisionKind.REJECTED, "not_better_than_champion", "t/1", f"train:{number}", {}, "4",
        (number,), number + 1000,
    )  # fmt: skip
    return [asked, answer]


@pytest.mark.parametrize(
    ("earlier", "held"),
    [
        pytest.param([], None, id="nothing asked before"),
        pytest.param([(1, 6 * DAY)], None, id="one of two"),
        pytest.param([(1, 6 * DAY), (2, DAY)], Hold.BUDGET_SPENT, id="two of two"),
        pytest.param([(1, 7 * DAY), (2, DAY)], None, id="the first is seven days old"),
        pytest.param([(1, 7 * DAY - timedelta(minutes=1)), (2, DAY)], Hold.BUDGET_SPENT, id="a minute less"),
        pytest.param([(1, 6 * DAY, "staleness"), (2, DAY)], Hold.BUDGET_SPENT, id="whatever it asked for"),
        pytest.param(
            [(1, 6 * DAY), (2, timedelta(hours=11))], Hold.COOLDOWN, id="the cool-down is told first"
        ),
        pytest.param([(1, -DAY), (2, DAY), (3, -2 * DAY)], None, id="later requests are not past"),
    ],
)
def test_the_budget_of_seven_days(earlier, held):
    verdict = decide(QUICK, drifted(), [d for e in earlier for d in answered(*e)], NOW)
    assert verdict.action is (Action.SUPPRESS if held else Action.REQUEST)
    assert not held or verdict.reason is held


def test_a_spent_budget_names_what_spent_it_and_when_it_is_free():
    earlier = [*answered(1, 6 * DAY), *answered(2, 3 * DAY), *answered(3, DAY)]
    verdict = decide(QUICK, drifted(), earlier, NOW)
    # The first of the three falls out first, and one is too many even then.
    assert (verdict.evidence.to_json()["budget"], verdict.evidence.to_json()["spent"]) == (2, [1, 2, 3])
    assert verdict.evidence.to_json()["next_free"] == (NOW + 4 * DAY).isoformat()
    assert f"{NOW + 4 * DAY:%Y-%m-%d %H:%M}" in verdict.evidence.to_json()["message"]
    assert "budget, which is 2" in verdict.evidence.to_json()["message"]
    free = decide(QUICK, drifted(), earlier, NOW + 4 * DAY)
    assert free.action is Action.REQUEST


def test_the_budget_is_the_specs():
    wide = model(trigger={"m": 2, "n": 3, "cooldown": "12h", "budget": 3})
    assert decide(wide, drifted(), [*answered(1, 6 * DAY), *answered(2, DAY)], NOW).action is Action.REQUEST


@pytest.mark.parametrize(
    ("share", "trained", "new", "held"),
    [
        pytest.param(0.0, 1000, 0, True, id="no new row"),
        pytest.param(0.0, 1000, 1, False, id="one is enough by default"),
        pytest.param(0.0, None, 0, True, id="even if nobody knows how many it knew"),
        pytest.param(0.05, 1000, 49, True, id="less than the share"),
        pytest.param(0.05, 1000, 50, False, id="the share"),
        pytest.param(0.05, 1001, 50, True, id="rounded up"),
        pytest.param(0.05, None, 1, False, id="a share of what nobody knows is one row"),
        pytest.param(0.05, 1000, None, False, id="not counted suppresses nothing"),
    ],
)
def test_a_drift_waits_for_new_rows(share, trained, new, held):
    spec = model(trigger={"m": 2, "n": 3, "min_new_rows": share})
    facts = ChampionFacts(trained_as_of=CUTOFF, trained_rows=trained, new_rows=new)
    verdict = decide(spec, drifted(), [], NOW, facts)
    assert verdict.action is (Action.SUPPRESS if held else Action.REQUEST)
    if held:
        assert verdict.reason is Hold.TOO_LITTLE_NEW_DATA
        assert verdict.evidence.to_json()["new_rows"] == new
        assert "training on the same rows cannot help" in verdict.evidence.to_json()["message"]


def test_every_hold_is_met_by_a_case():
    text = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_monitoring_*.py"))
    assert [hold.name for hold in Hold if f"Hold.{hold.name}" not in text] == []


def test_what_is_told_first_is_what_holds_longest():
    """An open request or the cool-down, then too few rows: the count is not made where it changes nothing."""
    facts = ChampionFacts(trained_as_of=CUTOFF, trained_rows=1000, new_rows=0)
    assert decide(QUICK, drifted(), answered(1, DAY), NOW, facts).reason is Hold.TOO_LITTLE_NEW_DATA
    assert decide(QUICK, drifted(), answered(1, timedelta(hours=1)), NOW, facts).reason is Hold.COOLDOWN
    assert decide(QUICK, drifted(), answered(1, DAY)[:1], NOW, facts).reason is Hold.ALREADY_OPEN
