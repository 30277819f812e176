"""A drift that comes and goes: few trainings, few e-mails, and a person is told what a retraining cannot mend."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from monitoring_scene import CUTOFF, model, specs

from evergreen import ledger
from evergreen.alerting.delivery import deliver
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What
from evergreen.promotion.ruling import told_with
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)
AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
REJECTED, PROMOTED = DecisionKind.REJECTED, DecisionKind.PROMOTED


def settle(
    spec: ModelSpec, version: int, kind: DecisionKind, as_of: datetime, requests: tuple[int, ...]
) -> None:
    """As `settlement.settle` writes it: the row, and the mail that it owes."""
    reason = "not_better_than_champion" if kind is REJECTED else "not_worse_than_champion"
    told = {"mlflow_run": "x", "trained_until": as_of.isoformat()}
    with connect() as conn:
        decision = ledger.append(
            conn,
            Decision(
                as_of, "model/watched", kind, reason, "t/1", f"settle:{version}", told, str(version), requests
            ),
        )
        if requests:
            mail = "challenger_rejected" if kind is REJECTED else "champion_changed"
            about = told_with(conn, requests) if kind is REJECTED else version
            raise_incident(conn, f"{kind.value}:{about}", "model/watched", mail, decision.id, {})


def drive(
    spec: ModelSpec, pattern: str, answers: tuple[DecisionKind, ...]
) -> tuple[list[Decision], list[str]]:
    """Windows of a pattern (D: drift, o: healthy) through the policy; returns requests and subjects of the mails."""
    settle(spec, 1, PROMOTED, CUTOFF, ())
    champion, trained, sent = 1, 1, []
    length = spec.monitoring.window
    for number, drifted in enumerate(p == "D" for p in pattern):
        start, as_of = CUTOFF + number * length, CUTOFF + (number + 1) * length + timedelta(hours=2)
        status, found = (Status.VIOLATION, (AMOUNT,)) if drifted else (Status.OK, ())
        with connect() as conn:
            judged = Judgement(
                "watched",
                str(champion),
                start,
                start + length,
                1,
                as_of,
                status,
                168,
                168,
                168,
                violations=found,
            )
            store.insert(conn, judged)
        apply(spec, as_of, f"monitor/{number}")
        with connect() as conn:
            waiting = tuple(d.id for d in ledger.open_requests(conn, "watched") if d.id)
        if waiting:
            kind = answers[min(trained, len(answers)) - 1]
            trained += 1
            settle(spec, trained, kind, as_of, waiting)
            champion = trained if kind is PROMOTED else champion
        deliver(specs(spec), sent.append)
    with connect() as conn:
        requests = ledger.find(conn, kinds=(DecisionKind.RETRAIN_REQUESTED,))
    return requests[::-1], [m["Subject"].removeprefix("[Evergreen] watched") for m in sent]


def most_in_a_week(requests: list[Decision]) -> int:
    return max(sum(timedelta(0) <= b.as_of - a.as_of < 7 * DAY for b in requests) for a in requests)


@pytest.mark.parametrize(
    "answers",
    [(REJECTED,), (PROMOTED, REJECTED), (PROMOTED,)],
    ids=["rejected", "promoted, rejected", "promoted"],
)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"window": "7d"}, id="weeks"),
        pytest.param({"window": "1d"}, id="days"),
        pytest.param({"window": "1d", "trigger": {"cooldown": "1d"}}, id="days without a cool-down"),
    ],
)  # fmt: skip
def test_thirty_windows_of_which_every_second_one_drifts(warehouse_url, settings, answers):
    spec = model(**settings)
    requests, subjects = drive(spec, "Do" * 15, answers)
    last = answers[-1]
    lasts = 30 * spec.monitoring.window
    # After a rejection time reopens it; after a promotion new rows do, which nobody counts here.
    reopened = 0 if last is PROMOTED else lasts // spec.monitoring.trigger.again
    assert 2 <= len(requests) <= 3 + reopened
    assert len(requests) > 3 or not reopened or spec.monitoring.window == DAY
    assert most_in_a_week(requests) <= spec.monitoring.trigger.budget
    assert len(subjects) <= 4, subjects
    assert sum("needs a person" in s for s in subjects) == 1


def test_a_rule_of_one_window_knows_a_drift_that_comes_back_too(warehouse_url):
    spec = model(window="1d", trigger={"m": 1, "n": 1, "cooldown": "1d"})
    requests, subjects = drive(spec, "Do" * 15, (REJECTED,))
    assert (len(requests), len(subjects)) == (2, 5), "one of them: recovered"


def test_without_a_cool_down_nothing_but_the_budget_spaces_what_is_always_new(warehouse_url):
    """Drifts that last: each promotion is a new champion, whose drift is a new one."""
    spec = model(window="1d", trigger={"m": 1, "n": 1, "cooldown": "1h"})
    requests, _ = drive(spec, "D" * 21, (PROMOTED,))
    assert most_in_a_week(requests) == 2
    assert len(requests) == 6
    with connect() as conn:
        held = ledger.find(conn, kinds=(DecisionKind.RETRAIN_SUPPRESSED,))
    assert {d.reason for d in held} == {"budget_spent"}


def test_a_drift_that_stayed_away_is_another_one(warehouse_url):
    requests, subjects = drive(model(window="7d"), "DoDoDoDo" + "o" * 6 + "DoDo", (REJECTED,))
    assert len(requests) == 3
    assert "needs a person" in subjects[3]
    assert "recovered" in subjects[4]
    assert len(subjects) == 7, "it is told anew, and so is its rejection"


def test_a_drift_that_stays_after_it_came_and_went_is_asked_for(warehouse_url):
    """Coming and going ends when it stays: then there is a new world to learn."""
    requests, _ = drive(model(window="7d", trigger={"again": None}), "DoDoDoDo" + "DD", (REJECTED,))
    assert [d.evidence.to_json().get("alternates") for d in requests] == [True, True, None]


def test_the_mail_of_giving_up_says_what_does_not_help_and_what_may(warehouse_url):
    spec = model(window="7d")
    drive(spec, "DoDoDoDo", (REJECTED,))
    sent = []
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.mail SET sent_at = NULL WHERE incident LIKE '%gave_up%'")
        cursor.execute(
            "DELETE FROM evergreen.delivery WHERE mail IN (SELECT id FROM evergreen.mail WHERE incident LIKE '%gave_up%')"
        )
    deliver(specs(spec), sent.append)
    text = " ".join(sent[0].get_body(("plain",)).get_content().split())
    for said in (
        "Retraining did not help twice: a person must look. The data of now does not mend this.",
        "the drift comes and goes",
        "No further retraining is asked for",
        "If it lasts, it is asked for again from 2024-07-22 on; you get a mail if a new version becomes champion.",
        "is the feed right",
        "new features, a longer or shorter training.window",
        "start train__watched by hand",
    ):
        assert said in text, said
