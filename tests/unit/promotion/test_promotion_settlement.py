"""Settling: one decision for one version, requests answered, the alias behind the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.promotion import ruling, settlement
from evergreen.promotion.settlement import settle
from evergreen.spec.hashes import training_hash
from evergreen.training.gate.verdict import GateVerdict
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.connection import connect, fetch

LATER = datetime(2024, 2, 20, tzinfo=UTC)


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def mails():
    with connect() as conn:
        return [
            (r["kind"], r["incident"])
            for r in fetch(conn, "SELECT kind, incident FROM evergreen.mail ORDER BY id")
        ]


def request(as_of):
    with connect() as conn:
        wish = Decision(as_of, "model/rides", DecisionKind.RETRAIN_REQUESTED, "data_drift", "watch", "wish")
        return ledger.append(conn, wish).id


def test_promotion_is_one_row_one_mail_one_alias_however_often_it_is_settled(landed, start):
    as_of = start + timedelta(days=40)
    wish = request(as_of)
    outcome = landed.train(as_of, "dag/run", requests=(wish,))
    first = landed.settle(outcome)
    again = landed.settle(TrainingOutcome.from_dict(outcome.to_dict()), "retry")
    assert again == first
    assert (first.kind, first.version, first.answers) == (DecisionKind.PROMOTED, "1", (wish,))
    assert first.evidence.to_json()["mlflow_run"] == outcome.mlflow_run
    assert registry.aliases("rides")["champion"] == "1"
    assert mails() == [("champion_changed", "promoted:rides:1")]
    with connect() as conn:
        assert ledger.open_requests(conn, "rides") == []
        assert registry.champion(conn, "rides").as_of == as_of


def test_rejection_answers_the_request_and_leaves_the_champion(landed, start):
    landed.promote(start + timedelta(days=30), "dag/first")
    outcome = landed.train(start + timedelta(days=40), "dag/second", requests=(request(start),))
    rejected = replace(outcome, verdict=GateVerdict(False, GateReason.NOT_BETTER_THAN_CHAMPION))
    decision = landed.settle(rejected)
    assert (decision.kind, decision.reason) == (DecisionKind.REJECTED, "not_better_than_champion")
    assert registry.aliases("rides") == {"champion": "1", "challenger": "2"}
    incident = f"rejected:rides:1:not_better_than_champion:{outcome.requests[0]}"
    assert mails() == [("champion_changed", "promoted:rides:1"), ("challenger_rejected", incident)]
    with connect() as conn:
        assert ledger.open_requests(conn, "rides") == []


def test_a_settling_that_was_cleared_days_later_is_in_force_from_then_on(landed, start, registered):
    as_of = start + timedelta(days=40)
    at_once = landed.settle(landed.train(as_of, "dag/first"))
    assert (at_once.effective_from, "effective_from" in at_once.evidence.to_json()) == (as_of, False)
    passed = GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)
    outcome = replace(landed.train(as_of + timedelta(days=1), "dag/second"), verdict=passed)
    registered(settlement, timedelta(days=3))
    done = landed.settle(outcome)
    assert done.as_of == outcome.as_of
    assert done.effective_from - done.as_of == pytest.approx(timedelta(days=3), abs=timedelta(minutes=5))


def test_a_champion_that_changed_meanwhile_is_not_replaced_and_the_request_stays_open(landed, start):
    as_of = start + timedelta(days=40)
    slow = landed.train(as_of, "dag/slow", requests=(request(as_of),))
    landed.promote(as_of, "dag/quick")
    decision = landed.settle(slow)
    assert (decision.kind, decision.reason) == (DecisionKind.REJECTED, "champion_changed_meanwhile")
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "2"
        assert len(ledger.open_requests(conn, "rides")) == 1


def test_the_alias_that_a_crash_left_behind_is_put_right(landed, start, monkeypatch):
    outcome = landed.train(start + timedelta(days=40), "dag/run")

    def down(*_):
        raise TransientError("MLflow does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("evergreen.registry.champions.move_alias", down)
        with pytest.raises(TransientError):
            landed.settle(outcome)
    assert "champion" not in registry.aliases("rides")
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "1"
    assert registry.aliases("rides")["champion"] == "1"
    assert landed.settle(outcome).kind is DecisionKind.PROMOTED
    assert len(mails()) == 1


def test_a_version_that_is_gone_or_of_another_run_is_not_promoted(landed, start):
    outcome = landed.train(start + timedelta(days=40), "dag/run")
    with pytest.raises(TerminalError) as caught:
        landed.settle(replace(outcome, run_id="dag/other"))
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    MlflowClient().delete_model_version("rides", "1")
    with pytest.raises(TerminalError) as caught:
        landed.settle(outcome)
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    with connect() as conn:
        assert ledger.find(conn) == []


def test_nightly_rejections_owe_one_mail_for_each_reason_and_champion(landed, start):
    worse, same = (
        GateVerdict(False, r) for r in (GateReason.WORSE_THAN_BASELINE, GateReason.NOT_BETTER_THAN_CHAMPION)
    )
    champion = landed.promote(start + timedelta(days=30), "dag/first")
    for night, verdict in enumerate((same, same, worse, same)):
        outcome = landed.train(start + timedelta(days=40 + night), f"dag/{night}")
        assert landed.settle(replace(outcome, verdict=verdict)).kind is DecisionKind.REJECTED
    told = [incident for kind, incident in mails() if kind == "challenger_rejected"]
    assert told == [
        f"rejected:rides:{champion.id}:not_better_than_champion:none",
        f"rejected:rides:{champion.id}:worse_than_baseline:none",
    ]
    other = landed.promote(start + timedelta(days=44), "dag/other")
    outcome = landed.train(start + timedelta(days=44), "dag/after")
    landed.settle(replace(outcome, verdict=same))
    assert mails()[-1][1] == f"rejected:rides:{other.id}:not_better_than_champion:none"


def test_a_run_that_is_cleared_after_a_newer_request_settles_what_it_had_trained(landed, start):
    as_of, newer = start + timedelta(days=40), start + timedelta(days=41)
    older = request(as_of)
    trained = landed.train(as_of, "dag/run", requests=(older,))
    with connect() as conn:
        wish = Decision(
            newer, "model/rides", DecisionKind.RETRAIN_REQUESTED, "performance", "watch", "another wish"
        )
        later = ledger.append(conn, wish).id
    again = landed.train(newer, "dag/run", requests=(older, later))
    assert again == trained
    decision = settle(landed.specs, landed.model, again.to_dict(), "dag/run", because="cleared")
    assert (decision.kind, decision.as_of, decision.answers) == (DecisionKind.PROMOTED, as_of, (older,))
    assert decision.evidence.to_json()["asked_because"] == "cleared"
    with connect() as conn:
        assert [r.id for r in ledger.open_requests(conn, "rides")] == [later]


def taken_back(version, blocked, *, reason="worse_than_previous"):
    """The row of a rollback."""
    evidence = {"blocked": blocked} if blocked else {}
    with connect() as conn:
        row = Decision(
            LATER,
            "model/rides",
            DecisionKind.ROLLED_BACK,
            reason,
            "monitor",
            f"back:{version}",
            evidence,
            version,
        )
        return ledger.append(conn, row)


def test_what_the_watch_took_back_is_not_promoted_again_on_the_same_rows(landed, start):
    first, bad_at = landed.promote(start + timedelta(days=30), "dag/first"), start + timedelta(days=40)
    bad = landed.promote(bad_at, "dag/bad")
    blocked = {
        "version": "2",
        **{n: bad.evidence.to_json()[n] for n in ("fingerprint", "training_hash", "spec_hash")},
    }
    back = taken_back(first.version, blocked)
    passed = GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)

    wish = request(bad_at)
    again = landed.settle(replace(landed.train(bad_at, "dag/again", requests=(wish,)), verdict=passed))
    assert (again.kind, again.reason, again.answers) == (
        DecisionKind.REJECTED,
        "blocked_after_rollback",
        (wish,),
    )
    assert f"decision {back.id}" in again.evidence.to_json()["message"]
    assert "took back version 2" in again.evidence.to_json()["message"]
    assert mails()[-1][0] == "challenger_rejected"
    with connect() as conn:
        assert registry.champion(conn, "rides").version == "1"
    # The training that is settled once more is not champion again either.
    landed.settle(landed.train(bad_at, "dag/bad"))
    assert registry.aliases("rides")["champion"] == "1"

    described = landed.with_model(description="Other words make no other model.")
    described = described.settle(replace(described.train(bad_at, "dag/described"), verdict=passed))
    assert (described.kind, described.reason) == (DecisionKind.REJECTED, "blocked_after_rollback")

    other = landed.with_model(training={"max_rounds": 14})
    assert (
        other.settle(replace(other.train(bad_at, "dag/other-spec"), verdict=passed)).kind
        is DecisionKind.PROMOTED
    )
    newer = landed.train(bad_at + timedelta(days=1), "dag/newer")
    assert landed.settle(replace(newer, verdict=passed)).kind is DecisionKind.PROMOTED


def test_the_very_version_is_blocked_whatever_is_known_of_its_rows(landed, start):
    outcome = landed.train(start + timedelta(days=40), "dag/run")
    taken_back("1", {"version": outcome.version, "fingerprint": None, "spec_hash": None})
    # By the ledger version 1 is champion by nothing but that rollback.
    with connect() as conn:
        changes = ledger.champions(conn, "rides")
    assert _blocking_of(landed, outcome).id == changes[0].id
    assert _blocking_of(landed, replace(outcome, version="7")) is None


@pytest.mark.parametrize("old", ["rollback", "outcome"])
def test_what_is_from_before_the_training_hash_is_compared_by_the_whole_spec(landed, start, old):
    outcome = landed.train(start + timedelta(days=40), "dag/run")
    names = ("fingerprint", "spec_hash", *(("training_hash",) if old == "outcome" else ()))
    back = taken_back("1", {"version": "7", **{n: getattr(outcome, n) for n in names}})
    found = replace(outcome, training_hash="") if old == "outcome" else outcome
    assert _blocking_of(landed, found).id == back.id
    assert _blocking_of(landed, replace(found, spec_hash="another")) is None


def test_a_rollback_by_hand_blocks_nothing(landed, start):
    first, bad_at = landed.promote(start + timedelta(days=30), "dag/first"), start + timedelta(days=40)
    landed.promote(bad_at, "dag/bad")
    taken_back(first.version, None, reason="manual")
    again = replace(
        landed.train(bad_at, "dag/again"), verdict=GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)
    )
    assert landed.settle(again).kind is DecisionKind.PROMOTED


def _blocking_of(world, outcome):
    with connect() as conn:
        return ruling.blocking_of(ruling.rollbacks(conn, world.model), outcome)


@pytest.mark.parametrize("where", ["run", "version"])
def test_a_version_whose_run_names_another_snapshot_is_not_promoted(landed, start, where):
    outcome = landed.train(start + timedelta(days=40), "dag/run")
    client, tag = MlflowClient(), ("evergreen.fingerprint", "another")
    if where == "run":
        client.set_tag(outcome.mlflow_run, *tag)
    else:
        client.set_model_version_tag("rides", outcome.version, *tag)
    with pytest.raises(TerminalError, match="was judged on snapshot") as caught:
        landed.settle(outcome)
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH
    with connect() as conn:
        assert registry.champion(conn, "rides", repair=False) is None


def test_an_outcome_of_another_model_is_refused(landed, start):
    outcome = landed.train(start + timedelta(days=40), "dag/run")
    with pytest.raises(ValueError, match="of other, asked was rides"):
        landed.settle(replace(outcome, model="other"))


def test_the_row_says_which_spec_made_the_model(landed, start):
    promoted = landed.promote(start + timedelta(days=40), "dag/first")
    assert promoted.evidence.to_json()["training_hash"] == training_hash(landed.specs, landed.model)
    older = landed.train(start + timedelta(days=41), "dag/second").to_dict()
    del older["training_hash"]
    assert TrainingOutcome.from_dict(older).training_hash == "", "an outcome from before there was one"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("data_drift", "not_worse_than_champion"),
        ("staleness", "not_better_than_champion"),
        ("code_change", "not_better_than_champion"),
    ],
)
def test_a_champion_that_is_all_right_gives_way_to_a_better_one_only(landed, start, reason, expected):
    """The same rows and settings give the same model, which is not worse and not better."""
    world = landed.with_model(training={"refit": False})
    as_of = start + timedelta(days=40)
    world.promote(as_of, "dag/first")
    with connect() as conn:
        wish = Decision(as_of, "model/rides", DecisionKind.RETRAIN_REQUESTED, reason, "watch", "wish")
        asked = ledger.append(conn, wish).id
    outcome = world.train(as_of, "dag/second", trigger=reason, requests=(asked,))
    assert outcome.verdict.reason.value == expected
    decision = world.settle(outcome)
    assert (decision.answers, decision.evidence.to_json()["trigger"]) == ((asked,), reason)
