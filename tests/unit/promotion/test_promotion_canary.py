"""A new champion takes over online: how it begins, when its share grows, what ends it, and what never makes it larger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from watched_scene import both, look, predicted, promote, rows

from evergreen import ledger
from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import CanaryEvidence
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.promotion import approval, canary
from evergreen.promotion.approval import Answer
from evergreen.promotion.canary import next_row
from evergreen.registry.rollout import rollout
from evergreen.scoring.score import score
from evergreen.training.gate.verdict import GateVerdict
from evergreen.warehouse.connection import connect

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PASSED = GateVerdict(True, GateReason.BETTER_THAN_CHAMPION)
SHARED = {"canary": {"share": 0.1, "for": "3d"}}


def online(world, as_of):
    """The rollout as of a time."""
    with connect() as conn:
        return rollout(conn, world.model, as_of)


def shares():
    """What was decided of the share, oldest first."""
    return [(d.reason, d.evidence.share) for d in reversed(rows(DecisionKind.CANARY))]


@pytest.fixture
def begun(world, start, warehouse_url):
    """Rows up to day 45; version 1 is champion as of day 30, version 2 as of day 31; as a spec asks, no model behind them."""

    def make(serving=SHARED, **sections):
        made = world.with_model(serving=serving, watch={"min_rows": 24}, **sections)
        made.land(start, 45)
        promote("1", start + 30 * DAY, made.model)
        promote("2", start + 31 * DAY, made.model)
        return made

    return make


def known(start, *told):
    """A promotion as of a day, and rows: `0.1` a share from the promotion on, else a kind of look and its day."""
    promotion = Decision(start, "model/rides", DecisionKind.PROMOTED, "x", "t", "p", version="2", id=20)
    found = []
    for number, (what, days) in enumerate(told, 21):
        kind, reason = {
            "continues": (DecisionKind.WATCHED, "watch_continues"),
            "inconclusive": (DecisionKind.WATCH_ENDED, "watch_inconclusive"),
            "passed": (DecisionKind.WATCH_ENDED, "watch_passed"),
            "cannot": (DecisionKind.WATCH_ENDED, "cannot_compare"),
        }.get(what, (DecisionKind.CANARY, "canary_grown"))
        if kind is DecisionKind.CANARY:
            share, _, at = what.partition("@")
            evidence = {
                "promotion": 20, "former": "1", "share": float(share), "until": (start + 3 * DAY).isoformat(), "for": "3d",
                "look": int(at) if at else None,
            }  # fmt: skip
        else:
            evidence = {"message": "m", "watch": {"promotion": 20, "look": 7 if kind is DecisionKind.WATCH_ENDED else 1 + int(days)}}  # fmt: skip
        found.append(
            Decision(
                start + days * DAY, "model/rides", kind, reason, "r", f"k{number}", evidence, "2", id=number
            )
        )
    return promotion, found


GROWN, ENDED = "canary_grown", "canary_ended"


@pytest.mark.parametrize(
    ("told", "days", "wanted"),
    [
        pytest.param([], 1, None, id="answers for all: nothing to do"),
        pytest.param([("0.1", 0)], 1, None, id="no look yet"),
        pytest.param([("0.1", 0)], 2.99, None, id="no look in all its time"),
        pytest.param([("0.1", 0)], 50, None, id="no look, time over: goes on at its share"),
        pytest.param([("0.1", 0), ("continues", 1)], 1, (GROWN, 0.2), id="a look"),
        pytest.param([("0.1", 0), ("continues", 1), ("0.2@2", 1)], 2, None, id="the same look again"),
        pytest.param([("0.1", 0), ("continues", 1), ("0.2@2", 1), ("continues", 2)], 2, (GROWN, 0.4), id="second look"),
        pytest.param([("0.1", 0), ("continues", 0), ("continues", 1)], 2, (GROWN, 0.2), id="two looks since: one step"),
        pytest.param([("0.6", 0), ("continues", 1)], 1, (GROWN, 1.0), id="never more than all"),
        pytest.param([("0.1", 0), ("0.2@1", 0.5), ("continues", 1)], 3, (ENDED, 1.0), id="time over, compared"),
        pytest.param([("0.1", 0), ("continues", 1)], 3, (ENDED, 1.0), id="time over with the look: ended, not grown"),
        pytest.param([("1.0", 1), ("continues", 1)], 3, None, id="for all already"),
        pytest.param([("0.0", 0), ("continues", 1)], 1, None, id="a shadow does not grow"),
        pytest.param([("0.0", 0), ("continues", 1)], 2.99, None, id="a shadow lasts its time"),
        pytest.param([("0.0", 0), ("continues", 1)], 3, (ENDED, 1.0), id="a shadow is over"),
        pytest.param([("0.0", 0)], 6, None, id="a shadow that nothing compared"),
        *(
            pytest.param([("0.1", 0), (how, 7)], 7, (ENDED, 1.0), id=f"the watch ended: {how}")
            for how in ("inconclusive", "passed", "cannot")
        ),
    ],
)  # fmt: skip
def test_the_next_step(start, told, days, wanted):
    promotion, found = known(start, *told)
    made = next_row(promotion, found, start + days * DAY, "run", watched=True)
    assert (made and (made.reason, made.evidence.share)) == wanted
    if made is not None:
        assert made.as_of == start + days * DAY
        assert (made.evidence.promotion, made.evidence.former, made.evidence.for_) == (20, "1", "3d")


def test_looks_at_another_promotion_do_not_count(start):
    promotion, found = known(start, ("0.1", 0), ("continues", 1))
    of_another = replace(found[1], evidence={"watch": {"promotion": 10, "look": 6}})
    assert next_row(promotion, [found[0], of_another], start + 9 * DAY, "run", watched=True) is None


def test_a_look_that_cannot_be_read_does_not_let_it_grow(start):
    promotion, found = known(start, ("0.1", 0), ("continues", 1))
    with pytest.raises(TerminalError, match="cannot be read"):
        next_row(promotion, [found[0], replace(found[1], evidence={"watch": "?"})], start + DAY, "r", watched=True)  # fmt: skip


@pytest.mark.parametrize(("days", "wanted"), [(2.99, None), (3, ENDED)])
def test_where_the_watch_was_switched_off_time_alone_ends_it(start, days, wanted):
    promotion, found = known(start, ("0.1", 0))
    made = next_row(promotion, found, start + days * DAY, "run", watched=False)
    assert (made and made.reason) == wanted
    assert made is None or "switched off" in made.evidence.message


def test_it_grows_with_each_look_and_answers_for_all(begun, start):
    world = begun({"canary": {"share": 0.1, "for": "7d"}})
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    assert online(world, day).share == 0.1
    for n in range(40):
        look(world, day + n * 6 * HOUR, f"monitor/{n}")
    assert shares() == [
        ("canary_started", 0.1), (GROWN, 0.2), (GROWN, 0.4), (GROWN, 0.8), (GROWN, 1.0),
    ]  # fmt: skip
    looks = {d.evidence.watch.look: d for d in rows(DecisionKind.WATCHED)}
    grown = [d for d in rows(DecisionKind.CANARY) if d.reason == GROWN]
    assert [d.as_of for d in grown] == [looks[d.evidence.look].as_of for d in grown], "with the look itself"
    assert [d.evidence.seen for d in grown] == [looks[d.evidence.look].id for d in grown]
    assert online(world, day + 10 * DAY).former is None
    before = shares()
    for n in range(40):
        look(world, day + n * 6 * HOUR, f"again/{n}")
    assert shares() == before, "run again it changes nothing"


def test_its_time_is_over_and_it_was_compared(begun, start):
    world = begun()
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    for n in range(13):
        look(world, day + n * 6 * HOUR)
    reason, share = shares()[-1]
    assert (reason, share) == (ENDED, 1.0)
    ended = rows(DecisionKind.CANARY)[0]
    assert ended.as_of == day + 3 * DAY
    assert ended.evidence.before < 1.0
    assert (
        online(world, day + 3 * DAY).former,
        online(world, day + 3 * DAY - timedelta(seconds=1)).former,
    ) == (None, "1")


def test_without_labels_it_waits_for_the_end_of_the_watch(begun, start):
    world = begun(label={"delay": "5d"})
    both(start, 2.0, 2.5, days=2)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.rides_hourly SET demand = NULL WHERE ts >= %s", (start + 30 * DAY,))
    day = start + 31 * DAY
    for n in range(13):
        look(world, day + n * DAY)
    assert shares() == [("canary_started", 0.1)], "four times as long as it should last, and nothing compared"
    assert online(world, day + 12 * DAY).share == 0.1
    look(world, day + 13 * DAY)
    assert [d.reason for d in rows()] == ["watch_inconclusive"]
    assert shares()[1:] == [(ENDED, 1.0)]
    assert "do not say whether it is worse" in rows(DecisionKind.CANARY)[0].evidence.message


def test_a_shadow_answers_for_nothing_until_its_time_is_over(begun, start):
    world = begun({"shadow": "2d"})
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    for n in range(8):
        look(world, day + n * 6 * HOUR)
        assert (online(world, day + n * 6 * HOUR).share, online(world, day + n * 6 * HOUR).former) == (0.0, "1")  # fmt: skip
    assert rows(DecisionKind.WATCHED), "it was compared meanwhile"
    look(world, day + 2 * DAY)
    assert shares() == [("canary_started", 0.0), (ENDED, 1.0)]


def test_a_run_that_is_killed_between_look_and_growth_grows_once(begun, start, monkeypatch):
    world = begun()
    both(start, 2.0, 2.5)
    as_of = start + 33 * DAY
    with monkeypatch.context() as patch:
        patch.setattr(canary, "next_row", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            look(world, as_of)
    assert len(rows(DecisionKind.WATCHED)) == 1
    assert shares() == [("canary_started", 0.1)]
    for run in ("retry", "another", "third"):
        look(world, as_of, run)
    assert shares() == [("canary_started", 0.1), (GROWN, 0.2)]


def test_a_spec_that_is_changed_in_the_middle_moves_nothing(begun, start):
    world = begun({"canary": {"share": 0.1, "for": "5d"}})
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    larger = world.with_model(serving={"canary": {"share": 0.5, "for": "1d"}})
    none = world.with_model(serving={"canary": None})
    shadow = world.with_model(serving={"canary": None, "shadow": "7d"})
    for other in (larger, none, shadow):
        assert online(other, day + HOUR).share == 0.1
    for n, other in enumerate((larger, none, shadow, larger), 1):
        look(other, day + n * 30 * HOUR)
    assert [share for _, share in shares()] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert {CanaryEvidence.of(d).until for d in rows(DecisionKind.CANARY)} == {day + 5 * DAY}


def test_a_canary_that_the_spec_asks_for_later_begins_with_the_next_champion(begun, start):
    world = begun({})
    both(start, 2.0, 2.5)
    later = world.with_model(serving=SHARED)
    for n in range(8):
        look(later, start + 31 * DAY + n * DAY)
    assert shares() == []
    assert online(later, start + 32 * DAY).share == 1.0
    promote("3", start + 40 * DAY, later.model)
    assert (online(later, start + 40 * DAY).share, online(later, start + 40 * DAY).former) == (0.1, "2")


def test_another_champion_ends_it_without_a_row(begun, start):
    world = begun()
    both(start, 2.0, 2.5)
    promote("3", start + 32 * DAY)
    assert online(world, start + 32 * DAY).champion == "3"
    assert online(world, start + 32 * DAY).former is None, (
        "version 3 was promoted where nothing asked for a canary"
    )
    for days in (31.5, 33, 36, 39):
        look(world, start + days * DAY)
    assert shares() == [("canary_started", 0.1)], "also a run as of the past has no share to move"
    assert online(world, start + 31.9 * DAY).share == 0.1


def test_a_run_as_of_the_past_knows_what_was_known_then(begun, start):
    world = begun({"canary": {"share": 0.1, "for": "7d"}})
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    look(world, day + 30 * HOUR)
    look(world, day + 120 * HOUR)
    assert [share for _, share in shares()] == [0.1, 0.2, 0.4]
    look(world, day + 60 * HOUR, "backfill")
    assert online(world, day + 29 * HOUR).share == 0.1
    assert online(world, day + 30 * HOUR).share == 0.2
    assert online(world, day + 60 * HOUR).share == 0.4, "as of then one look had come before"
    assert online(world, day + 121 * HOUR).share == 0.4, "and now it is what the newest look had found"


def test_a_worse_one_is_rolled_back_and_nothing_grows(world, made_once, start):
    """By the promotion of settle, with models."""
    shared = world.with_model(serving=SHARED, watch={"min_rows": 24})

    def make():
        world.land(start, 45)
        shared.promote(start + 30 * DAY, "dag/first")
        shared.promote(start + 31 * DAY, "dag/second")

    made_once(make)
    (began,) = rows(DecisionKind.CANARY)
    promotion = rows(DecisionKind.PROMOTED)[0]
    assert (began.reason, began.version, began.as_of) == ("canary_started", "2", start + 31 * DAY)
    assert began.evidence.to_json() | {"message": ""} == {
        "evidence_version": 1, "message": "", "promotion": promotion.id, "version": "2", "former": "1", "share": 0.1, "for": "3d",
        "until": (start + 34 * DAY).isoformat(),
    }  # fmt: skip
    both(start, 9.0, 1.0)
    decision = look(shared, start + 35 * DAY)
    assert decision.kind is DecisionKind.ROLLED_BACK
    assert online(shared, start + 35 * DAY).champion == "1"
    assert online(shared, start + 35 * DAY).former is None
    assert online(shared, start + 34 * DAY).share == 0.1, "its time was over, and no look had compared"
    assert shares() == [("canary_started", 0.1)]


def test_worse_and_it_cannot_be_rolled_back_leaves_the_share(begun, start):
    """No model is behind the versions, so the one before cannot be loaded."""
    world = begun()
    both(start, 9.0, 1.0)
    for days in (33, 35, 37):
        with pytest.raises(TerminalError):
            look(world, start + days * DAY)
    assert shares() == [("canary_started", 0.1)]
    assert online(world, start + 37 * DAY).share == 0.1


def test_an_approved_one_begins_when_it_is_in_force(world, mlflow_url, start, registered):
    world.land(start, 45)
    shared = world.with_model(serving=SHARED)
    shared.promote(start + 30 * DAY, "dag/first")
    assert rows(DecisionKind.CANARY) == [], "the first champion answers for all"
    asked = shared.with_model(gate={"approval": "manual"})
    waits = asked.settle(replace(asked.train(start + 31 * DAY, "dag/second"), verdict=PASSED))
    assert waits.kind is DecisionKind.AWAITING_APPROVAL
    assert rows(DecisionKind.CANARY) == []
    registered(approval, 2 * DAY)
    yes = Answer(True, "ada", waits.decided_at + HOUR)
    approved = approval.conclude(asked.model, "2", yes, "promote/1")
    (began,) = rows(DecisionKind.CANARY)
    assert began.evidence.promotion == approved.id
    assert approved.effective_from - approved.as_of >= 2 * DAY
    assert began.evidence.until == approved.effective_from + 3 * DAY
    assert approval.conclude(asked.model, "2", yes, "promote/2") == approved
    assert rows(DecisionKind.CANARY) == [began]


def test_a_promotion_that_is_not_kept_begins_nothing(begun, start, monkeypatch):
    """The row is of the promotion's own transaction."""
    world = begun({})
    with pytest.raises(RuntimeError), connect() as conn:
        made = ledger.append(
            conn, Decision(start + 40 * DAY, "model/rides", DecisionKind.PROMOTED, "x", "t", "k", {}, "3")
        )
        assert canary.begin(conn, world.with_model(serving=SHARED).model, made)
        raise RuntimeError
    assert shares() == []


