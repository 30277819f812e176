"""Alerts by e-mail and by other channels: each way for itself, each once, none lost. The channels are webhooks on this machine."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from evergreen import settings
from evergreen.alert_kinds import AlertKind
from evergreen.alerting import channels, services
from evergreen.alerting.delivery import deliver, waiting
from evergreen.alerting.weekly import owe_digests
from evergreen.errors import EvergreenError
from evergreen.incidents import failures
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.recipients import ways, ways_of
from evergreen.incidents.unsent import unsent
from evergreen.ledger import Decision, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec, Specs
from evergreen.spec.environment import environment_problems
from evergreen.warehouse.connection import Connection, connect, fetch

SUBJECT = "dataset/rides"
ANN, BOB = "ann@x.org", "bob@x.org"


class Hook:
    """A web server that keeps what is posted to it; `status` is its answer, and it waits for `open` before it answers."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        self.asked, self.open = threading.Event(), threading.Event()
        self.open.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.asked.set()
                hook.open.wait(30)
                if hook.status < 300:
                    hook.taken.append(body)
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Nothing is printed."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def titles(self) -> list[str]:
        return [taken["title"].removeprefix("[Evergreen] ") for taken in self.taken]

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """The channel `oncall`."""
    made = Hook()
    monkeypatch.setenv("EVERGREEN_CHANNEL_ONCALL", f"json://{made.address}/path")
    yield made
    made.close()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the handlers of the root logger get; pytest's own are also added to loggers that keep theirs to themselves."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


class Box:
    """A mail server: who got which incidents."""

    def __init__(self) -> None:
        self.up, self.mails = True, list[EmailMessage]()

    def __call__(self, message: EmailMessage) -> None:
        if not self.up:
            raise ConnectionRefusedError("the mail server is down")
        self.mails.append(message)

    @property
    def taken(self) -> list[tuple[list[str], list[str]]]:
        return [
            ([a.addr_spec for a in m["To"].addresses], m.get_all("X-Evergreen-Incident")) for m in self.mails
        ]


def rides(*alerts: Any) -> Specs:
    return Specs(
        {
            "rides": DatasetSpec.model_validate({
                "name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}}, "alerts": list(alerts),
            })
        }
    )  # fmt: skip


def owe(incident: str, kind: str = AlertKind.RUN_FAILED, *, thread: str | None = None) -> None:
    with connect() as conn:
        assert raise_incident(
            conn, incident, SUBJECT, AlertKind(kind), None, {"error": "no disk"}, thread=thread or incident
        )


def open_deliveries() -> list[tuple[str, str]]:
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT m.incident, d.channel FROM evergreen.mail AS m JOIN evergreen.delivery AS d ON d.mail = m.id"
            " WHERE d.sent_at IS NULL ORDER BY m.id, d.channel",
        )
    return [(row["incident"], row["channel"]) for row in rows]


def settled() -> bool:
    with connect() as conn:
        return not fetch(conn, "SELECT 1 FROM evergreen.mail WHERE sent_at IS NULL")


ONCALL = {"to": "channel:oncall", "severity": "critical"}


