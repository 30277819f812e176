"""Rows whose label never comes, in a replay: the reference of its versions is the live one."""

from __future__ import annotations

from replays import DAY

from evergreen import registry
from evergreen.monitoring.judgement import What
from evergreen.monitoring.reference import Reference
from evergreen.replay.asked import ask
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
    live = Reference.read(registry.kept("rides", outcome.mlflow_run, "reference"))
    replayed = loop.folder.reference("1")
    assert replayed == live
    assert replayed.rows > replayed.labelled_rows
    judged = list(loop.state.newest("1", asked.begin))
    assert len(judged) >= 4
    found = [v for j in judged for v in j.violations]
    assert [v for v in found if v.column == "x" or v.kind is What.VOLUME] == []
    assert list((loop.folder.path / "scratch" / "rides").iterdir()) == [], "no snapshot is left"
