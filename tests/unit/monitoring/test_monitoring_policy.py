"""The trigger policy as a table: the rule holds once, then each part of it is broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from monitoring_scene import CUTOFF, WEEK, model

from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import AskingWindow, RetrainEvidence
from evergreen.ledger.reasons import (
    CONCLUSIVE,
    INCONCLUSIVE,
    NO_BETTER,
    PASSED,
    DecisionKind,
    GateReason,
    Hold,
    RulingReason,
)
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.decide import decide
from evergreen.monitoring.trigger.verdict import Action, Quiet
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status, Violation, What

AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
KIND = Violation(What.NEW_CATEGORY, "kind", "unseen_share", 0.4, 0.05)
GUESS = Violation(What.PREDICTION_DRIFT, "_prediction", "wasserstein", 0.5, 0.2)
ERROR = Violation(What.PERFORMANCE, "rmse", "rmse", 9.0, 1.3)
BROKEN = Violation(What.UNREADABLE, "amount", "wasserstein", None, 0.2)
GONE = Violation(What.MISSING, "amount", "missing_rise", 1.0, 0.05)
SMALL = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.1, 0.2)
RULE = model(trigger={"m": 2, "n": 3, "cooldown": "14d", "again": None})
AGAIN = model(trigger={"m": 2, "n": 3, "cooldown": "14d"})


def windows(*found: object, rows: int = 168) -> list[Judgement]:
    """Judged windows in a row: a status, or violations (one or a tuple)."""
    made = []
    for number, what in enumerate(found):
        start = CUTOFF + number * WEEK
        status = what if isinstance(what, Status) else Status.VIOLATION
        violations = () if isinstance(what, Status) else what if isinstance(what, tuple) else (what,)
        made.append(
            Judgement(
                "watched", "3", start, start + WEEK, 1, start + WEEK, status, rows, rows, rows,
                violations=violations, id=number + 1,
            )
        )  # fmt: skip
    return made


def labelled(judgements: list[Judgement], *which: int) -> list[Judgement]:
    """The same, with the served error judged in some windows and `not_yet` in the others."""
    states = {
        True: {"rmse": MetricResult(1.0, 1.3, 1.0, "judged")},
        False: {"rmse": MetricResult(None, 1.3, 1.0, "not_yet")},
    }
    return [replace(j, metrics=states[i in which]) for i, j in enumerate(judgements)]


def end(number: int) -> datetime:
    return CUTOFF + number * WEEK


def asked(number: int, when: datetime, *drifted: str, version: str = "3", newest: int = 1) -> Decision:
    """A request about the windows up to the one numbered `newest`."""
    window = AskingWindow(start=end(newest), end=end(newest + 1))
    evidence = RetrainEvidence(drifted=drifted, windows=(window,))
    return Decision(
        when, "model/watched", DecisionKind.RETRAIN_REQUESTED, "data_drift", "m/1", f"policy:{number}",
        evidence, version, id=number,
    )  # fmt: skip


def answer(
    number: int,
    request: int,
    kind: DecisionKind = DecisionKind.REJECTED,
    reason: str = "not_better_than_champion",
    when: datetime = CUTOFF,
) -> Decision:
    return Decision(
        when, "model/watched", kind, reason, "t/1", f"train:{number}", {}, "4", (request,), number
    )  # fmt: skip


OK, STALE, FEW = Status.OK, Status.STALE, Status.INSUFFICIENT


@pytest.mark.parametrize(
    ("judgements", "action", "reason"),
    [
        pytest.param(windows(OK, AMOUNT, AMOUNT), Action.REQUEST, "data_drift", id="two of three and the newest"),
        pytest.param(windows(AMOUNT, OK, AMOUNT), Action.REQUEST, "data_drift", id="with a quiet one between"),
        pytest.param(windows(AMOUNT, AMOUNT), Action.REQUEST, "data_drift", id="m windows suffice before there are n"),
        pytest.param(windows(), Action.NONE, Quiet.NO_WINDOWS, id="no window"),
        pytest.param(windows(OK, OK, AMOUNT), Action.SUPPRESS, Hold.TOO_FEW_VIOLATIONS, id="one window only"),
        pytest.param(windows(AMOUNT, OK, OK, AMOUNT), Action.SUPPRESS, Hold.TOO_FEW_VIOLATIONS, id="the other one too long ago"),
        pytest.param(windows(AMOUNT, AMOUNT, OK), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="not the newest"),
        pytest.param(windows(AMOUNT, AMOUNT, STALE), Action.NONE, Quiet.NEWEST_NOT_JUDGED, id="the newest is stale"),
        pytest.param(windows(AMOUNT, AMOUNT, FEW), Action.NONE, Quiet.NEWEST_NOT_JUDGED, id="the newest has too few rows"),
        pytest.param(windows(STALE, FEW, STALE), Action.NONE, Quiet.NEWEST_NOT_JUDGED, id="nothing but data problems"),
        pytest.param(windows(AMOUNT, FEW, STALE, AMOUNT), Action.REQUEST, "data_drift", id="data problems are not healthy windows"),
        pytest.param(windows(SMALL, SMALL), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="no effect beyond its limit"),
        pytest.param(windows(BROKEN, BROKEN), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="unreadable is no effect"),
        pytest.param(windows((BROKEN, GONE), (BROKEN, GONE)), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="a column that is gone is no drift"),
        pytest.param(windows(AMOUNT, AMOUNT, rows=49), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="fewer than min_rows"),
        pytest.param(windows(GUESS, GUESS), Action.REQUEST, "prediction_drift", id="reason: predictions"),
        pytest.param(windows(KIND, (GUESS, KIND)), Action.REQUEST, "data_drift", id="reason: data before predictions"),
        pytest.param(windows((ERROR, AMOUNT), (AMOUNT, GUESS)), Action.REQUEST, "performance", id="reason: error before all"),
        pytest.param(labelled(windows(ERROR, ERROR, OK, OK), 0, 1), Action.REQUEST, "performance", id="error counts by its own newest window"),
        pytest.param(labelled(windows(ERROR, ERROR, OK, OK), 0, 1, 2), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="whose newest is healthy"),
        pytest.param(labelled(windows(OK, ERROR, OK, OK), 0, 1), Action.SUPPRESS, Hold.TOO_FEW_VIOLATIONS, id="error in one window only"),
    ],
)  # fmt: skip
def test_the_rule(judgements, action, reason):
    verdict = decide(RULE, judgements, [], end(4))
    assert (verdict.action, verdict.reason.value) == (action, getattr(reason, "value", reason))


TWICE = windows(AMOUNT, AMOUNT)
NOW = end(2)
OLD = NOW - timedelta(days=15)


@pytest.mark.parametrize(
    ("judgements", "requests", "reason"),
    [
        pytest.param(TWICE, [asked(1, OLD, "data_drift:amount")], Hold.ALREADY_OPEN, id="an open request for it"),
        pytest.param(TWICE, [asked(1, OLD)], Hold.ALREADY_OPEN, id="an open request of a person"),
        pytest.param(TWICE, [asked(1, OLD, "data_drift:amount"), answer(2, 1)], Hold.ALREADY_ANSWERED, id="answered by a rejection"),
        pytest.param(TWICE, [asked(1, OLD, "data_drift:amount", "data_drift:pressure"), answer(2, 1)], Hold.ALREADY_ANSWERED, id="part of what was answered"),
        pytest.param(windows(AMOUNT, (AMOUNT, KIND)), [asked(1, OLD, "data_drift:amount"), answer(2, 1)], "data_drift", id="a column more is a new drift"),
        pytest.param(windows(AMOUNT, (AMOUNT, ERROR)), [asked(1, OLD, "data_drift:amount"), answer(2, 1)], "performance", id="another kind is a new drift"),
        pytest.param(TWICE, [asked(1, OLD, "data_drift:amount", version="2"), answer(2, 1, DecisionKind.PROMOTED)], "data_drift", id="answered for another champion"),
        pytest.param(TWICE, [asked(1, OLD, "data_drift:kind"), answer(2, 1)], "data_drift", id="answered was another drift"),
        pytest.param(TWICE, [asked(1, NOW - timedelta(days=13), "x:y"), answer(2, 1)], Hold.COOLDOWN, id="within the cool-down"),
        pytest.param(TWICE, [asked(1, NOW - timedelta(days=14), "x:y"), answer(2, 1)], "data_drift", id="at its end"),
        pytest.param(TWICE, [asked(1, NOW + timedelta(days=3), "x:y"), answer(2, 1)], "data_drift", id="a later request is not past"),
    ],
)  # fmt: skip
def test_what_holds_a_request_back(judgements, requests, reason):
    verdict = decide(RULE, judgements, requests, NOW)
    held = isinstance(reason, Hold)
    assert verdict.action is (Action.SUPPRESS if held else Action.REQUEST)
    assert verdict.reason.value == (reason.value if held else reason)
    assert bool(verdict.evidence.to_json().get("message")) is held


DRIFT = "data_drift:amount"
BAD = "performance:rmse"
ONCE = [asked(1, end(2), DRIFT), answer(2, 1)]
LATER = end(4) + timedelta(hours=1)


def test_every_reason_is_on_one_side():
    """A new one must be put there: a drift is asked for again after it, or it counts towards calling a person."""
    sides = [*PASSED, *CONCLUSIVE, *INCONCLUSIVE]
    assert sorted(r.value for r in sides) == sorted(r.value for r in (*GateReason, *RulingReason))


@pytest.mark.parametrize(
    ("reason", "after", "held"),
    [
        *(pytest.param(r.value, 15, Hold.ALREADY_ANSWERED, id=f"{r.value} is an answer") for r in CONCLUSIVE),
        *(pytest.param(r.value, 15, None, id=f"{r.value} is none") for r in INCONCLUSIVE),
        pytest.param("champion_unavailable", 13, Hold.COOLDOWN, id="but the cool-down holds"),
    ],
)
def test_only_a_challenger_that_was_judged_answers_a_drift(reason, after, held):
    when = end(2) + timedelta(days=after)
    verdict = decide(RULE, TWICE, [asked(1, end(2), DRIFT), answer(2, 1, reason=reason)], when)
    assert (verdict.reason if held else verdict.action) is (held or Action.REQUEST)


def rejected(reasons: list[str]) -> list[Decision]:
    """A request about ever newer windows and its rejection, for each reason."""
    found = []
    for number, reason in enumerate(reasons):
        found += [asked(2 * number + 1, end(number + 2), DRIFT, newest=number + 1)]
        found += [answer(2 * number + 2, 2 * number + 1, reason=reason)]
    return found


@pytest.mark.parametrize("reason", INCONCLUSIVE, ids=lambda r: r.value)
def test_rejections_that_could_not_tell_never_add_up_to_giving_up(reason):
    earlier = rejected([reason.value] * 4)
    assert decide(RULE, windows(*[AMOUNT] * 8), earlier, end(8)).action is Action.REQUEST


@pytest.mark.parametrize("reason", CONCLUSIVE, ids=lambda r: r.value)
def test_two_challengers_that_were_judged_and_rejected_call_a_person(reason):
    found = windows(*[AMOUNT] * 8)
    once = decide(RULE, found, rejected([reason.value]), end(8))
    assert once.action is Action.REQUEST, "newer windows may hold enough of the new world"
    verdict = decide(RULE, found, rejected(["champion_unavailable", reason.value, reason.value]), end(8))
    assert (verdict.action, verdict.reason) == (Action.SUPPRESS, Hold.ALREADY_ANSWERED)
    assert [d.id for d in verdict.gave_up] == [3, 5]
    assert [e["reason"] for e in verdict.evidence.to_json()["endings"]] == [reason.value] * 2
    message = verdict.evidence.to_json()["message"]
    assert "a person must look" in message
    assert ("the data of now does not mend this" in message) is (reason in NO_BETTER)
    assert (words.reason(reason.value) in message) is (reason not in NO_BETTER)


def test_two_answers_of_different_kinds_are_told_by_the_last():
    reasons = ["not_better_than_champion", "too_large"]
    for last in reasons:
        earlier = rejected([*(r for r in reasons if r != last), last])
        message = decide(RULE, windows(*[AMOUNT] * 8), earlier, end(8)).evidence.to_json()["message"]
        assert f"the last challenger was rejected: {words.reason(last)}; " in message


@pytest.mark.parametrize(
    ("judgements", "action"),
    [
        pytest.param(windows(AMOUNT, AMOUNT, OK, AMOUNT, AMOUNT), Action.REQUEST, id="a healthy window ends it"),
        pytest.param(windows(AMOUNT, AMOUNT, *[OK] * 48, AMOUNT, AMOUNT), Action.REQUEST, id="forty-eight do"),
        pytest.param(windows(AMOUNT, AMOUNT, FEW, STALE, AMOUNT, AMOUNT), Action.SUPPRESS, id="windows nobody could judge do not"),
        pytest.param(windows(AMOUNT, AMOUNT, BROKEN, BROKEN, AMOUNT, AMOUNT), Action.SUPPRESS, id="unreadable ones do not"),
        pytest.param(windows(OK, AMOUNT, AMOUNT, AMOUNT, AMOUNT), Action.SUPPRESS, id="a healthy one before the request does not"),
        pytest.param(windows(AMOUNT, AMOUNT, AMOUNT, OK, AMOUNT), Action.SUPPRESS, id="nor one between its own windows"),
    ],
)  # fmt: skip
def test_a_drift_is_the_same_only_in_one_unbroken_episode(judgements, action):
    twice = [asked(1, end(2), DRIFT), answer(2, 1), asked(3, end(2), DRIFT, newest=2), answer(4, 3)]
    verdict = decide(RULE, judgements, twice, end(80))
    assert verdict.action is action
    assert bool(verdict.gave_up) is (action is Action.SUPPRESS)


def test_an_error_far_worse_after_good_weeks_is_asked_for_though_the_first_was_answered():
    worse = replace(ERROR, value=30.0)
    found = labelled(windows(ERROR, ERROR, *[OK] * 48, worse, worse), *range(52))
    verdict = decide(RULE, found, [asked(1, end(2), BAD), answer(2, 1)], end(52))
    assert (verdict.action, verdict.reason.value, verdict.since) == (Action.REQUEST, "performance", end(50))
    assert verdict.covered_by is None


@pytest.mark.parametrize(
    ("labels_in", "action"), [((0, 1, 3, 4), Action.SUPPRESS), ((0, 1, 2, 3, 4), Action.REQUEST)]
)
def test_a_window_without_labels_is_no_end_of_a_drift_that_only_the_error_shows(labels_in, action):
    """Else each such window would let the answered drift be asked for twice more."""
    found = labelled(windows(ERROR, ERROR, OK, ERROR, ERROR), *labels_in)
    twice = [asked(1, end(2), BAD), answer(2, 1), asked(3, end(2), BAD, newest=2), answer(4, 3)]
    verdict = decide(RULE, found, twice, end(80))
    assert verdict.action is action
    assert bool(verdict.gave_up) is (action is Action.SUPPRESS)
    assert verdict.since == (CUTOFF if action is Action.SUPPRESS else end(3))


@pytest.mark.parametrize(
    ("judgements", "earlier", "when", "expected"),
    [
        pytest.param(windows(*[AMOUNT] * 4), ONCE, LATER, "data_drift", id="newer windows after the cool-down"),
        pytest.param(windows(*[AMOUNT] * 4), ONCE, end(4) - timedelta(hours=1), Hold.COOLDOWN, id="not before its end"),
        pytest.param(windows(AMOUNT, AMOUNT), ONCE, LATER, Hold.ALREADY_ANSWERED, id="not on the same windows"),
        pytest.param(windows(*[AMOUNT] * 4), [*ONCE, asked(3, end(3), DRIFT)], LATER, Hold.ALREADY_OPEN, id="not while the second is open"),
        pytest.param(windows(*[AMOUNT] * 9), [*ONCE, asked(3, end(4), DRIFT, newest=3), answer(4, 3)], end(9), Hold.ALREADY_ANSWERED, id="not a third time"),
        pytest.param(windows(*[AMOUNT] * 9), [*ONCE, asked(3, end(4), DRIFT, newest=3), answer(4, 3, reason="champion_unavailable")], end(9), "data_drift", id="the second could not tell"),
    ],
)  # fmt: skip
def test_one_more_request_in_the_same_episode(judgements, earlier, when, expected):
    verdict = decide(RULE, judgements, earlier, when)
    assert verdict.reason.value == getattr(expected, "value", expected)
    assert verdict.since == CUTOFF


def test_giving_up_says_that_a_person_must_look():
    earlier = [*ONCE, asked(3, end(4), DRIFT, newest=3), answer(4, 3)]
    verdict = decide(RULE, windows(*[AMOUNT] * 9), earlier, end(9))
    assert [d.id for d in verdict.gave_up] == [1, 3]
    assert "did not help twice" in verdict.evidence.to_json()["message"]
    assert "a person must look" in verdict.evidence.to_json()["message"]
    assert verdict.evidence.to_json()["message"].endswith("it is not asked for again while it lasts")


HAD = 1000
DAY = timedelta(days=1)


def twice(*kinds: DecisionKind, rows: int | None = HAD) -> list[Decision]:
    """Requests for the same drift of ever newer windows, each answered at once; the last one as of `end(4)`."""
    made = []
    for number, kind in enumerate(kinds):
        when = end(4 - 2 * (len(kinds) - 1 - number))
        reply = answer(2 * number + 2, 2 * number + 1, kind, when=when)
        made += [
            asked(2 * number + 1, when, DRIFT, newest=number + 1),
            replace(reply, evidence={"rows": {"all": rows}} if rows else {}),
        ]
    return made


@pytest.mark.parametrize(
    ("trigger", "earlier", "days", "rows", "reopens"),
    [
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2), 27, 0, False, id="before the time"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2), 28, 1, True, id="when the time has passed"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2), 27, 500, True, id="with half as many new rows"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2), 27, 499, False, id="not with fewer"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2), 13, 5000, False, id="rows do not end the cool-down"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 3), 27, 999, False, id="after three answers it takes twice the rows"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 3), 27, 1000, True, id="or as many as it had"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 3), 28, 1, True, id="and the same time"),
        pytest.param({}, twice(*[DecisionKind.REJECTED] * 2, rows=None), 27, 50, True, id="of unknown rows: half of the champion's"),
        pytest.param({}, twice(DecisionKind.REJECTED, DecisionKind.PROMOTED), 400, 1, False, id="after a promotion time alone does not"),
        pytest.param({}, twice(DecisionKind.REJECTED, DecisionKind.PROMOTED), 27, 500, True, id="but rows do"),
        pytest.param({"again": None}, twice(*[DecisionKind.REJECTED] * 2), 400, 5000, False, id="never where the spec says so"),
        pytest.param({"again": "3d"}, twice(*[DecisionKind.REJECTED] * 2), 13, 1, False, id="never within the cool-down"),
        pytest.param({"again": "3d"}, twice(*[DecisionKind.REJECTED] * 2), 14, 1, True, id="at its end"),
    ],
)  # fmt: skip
def test_an_answered_drift_is_asked_for_again_after_a_time_or_with_new_rows(
    trigger, earlier, days, rows, reopens
):
    rule = model(trigger={"m": 2, "n": 3, "cooldown": "14d", **trigger})
    known = ChampionFacts(trained_rows=100, new_rows=rows, rows_since_answer=rows)
    verdict = decide(rule, windows(*[AMOUNT] * 80), earlier, end(4) + days * DAY, known)
    assert (verdict.action is Action.REQUEST) is reopens
    if reopens:
        assert verdict.evidence.to_json()["again"]["because"]
        assert verdict.evidence.to_json()["again"]["told_with"] == 3, "people know since the second one"
    elif days > 14:
        assert verdict.reason is Hold.ALREADY_ANSWERED
        assert len(verdict.gave_up) == len(earlier) // 2


def test_an_answered_drift_says_when_it_is_asked_for_again():
    verdict = decide(AGAIN, windows(*[AMOUNT] * 9), twice(*[DecisionKind.REJECTED] * 2), end(7))
    when = end(4) + 28 * DAY
    assert verdict.evidence.to_json()["again"] == {"from": when.isoformat(), "rows": 500, "answer": 4}
    assert verdict.evidence.to_json()["message"].endswith(
        f"if it lasts, it is asked for again from {when:%Y-%m-%d} on, or with 500 new rows"
    )
    assert verdict.again.rows == 500, "new rows are counted up to what reopens it"
    within = decide(AGAIN, windows(*[AMOUNT] * 9), twice(*[DecisionKind.REJECTED] * 2), end(5))
    assert within.again is None, "and not while the cool-down holds anyway"


@pytest.mark.parametrize(
    ("daily", "fewest", "most"), [(0, 25, 29), (10, 25, 29), (200, 27, 33)], ids=["few", "some", "many"]
)
def test_two_years_of_rejections_take_a_sensible_number_of_trainings(daily, fewest, most):
    """A schedule of 28 days trains 26 times; a stream of many rows is asked for sooner at first, and never more often."""
    rule, made = model(), []
    found = windows(*[AMOUNT] * 104)
    for number in range(2, 104):
        as_of, last = end(number), made[-1].as_of if made else CUTOFF
        known = ChampionFacts(trained_rows=HAD, new_rows=10, rows_since_answer=daily * (as_of - last).days)
        if decide(rule, found[:number], made, as_of, known).action is Action.REQUEST:
            request = asked(2 * number, as_of, DRIFT, newest=number - 1)
            reply = answer(2 * number + 1, 2 * number, when=as_of)
            made += [request, replace(reply, evidence={"rows": {"all": HAD}})]
    times = [d.as_of for d in made if d.kind is DecisionKind.RETRAIN_REQUESTED]
    assert fewest <= len(times) <= most
    assert max(b - a for a, b in pairwise(times)) <= 28 * DAY
    assert min(b - a for a, b in pairwise(times)) >= 7 * DAY


def test_decisions_as_of_a_later_time_are_not_seen():
    later = NOW + timedelta(minutes=1)
    assert decide(RULE, TWICE, [asked(1, later, DRIFT)], NOW).action is Action.REQUEST
    answered_later = [asked(1, OLD, DRIFT), answer(2, 1, when=later)]
    assert decide(RULE, TWICE, answered_later, NOW).reason is Hold.ALREADY_OPEN


def test_the_evidence_names_values_limits_windows_and_since():
    verdict = decide(RULE, windows(AMOUNT, OK, (AMOUNT, GUESS)), [], NOW)
    assert verdict.signature == "data_drift:_prediction+amount"
    assert verdict.evidence.to_json()["since"] == CUTOFF.isoformat()
    assert verdict.evidence.to_json()["judgements"] == [1, 3]
    assert verdict.evidence.to_json()["causes"] == ["data_drift:amount", "prediction_drift:_prediction"]
    assert verdict.evidence.to_json()["windows"][0]["effects"] == [
        {"kind": "data_drift", "column": "amount", "statistic": "wasserstein", "value": 0.9, "limit": 0.2}
    ]


def test_a_metric_of_which_larger_is_better_counts_below_its_limit():
    low = Violation(What.PERFORMANCE, "roc_auc", "roc_auc", 0.6, 0.8)
    assert decide(RULE, windows(low, low), [], NOW).reason.value == "performance"
    high = replace(low, value=0.9)
    assert decide(RULE, windows(high, high), [], NOW).action is Action.NONE
