"""Who answers online: what the ledger's rows say, and never more than they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion.canary import first_row
from evergreen.registry.rollout import Rollout, rollout, shared
from evergreen.registry.under_watch import champion_under_watch
from evergreen.warehouse.connection import connect

DAY = timedelta(days=1)
KINDS = {"+": DecisionKind.PROMOTED, "<": DecisionKind.ROLLED_BACK}


def line(start, *changes):
    """Changes of champion a day apart, newest first, with ids 10, 20, …; `+2` promotes version 2, `<1` rolls back to version 1."""
    found = [
        Decision(start + n * DAY, "model/rides", KINDS[c[0]], "x", "run", f"{n}", version=c[1:], id=10 * n)
        for n, c in enumerate(changes, 1)
    ]
    return found[::-1]


def row(promotion, as_of, share, *, id=None, broken=None):
    """A row that says a share of the version of a promotion."""
    evidence = {
        "promotion": promotion.id, "version": promotion.version, "former": "1", "share": share,
        "until": (promotion.as_of + 3 * DAY).isoformat(), **(broken or {}),
    }  # fmt: skip
    id = id or promotion.id + 1
    return Decision(
        as_of,
        "model/rides",
        DecisionKind.CANARY,
        "canary_grown",
        "run",
        f"c{id}",
        evidence,
        promotion.version,
        id=id,
    )


def test_no_champion_is_no_rollout(start):
    assert shared([], [], start) is None


@pytest.mark.parametrize(
    "changes", [["+1"], ["+1", "+2"], ["+1", "+2", "<1"]], ids=["first", "second", "back"]
)
def test_without_a_row_the_champion_answers_for_all(start, changes):
    newest, *_ = found = line(start, *changes)
    assert shared(found, [], start + 9 * DAY) == Rollout(newest.version, None, 1.0, newest.as_of, None)


@pytest.mark.parametrize(
    ("days", "share", "since"),
    [(2, 0.1, 2), (3, 0.1, 2), (3.5, 0.2, 3.5), (4, 0.2, 3.5), (5, 0.4, 5), (60, 0.4, 5)],
)
def test_the_newest_row_as_of_a_time_says_the_share(start, days, share, since):
    """Also long after `until`: time alone ends nothing."""
    newest, first = line(start, "+1", "+2")
    rows = [
        row(newest, newest.as_of, 0.1, id=21), row(newest, start + 5 * DAY, 0.4, id=22),
        row(newest, start + 3.5 * DAY, 0.2, id=23),  # written last, by a run as of the past
    ]  # fmt: skip
    as_of = start + days * DAY
    found = shared([newest, first], [r for r in rows if r.as_of <= as_of], as_of)
    assert found == Rollout("2", "1", share, start + since * DAY, start + 5 * DAY)


def test_a_whole_share_leaves_no_former(start):
    newest, first = line(start, "+1", "+2")
    found = shared([newest, first], [row(newest, start + 4 * DAY, 1.0)], start + 4 * DAY)
    assert found == Rollout("2", None, 1.0, start + 4 * DAY, None)


def test_rows_of_another_promotion_say_nothing(start):
    """Of one that was rolled back, of the same version promoted again, and damaged ones of before."""
    newest, *others = line(start, "+1", "+2", "<1", "+2")
    rows = [row(others[1], start + 2 * DAY, 0.1), replace(row(others[1], start, 0.1, id=22), evidence=["?"])]
    assert shared([newest, *others], rows, start + 9 * DAY).share == 1.0
    back = [others[0], *others[1:]]
    assert shared(back, rows, start + 3 * DAY) == Rollout("1", None, 1.0, start + 3 * DAY, None)


def test_before_a_promotion_is_in_force_the_former_answers_for_all(start):
    newest, first = line(start, "+1", "+2")
    later = newest.as_of + 2 * DAY
    newest = replace(newest, evidence={"effective_from": later.isoformat()})
    rows = [row(newest, newest.as_of, 0.1)]
    found = shared([newest, first], rows, later - timedelta(seconds=1))
    assert (found.share, found.former, found.since) == (0.0, "1", None)
    found = shared([newest, first], rows, later)
    assert (found.share, found.former, found.since) == (0.1, "1", later)


@pytest.mark.parametrize(
    "broken",
    [
        {"share": "all"}, {"share": 1.5}, {"share": -0.1}, {"share": None}, {"former": None}, {"until": None},
        {"until": "soon"}, {"promotion": "20"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_read_gives_no_share_at_all(start, broken):
    newest, first = line(start, "+1", "+2")
    rows = [row(newest, newest.as_of, 0.1, id=21), row(newest, start + 3 * DAY, 1.0, id=22, broken=broken)]
    with pytest.raises(TerminalError) as caught:
        shared([newest, first], rows, start + 4 * DAY)
    assert caught.value.reason is ErrorReason.DAMAGED_LEDGER


CANARY = {"canary": {"share": 0.25, "for": "2d"}}


@pytest.mark.parametrize(
    ("changes", "serving", "watch", "wanted"),
    [
        pytest.param(["+1", "+2"], CANARY, {}, (0.25, "1", 2), id="canary"),
        pytest.param(["+1", "+2"], {"shadow": "3d"}, {}, (0.0, "1", 3), id="shadow"),
        pytest.param(
            ["+1", "+3", "+4", "<3", "+5"], CANARY, {}, (0.25, "3", 2), id="the-one-that-was-before"
        ),
        pytest.param(["+1", "+2"], {}, {}, None, id="neither"),
        pytest.param(["+1", "+2"], {**CANARY, "online": False}, {}, None, id="not-online"),
        pytest.param(["+1"], CANARY, {}, None, id="first-champion"),
    ],
)
def test_how_a_promotion_begins(change, rides, start, changes, serving, watch, wanted):
    model = change(rides, serving=serving, watch=watch)
    found = champion_under_watch(model, line(start, *changes))
    made = first_row(model, found)
    if wanted is None:
        assert made is None
        return
    share, former, days = wanted
    told = made.evidence
    assert (told.share, told.former, told.promotion) == (share, former, found.promotion.id)
    assert (told.version, made.version) == (changes[-1][1:],) * 2
    assert (told.until, told.for_) == (found.promotion.as_of + days * DAY, f"{days}d")
    assert (made.reason, made.as_of) == ("canary_started", found.promotion.as_of)


def test_one_that_cannot_predict_beside_it_answers_for_nothing(change, rides, start):
    newest, first = line(start, "+1", "+2")
    newest = replace(newest, reason="champion_cannot_be_evaluated")
    model = change(rides, serving=CANARY)
    assert first_row(model, champion_under_watch(model, [newest, first])) is None


def test_it_is_read_from_the_ledger_as_of_a_time(change, rides, start, warehouse_url):
    model = change(rides, serving=CANARY)
    with connect() as conn:
        for n, version in enumerate(("1", "2"), 1):
            evidence = {"mlflow_run": version, "trained_until": start.isoformat()}
            ledger.append(
                conn, Decision(start + n * DAY, "model/rides", DecisionKind.PROMOTED, "x", "run", f"p{n}", evidence, version)
            )  # fmt: skip
        changes = ledger.champions(conn, "rides")
        began = ledger.append(conn, first_row(model, champion_under_watch(model, changes)))
        assert began.evidence.to_json()["for"] == "2d"
        ledger.append(conn, replace(row(changes[0], start + 3 * DAY, 0.5), id=None))
        assert rollout(conn, model, start) is None
        assert rollout(conn, model, start + DAY) == Rollout("1", None, 1.0, start + DAY, None)
        assert rollout(conn, model, start + 2.5 * DAY).share == 0.25
        assert rollout(conn, rides, start + 3 * DAY).share == 0.5, "whatever the spec says now"
