"""What was not known at a moment is not seen by a replay: late labels, before and after a promotion."""

from __future__ import annotations

import numpy as np
import pytest
from replays import DAY

from evergreen.ledger.reasons import DecisionKind
from evergreen.replay.request import ask
from evergreen.replay.worker import loop_of
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def late(world, start, monkeypatch, tmp_path):
    """Forty days of rides whose labels come after five days, as corrections; from day 22 on the demand is another one."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    world = world.with_model(
        label={"delay": "5d"}, training={"holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
    )  # fmt: skip
    world.land(start, 40, edit=lambda row: row.update(demand=None))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.rides_hourly__history SELECT *, ts + interval '5 days' FROM data.rides_hourly"
        )
        cursor.execute(
            "UPDATE data.rides_hourly SET demand = CASE WHEN ts < %s THEN 50 ELSE 90 END + 3 * x,"
            " _arrived_at = ts + interval '5 days'",
            (start + 22 * DAY,),
        )
        assert cursor.rowcount == 960
    return world


def test_what_was_not_known_is_not_seen(late, start):
    """The first judgement has no labels, a later revision has them."""
    world = late
    asked = ask(world.specs, world.model, start + 20 * DAY, start + 38 * DAY, ["never"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    window = asked.windows[0]
    of = [j for j in loop.state.judgements if j.window_start == window.start]
    assert [(j.revision, j.labelled) for j in of] == [(1, 0), (2, 48)]
    assert of[0].metrics["rmse"].state == "not_yet"
    assert of[0].as_of == window.end
    assert of[1].metrics["rmse"].state == "judged"
    assert of[1].as_of >= window.end + 4 * DAY


def test_labels_that_come_after_a_promotion_judge_the_version_before_it(late, start):
    asked = ask(late.specs, late.model, start + 20 * DAY, start + 40 * DAY, ["every:4d"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    second = loop.state.changes()[-2]
    assert second.version != "1"
    served = [j for j in loop.state.judgements if j.version == "1" and j.window_end <= second.effective_from]
    after = [j for j in served if j.as_of > second.as_of]
    assert {j.window_start for j in after} == {
        j.window_start for j in served if j.as_of <= second.as_of and j.metrics["rmse"].state == "not_yet"
    } - {j.window_start for j in served if j.as_of <= second.as_of and j.revision > 1}
    assert after
    for judged in after:
        assert (judged.revision, judged.labelled, judged.metrics["rmse"].state) == (2, 48, "judged")
        assert judged.as_of >= judged.window_end + 4 * DAY


def test_late_labels_are_estimated_as_the_live_loop_does(world, start, mlflow_url, monkeypatch):
    """Wet hours are hard to predict; from day 23 on all are wet and no label comes, so only an estimate can alarm."""
    from evergreen import ledger
    from evergreen.monitoring.monitor import monitor
    from evergreen.monitoring.windows import estimate, report
    from evergreen.scoring.score import score

    signs = np.random.default_rng(3)

    def hard(row):
        row["kind"] = "wet" if row["ts"].hour % 5 == 0 else "dry"
        row["demand"] += 15 * int(signs.choice([-1, 1])) if row["kind"] == "wet" else 0

    world = world.with_model(
        training={"window": "20d", "holdout": "4d", "min_rows": 150},
        monitoring={
            "window": "2d", "min_rows": 24, "trigger": {"m": 2, "n": 3, "cooldown": "2d"},
            "performance": {"estimate": True, "estimate_requests": True},
            "drift": {"ignore": ["kind", "hour", "x"]},
        },
    )  # fmt: skip
    world.land(start, 23, edit=hard)
    world.land(start + 23 * DAY, 6, seed=2, edit=lambda row: row.update(kind="wet", demand=None))
    learnt = []
    fit = estimate.fit
    monkeypatch.setattr(estimate, "fit", lambda *args: learnt.append(1) or fit(*args))
    asked = ask(world.specs, world.model, start + 20 * DAY, start + 29 * DAY, ["on_drift"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    loop.step(0)
    assert not learnt, "nothing is learnt before a window asks for it"
    for number in range(1, len(loop.moments())):
        loop.step(number)
    assert len(learnt) == 1, "three windows of one champion were estimated"

    # The pages that the live loop draws take longest, and a replay has none.
    monkeypatch.setattr(report, "write", lambda *args: {})
    world.settle(world.train(asked.begin, "train__rides/first", trigger="schedule"), "first")
    for as_of in loop.ends:
        score(world.specs, world.model, as_of, "score")
        monitor(world.specs, world.model, as_of, "monitor")
    with connect() as conn:
        (asks, *_) = ledger.find(conn, "model/rides", (DecisionKind.RETRAIN_REQUESTED,))[::-1]
        judged = fetch(
            conn, "SELECT window_start, status, metrics FROM evergreen.window_judgement ORDER BY id"
        )

    def told(start, status, metric):
        value = metric["value"]
        return start, status, metric["state"], metric["violated"], value and pytest.approx(value, rel=1e-6)

    lived = [told(row["window_start"], row["status"], row["metrics"]["rmse"]) for row in judged]
    replayed = [
        (j.window_start, j.status.value, j.metrics["rmse"].state, j.metrics["rmse"].violated, j.metrics["rmse"].value)
        for j in loop.state.judgements
    ]  # fmt: skip
    assert replayed == lived
    assert [row[2:4] for row in replayed] == [("judged", False), *[("estimated", True)] * 3]
    (mine, *_) = (d for d in loop.state.decisions if d.kind is DecisionKind.RETRAIN_REQUESTED)
    assert (mine.as_of, mine.reason, mine.evidence.to_json()["drifted"]) == (
        asks.as_of,
        asks.reason,
        asks.evidence.to_json()["drifted"],
    )
    assert mine.reason == "estimated_performance"
