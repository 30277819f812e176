"""What asks for a training though nothing drifted: age, new rows, another spec; and what answers each."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from monitoring_scene import CUTOFF, WEEK, model

from evergreen.ledger import Decision
from evergreen.ledger.reasons import OF_UPKEEP, DecisionKind, Hold
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.decide import decide
from evergreen.monitoring.trigger.verdict import Action, Quiet
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status, Violation, What
from evergreen.spec import ModelSpec

DAY = timedelta(days=1)
AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
FACTS = ChampionFacts(trained_as_of=CUTOFF, trained_rows=1000, new_rows=400, rows_since_training=400, trained_hash="a", spec_hash="a")  # fmt: skip
OLD = model(trigger={"max_age": "60d"})
GROWN = model(trigger={"new_rows": 0.5})
CHANGED = model(trigger={"on_change": True})


def settled(
    number: int, when: datetime, reason: str = "not_better_than_champion", kind: DecisionKind = DecisionKind.REJECTED, **evidence: object
) -> Decision:  # fmt: skip
    return Decision(
        when,
        "model/watched",
        kind,
        reason,
        "t/1",
        f"train:{number}",
        evidence,
        f"{number}",
        (number - 100,),
        number,
    )


def asked(number: int, when: datetime, reason: str, basis: str = "") -> Decision:
    evidence = {"basis": basis}
    return Decision(
        when,
        "model/watched",
        DecisionKind.RETRAIN_REQUESTED,
        reason,
        "m/1",
        f"policy:{number}",
        evidence,
        "3",
        id=number,
    )


def windows(*violations: Violation) -> list[Judgement]:
    """Two windows, both with these violations."""
    status = Status.VIOLATION if violations else Status.OK
    return [
        Judgement(
            "watched", "3", start, start + WEEK, 1, start + WEEK, status, 168, 168, 168, violations=violations,
            id=number,
        )
        for number, start in enumerate((CUTOFF, CUTOFF + WEEK))
    ]  # fmt: skip


DEFAULT = {"trigger": {}}


@pytest.mark.parametrize(
    ("spec", "facts", "age", "reason"),
    [
        pytest.param(OLD, FACTS, 60 * DAY, "staleness", id="as old as allowed"),
        pytest.param(OLD, FACTS, 60 * DAY - timedelta(minutes=1), None, id="a minute younger"),
        pytest.param(model(), FACTS, 8 * WEEK, "staleness", id="eight windows by default"),
        pytest.param(model(), FACTS, 8 * WEEK - timedelta(minutes=1), None, id="a minute less"),
        pytest.param(model(trigger={"max_age": None}), FACTS, 6000 * DAY, None, id="age can be turned off"),
        pytest.param(GROWN, replace(FACTS, rows_since_training=500), DAY, "new_data", id="half of the rows are new"),
        pytest.param(GROWN, replace(FACTS, rows_since_training=499), DAY, None, id="one less"),
        pytest.param(GROWN, replace(FACTS, rows_since_training=None), DAY, None, id="not counted"),
        pytest.param(GROWN, replace(FACTS, rows_since_training=500, trained_rows=None), DAY, None, id="half of nobody knows what"),
        pytest.param(model(), replace(FACTS, rows_since_training=9999), DAY, None, id="new rows are off by default"),
        pytest.param(CHANGED, replace(FACTS, spec_hash="b"), DAY, "code_change", id="another spec"),
        pytest.param(CHANGED, FACTS, DAY, None, id="the same spec"),
        pytest.param(CHANGED, replace(FACTS, spec_hash="b", trained_hash=None), DAY, None, id="a champion from before the hash"),
        pytest.param(model(), replace(FACTS, spec_hash="b"), DAY, None, id="a model with a schedule waits for it"),
        pytest.param(model(trigger={"max_age": "1d", "new_rows": 0.1, "on_change": True}), replace(FACTS, spec_hash="b"), DAY, "code_change", id="the spec before all"),
        pytest.param(model(trigger={"max_age": "1d", "new_rows": 0.1}), FACTS, DAY, "new_data", id="rows before age"),
        pytest.param(OLD, ChampionFacts(), 6000 * DAY, None, id="nothing known, nothing asked"),
    ],
)  # fmt: skip
def test_what_asks(spec, facts, age, reason):
    verdict = decide(spec, [], [], CUTOFF + age, facts)
    assert verdict.action is (Action.REQUEST if reason else Action.NONE)
    assert verdict.reason.value == (reason or Quiet.NO_WINDOWS.value)
    assert bool(verdict.evidence.to_json().get("message")) is bool(reason)


@pytest.mark.parametrize("reason", OF_UPKEEP, ids=lambda r: r.value)
def test_each_reason_of_upkeep_has_a_case(reason):
    text = Path(__file__).read_text(encoding="utf-8")
    assert f'"{reason.value}"' in text or str(reason) in text


def test_a_model_without_a_schedule_is_asked_for_when_its_spec_changes():
    unscheduled = ModelSpec.model_validate({**model().model_dump(), "schedule": None})
    never = ModelSpec.model_validate({**model(trigger={"on_change": False}).model_dump(), "schedule": None})
    other = replace(FACTS, spec_hash="b")
    assert decide(unscheduled, [], [], CUTOFF + DAY, other).reason.value == "code_change"
    assert decide(never, [], [], CUTOFF + DAY, other).action is Action.NONE


LATER = CUTOFF + 30 * DAY


@pytest.mark.parametrize(
    ("earlier", "age", "asks"),
    [
        pytest.param([settled(101, LATER)], 60, False, id="a rejection answers it"),
        pytest.param([settled(101, LATER)], 89, False, id="for as long again"),
        pytest.param([settled(101, LATER)], 90, True, id="counted from that training"),
        pytest.param([settled(101, LATER, "champion_unavailable")], 60, True, id="not one that could not tell"),
        pytest.param([settled(101, CUTOFF - DAY)], 60, True, id="not one from before the champion"),
        pytest.param([settled(101, LATER, "better_than_champion", DecisionKind.PROMOTED)], 60, False, id="a champion that was taken back does"),
    ],
)  # fmt: skip
def test_age_counts_from_the_newest_training_that_came_to_an_answer(earlier, age, asks):
    verdict = decide(OLD, [], earlier, CUTOFF + age * DAY, FACTS)
    assert verdict.action is (Action.REQUEST if asks else Action.NONE)


@pytest.mark.parametrize(
    ("earlier", "asks"),
    [
        pytest.param([settled(101, LATER, training_hash="b")], False, id="a training of this spec was rejected"),
        pytest.param([settled(101, LATER, training_hash="a")], True, id="one of the old spec was"),
        pytest.param([settled(101, LATER)], True, id="one that does not say"),
        pytest.param([settled(101, LATER, "too_few_rows", training_hash="b")], True, id="one that could not tell"),
        pytest.param([settled(101, LATER, "first_champion", DecisionKind.PROMOTED, training_hash="b")], False, id="it was promoted and taken back"),
        pytest.param([settled(101, CUTOFF - DAY, "x", DecisionKind.PROMOTED, training_hash="b")], True, id="an earlier champion had it: the spec was changed back"),
    ],
)  # fmt: skip
def test_a_changed_spec_is_answered_by_a_training_of_it(earlier, asks):
    verdict = decide(CHANGED, [], earlier, CUTOFF + 40 * DAY, replace(FACTS, spec_hash="b"))
    assert verdict.action is (Action.REQUEST if asks else Action.NONE)


NOW = CUTOFF + 100 * DAY
CLOSED = settled(101, NOW - 100 * DAY, "champion_unavailable")


@pytest.mark.parametrize(
    ("earlier", "facts", "hold"),
    [
        pytest.param(
            [asked(1, NOW - DAY, "data_drift")], FACTS, Hold.ALREADY_OPEN, id="another request is open"
        ),
        pytest.param([asked(1, NOW - DAY, "manual"), CLOSED], FACTS, Hold.COOLDOWN, id="the cool-down"),
        pytest.param([], replace(FACTS, new_rows=0), Hold.TOO_LITTLE_NEW_DATA, id="no new row"),
    ],
)
def test_what_holds_it_back(earlier, facts, hold):
    verdict = decide(OLD, [], earlier, NOW, facts)
    assert (verdict.action, verdict.reason, verdict.evidence.to_json()["asks"]) == (
        Action.SUPPRESS,
        hold,
        "staleness",
    )


def test_the_budget_holds_it_back_too():
    quick = model(trigger={"max_age": "60d", "cooldown": "1h", "budget": 1})
    verdict = decide(quick, [], [asked(1, NOW - DAY, "staleness"), CLOSED], NOW, FACTS)
    assert (verdict.reason, verdict.evidence.to_json()["spent"]) == (Hold.BUDGET_SPENT, [1])


def test_the_rows_of_a_changed_spec_need_not_be_new():
    facts = replace(FACTS, spec_hash="b", new_rows=0)
    assert decide(CHANGED, [], [], NOW, facts).action is Action.REQUEST


def errors(*values: float | None, decayed: float | None = 13.0, **other: object) -> list[Judgement]:
    """A window a week with these served errors; None: not enough labels yet."""
    return [
        Judgement(
            "watched", "3", start, start + WEEK, 1, start + WEEK, other.get("status", Status.OK), 168, 168, 168, id=number,
            metrics={"rmse": MetricResult(v, 40.0, 10.0, "not_yet" if v is None else "judged", decayed=decayed)},
        )
        for number, (start, v) in enumerate((CUTOFF + n * WEEK, v) for n, v in enumerate(values))
    ]  # fmt: skip


DECAYED = errors(11, 14, 15)


@pytest.mark.parametrize(
    ("spec", "judged", "earlier", "asks"),
    [
        pytest.param(model(), DECAYED, [], True, id="two of three and the newest"),
        pytest.param(model(), errors(14, 11, 15), [], True, id="not in a row"),
        pytest.param(model(), errors(14, 15), [], True, id="two of two"),
        pytest.param(model(), errors(14, None, 15, None), [], True, id="of those with labels"),
        pytest.param(model(), errors(14, 15, 11), [], False, id="the newest is fine"),
        pytest.param(model(), errors(11, 11, 15), [], False, id="one of three"),
        pytest.param(model(), errors(14, 11, 11, 15), [], False, id="too long ago"),
        pytest.param(model(), errors(13, 13), [], False, id="worse by as much as is allowed"),
        pytest.param(model(), errors(14, 15, decayed=None), [], False, id="judged by an earlier release"),
        pytest.param(model(trigger={"decay": False}), DECAYED, [], False, id="turned off"),
        pytest.param(model(trigger={"m": 3}), DECAYED, [], False, id="the spec's m of n"),
        pytest.param(model(), errors(14, 15, status=Status.STALE), [], False, id="rows stopped coming"),
        pytest.param(model(), DECAYED, [settled(101, CUTOFF + 3 * WEEK)], False, id="a rejection answers it"),
        pytest.param(model(), DECAYED, [settled(101, CUTOFF + 3 * WEEK, "champion_unavailable")], True, id="not one that could not tell"),
        pytest.param(model(), DECAYED, [settled(101, CUTOFF - DAY)], True, id="not one from before the champion"),
    ],
)  # fmt: skip
def test_a_champion_that_decays_within_what_chance_does_is_asked_for(spec, judged, earlier, asks):
    verdict = decide(spec, judged, earlier, CUTOFF + 4 * WEEK, FACTS)
    assert verdict.action is (Action.REQUEST if asks else Action.NONE)
    if asks:
        assert (verdict.reason.value, verdict.hits) == ("decay", ()), (
            "no window is in violation, so nobody is alarmed"
        )
        assert (
            "10 on the holdout: worse by more than monitoring.performance.max_worse (30%)"
            in verdict.evidence.to_json()["message"]
        )


def test_of_a_metric_of_which_larger_is_better_less_is_decay():
    spec = model("binary", performance={"metric": "roc_auc"})

    def judged(value: float) -> list[Judgement]:
        found = {"roc_auc": MetricResult(value, 0.4, 0.9, "judged", decayed=0.63)}
        return [replace(j, metrics=found) for j in errors(1, 1)]

    assert decide(spec, judged(0.6), [], CUTOFF + 2 * WEEK, FACTS).reason.value == "decay"
    assert decide(spec, judged(0.65), [], CUTOFF + 2 * WEEK, FACTS).action is Action.NONE


def test_decay_waits_for_new_rows_and_for_an_alarm_that_says_more():
    held = decide(model(), DECAYED, [], CUTOFF + 3 * WEEK, replace(FACTS, new_rows=0))
    assert (held.reason, held.evidence.to_json()["asks"]) == (Hold.TOO_LITTLE_NEW_DATA, "decay")
    beyond = Violation(What.PERFORMANCE, "rmse", "rmse", 50.0, 40.0)
    alarmed = [replace(j, status=Status.VIOLATION, violations=(beyond,)) for j in DECAYED]
    assert decide(model(), alarmed, [], CUTOFF + 3 * WEEK, FACTS).reason.value == "performance"


def test_its_own_open_request_is_the_answer_not_another_row():
    request = asked(1, NOW - DAY, "staleness", CUTOFF.isoformat())
    verdict = decide(OLD, [], [request], NOW, FACTS)
    assert (verdict.reason, verdict.covered_by) == (Hold.ALREADY_OPEN, request)


def test_a_drift_comes_first_and_a_drift_that_is_held_back_hides_nothing():
    both = replace(FACTS, spec_hash="b")
    now = CUTOFF + 2 * WEEK
    assert decide(CHANGED, windows(AMOUNT), [], now, both).reason.value == "data_drift"
    assert decide(CHANGED, windows(), [], now, both).reason.value == "code_change"
    spent = [
        Decision(
            CUTOFF + n * DAY, "model/watched", DecisionKind.RETRAIN_REQUESTED, "data_drift", "m/1", f"policy:{n}",
            {"drifted": ["data_drift:amount"], "windows": [{"start": CUTOFF.isoformat(), "end": now.isoformat()}]}, "3", id=n,
        )
        for n in (1, 2)
    ]  # fmt: skip
    given_up = [*spent, settled(101, CUTOFF + DAY), settled(102, CUTOFF + 2 * DAY)]
    after = now + 2 * WEEK
    assert decide(CHANGED, windows(AMOUNT), given_up, after, FACTS).reason is Hold.ALREADY_ANSWERED
    assert decide(CHANGED, windows(AMOUNT), given_up, after, both).reason.value == "code_change"


def test_too_few_windows_in_violation_hide_neither_a_request_nor_why_it_is_held_back():
    asks_twice = model(trigger={"on_change": True, "m": 3, "n": 4})
    both, now = replace(FACTS, spec_hash="b"), CUTOFF + 2 * WEEK
    assert decide(asks_twice, windows(AMOUNT), [], now, FACTS).reason is Hold.TOO_FEW_VIOLATIONS
    assert decide(asks_twice, windows(AMOUNT), [], now, both).reason.value == "code_change"
    request = asked(1, now - DAY, "code_change", "b")
    assert decide(asks_twice, windows(AMOUNT), [request], now, both).reason is Hold.ALREADY_OPEN
