"""Each step of the loop on a worker of its own: they share the bucket, PostgreSQL and MLflow's server, and no folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

import clean_fork
from evergreen import ledger, settings
from evergreen.warehouse.connection import connect, fetch


@pytest.fixture
def on_a_worker(bucket, tmp_path, monkeypatch):
    """Run a step in a process with a home and a folder of its own, both gone afterwards; gives what it returns, as XCom would."""
    monkeypatch.setenv(settings.LANDING.name, f"{bucket.url}/landing")
    monkeypatch.setenv(settings.SNAPSHOTS.name, f"{bucket.url}/snapshots")
    monkeypatch.setenv(settings.PROGRESS.name, f"{bucket.url}/progress")
    count = iter(range(99))

    def run(step):
        here = tmp_path / f"worker-{next(count)}"
        here.mkdir()
        answer = tmp_path / "answer.json"
        monkeypatch.setenv(settings.HOME.name, str(here / "home"))

        def work():
            os.chdir(here)
            answer.write_text(json.dumps(step()))

        process = clean_fork.start(work, modules=(sys.modules[__name__],))
        process.join(240)
        assert process.exitcode == 0
        assert not {p.name for p in (here / "home").glob("*")} - {"cache"}, (
            "beside its cache it keeps nothing here"
        )
        shutil.rmtree(here)
        found = json.loads(answer.read_text())
        answer.unlink()
        return found

    return run


def csv(first, days):
    rows = ["ts,kind,x,demand,gone"]
    draw = random.Random(first.isoformat())
    for hour in range(24 * days):
        x, wet = draw.gauss(0, 1), draw.random() < 0.5
        demand = 50 + 3 * x + 8 * wet + draw.gauss(0, 1)
        at = first + timedelta(hours=hour)
        rows.append(f"{at.isoformat()},{'wet' if wet else 'dry'},{x},{demand},")
    return "\n".join(rows) + "\n"


def test_the_loop_without_a_shared_disk(world, start, mlflow_url, bucket, on_a_worker, monkeypatch):
    from evergreen.promotion.settlement import settle
    from evergreen.scoring.score import score
    from evergreen.training.record.outcome import TrainingOutcome
    from evergreen.training.train import train
    from evergreen.validation.ingest import ingest
    from evergreen.warehouse.features import snapshot_store
    from evergreen.warehouse.features.snapshot import Snapshot
    from evergreen.warehouse.storage.bucket import place

    MlflowClient().create_experiment("apart", artifact_location=f"{bucket.url}/mlflow")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    model = world.model.model_copy(update={"name": "apart"})
    specs = type(world.specs)(
        {n: d.model_copy(update={"arrival": d.arrival.model_copy(update={"delay": timedelta(hours=1)})}) for n, d in world.specs.datasets.items()},
        {model.name: model},
    )  # fmt: skip
    dataset, as_of = specs.datasets["rides_hourly"], start + timedelta(days=30)
    bucket.put("landing/rides_hourly/1.csv", csv(start, 20))
    bucket.put("landing/rides_hourly/2.csv", csv(start + timedelta(days=20), 20))
    now, later = datetime.now(UTC) + timedelta(hours=1), start + timedelta(days=41)

    landed = on_a_worker(lambda: [o.state for o in ingest(dataset, later, "ingest/1", now=now)])
    assert landed == ["published", "published"]
    again = on_a_worker(lambda: [o.file for o in ingest(dataset, later, "ingest/2", now=now)])
    assert again == []

    taken = on_a_worker(lambda: snapshot_store.take(specs, model, as_of, place(settings.SNAPSHOTS)).__dict__)
    assert taken["path"].startswith(f"{bucket.url}/snapshots/apart/")
    trained = on_a_worker(
        lambda: train(specs, model, Snapshot(**taken), as_of, "train/1", trigger="manual").to_dict()
    )
    # A second try, elsewhere: it finds what the first one came to.
    once_more = on_a_worker(
        lambda: train(specs, model, Snapshot(**taken), as_of, "train/1", trigger="manual").to_dict()
    )
    assert once_more["version"] == trained["version"] == "1"
    decided = on_a_worker(
        lambda: settle(specs, model, TrainingOutcome.from_dict(trained), "train/1").kind.value
    )
    assert decided == "promoted"
    on_a_worker(lambda: bool(score(specs, model, as_of + timedelta(days=5), "score/1")))
    with connect() as conn:
        (row,) = fetch(conn, "SELECT count(*) AS n, min(version) AS v FROM evergreen.prediction")
        assert (row["n"] > 24, str(row["v"])) == (True, "1")
        assert [d.kind.value for d in ledger.find(conn, "model/apart")] == ["promoted"]
    assert any(name.startswith("mlflow/") for name in bucket.names())
    assert Path(mlflow_url.removeprefix("sqlite:///")).is_file()
