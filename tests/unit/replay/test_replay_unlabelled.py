"""Rows whose label never comes, in a replay: the reference of its versions is the live one."""

from __future__ import annotations

from replays import DAY

from evergreen import registry
from evergreen.monitoring.windows.judgement import What
from evergreen.reference.reference import Reference
from evergreen.replay.request import ask
from evergreen.replay.run import replay
from evergreen.replay.worker import loop_of


def test_a_replay_watches_with_the_live_reference(world, start, mlflow_url):
    world = world.with_model(
        training={"window": "20d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
    )

    def cancelled(row):
        if row["ts"].hour % 8 == 0:
            row["demand"] = row["x"] = None

    world.land(start, 40, edit=cancelled)
    asked = ask(world.specs, world.model, start + 26 * DAY, start + 38 * DAY, ["never"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    outcome = world.train(asked.begin, "train/1")
    live = Reference.read(registry.local_copy("rides", outcome.mlflow_run, "reference"))
    replayed = loop.folder.reference("1")
    assert replayed == live
    assert replayed.rows > replayed.labelled_rows
    judged = list(loop.state.newest("1", asked.begin))
    assert len(judged) >= 4
    found = [v for j in judged for v in j.violations]
    assert [v for v in found if v.column == "x" or v.kind is What.VOLUME] == []
    assert list((loop.folder.path / "scratch" / "rides").iterdir()) == [], "no snapshot is left"


def test_a_replay_judges_few_labels_by_all_of_them_as_the_live_watch_does(world, start, mlflow_url):
    world = world.with_model(
        training={"window": "70d", "holdout": "21d", "min_rows": 40, "min_holdout_rows": 24},
        monitoring={"window": "28d", "min_rows": 24, "sample_rows": 100},
    )
    hours = iter(range(10**6))

    def seldom(row):
        if next(hours) % 16:
            row["demand"] = None

    world.land(start, 134, edit=seldom)
    done = replay(
        world.specs, world.model, start + 77 * DAY, start + 133 * DAY, ["never"], workers=0, say=print
    )
    ((policy, model),) = done.asked.policies
    loop = loop_of(done.asked, policy, model)
    assert loop.resume() == 3
    judged = [j for j in loop.state.newest("1", done.asked.begin) if j.window_end < done.asked.end]
    assert [(j.metrics["rmse"].state, j.metrics["rmse"].rows, j.sampled_rows) for j in judged] == [
        ("judged", 42, 100)
    ]
    assert done.outcomes[0].rows > 42
