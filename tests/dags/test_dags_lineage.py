"""The DAGs with lineage on: each step tells of itself under its task's name, whatever it comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

DATASET = {"name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"},
           "demand": {"type": "float", "required": False}}}  # fmt: skip
MODEL = {"name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
         "label": {"column": "demand"}, "features": {"numeric": ["x"]},
         "training": {"params": {"max_deth": 3}}}  # fmt: skip
AS_OF = "2024-05-01T00:00:00+00:00"


@pytest.fixture
def dags(make_dagbag: Any, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    (tmp_path / "landing" / "rides").mkdir(parents=True)
    lines = ["ts,x,demand", *(f"2024-04-0{day}T00:00:00Z,{day},{day}" for day in range(1, 10))]
    (tmp_path / "landing" / "rides" / "april.csv").write_text("\n".join(lines) + "\n")
    for name, value in {
        "EVERGREEN_LANDING": str(tmp_path / "landing"),
        "EVERGREEN_SNAPSHOTS": str(tmp_path / "snapshots"),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": str(tmp_path / "events.jsonl"),
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    return make_dagbag(tmp_path).dags


def test_each_step_tells_of_itself(dags: Any, tmp_path: Path) -> None:
    states = {}
    for kind, name in (("ingest", "rides"), ("train", "small"), ("score", "small"), ("monitor", "small")):
        done = dags[f"{kind}__{name}"].test(run_conf={"as_of": AS_OF})
        states |= {f"{kind}.{ti.task_id}": str(ti.state) for ti in done.get_task_instances()}
    assert [states[t] for t in ("ingest.land", "train.snapshot", "train.fit", "score.score", "monitor.judge")] == [
        "success", "success", "failed", "failed", "success",
    ]  # fmt: skip

    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        ("ingest__rides.land", "START"), ("ingest__rides.land", "COMPLETE"),
        ("train__small.fit", "START"), ("train__small.fit", "FAIL"),
        ("score__small.score", "START"), ("score__small.score", "FAIL"),
        ("monitor__small.judge", "START"), ("monitor__small.judge", "COMPLETE"),
    ]  # fmt: skip
    assert {e["run"]["facets"]["nominalTime"]["nominalStartTime"] for e in events} == {AS_OF}
    reasons = [e["run"]["facets"]["errorMessage"]["message"] for e in events if e["eventType"] == "FAIL"]
    assert "max_deth" in reasons[0]
    assert "no champion" in reasons[1]
    tables = {
        d["name"].partition(".")[2]
        for e in events
        for d in e["inputs"] + e["outputs"]
        if "data." in d["name"]
    }
    assert tables == {"data.rides"}
