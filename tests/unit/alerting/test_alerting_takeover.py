"""What mails say of a canary: how the new champion begins, how far one had come that was rolled back, and each step in the digest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.compose import LETTERS, gather
from evergreen.alerting.content.letter import Letter
from evergreen.alerting.content.week import model_week
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion import canary
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, fetch

SUBJECT = "model/bike_demand"
Decide = Callable[..., Decision]
"""See the fixture `decide`."""


@pytest.fixture
def shared(specs: Specs) -> ModelSpec:
    content = specs.models["bike_demand"].model_dump()
    return ModelSpec.model_validate({**content, "serving": {"canary": {"share": 0.1, "for": "3d"}}})


def letter(conn: Connection, specs: Specs, decision: Decision, kind: AlertKind) -> Letter:
    """The letter about a decision."""
    raise_incident(conn, f"{kind}:{decision.id}", SUBJECT, kind, decision.id, {})
    row = fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id DESC LIMIT 1")[0]
    return LETTERS[kind](conn, gather(conn, specs, row))


def promotions(conn: Connection, decide: Decide, model: ModelSpec, start: datetime) -> Decision:
    """Two of them; the second one begins as a spec says."""
    decide(DecisionKind.PROMOTED, "first_champion", as_of=start, version="1", evidence={})
    made = decide(DecisionKind.PROMOTED, "better_than_champion", as_of=start, version="2", evidence={})
    canary.begin(conn, model, made)
    return made


def grown(decide: Decide, promotion: Decision, share: float, as_of: datetime) -> None:
    evidence: dict[str, Any] = {
        "promotion": promotion.id, "version": "2", "former": "1", "share": share, "until": as_of.isoformat()
    }  # fmt: skip
    decide(DecisionKind.CANARY, "canary_grown", as_of=as_of, version="2", evidence=evidence)


def test_a_promotion_says_how_it_begins(
    conn: Connection, specs: Specs, shared: ModelSpec, decide: Decide, start: datetime
) -> None:
    promoted = promotions(conn, decide, shared, start)
    lead = letter(conn, specs, promoted, AlertKind.CHAMPION_CHANGED).lead
    assert lead[-1].startswith("Version 2 answers for 10% of the keys online, version 1 for the rest.")
    assert "the share doubles" in lead[-1]


def test_one_that_answers_for_all_says_nothing(
    conn: Connection, specs: Specs, decide: Decide, start: datetime
) -> None:
    promoted = promotions(conn, decide, specs.models["bike_demand"], start)
    found = letter(conn, specs, promoted, AlertKind.CHAMPION_CHANGED)
    assert not [text for text in found.lead if "online" in text.lower()]


@pytest.mark.parametrize(
    ("share", "told"), [(0.1, "10% of the keys"), (0.4, "40% of the keys"), (1.0, "all of the keys")]
)
def test_a_rollback_says_how_far_it_had_come(
    conn: Connection,
    specs: Specs,
    shared: ModelSpec,
    decide: Decide,
    start: datetime,
    share: float,
    told: str,
) -> None:
    promoted = promotions(conn, decide, shared, start)
    if share > 0.1:
        grown(decide, promoted, share, start)
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id) SELECT 'bike_demand', v, k::text, %s,"
            " 1, %s, r FROM (VALUES ('2', 'online/a', 1, 1200), ('2', 'score/1', 2001, 2050), ('1', 'online/a', 1, 7)) AS t (v, r, f, l),"
            " LATERAL generate_series(f, l) AS k",
            (start, start),
        )  # fmt: skip
    evidence = {"message": "it is worse", "previous_version": "2"}
    back = decide(
        DecisionKind.ROLLED_BACK, "worse_than_previous", as_of=start, version="1", evidence=evidence
    )
    lead = letter(conn, specs, back, AlertKind.ROLLED_BACK).lead
    assert lead[-1] == (
        f"Online version 2 had come to {told}, and had answered 1,200 keys; version 1 answers for all of them again."
    )


def test_a_rollback_of_one_that_never_shared_them_says_nothing(
    conn: Connection, specs: Specs, decide: Decide, start: datetime
) -> None:
    promotions(conn, decide, specs.models["bike_demand"], start)
    back = decide(DecisionKind.ROLLED_BACK, "manual", as_of=start, version="1", evidence={"message": "x"})
    assert len(letter(conn, specs, back, AlertKind.ROLLED_BACK).lead) == 1


def test_the_digest_has_each_step(
    conn: Connection, shared: ModelSpec, decide: Decide, start: datetime
) -> None:
    promoted = promotions(conn, decide, shared, start)
    for share in (0.2, 0.4):
        grown(decide, promoted, share, start)
    found = [
        (d.reason, d.times, d.version) for d in model_week(conn, shared, start).decided if d.kind == "canary"
    ]
    assert found == [("canary_started", 1, "2"), ("canary_grown", 2, "2")]
