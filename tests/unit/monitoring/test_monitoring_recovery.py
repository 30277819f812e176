"""When a drift or a data problem has ended, what is told of it, and that what comes and goes is few mails."""

from __future__ import annotations

import pytest
from judged_windows import AMOUNT, BROKEN, FEW, KIND, LATE, SPEC, judged, mails, promote, reject
from monitoring_scene import CUTOFF, WEEK, at, model

from evergreen.ledger import Decision, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status, Violation, What
from evergreen.warehouse.connection import connect

WORSE = Violation(What.PERFORMANCE, "rmse", "rmse", 2.0, 1.0)


@pytest.fixture(autouse=True)
def champion(warehouse_url: str) -> None:
    """Version 1 is champion."""
    promote("1", CUTOFF)


def run(number: int, spec=SPEC) -> Decision | None:
    return apply(spec, at(number + 1), f"monitor/{number}")


def drift(*numbers: int) -> Decision:
    made = None
    for number in numbers:
        judged(number, AMOUNT)
        made = run(number)
    assert made is not None
    return made


def ends() -> list[Decision]:
    with connect() as conn:
        return find(conn, "model/watched", (DecisionKind.RECOVERED,))


def test_a_drift_is_over_after_as_many_healthy_windows_as_open_a_request():
    reject(drift(0, 1), at(2.1))
    judged(2)
    run(2)
    assert ends() == [], "one window of two"
    judged(3)
    run(3)
    (end,) = ends()
    assert (end.reason, end.version, end.evidence.to_json()["of"]) == ("windows_ok", "1", "drift")
    assert end.evidence.to_json()["since"] == CUTOFF.isoformat()
    assert end.evidence.to_json()["ended"] == (CUTOFF + 2 * WEEK).isoformat()
    assert [kind for kind, _ in mails()] == ["drift", "recovered"]
    run(3)
    judged(4)
    run(4)
    assert len(mails()) == 2, "once"


def test_while_a_request_is_open_nothing_is_over():
    request = drift(0, 1)
    for number in (2, 3, 4):
        judged(number)
        run(number)
    assert ends() == []
    reject(request, at(5.1))
    judged(5)
    run(5)
    assert len(ends()) == 1


def test_a_new_champion_ends_it_with_its_first_healthy_window():
    request = drift(0, 1)
    promote("2", at(2), (request.id,))
    run(1)
    assert ends() == [], "not before a window of it was judged"
    judged(2, version="2")
    run(2)
    (end,) = ends()
    assert (end.reason, end.version, end.evidence.to_json()["promotion"]["version"]) == (
        "new_champion",
        "2",
        "2",
    )


def test_a_new_champion_that_drifts_too_ends_nothing_and_is_no_new_incident():
    request = drift(0, 1)
    promote("2", at(2), (request.id,))
    for number in (2, 3):
        judged(number, AMOUNT, version="2")
        run(number)
    assert ends() == []
    assert len(mails()) == 1


@pytest.mark.parametrize("finding", [LATE, FEW, BROKEN], ids=["stale", "volume", "unreadable"])
def test_what_could_not_be_judged_is_not_healthy(finding: Violation):
    reject(drift(0, 1), at(2.1))
    judged(2)
    judged(3, finding)
    run(3)
    assert ends() == []


def with_error(
    number: int, *violations: Violation, state: str = "judged", revision: int = 1, as_of=None
) -> None:
    start = CUTOFF + number * WEEK
    status = Status.VIOLATION if violations else Status.OK
    with connect() as conn:
        store.insert(
            conn,
            Judgement(
                "watched", "1", start, start + WEEK, revision, as_of or at(number + 1), status, 168, 168, 168,
                violations=violations, metrics={"rmse": MetricResult(1.0, 1.0, 0.5, state)},
            ),
        )  # fmt: skip


def test_an_error_is_over_only_when_the_labels_say_so():
    for number in (0, 1):
        with_error(number, WORSE)
    reject(apply(SPEC, at(2), "monitor/1"), at(2.1))
    for number in (2, 3, 4):
        with_error(number, state="not_yet")
        run(number)
    assert ends() == [], "windows without labels say nothing about the error"
    for number in (2, 3):
        with_error(number, revision=2, as_of=at(6))
    with_error(5, state="not_yet")
    apply(SPEC, at(6.1), "monitor/6")
    assert len(ends()) == 1


