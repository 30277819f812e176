"""How a champion takes over online stands in its line of the overview and on its time line, as long as it lasts."""

from __future__ import annotations

from typing import Any

import pytest

from evergreen.exporter import questions
from evergreen.exporter.families import SHARE
from evergreen.health import model, told
from evergreen.health.charts.error_history import SIGNS
from evergreen.health.overview import overview
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.terminal.story import story as story_of
from evergreen.warehouse.connection import Connection
from health_scene import BEGIN, DEMAND, WEEK, decide


def share(
    conn: Connection, value: Any, weeks: float, version: str = "2", promotion: int | None = None
) -> int:
    """A row of the share of the newest promotion, or of another one."""
    if promotion is None:
        promotion = next(row.id for row in told.rows(conn, DEMAND, kinds=["promoted"]))
    made = decide(
        conn, DEMAND, DecisionKind.CANARY, "canary_grown", weeks, version=version,
        evidence={"message": "look 1 did not find it worse", "promotion": promotion, "version": version, "former": "1", "share": value,
                  "until": (BEGIN + 9 * WEEK).isoformat(), "for": "3d"},
    )  # fmt: skip
    assert made.id is not None
    return made.id


@pytest.mark.parametrize(
    ("rows", "shown", "exported"),
    [
        pytest.param([], "", 1.0, id="for all at once"),
        pytest.param([(0.1, 4.1)], "canary 10%", 0.1, id="begun"),
        pytest.param(
            [(0.1, 4.1), (0.4, 4.3), (0.2, 4.2)], "canary 40%", 0.4, id="written later as of the past"
        ),
        pytest.param([(0.0, 4.1)], "shadow", 0.0, id="shadow"),
        pytest.param([(0.1, 4.1), (1.0, 4.2)], "", 1.0, id="over"),
        pytest.param([("half", 4.1)], "", 1.0, id="damaged"),
    ],
)
def test_the_overview_says_how_it_takes_over(
    story: Specs, conn: Connection, rows: list[tuple[Any, float]], shown: str, exported: float
) -> None:
    for value, weeks in rows:
        share(conn, value, weeks)
    found = {m.name: m for m in overview(conn, story, mlflow=False).models}
    assert (found["bike_demand"].takeover, found["bike_rush"].takeover) == (shown, "")
    samples = questions.read(conn, story)[SHARE]
    assert dict(samples)["bike_demand",] == exported


def test_another_champion_has_no_share_of_the_one_before(story: Specs, conn: Connection) -> None:
    share(conn, 0.1, 4.1)
    decide(conn, DEMAND, DecisionKind.ROLLED_BACK, "manual", 5, version="1", evidence={})
    assert overview(conn, story, models=["bike_demand"], mlflow=False).models[0].takeover == ""


def test_the_time_line_has_each_step(story: Specs, conn: Connection) -> None:
    made = share(conn, 0.2, 4.1)
    mark = next(m for m in model.details(conn, story, "bike_demand").marks if m.kind == "canary")
    assert (mark.time, mark.version, mark.decision) == (BEGIN + 4.1 * WEEK, "2", made)
    assert mark.words == "a look of the watch did not find it worse: look 1 did not find it worse"
    assert mark.kind in SIGNS
    found = told.told(conn, made)
    assert found is not None
    assert ("share of the keys", "0.2") in found.facts
    assert ("lasts", "3d") in found.facts
    after = story_of(conn, "bike_demand", "2").after
    assert [step.kind for step in after] == ["canary"]