EVEN, ODD = "mod(extract(hour FROM ts)::int, 2) = 0", "mod(extract(hour FROM ts)::int, 2) = 1"


def served(start, new, old, *, days=14, beside=True):
    """Online the champion answers for odd hours and the former for even ones; each predicts beside the other."""
    first, last = start + 31 * DAY, start + (31 + days) * DAY
    for version, error, keys, other in (("2", new, ODD, EVEN), ("1", old, EVEN, ODD)):
        predicted(version, error, first, last, table="prediction", keys=keys, run="online/a")
        if beside:
            predicted(version, error, first, last, table="shadow_prediction", keys=other, run="online/a")


def test_the_watch_compares_whoever_answered(begun, start):
    world = begun()
    served(start, 2.0, 2.5)
    seen = look(world, start + 36 * DAY).evidence.watch
    assert (seen.value, seen.previous_value) == (pytest.approx(2.0), pytest.approx(2.5))
    assert seen.rows == 5 * 24, "keys of both, each once"
    assert seen.coverage == 1.0


def test_a_champion_that_is_worse_where_the_former_answers_is_found_out(begun, start):
    world = begun()
    served(start, 9.0, 1.0)
    with pytest.raises(TerminalError):  # it would be rolled back, and no model is there
        look(world, start + 36 * DAY)


