"""Which promotion is under watch: the newest, against the champion that really was before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion.after_promotion import LOOKS, part
from evergreen.registry.under_watch import champion_under_watch

DAY = timedelta(days=1)


def line(start, *changes):
    """Changes of champion a day apart, newest first; `+2` promotes version 2, `<1` rolls back to version 1."""
    kinds = {"+": DecisionKind.PROMOTED, "<": DecisionKind.ROLLED_BACK}
    found = [
        Decision(start + n * DAY, "model/rides", kinds[c[0]], "x", "run", f"{n}", version=c[1:], id=n)
        for n, c in enumerate(changes, 1)
    ]
    return found[::-1]


@pytest.mark.parametrize(
    ("changes", "previous"),
    [
        (["+1"], None),
        (["+1", "+2"], "1"),
        (["+1", "+3", "+4"], "3"),
        # 4 was taken back: what 5 replaced was 3 again.
        (["+1", "+3", "+4", "<3", "+5"], "3"),
        (["+1", "+2", "+3", "<1", "+4"], "1"),
    ],
    ids=["first", "second", "numbers-with-gaps", "after-a-rollback", "after-a-long-rollback"],
)
def test_the_one_before(rides, start, changes, previous):
    found = champion_under_watch(rides, line(start, *changes))
    assert (found.previous, found.promotion.version) == (previous, changes[-1][1:])


def test_the_period_and_the_labels_after_it(change, rides, start):
    late = change(rides, label={"delay": "2d"}, watch={"period": "3d"})
    found = champion_under_watch(late, line(start, "+1"))
    assert found.shadowed_until == start + 4 * DAY
    assert found.judged_until == start + 6 * DAY


def test_a_watch_lasts_a_window_at_least(change, rides, start):
    """With a shorter one a feed that comes once a window leaves no row that both have predicted."""
    short = change(rides, watch={"period": "6h"}, monitoring={"window": "7d"}, label={"delay": "1h"})
    found = champion_under_watch(short, line(start, "+1", "+2"))
    assert found.shadowed_until == start + 2 * DAY + 7 * DAY
    assert found.judged_until == found.shadowed_until + timedelta(hours=1)


def test_the_period_of_a_version_that_waited_counts_from_when_it_went_live(change, rides, start):
    later = start + 4 * DAY
    newest, before = line(start, "+1", "+2")
    newest = replace(newest, evidence={"effective_from": later.isoformat()})
    found = champion_under_watch(change(rides, watch={"period": "1d"}), [newest, before])
    assert found.shadowed_until == later + DAY
    assert part(found, newest.as_of) == part(found, later) == 1, "a run as of the wait is no look of its own"
    assert part(found, found.judged_until - timedelta(minutes=1)) == LOOKS - 1


@pytest.mark.parametrize(
    ("changes", "period"),
    [([], "7d"), (["+1", "+2", "<1"], "7d"), (["+1", "+2"], None)],
    ids=["nothing", "rolled-back", "switched-off"],
)
def test_no_watch(change, rides, start, changes, period):
    assert champion_under_watch(change(rides, watch={"period": period}), line(start, *changes)) is None
