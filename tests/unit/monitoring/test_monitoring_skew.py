"""Online predictions against batch ones: what is a finding, what is none, and who is told once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from online_client import SERVED, Client

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.errors import TransientError
from evergreen.health.incident import incident
from evergreen.incidents import threads
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import monitor
from evergreen.monitoring.skew import check, sample, told
from evergreen.monitoring.skew.check import compare_served
from evergreen.warehouse.connection import connect, fetch

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def served(world, made_once, start, one_thread):
    """A champion of day 30, and hourly rows until day 36: of three days there are 72 rows."""

    def make():
        world.land(start, 36)
        world.promote(start + 30 * DAY, "dag/first")

    made_once(make)
    return world


@pytest.fixture
def client(served, start):
    return Client(served, start)


@pytest.fixture
def look(served, start):
    """Compare as of some hours after the midnight that follows the records, or after a later one."""

    def run(hours=3.0, run_id="monitor/1", days=0):
        as_of = start + (SERVED + 3 + days) * DAY + hours * HOUR
        return compare_served(served.specs, served.model, as_of, run_id)

    return run


def fahrenheit(features):
    """Another unit in one column."""
    return {**features, "x": features["x"] * 1.8 + 32}


def open_incidents():
    with connect() as conn:
        return threads.open_ones(conn, "model/rides", AlertKind.SERVING_SKEW)


def mails():
    with connect() as conn:
        return [row["kind"] for row in fetch(conn, "SELECT kind FROM evergreen.mail WHERE incident LIKE '%skew:%' ORDER BY id")]  # fmt: skip


def test_the_same_features_are_no_finding(client, look):
    client.ask(client.evening)
    found = look()
    assert (found.kind, found.reason) == (DecisionKind.SERVING_COMPARED, "served_as_batch")
    assert (found.evidence.rows, found.evidence.differing, found.evidence.share) == (72, 0, 0)
    assert found.evidence.message == "72 online predictions are those that a batch makes"
    assert mails() == []


def test_a_client_with_another_unit_is_told_with_the_column(client, look, start):
    client.ask(client.evening, client.rows()[:48], client="right")
    client.ask(client.evening, client.rows()[48:], sends=fahrenheit, client="wrong")
    found = look()
    told = found.evidence
    assert (found.reason, found.version, told.rows) == ("other_features", "1", 72)
    assert 20 <= told.differing <= 24, "a tree may say the same of both"
    assert told.share == told.differing / 72
    (column,) = told.columns
    assert (column.column, column.share) == ("x", 1.0)
    row = next(r for r in client.rows() if json.loads(column.key) == [r["ts"].isoformat()])
    assert (column.sent, column.found) == (f"{row['x'] * 1.8 + 32:.6g}", f"{row['x']:.6g}")
    assert [(one.client, one.rows) for one in told.clients] == [("wrong", told.differing)]
    assert told.example.answered != told.example.batch
    assert told.largest == pytest.approx(abs(told.example.answered - told.example.batch) / max(told.example.answered, told.example.batch))  # fmt: skip
    (thread,) = open_incidents()
    assert (thread.classes, thread.details) == ({"other_features"}, {"column:x"})
    with connect() as conn:
        assert ledger.open_requests(conn, "rides") == []


def test_no_label_is_needed(client, look, served):
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE data.rides_hourly SET demand = NULL WHERE ts >= %s", (client.start + SERVED * DAY,)
        )
    client.ask(client.evening, sends=fahrenheit)
    assert look().reason == "other_features"


def test_a_row_that_is_corrected_the_day_after_is_no_finding(client, look, served, start):
    client.ask(client.evening)
    for row in client.rows():
        served.correct(row["ts"], start + (SERVED + 3) * DAY + HOUR, x=row["x"] + 5)
    assert look().reason == "served_as_batch"


def test_a_row_that_is_corrected_on_the_same_day_is_no_finding(client, look, served):
    client.ask(client.evening)
    for row in client.rows():
        served.correct(row["ts"], client.evening + 10 * MINUTE, x=row["x"] + 5)
    found = look()
    assert (found.reason, found.evidence.differing) == ("served_as_batch", 0)


def test_of_records_that_are_not_looked_at_closely_as_many_were_corrected(client, look, served, monkeypatch):
    """All differ as of midnight; a third of them for a correction, which few of them are looked at for."""
    monkeypatch.setattr(check, "MOST_CLOSELY", 40)
    rows = client.rows()
    client.ask(client.evening, rows[:36], client="right")
    client.ask(client.evening, rows[36:], sends=fahrenheit, client="wrong")
    for row in rows[:36]:
        served.correct(row["ts"], client.evening + 10 * MINUTE, x=row["x"] + 5)
    told = look().evidence
    assert told.closely < 40
    assert 20 <= told.differing <= 50
    assert [one.client for one in told.clients] == ["wrong"]


def test_a_row_that_comes_after_the_day_is_compared_as_it_came(client, look, served, start):
    """The client has it before the warehouse."""
    rows = client.rows()
    client.ask(client.evening, rows[:36])
    client.ask(client.evening, rows[36:], sends=fahrenheit)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE data.rides_hourly SET _arrived_at = %s WHERE ts >= %s",
            (start + (SERVED + 3) * DAY + 2 * HOUR, start + SERVED * DAY),
        )
    assert look(hours=1) is None, "none of them is there"
    found = look(hours=3)
    assert (found.reason, found.evidence.rows) == ("other_features", 72)
    assert found.evidence.differing >= 30


def test_what_was_sent_in_another_type_is_the_same_where_the_model_sees_the_same(client, look):
    client.ask(client.evening, sends=lambda f: {**f, "hour": int(f["hour"]), "x": f["x"] + 1e-12})
    found = look()
    assert (found.reason, found.evidence.differing) == ("served_as_batch", 0)


@pytest.mark.parametrize(
    ("records", "of_them", "wanted"), [(49, 49, None), (50, 50, "other_features"), (72, 0, "served_as_batch")]
)
def test_of_too_few_records_nothing_is_said(client, look, records, of_them, wanted):
    rows = client.rows()[:records]
    client.ask(client.evening, rows[:of_them], sends=fahrenheit)
    client.ask(client.evening, rows[of_them:])
    found = look()
    assert (found.reason if found else None) == wanted


def test_too_few_records_are_looked_at_with_those_of_the_next_day(client, look, start):
    rows = client.rows()
    client.ask(client.evening, rows[:30], sends=fahrenheit)
    assert look() is None
    client.ask(client.evening + DAY, rows[30:], sends=fahrenheit)
    found = look(days=1)
    assert (found.reason, found.evidence.rows) == ("other_features", 72)
    assert found.evidence.until == start + (SERVED + 4) * DAY
    client.ask(client.evening + 2 * DAY, rows[:60])
    assert look(days=2).evidence.since == found.evidence.until


def test_a_share_below_the_limit_is_written_down_and_not_mailed(client, look, served):
    rows = client.rows()
    client.ask(client.evening, rows[:2], sends=fahrenheit)
    client.ask(client.evening, rows[2:])
    found = look()
    assert found.reason == "served_as_batch"
    assert found.evidence.differing in (1, 2)
    assert mails() == []
    lower = served.with_model(serving={"skew": 0.01})
    client.ask(client.evening + DAY, rows[:2], sends=fahrenheit)
    client.ask(client.evening + DAY, rows[2:])
    as_of = client.evening + DAY + 4 * HOUR
    assert compare_served(lower.specs, lower.model, as_of, "m/2").reason == "other_features"


def test_another_number_of_the_same_features_is_a_finding_however_few(client, look):
    rows = client.rows()
    client.ask(client.evening, rows[1:])
    client.ask(client.evening, rows[:1], answers=lambda value: value * (1 + 1e-5))
    found = look()
    told = found.evidence
    assert (found.reason, told.other_numbers, told.columns) == ("other_numbers", 1, ())
    assert told.largest == pytest.approx(1e-5, rel=0.01)
    assert open_incidents()[0].classes == {"other_numbers"}


def test_another_number_is_found_without_any_row_in_the_warehouse(client, look, start):
    client.ask(client.evening, client.rows()[:3], answers=lambda value: value + 1)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM data.rides_hourly WHERE ts >= %s", (start + SERVED * DAY,))
    found = look()
    assert (found.reason, found.evidence.rows, found.evidence.other_numbers) == ("other_numbers", 0, 3)


@pytest.mark.parametrize("kept", [(), ("hour", "kind")], ids=["no features", "not the sensitive one"])
def test_features_that_were_not_kept_are_not_accused(client, look, kept):
    client.ask(client.evening, sends=fahrenheit, keeps=kept)
    found = look()
    assert (found.reason, found.evidence.columns, found.evidence.other_numbers) == ("other_predictions", (), None)  # fmt: skip
    assert "not kept" in found.evidence.message


def test_a_day_is_compared_once(client, look):
    client.ask(client.evening, sends=fahrenheit)
    assert look() is not None
    assert look(run_id="monitor/2") is None
    assert look(hours=20, run_id="monitor/3") is None
    assert mails() == ["serving_skew"]


def test_more_of_the_same_is_no_further_mail(client, look):
    for days in range(3):
        client.ask(client.evening + days * DAY, sends=fahrenheit)
        assert look(days=days, run_id=f"monitor/{days}").reason == "other_features"
    assert mails() == ["serving_skew"]


def test_two_runs_at_once_decide_once(client, look, monkeypatch):
    client.ask(client.evening, sends=fahrenheit)
    once = check._compared

    def meanwhile(*args):
        monkeypatch.setattr(check, "_compared", once)
        assert look(run_id="monitor/other") is not None
        return once(*args)

    monkeypatch.setattr(check, "_compared", meanwhile)
    assert look() is None
    assert mails() == ["serving_skew"]


def test_a_run_that_is_killed_before_its_mail_is_owed_leaves_nothing(client, look, monkeypatch):
    client.ask(client.evening, sends=fahrenheit)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(told, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            look()
    with connect() as conn:
        assert ledger.find(conn, "model/rides", (DecisionKind.SERVING_COMPARED,)) == []
    assert look(run_id="monitor/again").reason == "other_features"
    assert mails() == ["serving_skew"]


def test_it_ends_by_itself_with_a_mail(client, look, start):
    client.ask(client.evening, sends=fahrenheit)
    look()
    client.ask(client.evening + DAY)
    assert look(days=1, run_id="monitor/2").reason == "served_as_batch"
    assert open_incidents() == []
    assert mails() == ["serving_skew", "recovered"]
    with connect() as conn:
        (end,) = ledger.find(conn, "model/rides", (DecisionKind.RECOVERED,))
    assert (end.reason, end.evidence.kind) == ("alike_again", "serving_skew")
    assert end.evidence.ended == start + (SERVED + 3) * DAY, "from then on they were alike"


def test_the_page_of_the_incident_tells_each_comparison(client, look):
    for days, sends in enumerate((fahrenheit, fahrenheit, None)):
        client.ask(client.evening + days * DAY, sends=sends)
        look(days=days, run_id=f"monitor/{days}")
    with connect() as conn:
        found = incident(conn, fetch(conn, "SELECT min(id) AS id FROM evergreen.mail WHERE kind = 'serving_skew'")[0]["id"])  # fmt: skip
    decided = [step for step in found.steps if step.what == "decision" and "new champion" not in step.words]
    steps = [(step.repeated, step.words.partition(":")[2]) for step in decided]
    assert [repeated for repeated, _ in steps] == [2, 1, 1], "two that differ, one that does not, the end"
    assert "72 online predictions are those that a batch makes" in steps[1][1]
    assert found.told_as == ("online requests have other features than the warehouse",)


def test_what_comes_and_goes_ends_only_after_more_good_days(client, look):
    told = []
    for days, sends in enumerate((fahrenheit, None, None, None, fahrenheit, None, None)):
        client.ask(client.evening + days * DAY, sends=sends)
        look(days=days, run_id=f"monitor/{days}")
        told.append(len(mails()))
    assert told == [1, 2, 2, 2, 3, 3, 4], "after an end the next one needs two good days"


@pytest.mark.parametrize("serving", [{"online": False}, {"skew": None}], ids=str)
def test_a_model_that_is_not_compared_any_more_has_no_open_incident(client, look, served, serving):
    client.ask(client.evening, sends=fahrenheit)
    look()
    off = served.with_model(serving=serving)
    client.ask(client.evening + DAY, sends=fahrenheit)
    as_of = client.evening + DAY + 4 * HOUR
    assert compare_served(off.specs, off.model, as_of, "monitor/2") is None
    assert open_incidents() == []
    with connect() as conn:
        (end,) = ledger.find(conn, "model/rides", (DecisionKind.RECOVERED,))
    assert end.reason == "not_compared"


def test_an_incident_ends_when_nobody_asks_for_a_week(client, look):
    client.ask(client.evening, sends=fahrenheit)
    look()
    assert look(days=6) is None
    assert len(open_incidents()) == 1
    assert look(days=8) is None
    assert open_incidents() == []


def test_a_key_that_no_row_can_have_does_not_end_the_comparison(client, look):
    client.ask(client.evening)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.request SELECT 'odd', 0, model, version, client, asked_at, source, '[\"0\"]', event_time, 1.0, NULL"
            " FROM evergreen.request LIMIT 1"
        )
    assert look().evidence.rows == 72


def test_a_version_that_is_gone_is_left_out_and_named(client, look):
    client.ask(client.evening)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.request SET version = '7' WHERE asked_at = %s AND right(id, 1) = '3'", (client.evening,))  # fmt: skip
    told = look().evidence
    assert told.rows < 72
    assert told.left_out.startswith("version 7: ")


def test_a_warehouse_that_goes_away_leaves_nothing(client, look, monkeypatch):
    client.ask(client.evening, sends=fahrenheit)

    def away(*_):
        raise TransientError("the warehouse does not answer")

    with monkeypatch.context() as during:
        during.setattr(check, "_rows", away)
        with pytest.raises(TransientError):
            look()
    assert look().reason == "other_features"


def test_the_sample_is_of_the_smallest_hashes_and_the_newest_request_of_each_key(client, served, monkeypatch):
    monkeypatch.setattr(sample, "ASKED", 20)
    for minutes in (0, 5):
        client.ask(client.evening + minutes * MINUTE)
    client.ask(client.evening + 3 * HOUR, client="the day after")
    until = client.start + (SERVED + 3) * DAY
    with connect() as conn:
        wanted = fetch(conn, "SELECT key FROM (SELECT DISTINCT key FROM evergreen.request) AS k ORDER BY hashtextextended(key, 0) LIMIT 20")  # fmt: skip
        found = sample.sample(conn, served.model, until - DAY, until)
        assert found == sample.sample(conn, served.model, until - DAY, until)
    assert [one.key for one in found] == [row["key"] for row in wanted]
    assert {one.asked_at for one in found} == {client.evening + 5 * MINUTE}


def test_the_monitor_compares_and_says_so(client, served, start):
    client.ask(client.evening, sends=fahrenheit)
    run = monitor(served.specs, served.model, start + (SERVED + 3) * DAY + 3 * HOUR, "monitor/1")
    assert run.skew.reason == "other_features"
    assert "the requests have another x than the warehouse" in run.sentence()
    assert run.problems == ()
