"""From judgements to the ledger and the outbox: one decision for a judgement, one mail for an incident."""

from __future__ import annotations

from datetime import timedelta

import pytest
from judged_windows import AMOUNT, BROKEN, FEW, KIND, LATE, SPEC, judged, mails, promote, reject
from monitoring_scene import CUTOFF, WEEK, at, model

from evergreen.ledger import Decision, append, find, open_requests
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows.judgement import Violation
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def champion(warehouse_url) -> None:
    promote("1", CUTOFF)


def test_a_drift_is_requested_once_and_mailed_once(champion):
    judged(0, AMOUNT)
    assert apply(SPEC, at(1), "monitor/1").kind is DecisionKind.RETRAIN_SUPPRESSED
    judged(1, AMOUNT)
    made = apply(SPEC, at(2), "monitor/2")
    assert (made.kind, made.reason, made.version, made.run_id) == (
        DecisionKind.RETRAIN_REQUESTED,
        "data_drift",
        "1",
        "monitor/2",
    )
    assert made.dedupe_key == f"policy:watched:1:{(CUTOFF + WEEK).isoformat()}:1"
    assert made.evidence.to_json()["since"] == CUTOFF.isoformat()
    assert apply(SPEC, at(2), "monitor/3") == made
    assert mails() == [("drift", f"drift:watched:1:data_drift:amount:{CUTOFF.isoformat()}")]
    with connect() as conn:
        assert [d.id for d in open_requests(conn, "watched")] == [made.id]
        context = fetch(conn, "SELECT decision_id, context FROM evergreen.mail")[0]
    assert context["decision_id"] == made.id
    assert context["context"]["violations"][0]["limit"] == 0.2


def test_one_window_in_violation_stands_in_the_ledger_and_mails_nobody(champion):
    judged(0, AMOUNT)
    held = apply(SPEC, at(1), "monitor/1")
    assert (held.kind, held.reason, held.version) == (
        DecisionKind.RETRAIN_SUPPRESSED,
        "too_few_violations",
        "1",
    )
    assert held.evidence.to_json()["causes"] == ["data_drift:amount"]
    assert "1 of the last 1 windows in violation, 2 of 3 are needed" in held.evidence.to_json()["message"]
    assert held.evidence.to_json()["window"]["start"] == CUTOFF.isoformat()
    assert apply(SPEC, at(1), "monitor/2") == held, "the same judgement is one row"
    judged(0, AMOUNT, KIND, revision=2, as_of=at(1.5))
    again = apply(SPEC, at(1.5), "monitor/3")
    assert again.evidence.to_json()["causes"] == ["data_drift:amount", "new_category:kind"], (
        "judged anew, told anew"
    )
    judged(1)
    assert apply(SPEC, at(2), "monitor/4") is None
    with connect() as conn:
        assert len(find(conn, "model/watched")) == 3, "the promotion and two judgements of one window"
    assert mails() == []


