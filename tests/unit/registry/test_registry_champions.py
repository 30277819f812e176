"""Who is champion: the ledger's line, and an alias that follows it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from mlflow import MlflowClient

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.ledger.succession import succession
from evergreen.warehouse.connection import connect

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def changes(told):
    """`A B C <B` as decisions, newest first: promotions, and rollbacks marked by <."""
    found = []
    for index, word in enumerate(told.split()):
        kind = DecisionKind.ROLLED_BACK if word.startswith("<") else DecisionKind.PROMOTED
        found.append(Decision(AS_OF, "model/m", kind, "r", "run", str(index), version=word.lstrip("<")))
    return found[::-1]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        pytest.param("", "", id="none"),
        pytest.param("A", "A", id="first"),
        pytest.param("A B C", "A B C", id="promotions"),
        pytest.param("A B C <B", "A B", id="one-back"),
        pytest.param("A B C <B <A", "A", id="two-back"),
        pytest.param("A B C <A", "A", id="two-back-at-once"),
        pytest.param("A B C <B D", "A B D", id="promotion-after-a-rollback"),
        pytest.param("A B C <A <C", "A C", id="forth-again-by-number"),
        pytest.param("A B <A <B <A", "A", id="to-and-fro-by-number"),
    ],
)
def test_the_line_of_champions(told, line):
    assert succession(changes(told)) == line.split()


def test_no_champion_before_the_first_promotion(conn):
    assert registry.champion(conn, "rides") is None
    assert registry.history(conn, "rides") == []


def test_history_tells_when_and_why(world, mlflow_url, start):
    from datetime import timedelta

    world.land(start, 35)
    as_of = start + timedelta(days=30)
    world.promote(as_of, "dag/one")
    with connect() as conn:
        ledger.append(
            conn, Decision(as_of, "model/rides", DecisionKind.ROLLED_BACK, "manual", "r", "k", version="1")
        )
        history = registry.history(conn, "rides")
        assert [(c.kind, c.reason, c.as_of) for c in history] == [
            (DecisionKind.ROLLED_BACK, "manual", as_of), (DecisionKind.PROMOTED, "first_champion", as_of),
        ]  # fmt: skip
        assert len({c.run_id for c in history}) == 1


def test_an_alias_moved_by_hand_is_put_back(world, mlflow_url, start):
    from datetime import timedelta

    world.land(start, 35)
    world.promote(start + timedelta(days=30), "dag/one")
    world.train(start + timedelta(days=31), "dag/two")
    MlflowClient().set_registered_model_alias("rides", "champion", "2")
    with connect() as conn:
        assert registry.champion(conn, "rides", repair=False).version == "1"
        assert registry.aliases("rides")["champion"] == "2"
        assert registry.champion(conn, "rides").version == "1"
    assert registry.aliases("rides")["champion"] == "1"


def test_a_champion_that_mlflow_does_not_have(conn, mlflow_url):
    ledger.append(
        conn,
        Decision(
            AS_OF,
            "model/rides",
            DecisionKind.PROMOTED,
            "first_champion",
            "r",
            "k",
            {"mlflow_run": "x"},
            version="7",
        ),
    )
    assert registry.champion(conn, "rides", repair=False).version == "7"
    with pytest.raises(TerminalError) as caught:
        registry.champion(conn, "rides")
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_a_server_that_is_down(conn, mlflow_url, monkeypatch):
    ledger.append(
        conn,
        Decision(
            AS_OF,
            "model/rides",
            DecisionKind.PROMOTED,
            "first_champion",
            "r",
            "k",
            {"mlflow_run": "x"},
            version="7",
        ),
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError):
        registry.champion(conn, "rides")
