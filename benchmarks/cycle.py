"""One night of one model through the real scheduler, against the plain script, and against its own steps bare.

Nine tenths of the rows were validated and published when they landed, and yesterday's champion was trained on them. In
the night the newest tenth lands: it is validated and published, scored, and judged as a window; a challenger is trained
on all rows as of now and settled. The bare run does the same steps, in the same order and with the same overlap, in two
warm processes while Airflow stands still, on a dataset and a model of its own. The plain script has no memory: it validates all rows
each night, which `landing` shows to cost Evergreen less than reading them costs the script.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb

from benchmarks import bare, data, memory, room
from benchmarks.place import Place
from benchmarks.table import Row
from evergreen import ledger, settings
from evergreen.warehouse.connection import connect, fetch

PLAIN = Path(__file__).with_name("plain_script.py")
TWIN, TWIN_MODEL = "bench_bare", "bench_value_bare"
NIGHT = data.END + timedelta(hours=1)
"""The as-of time: every row has arrived, and every label."""
LONGEST = timedelta(seconds=3000)
MOST_WALL, MOST_MEMORY, MOST_SHARE = 0.5, 0.5, 0.25
MOST_GROWTH, MOST_MB = 8.0, 3000.0


@dataclass(frozen=True)
class Night:
    """What a night took: seconds, those in which no task ran, the largest process, and the seconds of each DAG run."""

    seconds: float
    waited: float
    process: str
    peak_mb: float
    runs: dict[str, float]


def measure(place: Place, rows: int, *, large: int | None = None) -> tuple[list[Row], list[Row]]:
    """The rows of the table about the cycle and, with `large`, about the cycle of so many rows."""
    night, bare_seconds = _cycle(place, rows, "", twin=True)
    _say(f"{rows:,} rows: the plain script")
    with place.still():
        plain = _plain()
    found = [
        Row(
            f"nightly cycle through the scheduler, {rows:,} rows: wall time",
            f"{night.seconds:.1f} s",
            f"plain script {plain['seconds']:.1f} s",
            night.seconds / plain["seconds"],
            f"≤ {MOST_WALL} ×",
            night.seconds <= MOST_WALL * plain["seconds"],
            "one fit of the same rounds in both (`early_stopping_rounds: null`, `refit: false`; see the trainings for what the "
            "defaults add); ours validates the newest tenth, as the others were when they landed; ours: " + ", ".join(f"{n} {s:.1f}" for n, s in night.runs.items())
            + "; plain: " + ", ".join(f"{n} {s:.1f}" for n, s in plain["parts"].items()),
        ),
        Row(
            "the same: peak memory of the largest process",
            f"{night.peak_mb:.0f} MB ({night.process})",
            f"{plain['peak_mb']:.0f} MB",
            night.peak_mb / plain["peak_mb"],
            f"≤ {MOST_MEMORY} ×",
            night.peak_mb <= MOST_MEMORY * plain["peak_mb"],
            "PostgreSQL's processes are not counted on either side",
        ),
    ]  # fmt: skip
    if bare_seconds is not None:
        share = 1 - bare_seconds / night.seconds
        found.append(
            Row(
                "the same: Airflow's share (waiting, process start, imports)",
                f"{night.seconds:.1f} s",
                f"the same steps bare, in two warm processes, {bare_seconds:.1f} s",
                share,
                f"≤ {MOST_SHARE:.0%} of the wall time",
                share <= MOST_SHARE,
                f"no task ran for {night.waited:.1f} s of it; the rest is the tasks' start, and what Airflow's services "
                "compute beside them on the same cores",
            )
        )
    more = []
    if large:
        big, _ = _cycle(place, large, "_large", twin=False)
        growth = big.seconds / night.seconds
        alone = {count: room.aside("benchmarks.cycle.fit_alone", count)["s"] for count in (rows, large)}
        more = [
            Row(
                f"nightly cycle through the scheduler, {large:,} rows: wall time",
                f"{big.seconds:.1f} s",
                f"{rows:,} rows {night.seconds:.1f} s",
                growth,
                f"≤ {MOST_GROWTH:.0f} ×",
                growth <= MOST_GROWTH,
                "ours: " + ", ".join(f"{n} {s:.1f}" for n, s in big.runs.items()),
            ),
            Row(
                "the same: peak memory of the largest process",
                f"{big.peak_mb:.0f} MB ({big.process})",
                "",
                None,
                f"≤ {MOST_MB / 1000:.0f} GB",
                big.peak_mb <= MOST_MB,
                "without PostgreSQL's processes",
            ),
            Row(
                "of it: XGBoost alone, bins and trees of the older nine tenths",
                f"{alone[large]:.1f} s",
                f"{rows:,} rows {alone[rows]:.1f} s",
                alone[large] / alone[rows],
                "",
                True,
                "one array in memory, nothing else in the process",
            ),
        ]
    return found, more


def _cycle(place: Place, rows: int, suffix: str, *, twin: bool) -> tuple[Night, float | None]:
    dataset, model = data.DATASET + suffix, data.MODEL + suffix
    pairs = [(dataset, model)] + ([(TWIN, TWIN_MODEL)] if twin else [])
    for name, its_model in pairs:
        data.write_specs(place.specs, (its_model,), name)
    with tempfile.TemporaryDirectory() as folder:
        whole, older, newer = (Path(folder) / f"{name}.csv" for name in ("whole", "older", "newer"))
        data.write_csv(whole, rows)
        newest = data.split_csv(whole, data.NEWEST, older, newer)
        whole.unlink()
        workers = (bare.Worker(), bare.Worker()) if twin else (bare.Worker(),)
        try:
            for name, its_model in pairs:
                _say(f"{rows:,} rows: yesterday of {its_model}")
                _before(place, workers[0], name, its_model, older)
            dags = [f"ingest__{dataset}", *(f"{kind}__{model}" for kind in ("score", "monitor", "train"))]
            place.api.wait_for_dags(set(dags))
            for dag in dags:
                place.api.pause(dag, False)
            # The scheduler has been up for a while: its first task ever is not the night's.
            _ended(place, dags[0], place.api.trigger(dags[0], {"as_of": data.NEWEST.isoformat()}))
            _land(place, dataset, newer)
            _say(f"{rows:,} rows: the night through the scheduler")
            with memory.watched([_supervisor(place)]) as peaks:
                seconds, waited, runs = _night(place, dags)
            _verify(model, newest)
            process, peak = peaks.largest
            bare_seconds = None
            if twin:
                _say(f"{rows:,} rows: the night without Airflow")
                _land(place, TWIN, newer)
                with place.still():
                    bare_seconds = _bare(workers)
                _verify(TWIN_MODEL, newest)
        finally:
            for worker in workers:
                worker.stop()
    return Night(seconds, waited, process.split()[0].rpartition("/")[2], peak, runs), bare_seconds


def fit_alone(count: str) -> None:
    """Fit on the older nine tenths of so many rows and print the seconds, as JSON: the arrays are there before."""
    rows = int(count)
    blocks = max(1, rows // data.BLOCK)
    x = np.empty((rows * 9 // 10, len(data.NUMERIC) + len(data.CATEGORICAL)), np.float32)
    y = np.empty(len(x))
    for at in range(0, len(x), data.BLOCK):
        part = data.table(min(data.BLOCK, len(x) - at), seed=7 + at // data.BLOCK, days=data.DAYS / blocks)
        for column, name in enumerate((*data.NUMERIC, *data.CATEGORICAL)):
            codes = part[name].dictionary_encode().combine_chunks() if name in data.CATEGORICAL else None
            values = part[name] if codes is None else codes.indices
            x[at : at + len(part), column] = values.cast(pa.float64()).to_numpy()
        y[at : at + len(part)] = part["y"].to_numpy()
    types = ["float"] * len(data.NUMERIC) + ["c"] * len(data.CATEGORICAL)
    threads = int(settings.THREADS.read())
    began = time.perf_counter()
    rows_in = xgb.QuantileDMatrix(x, y, feature_types=types, enable_categorical=True, nthread=threads)
    xgb.train({**data.PARAMS, "tree_method": "hist", "nthread": threads}, rows_in, data.ROUNDS)
    print(json.dumps({"s": time.perf_counter() - began}))


def _say(text: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _before(place: Place, worker: bare.Worker, dataset: str, model: str, file: Path) -> None:
    """Yesterday: the older rows are published, and the champion learnt from them."""
    _land(place, dataset, file)
    worker.run("ingest", dataset, data.NEWEST, "before")
    trained = worker.run("train", model, data.NEWEST, "before")
    _say(f"  trained in {trained['seconds']:.0f} s")
    settled = trained["result"]
    assert settled["decision"] == "promoted", settled
    worker.run("score", model, data.NEWEST, "before")


def _land(place: Place, dataset: str, file: Path) -> None:
    folder = place.landing / dataset
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder / f".{file.name}")
    (folder / f".{file.name}").rename(folder / file.name)


def _night(place: Place, dags: list[str]) -> tuple[float, float, dict[str, float]]:
    """Trigger the ingest, then the training when it is done, as two crons would; wait for all that follows."""
    ingest, score, monitor, train = dags
    conf = {"as_of": NIGHT.isoformat()}
    before = {dag: {run["dag_run_id"] for run in place.api.runs(dag)} for dag in dags}
    started = datetime.now(UTC)
    first = place.api.trigger(ingest, conf)
    _ended(place, ingest, first)
    trained = place.api.trigger(train, conf)
    own: dict[str, dict[str, Any]] = {}
    while len(own) < 2:
        if datetime.now(UTC) - started > LONGEST:
            raise TimeoutError(f"the night does not end; active: {place.api.active(dags)}")
        # Who asks all the time takes the server's core; the runs say themselves when they ended.
        time.sleep(5)
        if place.api.active(dags):
            continue
        for dag in (score, monitor):
            fresh = [r for r in place.api.runs(dag) if r["dag_run_id"] not in before[dag]]
            if fresh:
                own[dag] = fresh[-1]
    chosen = {
        ingest: first,
        train: trained,
        **{dag: str(run["dag_run_id"]) for dag, run in own.items()},
    }
    took, ended, worked = {}, started, []
    for dag, run_id in chosen.items():
        run = place.api.run(dag, run_id)
        assert run["state"] == "success", (dag, run, place.api.tasks(dag, run_id))
        took[dag.partition("__")[0]] = float(run["duration"])
        ended = max(ended, datetime.fromisoformat(run["end_date"]))
        worked += _worked(place, dag, run_id)
    seconds = (ended - started).total_seconds()
    return seconds, seconds - _covered(worked), took


def _worked(place: Place, dag: str, run_id: str) -> list[tuple[datetime, datetime]]:
    """From when to when each task of a run ran."""
    found = place.api.call("GET", f"dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"]
    ran = sorted((t for t in found if t["duration"]), key=lambda t: str(t["start_date"]))
    for task in ran:
        _say(
            f"  {dag} {task['task_id']}: queued {task['queued_when'][11:22]}, started {task['start_date'][11:22]}, "
            f"{task['duration']:.1f} s"
        )
    return [(datetime.fromisoformat(t["start_date"]), datetime.fromisoformat(t["end_date"])) for t in ran]


def _covered(spans: list[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one of these went on."""
    seconds, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(spans):
        if end > until:
            seconds += (end - max(start, until)).total_seconds()
            until = end
    return seconds


