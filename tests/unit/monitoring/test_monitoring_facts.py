"""The facts of the policy: what the ledger tells of the champion's training, and new rows counted as of a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from evergreen import ledger
from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger import champion_facts as facts_of
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows import judgement
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What
from evergreen.spec.hashes import training_hash
from evergreen.warehouse.connection import connect

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def settled(version, as_of, kind=DecisionKind.PROMOTED, reason="better_than_champion", **evidence):
    """A settled training in the ledger; it knew the label of an hour before its cut-off, and none after."""
    until = as_of - HOUR + timedelta(microseconds=1)
    told = {
        "mlflow_run": "x",
        "rows": {"all": 100},
        "trained_until": until.isoformat(),
        "refitted": True,
    }
    with connect() as conn:
        return ledger.append(
            conn,
            Decision(
                as_of,
                "model/rides",
                kind,
                reason,
                "train/1",
                f"settle:rides:{version}",
                {**told, **evidence},
                version,
            ),
        )


def counted(world, as_of, *, least=10_000):
    with connect() as conn:
        decisions = ledger.find(conn, "model/rides")
    known = facts_of.known(world.specs, world.model, "1", decisions)
    return facts_of.counted(world.specs, world.model, known, "1", decisions, as_of, least=least)


def asking(world, **trigger):
    return world.with_model(monitoring={"trigger": trigger})


def test_the_ledger_tells_of_the_training(world, start):
    settled("1", start, training_hash="abc")
    with connect() as conn:
        decisions = ledger.find(conn, "model/rides")
    known = facts_of.known(world.specs, world.model, "1", decisions)
    now = training_hash(world.specs, world.model)
    assert known == ChampionFacts(trained_as_of=start, trained_rows=100, trained_hash="abc", spec_hash=now)
    assert facts_of.known(world.specs, world.model, "9", decisions) == ChampionFacts()


def test_rows_are_new_when_their_labels_are_mature_and_no_training_knew_them(world, start):
    world.land(start, 10)
    settled("1", start + 5 * DAY)
    # Labels mature an hour after the event; the training's reached to an hour before its cut-off.
    assert counted(world, start + 5 * DAY).new_rows == 0
    assert counted(world, start + 6 * DAY).new_rows == 24
    assert counted(world, start + 6 * DAY, least=7).new_rows == 7, "no further than the number that decides"


def test_rows_without_a_label_and_rows_that_have_not_arrived_are_not_new(world, start):
    world.land(start, 5)
    settled("1", start + 5 * DAY)
    world.land(start + 5 * DAY, 1, edit=lambda row: row.update(demand=None))
    world.land(start + 6 * DAY, 1, arrived=start + 20 * DAY)
    assert counted(world, start + 10 * DAY).new_rows == 0
    assert counted(world, start + 20 * DAY).new_rows == 24


def test_a_training_that_was_not_refitted_knew_what_was_mature_at_its_cut_off(world, start):
    world.land(start, 10)
    settled("1", start + 5 * DAY, refitted=False, trained_until=start.isoformat())
    assert counted(world, start + 6 * DAY).new_rows == 24


def test_rows_since_the_newest_training_are_counted_only_where_they_are_asked_for(world, start):
    world.land(start, 10)
    settled("1", start + 5 * DAY)
    settled("2", start + 7 * DAY, DecisionKind.REJECTED, "not_better_than_champion", refitted=False)
    settled("3", start + 8 * DAY, DecisionKind.REJECTED, "champion_unavailable", refitted=False)
    assert counted(world, start + 8 * DAY).rows_since_training is None
    found = counted(asking(world, new_rows=0.5), start + 8 * DAY)
    assert (found.new_rows, found.rows_since_training) == (72, 24), "the third could not tell"


def test_a_query_that_does_not_run_is_no_answer(world, start):
    world.land(start, 2)
    settled("1", start)
    broken = world.with_model(query="SELECT nothing FROM rides_hourly")
    with pytest.raises(TerminalError):
        counted(broken, start + DAY)


def test_an_old_model_is_asked_for_once_and_again_after_as_long(world, start):
    """From the spec to the ledger: request, its second run, the rejection, and the next request."""
    old = asking(world, max_age="3d")
    world.land(start, 15)
    settled("1", start + 2 * DAY)
    assert apply(old.model, start + 4 * DAY, "monitor/1", old.specs) is None
    request = apply(old.model, start + 5 * DAY, "monitor/2", old.specs)
    assert (request.kind, request.reason, request.version) == (
        DecisionKind.RETRAIN_REQUESTED,
        "staleness",
        "1",
    )
    assert "3 days before; monitoring.trigger.max_age is 3d" in request.evidence.to_json()["message"]
    assert apply(old.model, start + 5 * DAY + HOUR, "monitor/3", old.specs) == request
    with connect() as conn:
        ledger.append(conn, replace(request, kind=DecisionKind.REJECTED, evidence={}, reason="not_better_than_champion", dedupe_key="x",
                                    as_of=start + 6 * DAY, version="2", answers=(request.id,)))  # fmt: skip
    assert apply(old.model, start + 8 * DAY, "monitor/4", old.specs) is None
    held = apply(old.model, start + 9 * DAY, "monitor/5", old.specs)
    assert (held.kind, held.reason) == (DecisionKind.RETRAIN_SUPPRESSED, "cooldown")
    assert apply(old.model, start + 9 * DAY + HOUR, "monitor/6", old.specs) == held, "told once"
    again = apply(old.model, start + 12 * DAY, "monitor/7", old.specs)
    assert (again.kind, again.reason, again.id > request.id) == (
        DecisionKind.RETRAIN_REQUESTED,
        "staleness",
        True,
    )
    with connect() as conn:
        assert [d.id for d in ledger.open_requests(conn, "rides")] == [again.id]
        assert ledger.find(conn, kinds=(DecisionKind.MAIL_FAILED,)) == []


def test_a_training_that_could_not_tell_is_asked_for_again_on_the_same_basis(world, start):
    old = asking(world, max_age="3d", cooldown="1d")
    world.land(start, 15)
    settled("1", start + 2 * DAY)
    request = apply(old.model, start + 5 * DAY, "monitor/1", old.specs)
    settled("2", start + 5 * DAY, DecisionKind.REJECTED, "champion_unavailable")
    with connect() as conn:
        ledger.append(conn, replace(request, kind=DecisionKind.REJECTED, evidence={}, reason="champion_unavailable", dedupe_key="x",
                                    version="3", answers=(request.id,)))  # fmt: skip
    again = apply(old.model, start + 6 * DAY, "monitor/2", old.specs)
    assert (again.kind, again.dedupe_key) == (
        DecisionKind.RETRAIN_REQUESTED,
        f"{request.dedupe_key}:again:{request.id}",
    )


def test_an_old_model_without_new_rows_is_not_asked_for(world, start):
    old = asking(world, max_age="3d")
    world.land(start, 2)
    settled("1", start + 2 * DAY)
    held = apply(old.model, start + 5 * DAY, "monitor/1", old.specs)
    assert (held.kind, held.reason, held.evidence.to_json()["new_rows"]) == (
        DecisionKind.RETRAIN_SUPPRESSED,
        "too_little_new_data",
        0,
    )


def test_new_rows_ask_and_the_training_that_takes_them_up_answers(world, start):
    grown = asking(world, new_rows=0.5, cooldown="1d")
    world.land(start, 15)
    settled("1", start + 2 * DAY)
    assert apply(grown.model, start + 4 * DAY, "monitor/1", grown.specs) is None, "48 rows, 50 are needed"
    request = apply(grown.model, start + 4 * DAY + 2 * HOUR, "monitor/2", grown.specs)
    assert (request.reason, request.evidence.to_json()["new_rows"]) == ("new_data", 50)
    with connect() as conn:
        ledger.append(conn, replace(request, kind=DecisionKind.REJECTED, evidence={}, reason="not_better_than_champion", dedupe_key="x",
                                    as_of=request.as_of, version="2", answers=(request.id,)))  # fmt: skip
    assert apply(grown.model, start + 6 * DAY, "monitor/3", grown.specs) is None
    assert apply(grown.model, start + 6 * DAY + 4 * HOUR, "monitor/4", grown.specs).reason == "new_data"


def test_another_spec_asks_once(world, start):
    made = training_hash(world.specs, world.model)
    settled("1", start, training_hash=made)
    same = asking(world, on_change=True, max_age=None)
    assert apply(same.model, start + DAY, "monitor/1", same.specs) is None
    edited = same.with_model(query=same.model.query + " WHERE x > -9")
    request = apply(edited.model, start + DAY, "monitor/2", edited.specs)
    assert (request.kind, request.reason) == (DecisionKind.RETRAIN_REQUESTED, "code_change")
    now = training_hash(edited.specs, edited.model)
    with connect() as conn:
        ledger.append(conn, replace(request, kind=DecisionKind.REJECTED, reason="not_better_than_champion", dedupe_key="x",
                                    evidence={"training_hash": now}, version="2", answers=(request.id,)))  # fmt: skip
    assert apply(edited.model, start + 60 * DAY, "monitor/3", edited.specs) is None


AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)


@pytest.mark.parametrize("again", ["28d", None], ids=["asked again", "never"])
def test_a_drift_that_two_trainings_answered_is_asked_for_again_when_enough_rows_have_come(
    world, start, again
):
    """From windows and rows in PostgreSQL to the ledger: two rejections, the hold with its numbers, the third request."""
    watched = asking(world, cooldown="1d", budget=9, again=again)
    world.land(start, 12)
    settled("1", start + 2 * DAY)
    length, made = watched.model.monitoring.window, []
    for number in range(2, 10):
        begin = start + number * length
        as_of = begin + length + HOUR
        with connect() as conn:
            judgement.insert(
                conn,
                Judgement("rides", "1", begin, begin + length, 1, as_of, Status.VIOLATION, 500, 500, 500, violations=(AMOUNT,)),
            )  # fmt: skip
        made.append(apply(watched.model, as_of, f"monitor/{number}", watched.specs))
        if made[-1].kind is DecisionKind.RETRAIN_REQUESTED:
            with connect() as conn:
                ledger.append(conn, Decision(
                    as_of, "model/rides", DecisionKind.REJECTED, "not_better_than_champion", "train/2", f"settle:rides:{number}",
                    {"rows": {"all": 160}, "refitted": False}, str(number), (made[-1].id,),
                ))  # fmt: skip
    asked = [d.as_of - start for d in made if d.kind is DecisionKind.RETRAIN_REQUESTED]
    held = next(d for d in made if d.reason == "already_answered" and d.evidence.to_json().get("again"))
    if again is None:
        assert len(asked) == 2
        assert held.evidence.to_json()["message"].endswith("it is not asked for again while it lasts")
        return
    # 80 rows are 3.3 days: the fourth window after the second answer.
    assert [second - first for first, second in pairwise(asked)][1] == 4 * DAY
    assert held.evidence.to_json()["again"]["rows"] == 80
    assert "or with 80 new rows" in held.evidence.to_json()["message"]
    third = [d for d in made if d.kind is DecisionKind.RETRAIN_REQUESTED][2]
    assert third.evidence.to_json()["again"]["because"].startswith("80 rows or more have come")
