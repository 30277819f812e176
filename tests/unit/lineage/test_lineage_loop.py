"""The real steps of the loop, with the client's own file transport: what a lineage server would be told."""

from __future__ import annotations

import csv
import importlib
import json
import logging
import os
import pkgutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attr
import numpy as np
import pytest

from evergreen import lineage
from evergreen.errors import TerminalError
from evergreen.lineage import switched_on, transport
from evergreen.lineage.task_run import TaskRun
from evergreen.monitoring.monitor import monitor
from evergreen.scoring.score import score
from evergreen.spec import DatasetSpec
from evergreen.training.train import train
from evergreen.validation.ingest import ingest

Events = Callable[[], list[dict[str, Any]]]
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [n for n in os.environ if n.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    # The client writes some of its own.
    for name in [n for n in os.environ if n.startswith("OPENLINEAGE")]:
        del os.environ[name]


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Events:
    """Lineage on, into a file; reads its events."""
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(path))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def dataset(world: Any) -> DatasetSpec:
    """The world's dataset with an expectation of Great Expectations' own; its rows arrive an hour after their event."""
    content = world.specs.datasets["rides_hourly"].model_dump(mode="json", exclude_defaults=True)
    content["columns"]["x"]["max"] = 50
    more = {
        "expectations": [
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "demand", "min_value": 0}}
        ]
    }
    return DatasetSpec.model_validate(content | more | {"arrival": {"delay": "1h"}, "quarantine": "rows"})


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    folder = tmp_path / "landing" / "rides_hourly"
    folder.mkdir(parents=True)
    return folder


def task(dag_id: str, task_id: str, as_of: Any, try_number: int = 1) -> TaskRun:
    return TaskRun(dag_id, task_id, f"manual__{as_of:%Y-%m-%d}", try_number, as_of, as_of)


def land(folder: Path, name: str, first: Any, hours: int, **other: Any) -> None:
    rng = np.random.default_rng(3)
    with (folder / name).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["ts", "kind", "x", "demand", "gone"])
        for hour in range(hours):
            ts = first + timedelta(hours=hour)
            x = float(rng.normal())
            row = {"ts": ts.isoformat(), "kind": "dry", "x": x, "demand": 50 + 3 * x + ts.hour, "gone": ""}
            out.writerow({**row, **(other if hour == 5 else {})}.values())


def ingested(dataset: DatasetSpec, as_of: Any, **more: Any) -> Any:
    run = task("ingest__rides_hourly", "land", as_of)
    with lineage.ingest(run, dataset) as told:
        told.outcome = ingest(dataset, as_of, f"{run.dag_id}/{run.run_id}", **more)
    return told.outcome


def trained(world: Any, as_of: Any, **more: Any) -> Any:
    run, snapshot = task("train__rides", "fit", as_of), world.snapshot(as_of)
    with lineage.train(run, world.specs, world.model, snapshot) as told:
        told.outcome = train(
            world.specs, world.model, snapshot, as_of, f"{run.dag_id}/{run.run_id}", trigger="manual", **more
        )
    return told.outcome


def of(event: dict[str, Any]) -> tuple[str, str]:
    return event["job"]["name"], event["eventType"]


def name(found: dict[str, Any]) -> str:
    return f"{found['namespace']} {found['name']}"


def all_facets(event: dict[str, Any]) -> list[dict[str, Any]]:
    found = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    return [
        facet
        for one in found
        for kind in ("facets", "inputFacets", "outputFacets")
        for facet in one.get(kind, {}).values()
    ]


def client_classes() -> dict[str, Any]:
    """The client's classes, by the address of the schema that each was made of."""
    import openlineage.client.generated as made

    found = {}
    for module in pkgutil.iter_modules(made.__path__):
        for one in vars(importlib.import_module(f"{made.__name__}.{module.name}")).values():
            if attr.has(one) and hasattr(one, "_get_schema"):
                found[one._get_schema()] = one
    return found


def check_by_schema(event: dict[str, Any]) -> None:
    """Every facet, and the event, has the fields that OpenLineage's schema names, all that it asks for, and no other."""
    classes = client_classes()
    made = [event, *all_facets(event)]
    for one in made:
        kind = classes[one.get("schemaURL") or one["_schemaURL"]]
        fields = {f.name: f for f in attr.fields(kind)}
        assert one.keys() <= fields.keys(), kind
        assert {n for n, f in fields.items() if f.default is attr.NOTHING} <= one.keys(), kind
    from openlineage.client.event_v2 import Job, Run, RunEvent

    RunEvent(
        eventTime=event["eventTime"],
        run=Run(**event["run"]),
        job=Job(**event["job"]),
        producer=event["producer"],
    )


