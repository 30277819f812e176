"""The outbox: one mail per incident, sent once, never lost silently."""

from __future__ import annotations

import math
import smtplib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import numpy as np
import pytest
from aiosmtpd.controller import Controller

from evergreen.alerting import compose
from evergreen.alerting.delivery import deliver, waiting
from evergreen.incidents.outbox import one_line, raise_incident, storable
from evergreen.ledger import Decision, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch


def owe(number: int = 1, *, subject: str = "model/bike_demand", kind: str = "run_failed") -> None:
    with connect() as conn:
        for index in range(number):
            assert raise_incident(
                conn, f"incident:{subject}:{index}", subject, kind, None, {"error": "no disk"}
            )


def mails() -> list[dict]:
    with connect() as conn:
        return fetch(
            conn,
            "SELECT m.*, d.attempts, d.last_error FROM evergreen.mail AS m LEFT JOIN evergreen.delivery AS d ON d.mail = m.id ORDER BY id",
        )


def refuse(message: EmailMessage) -> None:
    raise ConnectionRefusedError(f"smtp://user:topsecret@mail:587 refused {message['Subject']}\nsecond line")


def test_the_same_incident_is_owed_one_mail(warehouse_url: str, specs: Specs) -> None:
    sent: list[EmailMessage] = []
    owe()
    with connect() as conn:
        assert not raise_incident(
            conn, "incident:model/bike_demand:0", "model/bike_demand", "drift", None, {}
        )
    assert deliver(specs, sent.append).sent == 1
    with connect() as conn:
        assert not raise_incident(
            conn, "incident:model/bike_demand:0", "model/bike_demand", "drift", None, {}
        )
    assert deliver(specs, sent.append).sent == 0
    assert len(sent) == 1


def test_what_waits_is_counted_by_subject_until_it_went_out(warehouse_url: str, specs: Specs) -> None:
    owe(2)
    owe(1, subject="dataset/bike_hourly")
    with connect() as conn:
        assert [waiting(conn, s) for s in ("model/bike_demand", "model/bike_rush", None)] == [2, 0, 3]
    deliver(specs, refuse, subject="model/bike_demand")
    with connect() as conn:
        assert waiting(conn, "model/bike_demand") == 2, "a mail that could not be sent waits for a later run"
    deliver(specs, [].append, subject="model/bike_demand")
    with connect() as conn:
        assert [waiting(conn, s) for s in ("model/bike_demand", None)] == [0, 1]


def test_a_rolled_back_decision_owes_no_mail(warehouse_url: str, specs: Specs) -> None:
    with suppress(RuntimeError), connect() as conn:
        raise_incident(conn, "incident", "model/bike_demand", "drift", None, {})
        raise RuntimeError("the decision failed")
    assert mails() == []


@pytest.mark.parametrize("subject", ["bike_demand", "model/", "model/Bike", "team/x", "model/a;drop"])
def test_a_subject_that_the_ledger_would_refuse_is_refused(conn: Connection, subject: str) -> None:
    with pytest.raises(ValueError, match="write model/NAME"):
        raise_incident(conn, "incident", subject, "drift", None, {})


def test_a_context_of_any_values_is_stored(conn: Connection) -> None:
    context = {
        "nan": math.nan, "inf": math.inf, "minus": -math.inf, "numpy": np.float32(0.5), "array": np.array([1, 2]),
        "time": datetime(2026, 1, 1, tzinfo=UTC), "nul": "a\x00b", "broken": "\ud800", 7: (1, None, True),
        "set": {1}, "error": ValueError("x"),
    }  # fmt: skip
    assert raise_incident(conn, "incident", "model/bike_demand", "drift", None, context)
    stored = fetch(conn, "SELECT context FROM evergreen.mail")[0]["context"]
    assert stored == {
        "nan": None, "inf": "infinity", "minus": "-infinity", "numpy": 0.5, "array": [1, 2],
        "time": "2026-01-01 00:00:00+00:00", "nul": "a\ufffdb", "broken": "?", "7": [1, None, True], "set": [1],
        "error": "x",
    }  # fmt: skip
    assert storable(stored) == stored


