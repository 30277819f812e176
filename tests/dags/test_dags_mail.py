"""The DAGs about mail: what is silenced, sent again and summed up, and that a task which works again is told."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from airflow.sdk.exceptions import AirflowFailException

from evergreen import ledger
from evergreen.alerting.delivery import waiting
from evergreen.errors import TransientError
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.silences import active
from evergreen.incidents.unsent import unsent
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import connect, fetch

MODEL = "model/bike_demand"
NOW = datetime.now(UTC)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a mail server took."""
    from evergreen_airflow import mailing

    taken: list[Any] = []
    monkeypatch.setattr(mailing, "send", taken.append)
    return taken


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail server that takes nothing."""
    from evergreen_airflow import mailing

    def refuse(message: Any) -> None:
        raise ConnectionRefusedError("no route")

    monkeypatch.setattr(mailing, "send", refuse)


NOTES: list[tuple[str, str]] = []


def context(
    dag_id: str, task_id: str, run: str = "manual__1", user: str | None = "ann", **params: Any
) -> dict[str, Any]:
    """The part of a task's context that the DAG files read."""
    dag_run = SimpleNamespace(
        dag_id=dag_id, run_id=run, run_after=NOW, run_type="manual", triggering_user_name=user
    )
    return {
        "dag_run": dag_run,
        "params": params,
        "ti": SimpleNamespace(
            task_id=task_id, try_number=1, log_url="", xcom_push=lambda key, value: NOTES.append((key, value))
        ),
    }


def call(dagbag: Any, dag_id: str, task_id: str, **params: Any) -> Any:
    """Run a task's function."""
    return dagbag.dags[dag_id].get_task(task_id).python_callable(**context(dag_id, task_id, **params))


def send_again(dagbag: Any) -> Any:
    """Run the task of the DAG `mail`."""
    return dagbag.dags["mail"].get_task("send_waiting").python_callable()


def owe(*names: str, subject: str = MODEL, kind: str = "drift") -> None:
    with connect() as conn:
        for name in names:
            raise_incident(conn, name, subject, kind, None, {})


def test_a_silence_by_the_dag_names_who_asked(dagbag: Any, warehouse_url: str, sent: list[Any]) -> None:
    call(dagbag, "silence", "silence", subject=MODEL, until="3d", reason="sensor is moved")
    with connect() as conn:
        (found,) = active(conn)
    assert (found.subject, found.why, found.by) == (MODEL, "sensor is moved", "ann")
    owe("a")
    assert send_again(dagbag) == []
    call(dagbag, "silence", "silence", run="manual__2", subject=MODEL, until="now", reason="done")
    assert "silence ended" in sent[0]["Subject"]


def test_a_silence_needs_something_to_silence(dagbag: Any, warehouse_url: str) -> None:
    with pytest.raises(AirflowFailException, match="needs a model or dataset"):
        call(dagbag, "silence", "silence", subject=None, until="3d", reason="x")


def test_what_can_be_silenced_is_a_list(dagbag: Any) -> None:
    subject = dagbag.dags["silence"].params.get_param("subject")
    assert subject.schema["enum"] == [MODEL, "model/bike_rush", "dataset/bike_hourly"]


def test_what_waits_is_sent_again_for_every_subject(dagbag: Any, warehouse_url: str, sent: list[Any]) -> None:
    owe("a")
    owe("b", subject="dataset/bike_hourly", kind="batch_quarantined")
    owe("c", subject="model/gone_from_the_specs", kind="champion_changed")
    subjects = send_again(dagbag)
    assert subjects == ["dataset/bike_hourly", MODEL, "model/gone_from_the_specs"]
    assert len(sent) == 3


def test_a_mail_server_that_is_down_turns_the_run_red_and_nothing_is_lost(
    dagbag: Any, warehouse_url: str, down: None
) -> None:
    owe("a")
    owe("b", subject="dataset/bike_hourly", kind="batch_quarantined")
    with pytest.raises(TransientError, match="no route") as caught:
        send_again(dagbag)
    assert MODEL in str(caught.value)
    assert "dataset/bike_hourly" in str(caught.value), "the one does not hold up the other"
    with connect() as conn:
        assert waiting(conn) == 2


