"""What the prediction service is measured with: the bike model on the demo's data, a champion and the version that comes after it.

Each function runs in a process of its own and prints JSON; see `room.aside`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb

from evergreen import registry, settings
from evergreen.feeds import catalogue
from evergreen.promotion.settlement import settle
from evergreen.spec import ModelSpec, Specs, load_specs
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.training.train import train
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow, feature_query, snapshot, views
from evergreen.warehouse.migrate import ensure_dataset

MODEL = "bike_demand"
WEEKS = 6
"""After the history; in the fifth the thermometer begins to tell °F, which makes a version that has learnt it better."""
RECORDS = 2000
BATCH = 100
OUTCOME, RECORDS_FILE, PREDICTIONS = "outcome.json", "records.json", "predictions.npz"


def prepare(folder: str, cores: str) -> None:
    """Land the demo's data, train a champion and promote it, train the next version and leave it undecided.

    Into the folder: the next one's outcome, real records as a client would send them, and what each of the two versions
    says of them as the batch scorer has it.
    """
    os.sched_setaffinity(0, set(map(int, cores.split(","))))
    there = Path(folder)
    specs = load_specs(settings.SPECS.path())
    model = specs.models[MODEL]
    first, newest = _land(specs)
    champion = _train(specs, model, first, "bench/first")
    settle(specs, model, champion, "bench/first")
    following = _train(specs, model, newest, "bench/second")
    if not (champion.passed and following.passed):
        raise RuntimeError(f"the gate lets a version not pass: {champion.sentence()} {following.sentence()}")
    (there / OUTCOME).write_text(json.dumps(following.to_dict()))
    rows = _rows(specs, model, newest)
    (there / RECORDS_FILE).write_text(json.dumps(_as_sent(model, rows)))
    versions = [str(outcome.version) for outcome in (champion, following)]
    said = {version: registry.load(model, version).predict(rows) for version in versions}
    np.savez(there / PREDICTIONS, allow_pickle=False, **said)
    print(json.dumps({"champion": versions[0], "following": versions[1]}))


def _land(specs: Specs) -> tuple[datetime, datetime]:
    """Publish the history and the first weeks; returns where the history ends, and where the weeks do."""
    story = catalogue.get("simulated")
    dataset = specs.datasets[story.dataset]
    weeks = [d for d in story.deliveries if d.kind != "broken"][: WEEKS + 1]
    with connect() as conn:
        ensure_dataset(conn, dataset)
    for delivery in weeks:
        delivery.write(Path(os.environ[settings.LANDING.name]) / dataset.name)
        outcomes = ingest(dataset, delivery.as_of, f"bench/{delivery.name}")
        if any(outcome.state != "published" for outcome in outcomes):
            raise RuntimeError(f"{delivery.name} is not published: {outcomes}")
    return weeks[0].as_of, weeks[-1].as_of


def _train(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> TrainingOutcome:
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        taken = snapshot.take(specs, model, as_of, Path(folder))
        return train(specs, model, taken, as_of, run_id, trigger="manual")


def _rows(specs: Specs, model: ModelSpec, as_of: datetime) -> pa.Table:
    """Rows of the feature query, spread over all that there is."""
    story = catalogue.get("simulated")
    query = feature_query.feature_query(model, story.start, as_of, ordered=True)
    with views.reading(specs, model, as_of) as reader:
        found = pa.Table.from_batches(list(reader.stream(query, arrow.feature_schema(model))))
    return found.take(pa.array(np.linspace(0, len(found) - 1, RECORDS).astype(np.int64)))


def _as_sent(model: ModelSpec, rows: pa.Table) -> list[dict[str, Any]]:
    """Records with their key and their features."""
    found = rows.select(["_time", *model.features.numeric, *model.features.categorical]).to_pylist()
    return [
        {model.event_time: row.pop("_time").astimezone(UTC).isoformat(), **row} for row in found
    ]  # the key of the bikes is their event time


def promote(folder: str) -> None:
    """Promote the version that waits when a line comes in; prints the ledger's decision. What it needs is loaded before."""
    outcome = TrainingOutcome.from_dict(json.loads((Path(folder) / OUTCOME).read_text()))
    specs = load_specs(settings.SPECS.path())
    os.nice(10)
    print("ready", flush=True)
    sys.stdin.readline()
    decision = settle(specs, specs.models[MODEL], outcome, "bench/second")
    print(json.dumps({"kind": str(decision.kind), "version": decision.version}), flush=True)


def commits(seconds: str) -> None:
    """Print the time (CLOCK_MONOTONIC) at which the ledger tells of a decision that was committed; nothing where none comes."""
    with connect() as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("LISTEN evergreen_serving")
        print("ready", flush=True)
        if select.select([conn], [], [], float(seconds))[0]:
            at = time.monotonic()
            conn.poll()
            print(json.dumps({"at": at}), flush=True)


def alone(model_file: str, encoded: str, core: str, seconds: str) -> None:
    """Seconds of `inplace_predict` on one thread for a hundred encoded rows; `encoded` is an array that NumPy saved."""
    os.sched_setaffinity(0, {int(core)})
    booster = xgb.Booster()
    booster.load_model(model_file)
    booster.set_param({"nthread": 1, "device": "cpu"})
    rows = np.load(encoded)
    parts = [rows[i : i + BATCH].copy() for i in range(0, len(rows) - BATCH + 1, BATCH)]
    for part in parts:
        booster.inplace_predict(part, validate_features=False)
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < float(seconds):
        for part in parts:
            booster.inplace_predict(part, validate_features=False)
        done += len(parts)
    print(json.dumps({"batch_wall_s": took / done, "batch_cpu_s": (time.process_time() - cpu) / done}))