def test_two_deliveries_at_once_send_each_mail_once(warehouse_url: str, specs: Specs) -> None:
    owe(8)
    sent: list[str] = []
    gate = threading.Barrier(2)

    def send(message: EmailMessage) -> None:
        time.sleep(0.02)
        sent.append(message["X-Evergreen-Incident"])

    def run(results: list) -> None:
        gate.wait()
        results.append(deliver(specs, send))

    results: list = []
    threads = [threading.Thread(target=run, args=(results,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == sorted({f"incident:model/bike_demand:{i}" for i in range(8)})
    assert sum(r.sent for r in results) == 8
    assert all(m["sent_at"] for m in mails())


def test_a_failing_server_is_visible_and_the_mail_is_tried_again(warehouse_url: str, specs: Specs) -> None:
    owe(2)
    result = deliver(specs, refuse)
    assert (result.sent, result.failed, result.pending) == (0, 2, 2)
    first = mails()[0]
    assert first["attempts"] == 1
    assert first["sent_at"] is None
    assert first["last_error"].startswith("ConnectionRefusedError: smtp://***@mail:587 refused")
    assert "\n" not in first["last_error"]
    assert "topsecret" not in first["last_error"] + " ".join(result.errors)
    with connect() as conn:
        assert find(conn, kinds=(DecisionKind.MAIL_FAILED,)) == []
    result = deliver(specs, lambda message: None)
    assert (result.sent, result.failed, result.pending) == (2, 0, 0)
    assert mails()[0]["sent_at"] is not None


def test_three_failures_are_one_ledger_row_and_a_later_success_is_visible(
    conn: Connection, specs: Specs, decide: Callable[..., Decision]
) -> None:
    decision = decide(DecisionKind.PROMOTED, "first_champion", version="1")
    raise_incident(conn, "promoted:bike_demand:1", "model/bike_demand", "champion_changed", decision.id, {})
    conn.commit()
    for _ in range(5):
        deliver(specs, refuse)
    lost = find(conn, kinds=(DecisionKind.MAIL_FAILED,))
    assert [(d.subject, d.dedupe_key, d.version) for d in lost] == [
        ("model/bike_demand", "mail_failed:promoted:bike_demand:1", "1")
    ]
    assert lost[0].evidence.to_json()["attempts"] == 3
    assert "ConnectionRefusedError" in lost[0].evidence.to_json()["error"]
    assert lost[0].as_of == decision.as_of
    assert deliver(specs, lambda message: None).sent == 1
    row = mails()[0]
    assert row["attempts"] == 5
    assert row["sent_at"] is not None


def test_one_bad_mail_does_not_hold_up_the_next(warehouse_url: str, specs: Specs) -> None:
    owe(3)
    sent = []

    def picky(message: EmailMessage) -> None:
        if message["X-Evergreen-Incident"].endswith(":1"):
            raise ValueError("mailbox unavailable")
        sent.append(message["X-Evergreen-Incident"])

    result = deliver(specs, picky)
    assert (result.sent, result.failed, result.pending) == (2, 1, 1)
    assert sent == ["incident:model/bike_demand:0", "incident:model/bike_demand:2"]


def test_a_mail_that_cannot_be_laid_out_goes_out_as_raw_facts(
    warehouse_url: str, specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(conn: Connection, known: object) -> None:
        with conn.cursor() as cursor:
            cursor.execute("SELECT 1/0")

    monkeypatch.setitem(compose.LETTERS, "drift", broken)
    owe(1, kind="drift")
    owe(1, kind="run_failed", subject="dataset/bike_hourly")
    sent: list[EmailMessage] = []
    assert deliver(specs, sent.append).sent == 2
    text = sent[0].get_content()
    assert "could not be laid out (DivisionByZero: division by zero" in text
    assert "no disk" in text
    assert "incident:model/bike_demand:0" in text
    assert mails()[0]["sent_at"] is not None


def test_only_the_mails_of_the_subject_are_sent(warehouse_url: str, specs: Specs) -> None:
    owe(2)
    owe(1, subject="dataset/bike_hourly")
    result = deliver(specs, lambda message: None, subject="dataset/bike_hourly")
    assert (result.sent, result.pending) == (1, 0)
    assert [m["sent_at"] is None for m in mails()] == [True, True, False]


def test_a_task_that_is_killed_while_sending_still_owes_the_mail(warehouse_url: str, specs: Specs) -> None:
    owe()

    def killed(message: EmailMessage) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(specs, killed)
    assert mails()[0]["attempts"] == 0
    assert deliver(specs, lambda message: None).sent == 1


class Server:
    """Takes mail for everybody whose mailbox is not full."""

    def __init__(self, *full: str) -> None:
        self.full, self.taken = set(full), list[tuple[list[str], list[str]]]()

    def __call__(self, message: EmailMessage) -> None:
        everyone = [a.addr_spec for a in message["To"].addresses]
        took = [to for to in everyone if to not in self.full]
        if took:
            self.taken.append((took, message.get_all("X-Evergreen-Incident")))
        if len(took) < len(everyone):
            raise smtplib.SMTPRecipientsRefused({to: (450, b"full") for to in everyone if to in self.full})


@pytest.fixture
def ann_and_bob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "ann@x.org, Bob <bob@x.org>")


def test_refused_three_times_for_one_recipient_is_a_ledger_row(
    warehouse_url: str, specs: Specs, ann_and_bob: None
) -> None:
    owe()
    server = Server("bob@x.org")
    for _ in range(3):
        assert deliver(specs, server).failed == 1
    with connect() as conn:
        (lost,) = find(conn, kinds=(DecisionKind.MAIL_FAILED,))
    assert "bob@x.org" in lost.evidence.to_json()["error"]
    assert server.taken == [(["ann@x.org"], ["incident:model/bike_demand:0"])], "she gets it once"
    server.full.clear()
    result = deliver(specs, server)
    assert (result.sent, result.pending) == (1, 0)
    assert server.taken[1] == (["bob@x.org"], ["incident:model/bike_demand:0"])


def test_a_mail_that_all_refuse_is_owed_to_all(warehouse_url: str, specs: Specs, ann_and_bob: None) -> None:
    owe()
    server = Server("ann@x.org", "bob@x.org")
    deliver(specs, server)
    server.full.clear()
    deliver(specs, server)
    assert [to for to, _ in server.taken] == [["ann@x.org", "bob@x.org"]]


def test_what_is_owed_to_some_joins_no_letter_to_all_and_holds_back_no_end(
    warehouse_url: str, specs: Specs, ann_and_bob: None
) -> None:
    server = Server("bob@x.org")
    subject = "model/bike_demand"
    with connect() as conn:
        raise_incident(conn, "drift", subject, "drift", None, {}, thread="drift")
    deliver(specs, server)
    with connect() as conn:
        raise_incident(conn, "over", subject, "recovered", None, {}, thread="drift")
        raise_incident(conn, "data", subject, "data_problem", None, {})
    server.full.clear()
    assert deliver(specs, server).pending == 0
    assert server.taken == [
        (["ann@x.org"], ["drift"]),
        (["bob@x.org"], ["drift"]),
        (["ann@x.org", "bob@x.org"], ["over", "data"]),
    ]


def test_the_end_is_told_to_who_has_the_beginning_though_another_is_refused(
    warehouse_url: str, specs: Specs, ann_and_bob: None
) -> None:
    server = Server("bob@x.org")
    with connect() as conn:
        raise_incident(conn, "failed", "model/bike_demand", "run_failed", None, {}, thread="failed")
        raise_incident(conn, "over", "model/bike_demand", "recovered", None, {}, thread="failed")
        raise_incident(conn, "data", "model/bike_demand", "data_problem", None, {})
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.delivery (mail, channel, taken_by)"
            " SELECT id, 'email', '{ann@x.org}' FROM evergreen.mail WHERE incident = 'failed'"
        )
    deliver(specs, server)
    assert server.taken == [(["ann@x.org"], ["over", "data"])]


def test_who_is_no_recipient_any_more_is_owed_nothing(
    warehouse_url: str, specs: Specs, ann_and_bob: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    server = Server("bob@x.org")
    deliver(specs, server)
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "ann@x.org")
    assert deliver(specs, server).pending == 0
    assert [to for to, _ in server.taken] == [["ann@x.org"]]


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("cannot reach postgresql://me:hunter2@db/x", "hunter2"),
        ("login failed password=hunter2 user=me", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("API_KEY: hunter2", "hunter2"),
    ],
    ids=["address", "key value", "json", "api key"],
)
def test_errors_are_kept_without_passwords(text: str, absent: str) -> None:
    assert absent not in one_line(RuntimeError(text))


def test_a_mail_arrives_through_smtp(
    conn: Connection, specs: Specs, decide: Callable[..., Decision], life: list[int]
) -> None:
    arrived: list[bytes] = []

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            arrived.append(envelope.content)
            return "250 kept"

    decision = decide(
        DecisionKind.RETRAIN_REQUESTED, "data_drift", version="1", evidence={"judgements": life[12:13]}
    )
    raise_incident(conn, "drift:bike_demand:1:temperature", decision.subject, "drift", decision.id, {})
    conn.commit()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    try:

        def send(message: EmailMessage) -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
                server.send_message(message)

        assert deliver(specs, send).sent == 1
    finally:
        controller.stop()
    message = message_from_bytes(arrived[0], policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"].startswith("[Evergreen] bike_demand v1: drift, temperature 8.0 × its limit")
    image = next(p for p in message.walk() if p.get_content_type() == "image/png")
    assert image.get_content().startswith(b"\x89PNG")
    assert max(map(len, arrived[0].split(b"\r\n"))) <= 998


def test_a_mail_that_names_a_page_waits_until_a_run_asks_there_or_says_that_none_does(
    warehouse_url: str, specs: Specs, decide: Callable[..., Decision], conn: Connection
) -> None:
    waits = decide(
        DecisionKind.AWAITING_APPROVAL, "better", version="2", evidence={"approval_timeout_s": 3600.0}
    )
    raise_incident(conn, "approval:bike_demand:2", waits.subject, "approval", waits.id, {})
    conn.commit()
    sent: list[EmailMessage] = []
    assert (deliver(specs, sent.append).sent, waiting(conn)) == (0, 0)
    with conn.cursor() as cursor:  # nobody asks
        cursor.execute("UPDATE evergreen.mail SET created_at = created_at - interval '16 minutes'")
    conn.commit()
    assert waiting(conn) == 1
    conn.commit()
    assert deliver(specs, sent.append).sent == 1
    assert "No run of promote__bike_demand has asked yet" in str(sent[0].get_body(("plain",)))
    newer = decide(
        DecisionKind.AWAITING_APPROVAL, "better", version="3", evidence={"approval_timeout_s": 3600.0}
    )
    raise_incident(conn, "approval:bike_demand:3", newer.subject, "approval", newer.id, {})
    decide(DecisionKind.APPROVAL_ASKED, "better", version="3", evidence={"awaiting": newer.id})
    conn.commit()
    assert deliver(specs, sent.append).sent == 1
    assert "has asked yet" not in str(sent[1].get_body(("plain",)))
