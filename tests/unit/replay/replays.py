"""Replays of the small world of these tests."""

from __future__ import annotations

from datetime import timedelta

from evergreen.replay.run import replay

DAY = timedelta(days=1)


def run(world, start, names, **more):
    return replay(
        world.specs,
        world.model,
        start + 20 * DAY,
        start + 60 * DAY,
        names,
        **{"workers": 0, "say": print, **more},
    )
