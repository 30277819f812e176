"""A watch that another change of champion ended has a last row, once, whoever made the change."""

from __future__ import annotations

from datetime import timedelta

import pytest
from monitoring_scene import CUTOFF, model, specs

from evergreen import ledger
from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.promotion.live_watch import watch
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)
SPEC = model()


def change(
    version: str,
    days: float,
    kind: DecisionKind = DecisionKind.PROMOTED,
    reason: str = "better_than_champion",
    waited: float = 0,
) -> int:
    with connect() as conn:
        as_of = CUTOFF + days * DAY
        made = ledger.append(
            conn,
            Decision(
                as_of, "model/watched", kind, reason, "t/1", f"{kind.value}:{version}:{days}",
                {
                    "mlflow_run": "x", "trained_until": as_of.isoformat(),
                    "effective_from": (as_of + waited * DAY).isoformat(),
                }, version,
            ),
        )  # fmt: skip
    assert made.id
    return made.id


def closed() -> list[Decision]:
    with connect() as conn:
        found = ledger.find(conn, "model/watched", (DecisionKind.WATCH_ENDED,))
    return sorted((d for d in found if d.reason == "superseded"), key=lambda d: d.as_of)


@pytest.fixture
def landed(warehouse_url: str) -> None:
    """The dataset's tables, empty."""
    from monitoring_scene import SENSOR

    from evergreen.warehouse.migrate import ensure_dataset

    with connect() as conn:
        ensure_dataset(conn, SENSOR)


def look(days: float, run: str = "monitor/1") -> None:
    watch(specs(SPEC), SPEC, CUTOFF + days * DAY, run)


@pytest.mark.parametrize(
    ("kind", "reason", "version", "told"),
    [
        pytest.param(DecisionKind.PROMOTED, "better_than_champion", "3", "version 3 was promoted", id="a promotion"),
        pytest.param(DecisionKind.ROLLED_BACK, "manual", "1", "version 1 was brought back by hand", id="a rollback by hand"),
    ],
)  # fmt: skip
def test_the_watch_that_it_ended_is_closed_once(landed, kind, reason, version, told):
    change("1", -30)
    watched = change("2", 0)
    by = change(version, 3, kind, reason)
    look(3.1)
    look(3.2, "monitor/2")
    (row,) = closed()
    assert (row.version, row.as_of, row.run_id) == ("2", CUTOFF + 3 * DAY, "monitor/1")
    assert row.evidence.to_json()["watch"]["promotion"] == watched
    assert row.evidence.to_json()["watch"]["by"] == by
    assert told in row.evidence.to_json()["message"]
    assert words.reason(row.reason) != row.reason.replace("_", " ")


def test_each_of_several_watches_is_closed_by_what_came_next(landed):
    for version, days in (("1", 0), ("2", 1), ("3", 2), ("4", 3)):
        change(version, days)
    look(3.1)
    told = [(d.version, d.evidence.to_json()["watch"]["by_version"]) for d in closed()]
    assert told == [("2", "3"), ("3", "4")], "the first champion was compared with none"
    change("5", 5)
    look(5.1)
    assert [d.version for d in closed()] == ["2", "3", "4"]


def test_what_ended_otherwise_is_not_closed_again(landed):
    change("1", -60)
    change("2", -30)
    change("3", -20)
    change("2", -18, DecisionKind.ROLLED_BACK, WatchReason.WORSE.value)
    change("4", -10)
    look(0)
    assert closed() == [], "1 and 2 by time, 3 by the watch itself, 4 goes on"


def test_a_watch_that_was_over_before_the_next_champion_went_live_is_not_closed(landed):
    change("1", -30)
    change("2", 0)
    change("3", 6, waited=3)
    look(9.1)
    assert closed() == [], "version 3 was trained in the period, and approved after it"


def test_a_change_of_a_later_time_closes_nothing_yet(landed):
    change("1", -30)
    change("2", 0)
    change("3", 3)
    look(1)
    assert closed() == []