def test_from_file_to_judgement_is_one_graph(
    world: Any, mlflow_url: str, dataset: DatasetSpec, landing: Path, start: Any, events: Events
) -> None:
    unread = replace_name(dataset, "unread")
    model = world.model.model_copy(update={"datasets": ("rides_hourly", "unread")})
    world = replace(
        world, model=model, specs=replace(world.specs, datasets={"rides_hourly": dataset, "unread": unread})
    )
    land(landing, "first.csv", start, 40 * 24)
    (outcome,) = ingested(dataset, start + 40 * DAY)
    assert outcome.state == "published"
    made = trained(world, start + 40 * DAY)
    assert made.version == "1"
    world.settle(made)
    land(landing, "second.csv", start + 40 * DAY, 9 * 24)
    ingested(dataset, start + 49 * DAY)
    run = task("score__rides", "score", start + 49 * DAY)
    with lineage.score(run, world.specs, world.model) as told:
        told.outcome = done = score(world.specs, world.model, run.as_of, "score__rides/x")
    run = task("monitor__rides", "judge", start + 49 * DAY)
    with lineage.monitor(run, world.specs, world.model) as told:
        told.outcome = judged = monitor(world.specs, world.model, run.as_of, "monitor__rides/x")
    assert judged is not None
    assert judged.judged

    found = events()
    steps = ["ingest__rides_hourly.land", "train__rides.fit", "ingest__rides_hourly.land", "score__rides.score",
             "monitor__rides.judge"]  # fmt: skip
    assert [of(e) for e in found] == [(s, t) for s in steps for t in ("START", "COMPLETE")]
    for event in found:
        check_by_schema(event)
        assert event["job"]["namespace"] == "evergreen"
        parent = event["run"]["facets"]["parent"]
        assert parent["job"]["name"] == event["job"]["name"].partition(".")[0]
        assert parent["run"]["runId"] != event["run"]["runId"]
    ids = [e["run"]["runId"] for e in found]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 5

    # One graph: each name is joined with the others of its step, and nothing stands apart.
    ends = found[1::2]
    groups: list[set[str]] = []
    for event in ends:
        joined = {name(d) for d in (*event["inputs"], *event["outputs"])}
        assert event["inputs"]
        assert event["outputs"]
        groups = [g for g in groups if not g & joined] + [joined.union(*(g for g in groups if g & joined))]
    (graph,) = groups
    warehouse = next(n for n in graph if n.endswith(".data.rides_hourly"))
    assert warehouse.startswith("postgres://127.0.0.1:")
    place, _, database = warehouse.removesuffix(".data.rides_hourly").partition(" ")
    registry = mlflow_url.removeprefix("sqlite:///")
    assert graph == {
        f"file {landing}/first.csv", f"file {landing}/second.csv", warehouse, f"file {world.folder}/rides",
        f"mlflow:///{registry} rides", f"mlflow:///{registry} rides/1",
        f"{place} {database}.evergreen.prediction/model=rides",
        f"{place} {database}.evergreen.window_judgement/model=rides",
    }  # fmt: skip

    first, fitted, _, scored, watched = ends
    rows = [
        d["outputFacets"]["outputStatistics"]["rowCount"]
        for d in (first["outputs"][0], *scored["outputs"], *watched["outputs"])
    ]
    assert rows == [960, done.rows, len(judged.judged)]
    assert [f["name"] for f in first["outputs"][0]["facets"]["schema"]["fields"]] == list(dataset.columns)
    (file,) = first["inputs"]
    assert file["facets"]["version"]["datasetVersion"] == outcome.checksum
    assert file["inputFacets"]["inputStatistics"]["rowCount"] == 960
    checks = file["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert all(c["success"] for c in checks)
    assert ("expect_column_mean_to_be_between", "demand") in {
        (c["assertion"], c.get("column")) for c in checks
    }
    snapshot = next(d for d in fitted["inputs"] if d["namespace"] == "file")
    assert snapshot["facets"]["version"]["datasetVersion"] == made.fingerprint
    assert fitted["job"]["facets"]["sql"]["query"] == model.query
    versions = [(d["name"], d["facets"]["version"]["datasetVersion"]) for d in fitted["outputs"]]
    assert versions == [("rides", "1"), ("rides/1", "1")]
    assert {d["facets"]["datasetType"]["datasetType"] for d in fitted["outputs"]} == {"MODEL"}

    password = os.environ["EVERGREEN_WAREHOUSE_URL"].split(":")[2].partition("@")[0]
    assert len(password) > 10
    assert password not in json.dumps(found)


def replace_name(dataset: DatasetSpec, new: str) -> DatasetSpec:
    return dataset.model_copy(update={"name": new})


def test_a_held_file_tells_which_expectation_failed_and_no_value_of_a_row(
    world: Any, dataset: DatasetSpec, landing: Path, start: Any, events: Events
) -> None:
    land(landing, "odd.csv", start, 10, x=987654)
    land(landing, "unreadable.csv", start, 10, demand="many")
    (landing / "other.csv").write_text("not,the,columns\n1,2,3\n")
    states = {o.file: o.state for o in ingested(replace_quarantine(dataset), start + DAY)}
    assert set(states.values()) == {"quarantined"}
    start_, end = events()
    assert end["eventType"] == "COMPLETE"  # as the task; the DAG's verdict turns the run red
    check_by_schema(end)
    told = {
        Path(d["name"]).name: d["inputFacets"]["dataQualityAssertions"]["assertions"] for d in end["inputs"]
    }
    failed = {
        f: [(c["assertion"], c.get("column")) for c in cs if not c["success"]] for f, cs in told.items()
    }
    assert failed["odd.csv"] == [("expect_column_values_to_be_between", "x")]
    assert ("expect_column_mean_to_be_between", True) in {
        (c["assertion"], c["success"]) for c in told["odd.csv"]
    }
    # Nobody asked whether the rest of these is as it should be.
    assert not [c for c in told["other.csv"] if c["success"]]
    (between,) = [c for c in told["odd.csv"] if not c["success"]]
    assert (between["actual"], between["severity"]) == ("1 of 10 rows", "error")
    assert "987654" not in json.dumps(end)
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 0
    assert start_["inputs"] == []


def replace_quarantine(dataset: DatasetSpec) -> DatasetSpec:
    return dataset.model_copy(update={"quarantine": "batch"})


def test_a_failed_ingest_is_a_fail_with_its_reason(
    world: Any, dataset: DatasetSpec, start: Any, events: Events, tmp_path: Path
) -> None:
    with pytest.raises(TerminalError):
        ingested(dataset, start, folder=tmp_path / "nowhere")
    begun, failed = events()
    assert (of(failed), failed["run"]["runId"]) == (
        ("ingest__rides_hourly.land", "FAIL"), begun["run"]["runId"],
    )  # fmt: skip
    check_by_schema(failed)
    error = failed["run"]["facets"]["errorMessage"]
    assert str(tmp_path / "nowhere") in error["message"]
    # The table stays in the graph of who looks at the newest run.
    assert [d["name"].partition(".")[2] for d in failed["outputs"]] == ["data.rides_hourly"]
    assert "outputStatistics" not in failed["outputs"][0].get("outputFacets", {})


def test_a_dry_run_makes_no_version(world: Any, mlflow_url: str, start: Any, events: Events) -> None:
    world.land(start, 30)
    trained(world, start + 30 * DAY, dry_run=True)
    assert events()[1]["outputs"] == []


def test_ids_follow_from_the_try(start: Any) -> None:
    from evergreen.lineage.events import ended, started
    from evergreen.lineage.steps import StepFacts

    run = task("train__rides", "fit", start)
    one, other = started(run, start), ended(run, start + DAY, StepFacts())
    assert one.run.runId == other.run.runId
    assert started(replace(run, try_number=2), start).run.runId != one.run.runId
    assert started(replace(run, task_id="settle"), start).run.runId != one.run.runId
    assert started(replace(run, run_id="other"), start).run.runId != one.run.runId


def test_off_it_imports_nothing_of_openlineage() -> None:
    code = (
        "import sys; from datetime import datetime, timezone; from evergreen import lineage\n"
        "now = datetime.now(timezone.utc)\n"
        "with lineage.ingest(lineage.TaskRun('d', 't', 'r', 1, now, now), None) as told: told.outcome = []\n"
        "print(lineage.switched_on(), [m for m in sys.modules if 'openlineage' in m or m.startswith('evergreen.lineage.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False ['evergreen.lineage.task_run']", (
        "and that is two dates and four names"
    )


@pytest.mark.parametrize(
    ("name", "value", "on"),
    [
        ("OPENLINEAGE_URL", "http://127.0.0.1:1", True),
        ("OPENLINEAGE_URL", "", False),
        ("OPENLINEAGE__TRANSPORT__TYPE", "file", True),
        ("OPENLINEAGE__TRANSPORT", '{"type": "console"}', True),
        ("OPENLINEAGE_CONFIG", "there.yml", True),
        ("OPENLINEAGE_CONFIG", "gone.yml", False),
        ("OPENLINEAGE_NAMESPACE", "team", False),
    ],
)
def test_what_switches_it_on(
    name: str, value: str, on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.yml").write_text("transport: {type: console}\n")
    monkeypatch.setenv(name, value)
    assert switched_on() is on
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not switched_on()


def test_its_file_switches_it_on(tmp_path: Path) -> None:
    assert not switched_on()
    (tmp_path / "openlineage.yml").write_text("transport: {type: console}\n")
    assert switched_on()


def test_the_one_setting_sends_to_a_server(
    world: Any, dataset: DatasetSpec, landing: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[tuple[str, str | None, dict[str, Any]]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(201)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "a key")
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "team")
        ingested(dataset, start)
        server.shutdown()
    assert [(path, key, event["eventType"]) for path, key, event in came] == [
        ("/api/v1/lineage", "Bearer a key", "START"), ("/api/v1/lineage", "Bearer a key", "COMPLETE"),
    ]  # fmt: skip
    assert {event["job"]["namespace"] for *_, event in came} == {"team"}
    for *_, event in came:
        check_by_schema(event)


def test_facts_that_cannot_be_told_cost_the_event_its_datasets_alone(
    events: Events, start: Any, caplog: Any
) -> None:
    """No warehouse is set, so nobody can say what it is called."""
    with caplog.at_level(logging.WARNING), lineage.ingest(task("ingest__x", "land", start), None):  # type: ignore[arg-type]
        pass
    assert [e["eventType"] for e in events()] == ["START", "COMPLETE"]
    (warning,) = (r.getMessage() for r in caplog.records)
    assert "without its datasets" in warning


def down(dataset: DatasetSpec, start: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", url)
    begun = time.monotonic()
    assert ingested(dataset, start) == []
    return time.monotonic() - begun


def test_a_server_that_is_down_is_one_warning_and_no_failure(
    world: Any, dataset: DatasetSpec, landing: Path, start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(transport, "WAIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with caplog.at_level(logging.WARNING):
        assert down(dataset, start, f"http://127.0.0.1:{port}", monkeypatch) < 3
        time.sleep(0.5)
    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == 1, warnings
    assert "ingest__rides_hourly.land" in warnings[0]
    assert "docs/lineage.md" in warnings[0]


def test_a_server_that_never_answers_holds_a_task_up_no_longer_than_its_limit(
    world: Any, dataset: DatasetSpec, landing: Path, start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(transport, "WAIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING):
        took = down(dataset, start, f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
    assert 1 <= took < 3
    assert [r.getMessage() for r in caplog.records if "within 1 s" in r.getMessage()]


def test_names_hold_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    from evergreen.lineage import names

    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://me:word@db.example.org/rides")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:word@mlflow.example.org/team/")
    assert names.table("data", "bikes") == ("postgres://db.example.org:5432", "rides.data.bikes")
    assert names.model("bikes", "3") == ("mlflow://mlflow.example.org/team", "bikes/3")
    monkeypatch.setenv(
        "EVERGREEN_WAREHOUSE_URL", "postgresql://me:word@/rides?host=/run/postgresql&port=5433"
    )
    assert names.table("data", "bikes")[0] == "postgres://localhost:5433"
    assert names.path("s3://bucket/landing/a.csv") == ("s3://bucket", "landing/a.csv")
    assert names.path("/landing/a.csv") == ("file", "/landing/a.csv")
    assert names.path("gs://bucket/a.csv") == ("gs://bucket", "a.csv")


@pytest.mark.parametrize(
    ("landing", "folder", "named"),
    [
        ("/landing", None, ("file", "/landing/rides/a.csv")),
        ("/landing", "/elsewhere", ("file", "/elsewhere/a.csv")),
        ("/landing", "s3://other/x", ("s3://other", "x/a.csv")),
        ("s3://bucket/landing", None, ("s3://bucket", "landing/rides/a.csv")),
        ("s3://bucket/landing", "gs://other/x", ("gs://other", "x/a.csv")),
    ],
)
def test_a_landed_file_is_named_where_it_lies(
    landing: str, folder: str | None, named: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.lineage import names

    monkeypatch.setenv("EVERGREEN_LANDING", landing)
    source = {} if folder is None else {"folder": folder}
    dataset = DatasetSpec.model_validate({
        "name": "rides", "columns": {"ts": {"type": "timestamp"}, "n": {"type": "integer"}}, "key": ["ts"], "event_time": "ts", "source": source,
    })  # fmt: skip
    assert names.landed(dataset, "a.csv") == named


def test_an_error_that_quotes_an_address_tells_no_login(start: Any) -> None:
    from evergreen.lineage.events import ended
    from evergreen.lineage.steps import StepFacts

    event = ended(
        task("d", "t", start), start, StepFacts(), RuntimeError("no answer of https://me:word@host/x")
    )
    assert event.run.facets is not None
    assert event.run.facets["errorMessage"].message == "RuntimeError: no answer of https://host/x"
