"""Approval by a person: one decision for a challenger that waits, and everything that must reject it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.alerting.approval_page import markdown, page
from evergreen.alerting.compose import compose
from evergreen.alerting.content.letter import Letter, Table
from evergreen.alerting.letters.challenger_tables import reworded
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.monitoring.trigger.wake_rule import wake
from evergreen.promotion import approval
from evergreen.promotion.approval import Answer
from evergreen.registry.under_watch import champion_under_watch
from evergreen.scoring import shadow
from evergreen.training.gate.verdict import GateVerdict
from evergreen.warehouse.connection import connect, fetch

PASSED = GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)


@pytest.fixture
def landed(world, made_once, start):
    """A model that a person approves; its first champion is there already."""

    def make():
        world.land(start, 60)
        world.promote(start + timedelta(days=30), "dag/first")

    made_once(make)
    return world.with_model(gate={"approval": "manual", "approval_timeout": "3d"})


@pytest.fixture
def wish(landed, start):
    """An open retrain request."""
    with connect() as conn:
        found = Decision(
            start + timedelta(days=39),
            "model/rides",
            DecisionKind.RETRAIN_REQUESTED,
            "data_drift",
            "watch",
            "wish",
        )
        return ledger.append(conn, found).id


def challenge(world, as_of, run="dag/second", **more):
    """Train a challenger that passes, and settle it."""
    return world.settle(replace(world.train(as_of, run, **more), verdict=PASSED), run)


def yes(waiting, by="ada", hours=1, comment=""):
    return Answer(True, by, waiting.decided_at + timedelta(hours=hours), comment)


def no(waiting, comment=""):
    return replace(yes(waiting, comment=comment), approved=False)


def champion():
    with connect() as conn:
        return registry.champion(conn, "rides", repair=False).version


def awaiting():
    with connect() as conn:
        return ledger.awaiting_approval(conn, "rides")


def open_requests(which=ledger.open_requests):
    with connect() as conn:
        return [r.id for r in which(conn, "rides")]


def mails():
    with connect() as conn:
        rows = fetch(conn, "SELECT kind, incident FROM evergreen.mail ORDER BY id")
    return [(r["kind"], r["incident"]) for r in rows][1:]


def test_a_challenger_that_passed_waits_and_its_requests_stay_open(landed, start, wish):
    as_of = start + timedelta(days=40)
    outcome = replace(landed.train(as_of, "dag/second", requests=(wish,)), verdict=PASSED)
    waits = landed.settle(outcome)
    assert (waits.kind, waits.version, waits.as_of) == (DecisionKind.AWAITING_APPROVAL, "2", as_of)
    assert waits.answers == ()
    assert landed.settle(outcome, "retry") == waits
    assert approval.outcome(waits) == outcome
    assert champion() == "1"
    assert registry.aliases("rides") == {"champion": "1", "challenger": "2"}
    assert mails() == [("approval", "approval:rides:2")]
    assert open_requests() == [wish], "the policy sees it open, so no second one is opened"
    assert open_requests(ledger.unclaimed_requests) == [], "no other training takes it up"
    assert wake(landed.model, None, as_of) == (False, None), "the monitor wakes no training for it"


def test_a_challenger_that_failed_does_not_wait(landed, start):
    outcome = landed.train(start + timedelta(days=40), "dag/second")
    lost = replace(outcome, verdict=GateVerdict(False, GateReason.NOT_BETTER_THAN_CHAMPION))
    assert landed.settle(lost).kind is DecisionKind.REJECTED
    assert awaiting() is None


def test_the_first_champion_is_approved_too(world, mlflow_url, start):
    world.land(start, 45)
    asked = world.with_model(gate={"approval": "manual"})
    waits = asked.settle(asked.train(start + timedelta(days=40), "dag/first"))
    assert (waits.kind, waits.reason) == (DecisionKind.AWAITING_APPROVAL, "first_champion")
    done = approval.conclude(asked.model, "1", yes(waits), "promote/1")
    assert done.kind is DecisionKind.PROMOTED
    assert registry.aliases("rides")["champion"] == "1"


def test_approved_it_is_champion_as_of_its_training_once_and_answers_its_requests(landed, start, wish):
    as_of = start + timedelta(days=40)
    waits = challenge(landed, as_of, requests=(wish,))
    done = approval.conclude(landed.model, "2", yes(waits, comment="looks right"), "promote/1")
    assert (done.kind, done.reason, done.as_of, done.version) == (
        DecisionKind.PROMOTED,
        "approved",
        as_of,
        "2",
    )
    assert set(done.answers) == {wish, waits.id}
    assert done.evidence.to_json()["answered_by"] == "ada"
    assert done.evidence.to_json()["comment"] == "looks right"
    assert done.evidence.to_json()["gate"] == "better_than_champion"
    assert done.evidence.to_json()["checks"] == waits.evidence.to_json()["verdict"]["checks"]
    assert approval.conclude(landed.model, "2", no(waits), "promote/2") == done, "the first answer stands"
    assert landed.settle(approval.outcome(waits)) == done, "a training that is settled again finds it"
    assert (champion(), registry.aliases("rides")["champion"]) == ("2", "2")
    assert open_requests() == []
    assert awaiting() is None
    assert mails()[-1] == ("champion_changed", "promoted:rides:2")


@pytest.mark.parametrize(
    ("hours", "late"), [pytest.param(0.5, False, id="at once"), pytest.param(70, True, id="after three days")]
)
def test_approved_late_it_is_in_force_as_much_later_than_its_training(landed, start, registered, hours, late):
    """The shadow predicts in the period after the approval, not after a training that nobody had approved yet."""
    as_of, wait = start + timedelta(days=40), timedelta(hours=hours)
    waits = challenge(landed, as_of)
    registered(approval, wait)
    done = approval.conclude(landed.model, "2", yes(waits), "promote/1")
    assert done.as_of == as_of
    assert ("effective_from" in done.evidence.to_json()) == late
    assert done.effective_from == pytest.approx(as_of + wait * late, abs=timedelta(minutes=5))
    model = landed.with_model(watch={"period": "2d"}).model
    with connect() as conn:
        found = champion_under_watch(model, ledger.champions(conn, "rides"))
    assert shadow.active(found, as_of + wait), "the first scoring after the approval"
    assert not shadow.active(found, as_of + wait + timedelta(days=2, minutes=6))


def test_refused_it_is_rejected_with_the_words_of_the_person(landed, start, wish):
    waits = challenge(landed, start + timedelta(days=40), requests=(wish,))
    done = approval.conclude(landed.model, "2", no(waits, "holiday week"), "promote/1")
    assert (done.kind, done.reason) == (DecisionKind.REJECTED, "refused")
    assert "ada refused it: holiday week" in done.evidence.to_json()["message"]
    assert approval.conclude(landed.model, "2", yes(waits), "promote/2") == done
    assert champion() == "1"
    assert open_requests() == []
    assert mails()[-1][0] == "challenger_rejected"


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(lambda waits: Answer(False, None, approval.until(waits)), id="nobody"),
        pytest.param(lambda waits: Answer(True, None, waits.decided_at), id="yes-by-nobody"),
        pytest.param(lambda waits: yes(waits, hours=73), id="an-hour-too-late"),
    ],
)
def test_without_an_answer_in_time_it_is_rejected(landed, start, late):
    waits = challenge(landed, start + timedelta(days=40))
    done = approval.conclude(landed.model, "2", late(waits), "promote/1")
    assert (done.kind, done.reason) == (DecisionKind.REJECTED, "approval_timed_out")
    assert "nobody answered within 3d" in done.evidence.to_json()["message"]
    assert champion() == "1"


def test_the_time_is_the_one_that_was_promised(landed, start):
    """A spec that is edited meanwhile neither takes time away nor gives some."""
    waits = challenge(landed, start + timedelta(days=40))
    hasty = landed.with_model(gate={"approval_timeout": "1h"})
    done = approval.conclude(hasty.model, "2", yes(waits, hours=71), "promote/1")
    assert done.kind is DecisionKind.PROMOTED


def test_a_champion_that_changed_meanwhile_is_not_replaced_and_the_request_is_open_again(landed, start, wish):
    waits = challenge(landed, start + timedelta(days=40), requests=(wish,))
    taken_back = Decision(
        start + timedelta(days=41), "model/rides", DecisionKind.ROLLED_BACK, "manual", "back", "back", {}, "1"
    )
    with connect() as conn:
        ledger.append(conn, taken_back)
    done = approval.conclude(landed.model, "2", yes(waits), "promote/1")
    assert (done.kind, done.reason) == (DecisionKind.REJECTED, "champion_changed_meanwhile")
    assert (champion(), awaiting()) == ("1", None)
    assert open_requests(ledger.unclaimed_requests) == [wish]


def test_a_newer_challenger_takes_its_place_and_its_requests(landed, start, wish):
    elder = challenge(landed, start + timedelta(days=40), requests=(wish,))
    newer = challenge(landed, start + timedelta(days=41), "dag/third")
    assert (newer.kind, newer.version, newer.evidence.to_json()["requests"]) == (
        DecisionKind.AWAITING_APPROVAL,
        "3",
        [wish],
    )
    assert awaiting() == newer
    over = approval.conclude(landed.model, "2", yes(elder), "promote/1")
    assert (over.kind, over.reason, over.answers) == (DecisionKind.REJECTED, "superseded", (elder.id,))
    assert "version 3" in over.evidence.to_json()["message"]
    assert champion() == "1"
    assert open_requests() == [wish]
    done = approval.conclude(landed.model, "3", yes(newer), "promote/2")
    assert (done.kind, set(done.answers)) == (DecisionKind.PROMOTED, {wish, newer.id})
    assert [kind for kind, _ in mails()] == ["approval", "approval", "champion_changed"]


def test_a_challenger_of_older_data_does_not_take_the_place(landed, start):
    waits = challenge(landed, start + timedelta(days=40))
    older = challenge(landed, start + timedelta(days=39), "dag/backfill")
    assert (older.kind, older.reason) == (DecisionKind.REJECTED, "superseded")
    assert awaiting() == waits


def test_a_challenger_that_fails_leaves_the_one_that_waits(landed, start):
    waits = challenge(landed, start + timedelta(days=40))
    outcome = landed.train(start + timedelta(days=41), "dag/third")
    landed.settle(replace(outcome, verdict=GateVerdict(False, GateReason.SLICE_WORSE)))
    assert awaiting() == waits
    assert approval.conclude(landed.model, "2", yes(waits), "promote/1").kind is DecisionKind.PROMOTED


def test_a_spec_that_asks_nobody_any_more_promotes_and_ends_the_wait(landed, start, wish):
    challenge(landed, start + timedelta(days=40), requests=(wish,))
    alone = landed.with_model(gate={"approval": "auto"})
    done = challenge(alone, start + timedelta(days=41), "dag/third")
    assert (done.kind, done.answers) == (DecisionKind.PROMOTED, (wish,))
    assert awaiting() is None


def test_answers_at_once_are_one_decision(landed, start):
    waits = challenge(landed, start + timedelta(days=40))
    found, together = [], threading.Barrier(4)

    def answer(number):
        together.wait()
        said = yes(waits, by=f"person {number}") if number % 2 else no(waits)
        found.append(approval.conclude(landed.model, "2", said, f"promote/{number}"))

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({d.id for d in found}) == 1
    assert len(found) == 4
    with connect() as conn:
        ended = ledger.find(conn, "model/rides", (DecisionKind.PROMOTED, DecisionKind.REJECTED))
    assert len([d for d in ended if d.version == "2"]) == 1
    assert registry.aliases("rides")["champion"] == champion()


def test_the_alias_that_a_crash_left_behind_is_put_right(landed, start, monkeypatch):
    waits = challenge(landed, start + timedelta(days=40))

    def down(*_):
        raise TransientError("MLflow does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("evergreen.registry.champions.move_alias", down)
        with pytest.raises(TransientError):
            approval.conclude(landed.model, "2", yes(waits), "promote/1")
    assert registry.aliases("rides")["champion"] == "1"
    approval.conclude(landed.model, "2", yes(waits), "promote/1")
    assert registry.aliases("rides")["champion"] == "2"


def broken_run(version):
    MlflowClient().set_tag(version.run_id, "evergreen.fingerprint", "another")


def broken_version(version):
    MlflowClient().set_model_version_tag("rides", version.version, "evergreen.fingerprint", "another")


def broken_file(version):
    MlflowClient().set_model_version_tag("rides", version.version, "evergreen.model_sha256", "another")


def deleted(version):
    MlflowClient().delete_model_version("rides", version.version)


@pytest.mark.parametrize("breaks", [broken_run, broken_version, broken_file, deleted])
def test_what_mlflow_no_more_has_as_it_was_judged_is_not_promoted(landed, start, breaks):
    waits = challenge(landed, start + timedelta(days=40))
    breaks(MlflowClient().get_model_version("rides", "2"))
    with pytest.raises(TerminalError) as caught:
        approval.conclude(landed.model, "2", yes(waits), "promote/1")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    assert (champion(), awaiting()) == ("1", waits)
    assert approval.conclude(landed.model, "2", no(waits), "promote/1").kind is DecisionKind.REJECTED


def test_a_version_that_never_waited_cannot_be_approved(landed):
    with pytest.raises(TerminalError, match="version 1 does not wait for approval"):
        approval.conclude(landed.model, "1", Answer(True, "ada", _now()), "promote/1")


def _now():
    with connect() as conn:
        return fetch(conn, "SELECT clock_timestamp() AS now")[0]["now"]


def test_a_wait_that_nobody_minds_any_more_ends_by_itself(landed, start, wish):
    waits = challenge(landed, start + timedelta(days=40), requests=(wish,))
    end = approval.until(waits)
    assert end == waits.decided_at + timedelta(days=3)
    assert approval.expire(landed.model, end + timedelta(minutes=59), "train/1") is None, (
        "an answer may be on its way"
    )
    done = approval.expire(landed.model, end + timedelta(minutes=61), "train/1")
    assert (done.reason, done.run_id) == ("approval_timed_out", "train/1")
    assert approval.expire(landed.model, end + timedelta(days=9), "train/2") is None
    assert open_requests() == []


def test_one_run_asks_and_another_only_in_its_place(landed, start):
    waits = challenge(landed, start + timedelta(days=40))
    with connect() as conn:
        assert approval.asking(conn, waits) is None
        assert approval.ask(conn, waits, "promote/1", None)
        assert not approval.ask(conn, waits, "promote/2", None), "two at once: the first row wins"
        first = approval.asking(conn, waits)
        assert first.run_id == "promote/1"
        assert approval.ask(conn, waits, "promote/2", first)
        assert not approval.ask(conn, waits, "promote/3", first)
        assert approval.asking(conn, waits).run_id == "promote/2"


def test_the_page_and_the_mail_show_the_evaluation(landed, start, wish):
    waits = landed.settle(
        landed.train(start + timedelta(days=40), "dag/real", requests=(wish,)), "train__rides/x"
    )
    if waits.kind is not DecisionKind.AWAITING_APPROVAL:
        waits = challenge(landed, start + timedelta(days=41), "dag/other", requests=(wish,))
    with connect() as conn:
        headline, body = page(conn, landed.specs, waits)
        row = fetch(conn, "SELECT *, clock_timestamp() AS now FROM evergreen.mail WHERE kind = 'approval'")[
            -1
        ]
        mail = compose(conn, landed.specs, row).get_body(("plain",)).get_content()
    assert headline.startswith(f"rides: version {waits.version} waits for approval, RMSE ")
    for text in (body, mail):
        assert "RMSE" in text
        assert "Champion" in text
        assert f"Answers request: {wish}" in text
        assert "promote__rides" in text
    assert "/dags/promote__rides/required_actions" in body
    assert "Also recorded" not in mail, mail
    for check in waits.evidence.to_json()["verdict"]["checks"]:
        if check["check"] in (
            "beats_champion",
            "not_worse_than_champion",
            "not_surely_worse",
            "holdout_not_learnt",
        ):
            assert reworded(check["sentence"]).split(",")[0].replace("_", "\\_") in body
    assert len(json.dumps(waits.evidence.to_json())) < 20_000


def test_names_and_comments_cannot_become_markup():
    letter = Letter(
        headline="x", summary="x", lead=("see [this](http://evil) <img src=x>\n# now",),
        facts=(("*bold*", "a|b `c`"),), tables=(Table("t_t", ("A|B",), (("1|2",),)),),
        links=(("ok](http://evil)", "http://airflow/x"), ("bad", "http://evil/)[x]")),
    )  # fmt: skip
    text = markdown(letter)
    assert "\\[this\\]" in text
    assert "\\<img src=x\\>" in text
    assert "\n# now" not in text
    assert "1\\|2" in text
    assert "[ok\\](http://evil)](http://airflow/x)" in text
    assert "evil/)" not in text
