"""Silences: what they hold, what they do not, and that nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from evergreen.alert_kinds import HELD
from evergreen.alerting.delivery import deliver, subjects_waiting, waiting
from evergreen.errors import TerminalError
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.silences import active, end_of, silence
from evergreen.incidents.unsent import unsent
from evergreen.ledger import Decision, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import connect, fetch

MODEL = "model/bike_demand"
HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def quiet(
    until: str = "3d", *, subject: str = MODEL, at: datetime | None = None, run: str = "make/1"
) -> Decision:
    with connect() as conn:
        return silence(conn, subject, until, "sensor is moved", "ann", at or now(), run)


def owe(*kinds: str, subject: str = MODEL) -> None:
    with connect() as conn:
        for kind in kinds:
            raise_incident(conn, f"{subject}:{kind}", subject, kind, None, {"status": "stale"})


def mails(specs: Specs, at: datetime | None = None) -> list[EmailMessage]:
    sent: list[EmailMessage] = []
    deliver(specs, sent.append, now=at)
    return sent


def test_a_silence_is_a_row_with_reason_person_and_end(warehouse_url: str) -> None:
    made = quiet()
    assert (made.kind, made.reason, made.subject) == (DecisionKind.SILENCED, "silenced", MODEL)
    assert (made.evidence.to_json()["why"], made.evidence.to_json()["by"]) == ("sensor is moved", "ann")
    with connect() as conn:
        (found,) = active(conn)
        assert active(conn, found.until) == [], "the end is excluded"
    assert found.until - found.since == timedelta(days=3)
    assert quiet().id == made.id, "the same run silences once"


def test_while_silenced_alerts_wait_and_changes_of_what_is_served_do_not(
    warehouse_url: str, specs: Specs
) -> None:
    quiet()
    owe(*HELD, "champion_changed", "rolled_back")
    assert [m["X-Evergreen-Incident"] for m in mails(specs)] == [
        f"{MODEL}:champion_changed",
        f"{MODEL}:rolled_back",
    ]
    with connect() as conn:
        assert waiting(conn, MODEL) == 0, "no run is to be woken for what is held"
        assert subjects_waiting(conn) == []
        assert active(conn)[0].held == len(HELD)
        assert [m.silenced for m in unsent(conn)] == [True] * len(HELD)
        marked = fetch(conn, "SELECT count(*) AS n FROM evergreen.mail WHERE held_by IS NOT NULL")
    assert marked == [{"n": len(HELD)}]


def test_other_subjects_are_not_silenced(warehouse_url: str, specs: Specs) -> None:
    quiet()
    owe("drift", subject="model/bike_rush")
    owe("batch_quarantined", subject="dataset/bike_hourly")
    assert len(mails(specs)) == 2


def test_what_was_held_goes_out_as_one_letter_when_the_silence_has_ended(
    warehouse_url: str, specs: Specs
) -> None:
    quiet("1h")
    owe("drift", "data_problem", "run_failed", "challenger_rejected")
    assert mails(specs) == []
    assert mails(specs, now() + 0.9 * HOUR) == []
    (letter,) = mails(specs, now() + 1.1 * HOUR)
    assert letter["Subject"] == "[Evergreen] bike_demand: silence ended, 4 alerts were held, 3 still so"
    assert len(letter.get_all("X-Evergreen-Incident")) == 4
    text = " ".join(letter.get_body(("plain",)).get_content().split())
    assert "Silenced by: ann" in text
    assert "Because: sensor is moved" in text
    assert mails(specs, now() + 2 * HOUR) == []


def test_a_flood_that_was_held_is_one_letter_of_readable_length(warehouse_url: str, specs: Specs) -> None:
    quiet("1h")
    with connect() as conn:
        for number in range(100):
            raise_incident(conn, f"n{number}", MODEL, "data_problem", None, {"status": "stale"})
    (letter,) = mails(specs, now() + 2 * HOUR)
    text = letter.get_body(("plain",)).get_content()
    assert "100 alerts" in text
    assert text.count("no drift is claimed") <= 6
    with connect() as conn:
        assert waiting(conn) == 0


def test_a_silence_that_is_ended_by_hand_lets_go(warehouse_url: str, specs: Specs) -> None:
    quiet()
    owe("drift")
    made = quiet("now", run="make/2")
    assert made.reason == "silence_ended"
    (letter,) = mails(specs)
    assert "one alert was held" in letter["Subject"]
    with connect() as conn:
        assert active(conn) == []


def test_what_waited_before_the_silence_is_held_too(warehouse_url: str, specs: Specs) -> None:
    owe("drift")

    def refuse(message: EmailMessage) -> None:
        raise ConnectionRefusedError

    deliver(specs, refuse)
    quiet()
    assert mails(specs) == []
    with connect() as conn:
        assert fetch(conn, "SELECT held_by IS NOT NULL AS held FROM evergreen.mail") == [{"held": True}]


def test_a_new_silence_replaces_the_old_one(warehouse_url: str, specs: Specs) -> None:
    quiet("1h")
    owe("drift")
    quiet("3d", run="make/2")
    assert mails(specs, now() + 2 * HOUR) == []
    assert len(mails(specs, now() + timedelta(days=4))) == 1


@pytest.mark.parametrize(
    ("until", "why", "said"),
    [
        ("3d", "  ", "needs a reason"),
        ("yesterday", "x", "is no end of a silence"),
        ("2020-01-01", "x", "has passed"),
        ("0d", "x", "has passed"),
        ("2y", "x", "is no end"),
        ("99999999999999w", "x", "more than a year"),
        ("9999-12-31T23:59:59+00:00", "x", "more than a year"),
        ("", "x", "is no end"),
    ],
)
def test_a_silence_without_reason_or_end_is_refused(
    warehouse_url: str, until: str, why: str, said: str
) -> None:
    with pytest.raises(TerminalError, match=said), connect() as conn:
        silence(conn, MODEL, until, why, "ann", now(), "make/1")
    with connect() as conn:
        assert find(conn, kinds=(DecisionKind.SILENCED,)) == []


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ("90m", "2026-03-02T01:30:00+00:00"),
        ("2 W", "2026-03-16T00:00:00+00:00"),
        ("2026-03-05", "2026-03-05T00:00:00+00:00"),
        ("2026-03-05T06:00Z", "2026-03-05T06:00:00+00:00"),
        ("2026-03-05T06:00+02:00", "2026-03-05T04:00:00+00:00"),
    ],
)
def test_the_end_is_a_duration_or_a_time(until: str, end: str) -> None:
    assert end_of(until, datetime(2026, 3, 2, tzinfo=UTC)).isoformat() == end
