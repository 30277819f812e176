"""One address that cannot be read never keeps a mail from the others, and is not dropped without a word."""

from __future__ import annotations

from email.message import EmailMessage
from smtplib import SMTPRecipientsRefused

import pytest

from evergreen.alerting.delivery import deliver
from evergreen.incidents import failures
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.unsent import unsent
from evergreen.spec import DatasetSpec, Specs
from evergreen.spec.environment import environment_problems
from evergreen.warehouse.connection import connect


def send_one(specs: Specs | None = None, refuse: frozenset[str] = frozenset()) -> list[EmailMessage]:
    """Owe a mail if none is owed, deliver, and return what went out."""
    sent: list[EmailMessage] = []

    def send(message: EmailMessage) -> None:
        sent.append(message)
        found = {a.addr_spec for a in message["To"].addresses} & refuse
        if found:
            raise SMTPRecipientsRefused({address: (550, b"no such box") for address in found})

    with connect() as conn:
        raise_incident(conn, "a", "dataset/rides", "batch_quarantined", None, {})
    deliver(specs or Specs(), send)
    return sent


def people(message: EmailMessage) -> list[str]:
    return [address.addr_spec for address in message["To"].addresses]


@pytest.mark.parametrize("bad", ["a@x.org;b@x.org", "jörg@x.org", "nobody", "a@x.org\nBcc: evil@x.org"])
def test_the_others_get_the_mail_and_it_says_who_does_not(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", f'"Doe, Jane" <jane@x.org>, {bad}, Jörg <joerg@x.org>')
    (mail,) = send_one()
    assert people(mail) == ["jane@x.org", "joerg@x.org"]
    assert mail["Bcc"] is None
    assert mail["To"].encode("ascii", "ignore")
    part = mail.get_body(("plain",))
    assert part is not None
    footer = " ".join(part.get_content().split("-- \n")[1].split())
    assert f"not sent to {' '.join(bad.split())}: no e-mail address (EVERGREEN_MAIL_TO)" in footer
    assert b"evil@x.org" not in mail.as_bytes().split(b"\n\n")[0], "no header can be put in"


def test_without_anybody_to_tell_a_mail_waits_and_says_why(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "jörg@x.org")
    assert send_one() == []
    with connect() as conn:
        (row,) = unsent(conn)
    assert "there is nobody to send it to" in (row.error or "")
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "joerg@x.org")
    (mail,) = send_one()
    assert people(mail) == ["joerg@x.org"]


def test_a_quoted_name_that_was_refused_gets_it_alone_later(warehouse_url: str) -> None:
    dataset = DatasetSpec.model_validate({
        "name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}},
        "alerts": ['"Doe, Jane" <jane@x.org>', "bob@x.org, Ann <ann@x.org>"],
    })  # fmt: skip
    specs = Specs({"rides": dataset})
    (first,) = send_one(specs, frozenset({"jane@x.org"}))
    assert people(first) == ["jane@x.org", "bob@x.org", "ann@x.org"]
    (second,) = send_one(specs)
    assert people(second) == ["jane@x.org"]


def test_the_mail_without_a_ledger_goes_to_those_who_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "jane@x.org\nBcc: evil@x.org, jörg@x.org, ok@x.org")
    message = failures.bare_message("model/x", "train__x/1", "fit", "no disk", "")
    assert people(message) == ["ok@x.org"]


def test_the_check_names_each_variable_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_problems() == []
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "ok@x.org, a@x.org;b@x.org")
    monkeypatch.setenv("EVERGREEN_MAIL_FROM", "evergreen@x.org\nBcc: evil@x.org")
    monkeypatch.setenv("EVERGREEN_DIGEST", "0 6 30 2 *")
    said = list(map(str, environment_problems()))
    assert [text.partition(":")[0] for text in said] == [
        "EVERGREEN_MAIL_TO",
        "EVERGREEN_MAIL_FROM",
        "EVERGREEN_DIGEST",
    ]
    assert "by commas, not by semicolons (value: 'a@x.org;b@x.org')" in said[0]
    assert "never fires" in said[2]