@pytest.mark.parametrize(
    ("alerts", "kind", "expected"),
    [
        ((), "drift", {"email": ["ml-team@localhost"]}),
        ((ANN, BOB), "drift", {"email": [ANN, BOB]}),
        ((ANN, "channel:oncall"), "drift", {"email": [ANN], "channel:oncall": []}),
        ((ANN, ONCALL), "drift", {"email": [ANN]}),
        ((ANN, ONCALL), "run_failed", {"email": [ANN], "channel:oncall": []}),
        (({"to": ANN, "on": ["drift"]}, BOB), "drift", {"email": [ANN, BOB]}),
        (({"to": ANN, "on": ["drift"]}, BOB), "run_failed", {"email": [BOB]}),
        (({"to": ANN, "severity": "warning"},), "batch_corrected", {}),
        (({"to": ANN, "on": ["drift"]},), "run_failed", {"email": ["ml-team@localhost"]}),
        (({"to": ANN, "on": ["run_failed"]},), "of_a_later_release", {"email": ["ml-team@localhost"]}),
        ((ANN, ONCALL), "of_a_later_release", {"email": [ANN], "channel:oncall": []}),
        (({"to": f"{ANN}, {BOB}", "on": ["drift"]},), "drift", {"email": [ANN, BOB]}),
        ((ONCALL,), "run_failed", {"channel:oncall": []}),
    ],
    ids=[
        "none: the fleet", "plain", "plain with a channel", "not severe enough", "severe enough", "kind asked for", "kind not asked for",
        "for information, asked for by nobody", "asked for by nobody: the fleet", "unknown kind: the fleet", "unknown kind: who asks for all",
        "several", "no e-mail",
    ],
)  # fmt: skip
def test_an_alert_goes_to_the_entries_that_take_it(alerts: tuple, kind: str, expected: dict) -> None:
    assert ways(rides(*alerts), SUBJECT, AlertKind.of(kind)) == expected


def test_the_end_of_an_incident_goes_the_way_of_the_incident() -> None:
    specs = rides({"to": ANN, "on": ["drift"]}, ONCALL)
    over = {"kind": "recovered", "subject": SUBJECT, "context": {}}
    assert ways_of(specs, {**over, "of": "drift"}) == {"email": [ANN]}
    assert ways_of(specs, {**over, "of": "run_failed"}) == {"channel:oncall": []}


def test_the_fleet_has_channels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", f"{ANN}, channel:oncall")
    assert ways(Specs(), "fleet/specs", AlertKind.SPEC_UNUSABLE) == {"email": [ANN], "channel:oncall": []}


def test_what_is_owed_to_nobody_waits_for_nobody(warehouse_url: str) -> None:
    owe("one", AlertKind.BATCH_CORRECTED)
    box = Box()
    result = deliver(rides({"to": ANN, "severity": "warning"}), box)
    assert (result.sent, result.failed, result.pending, box.taken) == (0, 0, 0, [])
    assert settled()


def test_a_webhook_gets_the_letter_with_its_picture_and_severity(
    conn: Connection, hook: Hook, specs: Specs, decide: Callable[..., Decision], life: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "channel:oncall")
    drift = decide(
        DecisionKind.RETRAIN_REQUESTED, "data_drift", version="1", evidence={"judgements": life[12:13]}
    )
    raise_incident(conn, "drift", drift.subject, AlertKind.DRIFT, drift.id, {}, thread="drift")
    conn.commit()
    assert deliver(specs, Box()).sent == 1
    (taken,) = hook.taken
    assert taken["title"].startswith("[Evergreen] bike_demand v1: drift, temperature 8.0 × its limit")
    assert taken["type"] == "warning"
    assert "What happens next" in taken["message"]
    assert "incident drift" in taken["message"]
    assert "<" not in taken["message"].replace("<=", ""), "plain text"
    (picture,) = taken["attachments"]
    assert base64.b64decode(picture["base64"]).startswith(b"\x89PNG")
    raise_incident(conn, "over", drift.subject, AlertKind.RECOVERED, None, {"of": "drift"}, thread="drift")
    conn.commit()
    assert deliver(specs, Box()).sent == 1
    assert hook.taken[1]["type"] == "success"


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("run_failed", "failure"),
        ("data_problem", "warning"),
        ("champion_changed", "info"),
        ("a_later_one", "warning"),
    ],
)
def test_severity_is_the_type_that_a_service_gets(
    warehouse_url: str, hook: Hook, kind: str, type_: str
) -> None:
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.mail (incident, subject, kind) VALUES ('one', %s, %s)", (SUBJECT, kind)
        )
    assert deliver(rides("channel:oncall"), Box()).sent == 1
    assert hook.taken[0]["type"] == type_
    assert "incident one" in hook.taken[0]["message"]