def test_who_was_refused_gets_the_mail_later_and_nobody_gets_it_twice(
    dagbag: Any, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[list[str], str]] = []
    full = {"bob@here.org"}

    class Server:
        async def handle_RCPT(
            self, server: Any, session: Any, envelope: Any, address: str, options: Any
        ) -> str:
            if address in full:
                return "450 mailbox is full"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            message = message_from_bytes(envelope.content, policy=policy.default)
            taken.append((envelope.rcpt_tos, message["Message-ID"]))
            return "250 kept"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    extra = {"disable_ssl": True, "disable_tls": True}
    smtp = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_SMTP", json.dumps(smtp))
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "ann@here.org, Bob <bob@here.org>")
    controller = Controller(Server(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        owe("a", kind="run_failed")
        with pytest.raises(TransientError, match=r"bob@here\.org.*mailbox is full"):
            send_again(dagbag)
        with connect() as conn:
            (row,) = unsent(conn)
        assert (row.attempts, row.silenced) == (1, False)
        assert "mailbox is full" in (row.error or "")
        full.clear()
        assert send_again(dagbag) == [MODEL]
        assert send_again(dagbag) == []
    finally:
        controller.stop()
    assert [to for to, _ in taken] == [["ann@here.org"], ["bob@here.org"]]
    assert len({message_id for _, message_id in taken}) == 1, "a mail program can tell that it is the same"


def test_a_digest_is_owed_and_sent_once(dagbag: Any, warehouse_url: str, sent: list[Any]) -> None:
    as_of = (NOW - timedelta(days=1)).isoformat()
    assert call(dagbag, "digest", "owe", as_of=as_of) == 1
    assert call(dagbag, "digest", "owe", as_of=as_of) == 0
    dagbag.dags["digest"].get_task("send_digests").python_callable()
    assert [m["Subject"].startswith("[Evergreen] week to ") for m in sent] == [True]


def test_what_nobody_switches_on_is_not_paused(dagbag: Any) -> None:
    switched_on = {dag_id for dag_id, dag in dagbag.dags.items() if dag.is_paused_upon_creation is False}
    assert switched_on == {
        "mail",
        "digest",
        "silence",
        "correct__bike_hourly",
        "promote__bike_demand",
        "promote__bike_rush",
    }


def test_the_digest_has_its_own_cron(dagbag: Any) -> None:
    assert dagbag.dags["digest"].timetable.expression == "0 6 * * 1"
    assert dagbag.dags["mail"].timetable.expression == "*/15 * * * *"


def test_a_digest_can_be_switched_off(make_dagbag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_DIGEST", "off")
    dag = make_dagbag().dags["digest"]
    assert not hasattr(dag.timetable, "expression")


def test_a_task_that_works_again_is_told(dagbag: Any, warehouse_url: str, sent: list[Any]) -> None:
    task = dagbag.dags["train__bike_demand"].get_task("fit")
    found = context("train__bike_demand", "fit") | {"exception": RuntimeError("no disk")}
    for callback in task.on_failure_callback:
        callback(found)
    for callback in task.on_success_callback:
        callback(context("train__bike_demand", "fit", run="manual__2"))
    assert "failed in fit" in sent[0]["Subject"]
    assert "recovered, fit runs again" in sent[1]["Subject"]
    assert sent[1]["In-Reply-To"] == sent[0]["Message-ID"]
    with connect() as conn:
        assert len(ledger.find(conn, MODEL, (DecisionKind.RECOVERED,))) == 1


def test_a_success_is_a_success_without_a_warehouse(dagbag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/none")
    for callback in dagbag.dags["train__bike_demand"].get_task("fit").on_success_callback:
        callback(context("train__bike_demand", "fit"))


def test_a_dag_of_no_model_that_fails_is_mailed_directly(
    dagbag: Any, warehouse_url: str, sent: list[Any]
) -> None:
    task = dagbag.dags["digest"].get_task("owe")
    for callback in task.on_failure_callback:
        callback(context("digest", "owe") | {"exception": RuntimeError("no disk")})
    assert sent[0]["Subject"] == "[Evergreen] digest failed in owe"
    assert "could not be written" not in sent[0].get_content()
    with connect() as conn:
        assert fetch(conn, "SELECT 1 FROM evergreen.decision") == []
