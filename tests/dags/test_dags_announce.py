"""What was committed by a run that died before its event is announced by the next one, and then no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from evergreen import ledger
from evergreen.ledger import Decision, events
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import Run
from evergreen.spec import load_dataset
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import connect, fetch

DATASET = {"name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"},
           "demand": {"type": "float", "required": False}}}  # fmt: skip
MODEL = {"name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
         "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]}}  # fmt: skip
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def specs(warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (tmp_path / "include" / kind).mkdir(parents=True)
        (tmp_path / "include" / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "include" / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    (tmp_path / "landing" / "rides").mkdir(parents=True)
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    return tmp_path / "include"


def tasks(dag: Any, **conf: Any) -> dict[str, str]:
    done = dag.test(run_conf=conf)
    return {ti.task_id: str(ti.state) for ti in done.get_task_instances()}


def left() -> list[str]:
    with connect() as conn:
        return [row["asset"] for row in fetch(conn, "SELECT asset FROM evergreen.owed_event")]


def emitted() -> int:
    """How many events the asset of the predictions has got."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        mine = (
            select(func.count())
            .select_from(AssetEvent)
            .join(AssetModel, AssetEvent.asset_id == AssetModel.id)
        )
        return int(session.scalar(mine.where(AssetModel.name == "predictions_small")) or 0)


def test_a_batch_that_a_killed_ingest_published_is_announced_by_the_next(
    specs: Path, make_dagbag: Any
) -> None:
    (specs.parent / "landing" / "rides" / "a.csv").write_text("ts,x,demand\n2026-02-01T00:00:00Z,1,2\n")
    dataset = load_dataset(specs, "rides").datasets["rides"]
    (batch,) = ingest(dataset, AS_OF, "ingest__rides/killed")
    assert (batch.state, left()) == ("published", ["dataset/rides"])
    dag = make_dagbag(specs).dags["ingest__rides"]
    found = tasks(dag, as_of=(AS_OF + timedelta(hours=1)).isoformat())
    assert (found["land"], found["announce"]) == ("success", "success")
    assert left() == [], "once Airflow has the event nothing is owed"
    assert tasks(dag)["announce"] == "skipped"


def test_a_correction_by_hand_is_announced_and_one_that_changes_nothing_is_not(
    specs: Path, make_dagbag: Any
) -> None:
    (specs.parent / "landing" / "rides" / "a.csv").write_text("ts,x,demand\n2026-02-01T00:00:00Z,1,2\n")
    ingest(load_dataset(specs, "rides").datasets["rides"], AS_OF, "ingest__rides/killed")
    dag = make_dagbag(specs).dags["correct__rides"]
    asked = {"action": "withdraw", "file": "a.csv", "reason": "the meter was broken"}
    found = tasks(dag, **asked)
    assert (found["correct"], found["announce"]) == ("success", "success")
    with connect() as conn:
        (decision,) = ledger.find(conn, "dataset/rides", [DecisionKind.BATCH_WITHDRAWN])
        assert fetch(conn, "SELECT count(*) AS n FROM data.rides") == [{"n": 0}]
    assert decision.evidence.to_json()["why"] == "the meter was broken"
    again = tasks(dag, **asked)
    assert (again["correct"], again["announce"]) == ("success", "skipped")


def test_a_champion_that_a_killed_training_made_is_announced_by_the_monitor(
    specs: Path, make_dagbag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as conn:
        ledger.append(
            conn,
            Decision(
                AS_OF, "model/small", DecisionKind.PROMOTED, "better", "train__small/killed", "k", version="2"
            ),
        )
    monkeypatch.setattr("evergreen.monitoring.monitor.monitor", lambda *_: Run((), None, None, False, None))
    dag = make_dagbag(specs).dags["monitor__small"]
    assert tasks(dag)["announce_rollback"] == "success"
    assert left() == []
    assert tasks(dag)["announce_rollback"] == "skipped"


def test_predictions_that_a_killed_scoring_wrote_are_announced_by_the_next(
    specs: Path, make_dagbag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as conn:
        ledger.append(
            conn,
            Decision(
                AS_OF, "model/small", DecisionKind.PROMOTED, "first", "train__small/r", "k", version="1"
            ),
        )
        events.forget(conn, "model/small", 99)
        events.owe(conn, "predictions/small", AS_OF, "score__small/killed")
    nothing = SimpleNamespace(
        rows=0, shadow=None, state="up_to_date", version="1", unseen={}, to_dict=lambda: {"shadow": None},
        sentence=lambda: "nothing new to score",
    )  # fmt: skip
    monkeypatch.setattr("evergreen.scoring.score.score", lambda *_, **__: nothing)
    dag = make_dagbag(specs).dags["score__small"]
    assert tasks(dag)["score"] == "success"
    assert (left(), emitted()) == ([], 1)
    assert tasks(dag)["score"] == "success", "to find nothing to score is no reason to skip"
    assert emitted() == 1, "and nobody is woken for it"