def test_a_channel_that_is_down_holds_no_other_up_and_gets_it_later_alone(
    warehouse_url: str, hook: Hook
) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    hook.status = 500
    owe("one")
    owe("two")
    result = deliver(specs, box)
    assert (result.sent, result.failed, result.pending) == (2, 2, 2)
    assert box.taken == [([ANN], ["one"]), ([ANN], ["two"])]
    with connect() as conn:
        (row, _) = unsent(conn)
        assert waiting(conn) == 2
    assert row.attempts == 1
    assert (row.error or "").startswith(
        "channel:oncall: ConnectionError: channel:oncall did not take it: Failed to send JSON"
    )
    hook.status = 200
    result = deliver(specs, box)
    assert (result.sent, result.failed, result.pending) == (2, 0, 0)
    assert len(box.taken) == 2, "nothing goes out twice"
    assert len(hook.taken) == 2
    assert settled()


def test_a_mail_server_that_is_down_holds_no_channel_up(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    box.up = False
    owe("one")
    assert deliver(specs, box).sent == 1
    assert (len(hook.taken), open_deliveries(), settled()) == (1, [("one", "email")], False)
    box.up = True
    assert deliver(specs, box).sent == 1
    assert (len(hook.taken), box.taken, settled()) == (1, [([ANN], ["one"])], True)


def test_three_failures_of_a_channel_are_a_ledger_row_of_its_own(warehouse_url: str, hook: Hook) -> None:
    specs = rides(ANN, "channel:oncall")
    hook.status = 404
    owe("one")
    for _ in range(4):
        deliver(specs, Box())
    with connect() as conn:
        (lost,) = find(conn, kinds=(DecisionKind.MAIL_FAILED,))
    assert (lost.dedupe_key, lost.evidence.to_json()["channel"]) == (
        "mail_failed:one:channel:oncall",
        "channel:oncall",
    )


def test_an_end_waits_for_its_beginning_on_each_channel_for_itself(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    owe("failed")
    hook.status = 500
    deliver(specs, box)
    owe("over", AlertKind.RECOVERED, thread="failed")
    deliver(specs, box)
    assert box.taken == [([ANN], ["failed"]), ([ANN], ["over"])]
    assert open_deliveries() == [("failed", "channel:oncall"), ("over", "channel:oncall")]
    hook.status = 200
    deliver(specs, box)
    assert len(hook.taken) == 1, "both in one letter, as a mail would be"
    assert "incident failed, over" in hook.taken[0]["message"]
    assert settled()


def test_an_end_goes_to_those_who_were_told_and_to_nobody_else(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides({"to": ANN, "on": ["batch_quarantined"]}, ONCALL), Box()
    owe("held", AlertKind.BATCH_QUARANTINED)
    owe("failed")
    deliver(specs, box)
    owe("held:over", AlertKind.RECOVERED, thread="held")
    owe("failed:over", AlertKind.RECOVERED, thread="failed")
    deliver(specs, box)
    assert box.taken == [([ANN], ["held"]), ([ANN], ["held:over"])]
    assert [taken["type"] for taken in hook.taken] == ["failure", "success"]


def test_alerts_join_only_where_the_same_people_are_told(warehouse_url: str) -> None:
    specs, box = rides(ANN, {"to": BOB, "on": ["data_problem"]}), Box()
    for name, kind in (("a", "batch_quarantined"), ("b", "data_problem"), ("c", "batch_quarantined")):
        owe(name, kind)
    assert deliver(specs, box).sent == 2
    assert box.taken == [([ANN], ["a", "c"]), ([ANN, BOB], ["b"])]


def test_what_a_silence_holds_is_held_on_every_channel_and_then_one_letter(
    warehouse_url: str, hook: Hook
) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    owe("a")
    owe("b")
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, evidence, run_id, dedupe_key)"
            " VALUES (now(), %s, 'silenced', 'silenced', '{\"until\": \"2100-01-01T00:00:00+00:00\"}', 'run/1', 'silence')",
            (SUBJECT,),
        )
    assert deliver(specs, box).sent == 0
    assert (box.taken, hook.taken, open_deliveries()) == ([], [], [])
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, evidence, run_id, dedupe_key)"
            " VALUES (now(), %s, 'silenced', 'silence_ended', '{\"until\": \"2020-01-01T00:00:00+00:00\"}', 'run/1', 'ended')",
            (SUBJECT,),
        )
    assert deliver(specs, box).sent == 2
    assert (len(box.taken), len(hook.taken)) == (1, 1)
    assert "silence ended, 2 alerts" in hook.titles[0]


