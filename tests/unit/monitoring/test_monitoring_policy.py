"""The trigger policy as a table: the rule holds once, then each part of it is broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from monitoring_scene import CUTOFF, WEEK, model

from evergreen.ledger import Decision, Kind
from evergreen.monitoring.judgement import Judgement, MetricResult, Status, Violation, What
from evergreen.monitoring.policy import Action, Hold, Quiet, decide

AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
KIND = Violation(What.NEW_CATEGORY, "kind", "unseen_share", 0.4, 0.05)
GUESS = Violation(What.PREDICTION_DRIFT, "_prediction", "wasserstein", 0.5, 0.2)
ERROR = Violation(What.PERFORMANCE, "rmse", "rmse", 9.0, 1.3)
BROKEN = Violation(What.UNREADABLE, "amount", "wasserstein", None, 0.2)
GONE = Violation(What.MISSING, "amount", "missing_rise", 1.0, 0.05)
SMALL = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.1, 0.2)
RULE = model(trigger={"m": 2, "n": 3, "cooldown": "14d"})


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


def asked(number: int, when: datetime, *drifted: str, version: str = "3") -> Decision:
    return Decision(
        when, "model/watched", Kind.RETRAIN_REQUESTED, "data_drift", "m/1", f"policy:{number}",
        {"drifted": list(drifted)}, version, id=number,
    )  # fmt: skip


def answer(number: int, request: int, kind: Kind = Kind.REJECTED) -> Decision:
    return Decision(
        CUTOFF,
        "model/watched",
        kind,
        "not_better_than_champion",
        "t/1",
        f"train:{number}",
        {},
        "4",
        (request,),
        number,
    )


OK, STALE, FEW = Status.OK, Status.STALE, Status.INSUFFICIENT


@pytest.mark.parametrize(
    ("judgements", "action", "reason"),
    [
        pytest.param(windows(OK, AMOUNT, AMOUNT), Action.REQUEST, "data_drift", id="two of three and the newest"),
        pytest.param(windows(AMOUNT, OK, AMOUNT), Action.REQUEST, "data_drift", id="with a quiet one between"),
        pytest.param(windows(AMOUNT, AMOUNT), Action.REQUEST, "data_drift", id="m windows suffice before there are n"),
        pytest.param(windows(), Action.NONE, Quiet.NO_WINDOWS, id="no window"),
        pytest.param(windows(OK, OK, AMOUNT), Action.NONE, Quiet.TOO_FEW_VIOLATIONS, id="one window only"),
        pytest.param(windows(AMOUNT, OK, OK, AMOUNT), Action.NONE, Quiet.TOO_FEW_VIOLATIONS, id="the other one too long ago"),
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
        pytest.param(labelled(windows(OK, ERROR, OK, OK), 0, 1), Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT, id="error in one window only"),
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
        pytest.param(TWICE, [asked(1, OLD, "data_drift:amount", version="2"), answer(2, 1, Kind.PROMOTED)], "data_drift", id="answered for another champion"),
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
    assert bool(verdict.evidence.get("message")) is held


def test_the_evidence_names_values_limits_windows_and_since():
    verdict = decide(RULE, windows(AMOUNT, OK, (AMOUNT, GUESS)), [], NOW)
    assert verdict.signature == "data_drift:_prediction+amount"
    assert verdict.evidence["since"] == CUTOFF.isoformat()
    assert verdict.evidence["judgements"] == [1, 3]
    assert verdict.evidence["causes"] == ["data_drift:amount", "prediction_drift:_prediction"]
    assert verdict.evidence["windows"][0]["effects"] == [
        {"kind": "data_drift", "column": "amount", "statistic": "wasserstein", "value": 0.9, "limit": 0.2}
    ]


def test_a_metric_of_which_larger_is_better_counts_below_its_limit():
    low = Violation(What.PERFORMANCE, "roc_auc", "roc_auc", 0.6, 0.8)
    assert decide(RULE, windows(low, low), [], NOW).reason.value == "performance"
    high = replace(low, value=0.9)
    assert decide(RULE, windows(high, high), [], NOW).action is Action.NONE
