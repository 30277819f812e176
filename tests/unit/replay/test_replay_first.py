"""A first champion that the gate refuses: the message names a FROM at which it would not."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from replays import DAY

from evergreen.errors import ErrorReason, TerminalError
from evergreen.replay.run import replay


def test_a_from_that_works_is_named_where_the_gate_refuses(world, start, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    world = world.with_model(
        training={"window": "15d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
    )

    def clockwork(row):
        """The hour tells all, so yesterday's value is right: no model can be better."""
        row["demand"] = 10.0 * row["ts"].hour

    world.land(start, 26, edit=clockwork)
    world.land(start + 26 * DAY, 44)

    def run(begin):
        return replay(
            world.specs, world.model, begin, start + 60 * DAY, ["never"], workers=0, say=lambda _: None
        )

    with pytest.raises(TerminalError, match="refuses the first champion") as error:
        run(start + 20 * DAY)
    assert error.value.reason is ErrorReason.NO_CHAMPION
    (named,) = re.findall(r"a FROM that works is (\S+?Z),", str(error.value))
    assert run(datetime.fromisoformat(named)).outcomes[0].rows > 0
