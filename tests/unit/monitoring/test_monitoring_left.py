"""The watch looks at what the champion reads, whatever the spec has left or got since."""

from __future__ import annotations

from datetime import timedelta

import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.monitoring.windows import live_windows
from evergreen.monitoring.windows.judgement import What
from evergreen.scoring.score import score


@pytest.fixture
def served(world, made_once, start):
    """A champion on hour, x and kind that has served ten days; a window is five days."""
    daily = world.with_model(monitoring={"window": "5d"})

    def make():
        daily.land(start, 42)
        daily.promote(start + timedelta(days=30), "dag/one")
        score(daily.specs, daily.model, start + timedelta(days=40), "dag/score")

    made_once(make)
    return daily


def columns(world, start):
    found = live_windows.judge_windows(world.specs, world.model, start + timedelta(days=40))
    assert found
    return {(c.column, c.kind): c for c in found[-1].columns}


def test_a_feature_that_left_the_spec_is_watched_as_before(served, start):
    fewer = served.with_model(features={"numeric": ("hour",)})
    kept = columns(fewer, start)
    assert kept["x", What.DATA_DRIFT].value is not None
    assert {c for c, _ in kept} == {"hour", "x", "kind", "_prediction", "_label"}


def test_a_feature_that_the_champion_does_not_read_says_nothing(served, start):
    query = served.model.query.replace("ts,", "ts, extract(minute FROM ts)::int AS minute,", 1)
    more = served.with_model(query=query, features={"numeric": ("hour", "x", "minute")})
    assert "minute" not in {c for c, _ in columns(more, start)}


@pytest.mark.parametrize(
    ("column", "told"),
    [("", "does not return it now"), ("x::text AS x, ", "returns text now")],
    ids=["left-the-query", "became-text"],
)
def test_a_feature_that_the_query_does_not_give_is_a_finding(served, start, column, told):
    query = served.model.query.replace("x, ", column, 1)
    lost = columns(served.with_model(query=query, features={"numeric": ("hour",)}), start)
    assert lost["x", What.UNREADABLE].violated
    assert told in lost["x", What.UNREADABLE].detail
    assert lost["hour", What.DATA_DRIFT].value is not None, "the others are measured"


def test_one_that_is_only_shown_violates_nothing(served, start):
    ignored = served.with_model(
        query=served.model.query.replace("x, ", "x::text AS x, ", 1),
        features={"numeric": ("hour",), "categorical": ("kind", "x")},
        monitoring={"drift": {"ignore": ["x"]}},
    )
    assert not columns(ignored, start)["x", What.UNREADABLE].violated


def test_a_champion_of_another_task_is_not_taken_for_healthy(served, start):
    query = served.model.query.replace("demand FROM", "demand, (demand > 55)::int AS busy FROM")
    other = served.with_model(query=query, task="binary", label={"column": "busy", "delay": "1h"})
    with pytest.raises(TerminalError, match=r"another task.*train__rides.*promote__rides") as caught:
        columns(other, start)
    assert caught.value.reason is ErrorReason.BAD_METRIC