def test_data_that_can_be_judged_again_is_told_whatever_comes_out():
    judged(0, LATE)
    run(0)
    judged(1, AMOUNT)
    run(1)
    (end,) = ends()
    assert (end.reason, end.evidence.to_json()["of"]) == ("data_back", "data_problem")
    assert [kind for kind, _ in mails()] == ["data_problem", "recovered"]


def test_a_data_problem_that_becomes_another_one_goes_on():
    judged(0, LATE)
    run(0)
    judged(1, FEW)
    run(1)
    assert [kind for kind, _ in mails()] == ["data_problem"] * 2
    assert ends() == []


def test_windows_held_back_end_though_a_column_stays_unreadable_and_the_column_by_its_own_values():
    for number, finding in enumerate((BROKEN, LATE, BROKEN, None)):
        judged(number, *([finding] if finding else []))
        run(number)
        assert len(ends()) == (0, 0, 1, 2)[number]
    assert [(end.reason, end.evidence.to_json()["classes"]) for end in reversed(ends())] == [
        ("data_back", ["stale"]),
        ("columns_back", ["unreadable"]),
    ]


def test_a_feed_that_stops_again_is_told_though_a_column_was_never_readable():
    for number in range(30):
        judged(number, LATE if number in (5, 25) else BROKEN)
        run(number)
    told = [(kind, incident.split(":")[-5 if kind == "recovered" else 2]) for kind, incident in mails()]
    assert told == [
        ("data_problem", "unreadable"),
        ("data_problem", "stale"),
        ("recovered", "stale"),
        ("data_problem", "stale"),
        ("recovered", "stale"),
    ]


def test_what_comes_back_soon_after_its_end_is_not_told_again_and_what_stays_is():
    reject(drift(0, 1), at(2.1))
    for number in (2, 3):
        judged(number)
        run(number)
    assert len(mails()) == 2
    for number in range(4, 7):
        judged(number, AMOUNT)
        run(number)
    assert len(mails()) == 2, "within six windows of its end"
    for number in range(7, 11):
        judged(number, AMOUNT)
        run(number)
    assert [kind for kind, _ in mails()] == ["drift", "recovered", "drift"]


@pytest.mark.parametrize("other", [(WORSE,), (AMOUNT, WORSE), (KIND,)], ids=["error", "and error", "column"])
def test_another_drift_soon_after_the_end_of_one_is_told_though_it_is_held_back(other: tuple[Violation, ...]):
    spec = model(trigger={"m": 2, "n": 3, "cooldown": "42d"})
    for number in (0, 1):
        judged(number, AMOUNT)
        made = run(number, spec)
    reject(made, at(2.1))
    for number in (2, 3):
        judged(number)
        run(number, spec)
    for number in (4, 5):
        judged(number, *other)
        made = run(number, spec)
    assert (made.kind, made.reason) == (DecisionKind.RETRAIN_SUPPRESSED, "cooldown")
    assert [kind for kind, _ in mails()] == ["drift", "recovered", "drift"]
    judged(6, *other)
    run(6, spec)
    assert len(mails()) == 3, "once"


@pytest.mark.parametrize(
    ("other", "told"), [(BROKEN, True), (FEW, True), (LATE, False)], ids=["unreadable", "volume", "stale"]
)
def test_another_data_problem_soon_after_the_end_of_one_is_told(other: Violation, told: bool):
    judged(0, LATE)
    run(0)
    judged(1)
    run(1)
    judged(2, other)
    run(2)
    assert [kind for kind, _ in mails()] == ["data_problem", "recovered"] + ["data_problem"] * told


def test_a_data_problem_that_came_back_quietly_is_not_told_with_the_next_one():
    for number, finding in enumerate((LATE, None, LATE, None, BROKEN)):
        judged(number, *([finding] if finding else []))
        run(number)
    assert [kind for kind, _ in mails()] == ["data_problem", "recovered", "data_problem"]
    assert "unreadable" in mails()[-1][1]