def test_a_key_that_a_batch_predicts_later_counts_as_it_was_answered_first(begun, start):
    world = begun()
    served(start, 2.0, 2.5)
    first, later = start + 31 * DAY, start + 35 * DAY
    predicted("2", 50.0, first, later, table="prediction", keys=EVEN, as_of=later)
    predicted("1", 60.0, first, later, table="shadow_prediction", keys=EVEN, as_of=later)
    seen = look(world, start + 36 * DAY).evidence.watch
    assert (seen.value, seen.previous_value, seen.rows) == (pytest.approx(2.0), pytest.approx(2.5), 120)


def test_what_the_former_answered_when_it_was_champion_is_no_pair(begun, start):
    """Its features were those of then; the champion's would be of now."""
    world = begun()
    both(start, 2.0, 2.5)
    predicted("1", 70.0, start + 31 * DAY, start + 45 * DAY, table="prediction", as_of=start + 30.9 * DAY)
    predicted("2", 70.0, start + 31 * DAY, start + 45 * DAY, table="shadow_prediction", as_of=start + 31 * DAY)  # fmt: skip
    seen = look(world, start + 36 * DAY).evidence.watch
    assert (seen.value, seen.previous_value, seen.rows) == (pytest.approx(2.0), pytest.approx(2.5), 120)


