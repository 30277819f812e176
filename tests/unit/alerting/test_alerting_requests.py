"""Every reason for a training, from the ledger's row to what the mail of its outcome and the time line say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evergreen.alerting.compose import compose
from evergreen.alerting.content.history import timeline_rows
from evergreen.alerting.content.judgements import error_of
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import (
    OF_A_DRIFT,
    OF_UPKEEP,
    UNASKED,
    AliasReason,
    CanaryReason,
    CorrectionReason,
    DecisionKind,
    EndReason,
    GateReason,
    Hold,
    RulingReason,
    SilenceReason,
    TriggerReason,
    WatchReason,
    of_a_drift,
    of_upkeep,
)
from evergreen.monitoring.windows.effects import DATA_PROBLEMS, REASONS
from evergreen.monitoring.windows.judgement import What
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch

TOLD = (
    *TriggerReason, *Hold, *GateReason, *RulingReason, *WatchReason, *CanaryReason, *AliasReason, *CorrectionReason, *EndReason, *SilenceReason,
)  # fmt: skip


@pytest.mark.parametrize("code", TOLD, ids=lambda c: f"{type(c).__name__} {c.value}")
def test_each_reason_has_words_of_its_own(code):
    assert words.reason(code.value) != code.value.replace("_", " ")


def sides(code, *groups):
    """In which of some groups a code stands."""
    return [name for name, group in groups if code in group]


@pytest.mark.parametrize("reason", TriggerReason, ids=lambda r: r.value)
def test_each_reason_of_a_training_is_on_one_side_of_what_its_challenger_is_asked(reason):
    assert len(sides(reason, ("drift", OF_A_DRIFT), ("upkeep", OF_UPKEEP), ("unasked", UNASKED))) == 1


@pytest.mark.parametrize("kind", What, ids=lambda k: k.value)
def test_each_kind_of_violation_asks_for_a_training_or_for_a_person(kind):
    assert len(sides(kind, ("training", REASONS), ("person", DATA_PROBLEMS))) == 1
    assert kind not in REASONS or of_a_drift(REASONS[kind].value), "what a window shows is a drift"


@pytest.mark.parametrize("code", ["a_reason_of_a_later_release", "", None, "manual", "schedule"])
def test_a_reason_that_is_not_known_is_no_drift(code):
    assert not of_a_drift(code)
    assert not of_upkeep(code)


@pytest.mark.parametrize(
    ("metric", "told"), [("roc_auc", "ROC AUC: 0.91; at least 0.88"), ("rmse", "RMSE: 0.91; at most 0.88")]
)
def test_the_limit_of_an_error_is_told_from_its_right_side(metric: str, told: str) -> None:
    found = {metric: {"state": "judged", "value": 0.91, "limit": 0.88, "reference": 0.9}}
    assert error_of({"metrics": found}) == told


@pytest.mark.parametrize("kind", [DecisionKind.PROMOTED, DecisionKind.REJECTED], ids=lambda k: k.value)
@pytest.mark.parametrize("reason", ["staleness", "decay", "new_data", "code_change", "data_drift"])
def test_the_mail_of_the_outcome_says_what_asked_for_it(
    conn: Connection, specs: Specs, decide: Callable[..., Decision], kind: DecisionKind, reason: str
) -> None:
    decide(DecisionKind.PROMOTED, "first_champion", version="1")
    request = decide(DecisionKind.RETRAIN_REQUESTED, reason, version="1", evidence={"message": "it is time"})
    assert request.id
    code = "better_than_champion" if kind is DecisionKind.PROMOTED else "not_better_than_champion"
    outcome = decide(kind, code, version="2", answers=(request.id,), evidence={"trigger": reason})
    name = "champion_changed" if kind is DecisionKind.PROMOTED else "challenger_rejected"
    raise_incident(conn, f"{name}:2", outcome.subject, name, outcome.id, {})
    (row,) = fetch(conn, "SELECT * FROM evergreen.mail")
    body = compose(conn, specs, row).get_body(("plain",))
    assert body is not None
    text = " ".join(body.get_content().split())  # type: ignore[attr-defined]
    assert f"Why trained: {words.reason(reason)} " in text
    assert f"Answers request: {request.id} " in text.partition("Why trained")[2], (
        "what names it stands at the end"
    )
    if kind is DecisionKind.REJECTED:
        assert ("as much has changed once more" in text) is (reason not in ("data_drift", "decay"))
        assert ("once for each champion" in text) is (reason == "decay")
        assert ("After two answers to the same drift" in text) is (reason == "data_drift")


def test_the_mail_of_a_refusal_says_that_it_is_an_answer_and_leaves_out_the_wait(
    conn: Connection, specs: Specs, decide: Callable[..., Decision]
) -> None:
    request = decide(
        DecisionKind.RETRAIN_REQUESTED, "data_drift", version="1", evidence={"message": "it is time"}
    )
    wait = decide(DecisionKind.AWAITING_APPROVAL, "not_worse_than_champion", version="2")
    evidence = {"trigger": "data_drift", "awaiting": wait.id, "answered_by": "ann"}
    for version, answers in (("2", (request.id, wait.id)), ("3", (wait.id,))):
        outcome = decide(
            DecisionKind.REJECTED, "refused", version=version, answers=answers, evidence=evidence
        )
        raise_incident(conn, f"rejected:{version}", outcome.subject, "challenger_rejected", outcome.id, {})
    asked, nightly = (
        " ".join(compose(conn, specs, row).get_body(("plain",)).get_content().split())  # type: ignore[union-attr]
        for row in fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id")
    )
    assert "a person refused it" in asked
    assert "After two answers to the same drift a person is told" in asked
    assert "asks again" not in asked
    assert "The requests for it are answered by this." in asked
    assert "requests for it" not in nightly, "no request asked for this one"


@pytest.mark.parametrize("reason", ["code_change", "data_drift"])
def test_the_mail_of_a_gate_that_could_not_tell_says_that_it_is_asked_for_again(
    conn: Connection, specs: Specs, decide: Callable[..., Decision], reason: str
) -> None:
    request = decide(DecisionKind.RETRAIN_REQUESTED, reason, version="1", evidence={"message": "it is time"})
    assert request.id
    check = {"check": "fresh_rows", "value": "108 of 120", "limit": 0, "passed": False}
    evidence = {"trigger": reason, "checks": [check]}
    outcome = decide(
        DecisionKind.REJECTED, "not_enough_fresh_rows", version="2", answers=(request.id,), evidence=evidence
    )
    raise_incident(conn, "rejected:2", outcome.subject, "challenger_rejected", outcome.id, {})
    (row,) = fetch(conn, "SELECT * FROM evergreen.mail")
    body = compose(conn, specs, row).get_body(("plain",))
    assert body is not None
    text = " ".join(body.get_content().split())  # type: ignore[attr-defined]
    assert "too few rows are new to the champion to compare it fairly" in text
    assert "judged rows that the champion had learnt 108 of 120 at most 0 failed" in text
    assert "after the cool-down what goes on asks again" in text
    assert "After two answers to the same drift" not in text
    assert "as much has changed once more" not in text


def test_the_time_line_says_what_was_asked_and_what_held_it_back(
    conn: Connection, decide: Callable[..., Decision]
) -> None:
    decide(
        DecisionKind.RETRAIN_REQUESTED, "staleness", evidence={"message": "the newest training was as of May"}
    )
    decide(
        DecisionKind.RETRAIN_SUPPRESSED,
        "budget_spent",
        evidence={"message": "2 requests within 7d", "asks": "staleness"},
    )
    asked, held = timeline_rows(conn, "bike_demand", [])
    assert asked.why == "the model is old: the newest training was as of May"
    assert held.why == "the budget of requests is spent: 2 requests within 7d"