def _ended(place: Place, dag: str, run_id: str) -> None:
    state = place.api.wait(dag, run_id, timeout_s=2000)
    assert state == "success", place.api.tasks(dag, run_id)


def _bare(workers: tuple[bare.Worker, ...]) -> float:
    started = time.monotonic()
    took = {"ingest": workers[0].run("ingest", TWIN, NIGHT, "night")}
    workers[1].start("train", TWIN_MODEL, NIGHT, "night")
    took["score"] = workers[0].run("score", TWIN_MODEL, NIGHT, "night")
    took["watch"] = workers[0].run("watch", TWIN_MODEL, NIGHT, "night")
    took["train"] = workers[1].answer()
    seconds = time.monotonic() - started
    _say("  " + ", ".join(f"{step} {answer['seconds']:.1f} s" for step, answer in took.items()))
    return seconds


def _verify(model: str, newest: int) -> None:
    """The night did what it is measured for."""
    with connect() as conn:
        scored = fetch(
            conn,
            "SELECT count(*) AS n FROM evergreen.prediction WHERE model = %s AND event_time >= %s",
            (model, data.NEWEST),
        )[0]["n"]
        judged = fetch(
            conn,
            "SELECT status, row_count FROM evergreen.window_judgement WHERE model = %s AND window_start = %s",
            (model, data.NEWEST),
        )
        settled = ledger.find(conn, ledger.model_subject(model))
    assert scored == newest, f"{scored} of {newest} rows were scored"
    assert [(j["status"], j["row_count"]) for j in judged] == [("ok", newest)], judged
    assert settled[0].as_of == NIGHT, settled[0]
    assert settled[0].kind.value in ("promoted", "rejected"), settled[0]


def _plain() -> dict[str, Any]:
    url = os.environ["EVERGREEN_WAREHOUSE_URL"].replace("postgresql:", "postgresql+psycopg2:", 1)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable, str(PLAIN), url, data.DATASET, os.environ["MLFLOW_TRACKING_URI"], f"{folder}/drift.html",
            ],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder,
            env={n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "OPENBLAS_"))},
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _supervisor(place: Place) -> int:
    return int(place.layout.state()["supervisor"]["pid"])
