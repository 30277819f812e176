"""Estimates beyond the limit that come and go: one incident, few mails, and an end; they stay estimates throughout."""

from __future__ import annotations

import pytest
from judged_windows import AMOUNT, promote
from monitoring_scene import CUTOFF, WEEK, at, model, specs

from evergreen.alerting.delivery import deliver
from evergreen.incidents import threads
from evergreen.ledger import find
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.alarms import early_alarm
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status, Violation, What
from evergreen.warehouse.connection import connect

ESTIMATE = Violation(What.ESTIMATED_PERFORMANCE, "rmse", "rmse", 2.0, 1.3)
WORSE = Violation(What.PERFORMANCE, "rmse", "rmse", 2.0, 1.3)
SPEC = model(performance={"estimate": True})


@pytest.fixture(autouse=True)
def champion(warehouse_url: str) -> None:
    """Version 1 is champion."""
    promote("1", CUTOFF)


def judged(
    number: int, *violations: Violation, state: str = "estimated", version: str = "1", revision: int = 1, as_of=None
) -> None:  # fmt: skip
    start = CUTOFF + number * WEEK
    value = violations[0].value if violations and state != "not_yet" else None
    with connect() as conn:
        store.insert(
            conn,
            Judgement(
                "watched", version, start, start + WEEK, revision, as_of or at(number + 1),
                Status.VIOLATION if violations else Status.OK, 168, 168, 168, violations=violations,
                metrics={"rmse": MetricResult(value, 1.3, 1.0, state)},
            ),
        )  # fmt: skip


def run(number: int, spec=SPEC) -> bool:
    """As the monitor does it; whether estimates owed a mail."""
    apply(spec, at(number + 1), f"monitor/{number}")
    return early_alarm.tell(spec, at(number + 1), f"monitor/{number}")


def drive(pattern: str, first: int = 0, spec=SPEC) -> None:
    """Windows of a pattern: E, estimated beyond the limit; o, estimated within; -, no estimate."""
    for number, what in enumerate(pattern, first):
        judged(number, *([ESTIMATE] if what == "E" else []), state="not_yet" if what == "-" else "estimated")
        run(number, spec)


def subjects(spec=SPEC) -> list[str]:
    sent = []
    deliver(specs(spec), sent.append)
    return [m["Subject"] for m in sent]


def mails() -> list[threads.Thread]:
    with connect() as conn:
        return threads.every(conn, "model/watched", "drift")


def still_open() -> list[str]:
    with connect() as conn:
        return [t.incident for t in threads.open_ones(conn)]


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        pytest.param("Eo", {}, id="every second"),
        pytest.param("EEo", {}, id="two of three"),
        pytest.param("EEoo", {}, id="two of four"),
        pytest.param("Eo", {"m": 1, "n": 1, "cooldown": "1d"}, id="every second, and one is enough"),
    ],
)
def test_an_estimate_that_comes_and_goes_is_few_mails_and_no_thread_stays_open(pattern, rule):
    spec = model(performance={"estimate": True}, trigger=rule)
    drive((pattern * 30)[:30], spec=spec)
    drive("o" * 20, first=30, spec=spec)
    with connect() as conn:
        owed = sum(t.mails for t in mails()) + len(find(conn, kinds=(DecisionKind.RECOVERED,)))
        assert find(conn, kinds=(DecisionKind.RETRAIN_REQUESTED,)) == []
    assert 2 <= owed <= 4
    assert still_open() == []


def test_an_estimate_in_every_second_window_is_one_incident_that_ends_when_it_stays_away():
    drive("Eo" * 15)
    assert len(mails()) == 1
    assert len(still_open()) == 1, "one window within the limit is no end of what is back in the next one"
    drive("oo", first=30)
    assert still_open() == []
    (told,) = mails()
    assert (told.since, told.mails) == (CUTOFF, 1)


def test_the_mails_about_estimates_say_that_they_are_estimates():
    drive("EE")
    (subject,) = subjects()
    assert subject == "[Evergreen] watched v1: estimated RMSE 2 above its limit 1.3"
    drive("oo", first=2)
    (subject,) = subjects()
    assert subject.startswith("[Evergreen] watched v1: recovered, the error is no longer estimated beyond")


def test_windows_that_nobody_could_estimate_or_judge_are_no_end():
    drive("EE---")
    assert len(still_open()) == 1
    for number in (0, 1):
        judged(number, state="judged", revision=2, as_of=at(6))
    drive("oo", first=5)
    assert still_open() == []


def test_labels_that_say_it_is_so_go_on_in_the_same_thread_and_the_drift_s_too():
    drive("EE")
    for number in (0, 1):
        judged(number, WORSE, state="judged", revision=2, as_of=at(2.1))
    made = apply(SPEC, at(2.1), "monitor/1")
    assert (made.kind, made.reason) == (DecisionKind.RETRAIN_REQUESTED, "performance")
    (thread,) = mails()
    assert (thread.mails, thread.classes) == (2, {"estimated_performance", "performance", "request"})


def test_an_estimate_beside_an_open_drift_is_an_update_of_it_once():
    for number in range(2):
        judged(number, AMOUNT)
        assert not run(number)
    told = []
    for number in range(2, 6):
        judged(number, AMOUNT, ESTIMATE)
        told.append(run(number))
    assert told == [False, True, False, False], "of the first window of two the estimate is no alarm yet"
    (thread,) = mails()
    assert thread.classes >= {"data_drift", "estimated_performance"}


def test_an_alarm_after_a_pause_of_the_monitor_is_told_and_the_old_one_is_ended():
    drive("EE")
    for number in range(2, 20):
        judged(number)
    for number in (20, 21):
        judged(number, ESTIMATE)
    assert run(21)
    new, old = mails()
    assert (old.end.reason, old.end.evidence.to_json()["ended"]) == (
        "windows_ok",
        (CUTOFF + 2 * WEEK).isoformat(),
    )
    assert (new.end, new.since) == (None, CUTOFF + 20 * WEEK)


def test_a_new_champion_ends_it_with_its_first_window_whose_error_is_known():
    drive("EE")
    promote("2", at(2.1))
    judged(2, state="not_yet", version="2")
    run(2)
    assert len(still_open()) == 1
    judged(3, version="2")
    run(3)
    assert still_open() == []


def test_it_ends_when_it_stays_away_for_longer_than_it_did_before():
    """Between the second alarm and the third window beyond the limit lie one that nobody could estimate and a good one."""
    drive("EE-oEoo")
    assert len(still_open()) == 1, "two good windows would be enough else"
    drive("o", first=7)
    assert still_open() == []
