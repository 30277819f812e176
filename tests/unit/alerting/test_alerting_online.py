"""What mails say of the online traffic: the week to their as-of time and no more, so that a letter that is written again says the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.compose import LETTERS, gather
from evergreen.alerting.content.letter import Letter
from evergreen.alerting.content.online import ON_ITS_WAY, WEEK, percent
from evergreen.alerting.content.week import model_week
from evergreen.alerting.letters.digest import digest
from evergreen.incidents.outbox import owe, raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch
from health_scene import asked

SUBJECT = "model/bike_demand"
FACT = "Online, the week before"
Decide = Callable[..., Decision]
"""See the fixture `decide`."""


@pytest.fixture
def traffic(conn: Connection, start: datetime) -> None:
    """A week online up to `start`; a minute before it, one that the letter leaves out, and one after it."""
    until = start - ON_ITS_WAY
    asked(conn, "bike_demand", "1", until - timedelta(days=2), 8_000, records=9_000, took=(1.0, 4.0))
    asked(conn, "bike_demand", "2", until - timedelta(minutes=1), 2_000, took=(1.2, 5.0))
    asked(conn, "bike_demand", "", until - timedelta(days=3), 13, records=0, errors=10, refused=3, lost=7)
    for at in (until - WEEK - timedelta(minutes=1), until, start, start + timedelta(hours=1)):
        asked(conn, "bike_demand", "1", at, 50_000, errors=40_000, lost=100)


def letter(conn: Connection, specs: Specs, decision: Decision, kind: AlertKind) -> Letter:
    raise_incident(conn, f"{kind}:{decision.id}", SUBJECT, kind, decision.id, {})
    row = fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id DESC LIMIT 1")[0]
    return LETTERS[kind](conn, gather(conn, specs, row))


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("kind", [DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK])
def test_letters_about_the_champion_tell_its_week(
    conn: Connection, specs: Specs, decide: Decide, start: datetime, kind: DecisionKind
) -> None:
    decide(DecisionKind.PROMOTED, "first_champion", as_of=start, version="1", evidence={})
    made = decide(kind, "manual", as_of=start, version="2", evidence={"message": "x"})
    alert = AlertKind.CHAMPION_CHANGED if kind is DecisionKind.PROMOTED else AlertKind.ROLLED_BACK
    facts = dict(letter(conn, specs, made, alert).facts)
    assert facts[FACT] == (
        "10,013 requests, p99 4 ms, 0.1% errors, < 0.1% refused, 7 records lost from the log; answered by version 1 80%, version 2 20%"
    )


@pytest.mark.parametrize("alert", [AlertKind.CHAMPION_CHANGED, AlertKind.ROLLED_BACK])
def test_of_a_model_that_nobody_asks_they_say_nothing(
    conn: Connection, specs: Specs, decide: Decide, start: datetime, alert: AlertKind
) -> None:
    asked(conn, "bike_demand", "1", start + timedelta(minutes=1))
    asked(conn, "bike_rush", "1", start - timedelta(days=1))
    made = decide(DecisionKind.PROMOTED, "manual", as_of=start, version="2", evidence={"message": "x"})
    assert FACT not in dict(letter(conn, specs, made, alert).facts)


@pytest.mark.usefixtures("traffic")
def test_the_digest_tells_the_week_of_each_model_and_of_all(
    conn: Connection, specs: Specs, start: datetime
) -> None:
    asked(conn, "bike_rush", "1", start - timedelta(days=1), 10_000)
    names = {"models": ["bike_demand", "bike_rush"], "datasets": []}
    owe(
        conn,
        "digest:1",
        "digest/weekly",
        AlertKind.DIGEST,
        None,
        {"as_of": start.isoformat(), **names},
        as_of=start,
    )
    row = fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id DESC LIMIT 1")[0]
    found = digest(conn, gather(conn, specs, row))
    assert dict(found.facts)["Online"] == "20,013 requests, < 0.1% errors, 7 records lost from the log"
    models = next(table for table in found.tables if table.title == "Models")
    assert models.columns[-1] == "Online"
    assert {line[0]: line[-1] for line in models.rows} == {
        "bike_demand": "10,013 requests, p99 4 ms, 0.1% errors, < 0.1% refused, 7 records lost from the log",
        "bike_rush": "10,000 requests, p99 4 ms, no errors, no record lost",
    }
    asked(conn, "bike_demand", "1", start + timedelta(days=1), 99)
    assert digest(conn, gather(conn, specs, row)) == found, "written again it says the same"


def test_a_digest_without_online_predictions_has_no_column_for_them(
    conn: Connection, specs: Specs, start: datetime
) -> None:
    assert model_week(conn, specs.models["bike_demand"], start).online is None
    names = {"models": ["bike_demand"], "datasets": []}
    owe(
        conn,
        "digest:1",
        "digest/weekly",
        AlertKind.DIGEST,
        None,
        {"as_of": start.isoformat(), **names},
        as_of=start,
    )
    found = digest(conn, gather(conn, specs, fetch(conn, "SELECT * FROM evergreen.mail")[0]))
    assert "Online" not in dict(found.facts)
    assert all("Online" not in table.columns for table in found.tables)


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0%"), (0.0004, "< 0.1%"), (0.001, "0.1%"), (0.02, "2%"), (0.0994, "9.9%"), (0.2, "20%"), (1, "100%")]
)  # fmt: skip
def test_a_share_is_told_as_far_as_it_says_something(share: float, said: str) -> None:
    assert percent(share) == said