def test_columns_that_drift_by_turns_are_few_mails():
    columns = [Violation(What.DATA_DRIFT, name, "wasserstein", 0.9, 0.2) for name in "abcdefgh"]
    for number in range(30):
        judged(number, *([columns[number // 4]] if number % 4 < 2 else []))
        made = run(number)
        if made is not None and made.kind is DecisionKind.RETRAIN_REQUESTED:
            reject(made, at(number + 1.1))
    assert 1 <= len(mails()) <= 4, mails()


def test_a_column_that_comes_and_goes_in_each_window_is_few_mails():
    for number in range(30):
        judged(number, *([AMOUNT] if number % 2 == 0 else []))
        made = run(number)
        if made is not None and made.kind is DecisionKind.RETRAIN_REQUESTED:
            reject(made, at(number + 1.1))
    assert 1 <= len(mails()) <= 4, mails()


def test_a_column_that_comes_and_goes_while_each_request_brings_a_new_champion_is_few_mails():
    version = 1
    for number in range(30):
        judged(number, *([AMOUNT] if number % 2 == 0 else []), version=str(version))
        made = run(number)
        if made is not None and made.kind is DecisionKind.RETRAIN_REQUESTED:
            version += 1
            promote(str(version), at(number + 1), (made.id,))
    assert version == 3, "two answers, and then a person"
    assert 1 <= len(mails()) <= 4, mails()


@pytest.mark.parametrize("finding", [LATE, FEW, BROKEN], ids=["stale", "volume", "unreadable"])
def test_data_that_fails_every_second_window_is_few_mails(finding: Violation):
    for number in range(30):
        judged(number, *([finding] if number % 2 == 0 else []))
        run(number)
    assert 1 <= len(mails()) <= 4, mails()


@pytest.mark.parametrize(
    "turns", [(LATE, BROKEN), (LATE, BROKEN, None), (LATE, None, BROKEN, None)], ids=["two", "three", "healthy between"]
)  # fmt: skip
def test_windows_held_back_and_unreadable_columns_by_turns_are_few_mails(turns: tuple[Violation | None, ...]):
    for number in range(30):
        finding = turns[number % len(turns)]
        judged(number, *([finding] if finding else []))
        run(number)
    assert 2 <= len(mails()) <= 6, mails()


def test_one_window_that_opens_and_one_that_ends_is_few_mails_too():
    spec = model(trigger={"m": 1, "n": 1, "cooldown": "1d"})
    for number in range(30):
        judged(number, *([AMOUNT] if number % 2 == 0 else []))
        made = run(number, spec)
        if made is not None and made.kind is DecisionKind.RETRAIN_REQUESTED:
            reject(made, at(number + 1.1))
    assert 1 <= len(mails()) <= 4, mails()


def test_a_drift_that_reaches_the_served_error_is_an_update():
    reject(drift(0, 1), at(2.1))
    for number in (2, 3):
        judged(number, AMOUNT, WORSE)
        run(number)
    assert [kind for kind, _ in mails()] == ["drift", "drift"]


def test_a_served_error_that_goes_bad_after_all_else_was_told_is_an_update():
    spec = model(trigger={"m": 2, "n": 3, "cooldown": "70d"})
    moved = Violation(What.PREDICTION_DRIFT, "_prediction", "wasserstein", 0.9, 0.2)
    found: tuple[Violation, ...] = ()
    told = []
    for number, more in enumerate((AMOUNT, None, KIND, moved, WORSE, None, None)):
        found += (more,) if more else ()
        judged(number, *found)
        made = run(number, spec)
        if made.kind is DecisionKind.RETRAIN_REQUESTED:
            reject(made, at(number + 1.1))
        told.append(len(mails()))
    assert told == [0, 1, 2, 3, 4, 4, 4]
    assert "performance" in mails()[-1][1]


def test_a_run_as_of_an_earlier_time_does_not_end_what_began_later():
    reject(drift(0, 1), at(2.1))
    judged(2)
    judged(3)
    apply(SPEC, at(1), "monitor/again")
    assert ends() == []


def test_applying_again_at_once_ends_once():
    from concurrent.futures import ThreadPoolExecutor

    reject(drift(0, 1), at(2.1))
    judged(2)
    judged(3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: apply(SPEC, at(4), f"monitor/{n}"), range(4)))
    assert len(ends()) == 1
    assert len(mails()) == 2


def test_the_end_of_a_drift_after_a_pause_of_the_monitor_is_written_and_the_new_one_told():
    reject(drift(0, 1), at(2.1))
    for number in range(2, 30):
        judged(number)
    judged(30, AMOUNT, KIND)
    judged(31, AMOUNT, KIND)
    run(31)
    (end,) = ends()
    assert end.evidence.to_json()["ended"] == (CUTOFF + 2 * WEEK).isoformat()
    assert [kind for kind, _ in mails()] == ["drift", "drift"]