def test_the_same_drift_is_held_back_without_a_second_mail_until_something_is_new(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    request = apply(SPEC, at(2), "monitor/1")
    judged(2, AMOUNT)
    held = apply(SPEC, at(3), "monitor/2")
    assert (held.kind, held.reason, held.evidence.to_json()["request"]) == (
        DecisionKind.RETRAIN_SUPPRESSED,
        "already_open",
        request.id,
    )
    promote("2", at(3), (request.id,), DecisionKind.REJECTED)
    judged(3, AMOUNT)
    assert apply(SPEC, at(4) - timedelta(hours=1), "monitor/3").reason == "cooldown"
    assert len(mails()) == 1
    judged(4, AMOUNT, KIND)
    again = apply(SPEC, at(5), "monitor/4")
    assert (again.kind, again.evidence.to_json()["causes"]) == (
        DecisionKind.RETRAIN_REQUESTED,
        ["data_drift:amount", "new_category:kind"],
    )
    assert [i for _, i in mails()] == [
        f"drift:watched:1:data_drift:amount:{CUTOFF.isoformat()}",
        f"drift:watched:1:data_drift:amount+kind:{CUTOFF.isoformat()}",
    ]


def test_a_drift_that_retraining_does_not_help_is_asked_for_twice_and_then_told_once_as_given_up(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    first = apply(SPEC, at(2), "monitor/1")
    reject(first, at(2.1))
    judged(2, AMOUNT)
    judged(3, AMOUNT)
    second = apply(SPEC, at(4), "monitor/2")
    assert (second.kind, second.evidence.to_json()["asked_before"]) == (
        DecisionKind.RETRAIN_REQUESTED,
        [first.id],
    )
    assert len(mails()) == 1, "the drift was told with the first request"
    reject(second, at(4.1))
    for number in (4, 5, 6, 7):
        judged(number, AMOUNT)
        held = apply(SPEC, at(number + 1), f"monitor/{number}")
        assert (held.kind, held.reason) == (DecisionKind.RETRAIN_SUPPRESSED, "already_answered")
        assert "a person must look" in held.evidence.to_json()["message"]
    assert [i for _, i in mails()][1:] == [f"drift:watched:1:gave_up:data_drift:amount:{first.id}"]
    with connect() as conn:
        mail = fetch(conn, "SELECT context, kind FROM evergreen.mail ORDER BY id")[1]
    assert (mail["kind"], mail["context"]["gave_up"]) == ("drift", True)


def test_a_wider_drift_that_is_given_up_too_is_told_and_more_of_either_is_not(champion):
    def through(numbers: range, *violations: Violation) -> list[str]:
        before = len(mails())
        for number in numbers:
            judged(number, *violations)
            made = apply(SPEC, at(number + 1), f"monitor/{number}")
            if made.kind is DecisionKind.RETRAIN_REQUESTED:
                reject(made, at(number + 1.1))
        with connect() as conn:
            rows = fetch(conn, "SELECT context FROM evergreen.mail ORDER BY id")[before:]
        return ["person" if row["context"].get("gave_up") else "drift" for row in rows]

    assert through(range(10), AMOUNT) == ["drift", "person"]
    assert through(range(10, 20), AMOUNT, KIND) == ["drift", "person"]
    assert through(range(20, 30), KIND) == []
    assert through(range(30, 40), AMOUNT) == []


def test_the_part_of_a_drift_that_was_given_up_first_does_not_take_the_name_of_the_whole(champion):
    """Amount and kind are asked for once, amount alone once more and given up; then both are, by the same first request."""
    for number, found in enumerate([(AMOUNT, KIND)] * 2 + [(AMOUNT,)] * 5 + [(AMOUNT, KIND)] * 5):
        judged(number, *found)
        made = apply(SPEC, at(number + 1), f"monitor/{number}")
        if made.kind is DecisionKind.RETRAIN_REQUESTED:
            reject(made, at(number + 1.1))
    assert sum("gave_up" in incident for _, incident in mails()) == 2, mails()


def test_a_drift_that_comes_back_after_healthy_windows_is_asked_for_and_told_again(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    reject(apply(SPEC, at(2), "monitor/1"), at(2.1))
    for number in range(2, 50):
        judged(number)
    judged(50, AMOUNT)
    judged(51, AMOUNT)
    again = apply(SPEC, at(52), "monitor/2")
    assert again.kind is DecisionKind.RETRAIN_REQUESTED
    assert [i for _, i in mails()] == [
        f"drift:watched:1:data_drift:amount:{(CUTOFF + n * WEEK).isoformat()}" for n in (0, 50)
    ]


def test_a_drift_that_comes_and_goes_within_a_cool_down_is_one_mail_more(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    slow = model(trigger={"m": 2, "n": 3, "cooldown": "200d"})
    reject(apply(slow, at(2), "monitor/1"), at(2.1))
    for number in range(2, 20):
        judged(number, *([AMOUNT] if number % 3 else []))
        apply(slow, at(number + 1), f"monitor/{number}")
    assert len(mails()) == 2
    with connect() as conn:
        assert {d.reason for d in find(conn, kinds=(DecisionKind.RETRAIN_SUPPRESSED,))} == {"cooldown"}


def test_a_training_that_could_not_tell_is_asked_for_again_on_the_same_windows_after_the_cool_down(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    first = apply(SPEC, at(2), "monitor/1")
    reject(first, at(2.1), "champion_unavailable")
    assert apply(SPEC, at(3), "monitor/2") == first
    second = apply(SPEC, at(4), "monitor/3")
    assert (second.kind, second.id > first.id) == (DecisionKind.RETRAIN_REQUESTED, True)
    assert apply(SPEC, at(4), "monitor/4") == second
    with connect() as conn:
        assert [d.id for d in open_requests(conn, "watched")] == [second.id]
    assert len(mails()) == 1


def test_a_run_as_of_an_earlier_time_sees_the_champion_and_decisions_of_that_time(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    promote("2", at(10))
    made = apply(SPEC, at(2), "monitor/1")
    assert (made.kind, made.version) == (DecisionKind.RETRAIN_REQUESTED, "1")


def test_a_drift_within_the_cool_down_is_told_and_asked_for_after_it(champion):
    with connect() as conn:
        first = append(
            conn,
            Decision(
                at(1.5), "model/watched", DecisionKind.RETRAIN_REQUESTED, "manual", "p/1", "by hand", {}, "1"
            ),
        )
    promote("9", at(1.6), (first.id,), DecisionKind.REJECTED)
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    held = apply(SPEC, at(2), "monitor/1")
    assert (held.reason, "until 2024-06-13" in held.evidence.to_json()["message"]) == ("cooldown", True)
    assert apply(SPEC, at(2), "monitor/2") == held
    later = apply(SPEC, at(2) + timedelta(days=14), "monitor/3")
    assert later.kind is DecisionKind.RETRAIN_REQUESTED
    assert len(mails()) == 1


def test_only_windows_of_the_present_champion_in_its_present_time_count(champion):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    promote("2", at(2))
    assert apply(SPEC, at(2), "monitor/1") is None
    promote("1", at(3), kind=DecisionKind.ROLLED_BACK)
    assert apply(SPEC, at(3), "monitor/2") is None
    judged(3, AMOUNT)
    judged(4, AMOUNT)
    assert apply(SPEC, at(5), "monitor/3").evidence.to_json()["since"] == (CUTOFF + 3 * WEEK).isoformat()


def test_only_the_newest_revision_of_a_window_counts_and_late_findings_do(champion):
    judged(0, AMOUNT)
    judged(0, revision=2, as_of=at(1.5))
    judged(1, AMOUNT)
    assert apply(SPEC, at(2), "monitor/1").reason == "too_few_violations"
    judged(0, AMOUNT, revision=3, as_of=at(2.1))
    held = apply(SPEC, at(2), "monitor/2")
    assert held.reason == "too_few_violations", "a later judgement is not known yet"
    assert apply(SPEC, at(2.2), "monitor/3").kind is DecisionKind.RETRAIN_REQUESTED


def test_data_problems_are_told_once_an_episode_and_never_request(champion):
    judged(0, LATE)
    judged(1, LATE)
    assert apply(SPEC, at(2), "monitor/1") is None
    judged(2, LATE)
    assert apply(SPEC, at(3), "monitor/2") is None
    begin = CUTOFF.isoformat()
    assert mails() == [("data_problem", f"data:watched:stale:{begin}")]
    judged(3)
    judged(4, FEW)
    judged(5, BROKEN)
    judged(6, BROKEN)
    assert apply(SPEC, at(7), "monitor/3") is None
    assert [i for _, i in mails()][1:] == [
        f"data:watched:insufficient:{(CUTOFF + 4 * WEEK).isoformat()}",
        f"recovered:data:watched:stale:{begin}",
        f"data:watched:unreadable:{(CUTOFF + 5 * WEEK).isoformat()}",
    ]
    with connect() as conn:
        assert find(conn, kinds=(DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED)) == []


def test_without_a_champion_or_windows_nothing_is_decided(warehouse_url):
    assert apply(SPEC, at(1), "monitor/1") is None
    promote("1", CUTOFF)
    assert apply(SPEC, at(1), "monitor/1") is None


def test_a_mail_that_cannot_be_owed_takes_the_decision_back(champion, monkeypatch):
    judged(0, AMOUNT)
    judged(1, AMOUNT)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("ALTER TABLE evergreen.mail ADD CONSTRAINT broken CHECK (kind <> 'drift')")
    with pytest.raises(Exception, match="broken"):
        apply(SPEC, at(2), "monitor/1")
    with connect() as conn:
        assert find(conn, kinds=(DecisionKind.RETRAIN_REQUESTED,)) == []
