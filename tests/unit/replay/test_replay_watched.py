"""The watch after a promotion, in a replay."""

from __future__ import annotations

from replays import DAY

from evergreen.ledger.reasons import DecisionKind
from evergreen.replay.request import ask
from evergreen.replay.run import replay
from evergreen.replay.worker import loop_of
from evergreen.warehouse.connection import connect


def test_a_bad_promotion_is_rolled_back_by_the_watch(small, start):
    """The world is upside down for eight days: the challenger that learnt them is better then, and worse from then on."""
    world = small.with_model(
        training={"window": "6d", "holdout": "2d", "min_rows": 48, "min_holdout_rows": 24},
        gate={"otherwise": "not_worse", "beat_baseline": False},
        watch={"period": "8d", "min_rows": 24},
    )
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE data.rides_hourly SET demand = 100 - demand WHERE ts >= %s AND ts < %s",
            (start + 21 * DAY, start + 29 * DAY),
        )
    done = replay(
        world.specs, world.model, start + 20 * DAY, start + 36 * DAY, ["every:8d"], workers=0, say=print
    )
    (outcome,) = done.outcomes
    assert outcome.promoted >= 1
    assert outcome.rolled_back == 1


def test_a_rollback_by_the_watch_closes_the_requests_that_the_live_one_closes(world, start, monkeypatch):
    """A training for the bad champion's drift failed for want of rows: its request is open when the champion is left."""
    from evergreen import ledger
    from evergreen.metrics.paired_bootstrap import Improvement
    from evergreen.promotion import rollback
    from evergreen.promotion.after_promotion import WatchLook, look_if_due
    from evergreen.replay.replayed_watch import ReplayedWatch
    from evergreen.replay.state import RUN, ReplayState, Step

    def row(day, kind, version, reason, **more):
        evidence = {"mlflow_run": f"replay-{version}", "trained_until": (start + day * DAY).isoformat()}
        key = f"{kind.value}:{version}:{day}"
        return ledger.Decision(
            start + day * DAY, "model/rides", kind, reason, RUN, key, evidence, version, **more
        )

    state, step = ReplayState(), Step(1, start + 23 * DAY)
    for decision in (
        row(0, DecisionKind.PROMOTED, "1", "first_champion"),
        row(18, DecisionKind.RETRAIN_REQUESTED, "1", "data_drift"),
        row(19, DecisionKind.RETRAIN_REQUESTED, "1", "performance"),
        row(20, DecisionKind.PROMOTED, "2", "better_than_champion", answers=(2,)),
        row(22, DecisionKind.RETRAIN_REQUESTED, "2", "performance"),
        row(22, DecisionKind.RUN_FAILED, "3", "too_few_rows"),
    ):
        state.decide(step, decision)
    with connect() as conn:
        kept = {ledger.append(conn, d).id: d.dedupe_key for d in state.decisions}
        live = rollback.about(ledger.open_requests(conn, world.model.name), "2", step.as_of)
    worse = WatchLook(100, 9.0, 3.0, Improvement(-2.0, -2.1, -1.9, 0.1, 10, 100))
    monkeypatch.setattr(ReplayedWatch, "look", lambda *args: (worse, 1.0))
    done = look_if_due(ReplayedWatch(world.model, state, step, None), world.model, step.as_of, RUN)
    assert (done.kind, done.version) == (DecisionKind.ROLLED_BACK, "1")
    assert [state.decisions[i - 1].dedupe_key for i in done.answers] == [kept[i] for i in live]
    assert [d.dedupe_key for d in state.open_requests()] == ["retrain_requested:1:19"], (
        "another version's stays"
    )


def test_a_watch_with_late_labels_asks_the_shadow_for_its_own_days_only(world, start, tmp_path, monkeypatch):
    """The watch ends six days after the shadow; what the champion alone has scored meanwhile does not count against it."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    world = world.with_model(
        label={"delay": "6d"},
        training={"window": "30d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
        gate={"otherwise": "not_worse", "beat_baseline": False},
        watch={"period": "4d", "min_rows": 24},
    )
    world.land(start - 10 * DAY, 23)
    world.land(start + 13 * DAY, 35, seed=2, edit=lambda row: row.update(demand=2 * row["demand"]))
    asked = ask(world.specs, world.model, start + 21 * DAY, start + 47 * DAY, ["even:1"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        if number == 11:  # as a run that goes on after an interruption
            loop = loop_of(asked, policy, model)
            assert loop.resume() == number
        loop.step(number)
    promoted = loop.state.changes()[0]
    (ended,) = loop.state.find(DecisionKind.WATCH_ENDED)[:1]
    assert (promoted.as_of, ended.as_of) == (start + 35 * DAY, start + 47 * DAY)
    assert (ended.version, ended.reason, ended.evidence.to_json()["watch"]["rows"]) == (
        promoted.version,
        "watch_passed",
        96,
    )
