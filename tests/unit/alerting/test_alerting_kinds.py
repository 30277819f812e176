"""Each kind of alert has all that it needs; one that is added and forgotten somewhere fails here."""

from __future__ import annotations

from dataclasses import fields
from email.message import EmailMessage

import pytest

from evergreen.alert_kinds import BEGINNING, ENDING, HELD, JOINED, AlertKind, Severity, Traits
from evergreen.alerting import compose
from evergreen.alerting.delivery import deliver
from evergreen.incidents.outbox import owe
from evergreen.ledger import words
from evergreen.spec import Specs
from evergreen.warehouse.connection import connect, fetch

KINDS = pytest.mark.parametrize("kind", AlertKind, ids=str)


def said(specs: Specs, kind: str, evidence: dict | None = None) -> str:
    """The text of a mail of a kind about which nothing but this is recorded."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.mail (incident, subject, kind) VALUES ('one', 'model/bike_demand', %s) RETURNING id",
            (kind,),
        )
        if evidence:
            cursor.execute(
                "INSERT INTO evergreen.decision (as_of, subject, kind, reason, evidence, run_id, dedupe_key)"
                " SELECT now(), 'model/bike_demand', 'recovered', 'over', jsonb_build_object('of', %s::text), 'run/1', 'one' RETURNING id",
                (evidence["of"],),
            )
            cursor.execute("UPDATE evergreen.mail SET decision_id = (SELECT max(id) FROM evergreen.decision)")
    sent: list[EmailMessage] = []
    with connect() as conn, conn.cursor() as cursor:  # one that names a page waits for it so long
        cursor.execute("UPDATE evergreen.mail SET created_at = created_at - interval '1 hour'")
    assert deliver(specs, sent.append).sent == 1
    part = sent[0].get_body(("plain",))
    assert part is not None
    return str(sent[0]["Subject"]) + "\n" + str(part.get_content())


@KINDS
def test_each_trait_of_a_kind_is_defined(kind: AlertKind) -> None:
    assert isinstance(kind.traits.severity, Severity)
    assert kind.traits.words.strip()
    assert [one for one in AlertKind if one.traits.words == kind.traits.words] == [kind]
    switches = {f.name: getattr(kind.traits, f.name) for f in fields(Traits)}.items() - {
        ("severity", kind.traits.severity),
        ("words", kind.traits.words),
    }
    assert all(isinstance(value, bool) for _, value in switches), switches
    assert not (kind.traits.begins and kind.traits.ends)
    assert AlertKind.of(kind.value) is kind


@KINDS
def test_each_kind_has_a_letter_of_its_own_in_words(
    warehouse_url: str, specs: Specs, kind: AlertKind
) -> None:
    assert kind in compose.LETTERS
    text = said(specs, kind)
    assert "could not be laid out" not in text
    assert "Evergreen reports an incident" not in text, "that is for kinds that nobody knows"
    assert kind.value not in text or "_" not in kind.value


@pytest.mark.parametrize("kind", BEGINNING)
def test_the_end_of_each_kind_of_incident_is_told_in_words(
    warehouse_url: str, specs: Specs, kind: str
) -> None:
    text = said(specs, AlertKind.RECOVERED, {"of": kind})
    assert "recovered, it is over" not in text
    assert kind not in text.replace(AlertKind.DRIFT, "") or kind == AlertKind.DRIFT
    assert f"What it was: {words.MISSING}" not in text


def test_a_row_of_a_kind_of_a_later_release_goes_out_as_its_raw_facts(
    warehouse_url: str, specs: Specs
) -> None:
    text = said(specs, "kind_of_a_later_release")
    assert "bike_demand: kind of a later release" in text
    assert "Evergreen reports an incident. What was recorded about it follows." in text
    assert AlertKind.of("kind_of_a_later_release") is None


def test_what_is_owed_is_of_a_kind_that_is_known(warehouse_url: str) -> None:
    with connect() as conn:
        with pytest.raises(ValueError, match="drifft"):
            owe(conn, "one", "model/bike_demand", "drifft", None, {})  # type: ignore[arg-type]
        assert fetch(conn, "SELECT 1 FROM evergreen.mail") == []


def test_the_lists_are_those_that_mails_have_gone_by() -> None:
    """What a release promised: a change here is one that people notice."""
    assert set(HELD) == {"drift", "data_problem", "serving_skew", "batch_quarantined", "run_failed", "challenger_rejected", "recovered"}  # fmt: skip
    assert set(JOINED) == {
        "drift",
        "data_problem",
        "serving_skew",
        "batch_quarantined",
        "spec_unusable",
        "recovered",
    }
    assert set(BEGINNING) == {
        "drift",
        "data_problem",
        "serving_skew",
        "batch_quarantined",
        "run_failed",
        "spec_unusable",
    }
    assert ENDING == ["recovered"]
    assert sorted(Severity) == [Severity.INFO, Severity.WARNING, Severity.CRITICAL]