def test_what_only_one_of_them_predicted_is_not_covered(begun, start):
    world = begun()
    served(start, 2.0, 2.5, beside=False)
    predicted("1", 2.5, start + 31 * DAY, start + 33 * DAY, table="shadow_prediction", keys=ODD)
    end = start + 31 * DAY + 7 * DAY + 2 * HOUR
    decision = look(world, end)
    assert decision.reason == "watch_inconclusive"
    assert decision.evidence.watch.coverage == pytest.approx(24 / 168, abs=0.01)


def test_a_batch_predicts_what_the_former_answered_online_with_both(world, made_once, start):
    """The champion has not scored those keys; and the pair of a batch is of one read, so the former predicts them too."""

    def make():
        world.land(start, 45)
        world.promote(start + 30 * DAY, "dag/first")
        world.promote(start + 31 * DAY, "dag/second")

    made_once(make)
    predicted("1", 1.0, start + 31 * DAY, start + 32 * DAY, table="prediction", run="online/a")
    result = score(world.specs, world.model, start + 32 * DAY, "score/1")
    assert result.version == "2"
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM evergreen.prediction WHERE version = '2' AND event_time >= %(at)s),"
            " (SELECT count(*) FROM evergreen.shadow_prediction WHERE version = '1' AND event_time >= %(at)s),"
            " (SELECT count(*) FROM evergreen.prediction WHERE version = '1' AND run_id = 'online/a')",
            {"at": start + 31 * DAY},
        )
        assert cursor.fetchone() == (24, 24, 24)