def test_two_deliveries_at_once_send_each_letter_once_on_each_channel(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    for number in range(6):
        owe(f"n{number}")
    both = [threading.Thread(target=deliver, args=(specs, box)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(names for _, names in box.taken) == [[f"n{n}"] for n in range(6)]
    assert len(hook.taken) == 6
    deliver(specs, box)
    assert (len(box.taken), len(hook.taken), settled()) == (6, 6, True)


def test_a_channel_that_hangs_keeps_no_other_call_from_the_mail(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    owe("one")
    hook.open.clear()
    hanging = threading.Thread(target=deliver, args=(specs, Box()))
    hanging.start()
    assert hook.asked.wait(20)
    owe("two")
    deliver(specs, box)  # it skips what hangs and is itself kept by the hook
    hook.open.set()
    hanging.join()
    assert box.taken == [([ANN], ["two"])]


KILLED = """
import os, pathlib, sys
sys.path[:0] = {path}
from evergreen.alerting.delivery import deliver
from evergreen.spec import DatasetSpec, Specs
specs = Specs({{"rides": DatasetSpec.model_validate_json(sys.argv[1])}})
def send(message):
    with open(sys.argv[2], "a") as file:
        file.write(message["X-Evergreen-Incident"] + "\\n")
deliver(specs, send)
"""


def test_a_process_that_is_killed_between_two_channels_sends_the_first_one_no_more(
    warehouse_url: str, hook: Hook, tmp_path: Path
) -> None:
    specs, told = rides(ANN, "channel:oncall"), tmp_path / "mails"
    owe("one")
    hook.open.clear()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(path=sys.path), specs.datasets["rides"].model_dump_json(by_alias=True, exclude_defaults=True), str(told)],
        env={**os.environ, "EVERGREEN_WAREHOUSE_URL": warehouse_url},
    )  # fmt: skip
    try:
        assert hook.asked.wait(120), "the mail has gone out, the channel is being told"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert told.read_text() == "one\n"
    hook.taken.clear()
    hook.open.set()
    time.sleep(0.5)
    hook.taken.clear()
    assert open_deliveries() == [("one", "channel:oncall")]
    box = Box()
    deadline = time.monotonic() + 30
    while not settled() and time.monotonic() < deadline:  # until PostgreSQL has seen that the process is gone
        deliver(specs, box)
    assert (box.taken, len(hook.taken), settled()) == ([], 1, True)


def test_a_process_that_is_killed_after_its_last_channel_sends_nothing_more(
    warehouse_url: str, hook: Hook
) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    owe("one")
    deliver(specs, box)
    with connect() as conn, conn.cursor() as cursor:  # as it was before the mail was noted as gone out
        cursor.execute("UPDATE evergreen.mail SET sent_at = NULL")
    result = deliver(specs, box)
    assert (result.sent, len(box.taken), len(hook.taken), settled()) == (0, 1, 1, True)


def test_a_channel_that_is_named_no_more_is_owed_nothing_and_a_new_one_what_waits(
    warehouse_url: str, hook: Hook
) -> None:
    hook.status = 500
    owe("one")
    deliver(rides(ANN, "channel:oncall"), Box())
    assert not settled()
    assert deliver(rides(ANN), Box()).pending == 0
    assert settled()
    owe("two")
    box = Box()
    box.up = False
    deliver(rides(ANN), box)
    hook.status = 200
    deliver(rides(ANN, "channel:oncall"), box)
    assert len(hook.taken) == 1


def test_a_channel_without_a_url_fails_is_recorded_and_told_by_the_others(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVERGREEN_CHANNEL_ONCALL", raising=False)
    specs, box = rides(ANN, "channel:oncall"), Box()
    owe("one")
    result = deliver(specs, box)
    assert (result.sent, result.failed) == (1, 1)
    part = box.mails[0].get_body(("plain",))
    assert part is not None
    footer = " ".join(part.get_content().split("-- \n")[1].split())
    assert "not sent to channel:oncall: EVERGREEN_CHANNEL_ONCALL is not set" in footer
    with connect() as conn:
        assert "EVERGREEN_CHANNEL_ONCALL is not set" in (unsent(conn)[0].error or "")
    (problem,) = environment_problems(specs)
    assert problem.file == "EVERGREEN_CHANNEL_ONCALL"
    assert "datasets/rides.yaml names channel:oncall" in problem.remedy
    monkeypatch.setenv("EVERGREEN_CHANNELS", "team, oncall")
    assert environment_problems(specs) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hunter2secret", "is no URL"),
        ("nothing://hunter2secret", "no URL that apprise can use"),
        ("pagerduty://hunter2secret", "no URL that apprise can use"),
    ],
)
def test_a_url_that_nothing_can_be_sent_to_is_told_without_what_it_says(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch, logged: list[str], url: str, said: str
) -> None:
    monkeypatch.setenv("EVERGREEN_CHANNEL_ONCALL", url)
    specs = rides(ANN, "channel:oncall")
    owe("one")
    result = deliver(specs, Box())
    told = [*map(str, environment_problems(specs)), services.unusable("oncall")]
    assert said in " ".join(told)
    assert "hunter2secret" not in " ".join([*told, *result.errors, *logged])


def test_what_a_service_refuses_is_told_without_the_secret(
    warehouse_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    url = f"json://admin:hunter2secret@{hook.address}/tokentoken?+X-Key=keykeykey"
    monkeypatch.setenv("EVERGREEN_CHANNEL_ONCALL", url)
    hook.status = 403
    owe("one")
    result = deliver(rides("channel:oncall"), Box())
    with connect() as conn:
        texts = " ".join([*result.errors, unsent(conn)[0].error or "", *logged])
    assert "error=403" in texts
    assert not any(secret in texts for secret in ("hunter2secret", "tokentoken", "keykeykey"))
    hook.close()
    result = deliver(rides("channel:oncall"), Box())
    assert "Connection error occurred" in " ".join(result.errors)


def test_the_airflow_connection_has_the_url(
    warehouse_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["EVERGREEN_CHANNEL_ONCALL"]
    monkeypatch.setattr(
        settings, "_elsewhere", lambda name: url if name == "EVERGREEN_CHANNEL_ONCALL" else None
    )
    monkeypatch.delenv("EVERGREEN_CHANNEL_ONCALL")
    owe("one")
    assert deliver(rides("channel:oncall"), Box()).sent == 1
    assert len(hook.taken) == 1


@pytest.mark.parametrize("asked", ["", "?action=trigger"], ids=["default", "as the URL says"])
def test_a_service_that_closes_gets_each_incident_for_itself_with_one_key(
    warehouse_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    from apprise.plugins import pagerduty

    monkeypatch.setitem(
        pagerduty.PAGERDUTY_API_LOOKUP, pagerduty.PagerDutyRegion.US, f"http://{hook.address}/v2/enqueue"
    )
    monkeypatch.setenv("EVERGREEN_CHANNEL_ONCALL", f"pagerduty://routingkey@apikey{asked}")
    specs = rides("channel:oncall")
    for name in ("a", "b"):
        owe(name, AlertKind.BATCH_QUARANTINED)
    owe("failed")
    assert deliver(specs, Box()).sent == 3
    owe("a:over", AlertKind.RECOVERED, thread="a")
    assert deliver(specs, Box()).sent == 1
    assert [t["payload"]["severity"] for t in hook.taken[:3]] == ["warning", "warning", "critical"]
    assert [t["event_action"] for t in hook.taken] == ["trigger"] * 3 + (
        ["trigger"] if asked else ["resolve"]
    )
    keys = [t["dedup_key"] for t in hook.taken]
    assert keys[3] == keys[0]
    assert len(set(keys)) == 3


def test_mails_of_a_release_before_channels_go_out_and_those_that_are_out_do_not(warehouse_url: str) -> None:
    statements = (
        resources.files("evergreen.warehouse").joinpath("migrations", "0002_delivery.sql").read_text("utf-8")
    )
    for name in ("sent", "partly", "failed", "new"):
        owe(name)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "DROP TABLE evergreen.delivery; ALTER TABLE evergreen.mail ADD COLUMN attempts int NOT NULL DEFAULT 0,"
            " ADD COLUMN last_error text, ADD COLUMN message_id text, ADD COLUMN taken_by text[];"
            "UPDATE evergreen.mail SET sent_at = now(), message_id = '<1@x>' WHERE incident = 'sent';"
            "UPDATE evergreen.mail SET attempts = 1, taken_by = '{ann@x.org}' WHERE incident = 'partly';"
            "UPDATE evergreen.mail SET attempts = 2, last_error = 'down' WHERE incident = 'failed'"
        )
        cursor.execute(statements)
    with connect() as conn:
        assert [(u.incident, u.attempts, u.error) for u in unsent(conn)] == [
            ("partly", 1, None),
            ("failed", 2, "down"),
            ("new", 0, None),
        ]
        kept = fetch(conn, "SELECT message_id FROM evergreen.delivery WHERE sent_at IS NOT NULL")
    assert kept == [{"message_id": "<1@x>"}]
    box = Box()
    assert deliver(rides(ANN, BOB), box).pending == 0
    assert box.taken == [([BOB], ["partly"]), ([ANN, BOB], ["failed"]), ([ANN, BOB], ["new"])]


def test_later_mails_answer_the_earlier_ones_though_a_channel_has_not_got_them(
    warehouse_url: str, hook: Hook
) -> None:
    specs, box = rides(ANN, "channel:oncall"), Box()
    hook.status = 500
    owe("failed")
    deliver(specs, box)
    owe("over", AlertKind.RECOVERED, thread="failed")
    deliver(specs, box)
    assert box.mails[1]["In-Reply-To"] == box.mails[0]["Message-ID"]


def test_the_digest_goes_to_each_set_of_ways(warehouse_url: str, hook: Hook) -> None:
    specs, box = rides(ANN, "channel:oncall", {"to": BOB, "severity": "warning"}), Box()
    assert owe_digests(specs, datetime(2026, 1, 5, tzinfo=UTC)) == 1
    assert deliver(specs, box).sent == 2
    assert [to for to, _ in box.taken] == [[ANN]]
    assert "Evergreen" in hook.taken[0]["title"]


def test_what_no_warehouse_has_is_told_to_the_channels_of_the_fleet(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", f"channel:gone, {ANN}, channel:oncall")
    box = Box()
    box.up = False
    message = failures.bare_message("model/x", "train__x/1", "fit", "no disk", "")
    # Where Airflow can be asked for a connection, another try may find it: what is raised says so.
    with pytest.raises(EvergreenError, match="EVERGREEN_CHANNEL_GONE is not set"):
        channels.tell_fleet(message, box)
    assert "no disk" in hook.taken[0]["message"], (
        "though the mail server is down and the other channel is not set"
    )
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "channel:oncall")
    channels.tell_fleet(failures.bare_message("model/x", "train__x/1", "fit", "no disk", ""), box)
    assert len(hook.taken) == 2
