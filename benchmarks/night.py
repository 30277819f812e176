"""A night of many small models: through the scheduler, against the same cycles in a bare loop.

Each model has a dataset and a champion of its own. In each night a file with the newest tenth lands for every model;
it is ingested, scored and watched, and a challenger is trained on 10,000 rows, judged and registered. First night: two warm
processes share the models and do the steps one after another, while Airflow stands still. Second night: Airflow does the same with files of the same
size. No challenger wins in either night, since each winner is more work: the margin of the gate is out of reach. Yesterday's
e-mails (a first champion, its first rejected challenger) are sent before the second night: the bare loop sends none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks import bare, data
from benchmarks.place import Place
from benchmarks.table import Row
from evergreen.warehouse.connection import connect, fetch

MODELS = 50
ROWS = 10_000
MOST = 1.5
MARGIN = 0.99
STEP = timedelta(days=10)
LONGEST_S = 1500
MAIL = "mail"

NAMES = [f"small_{i:02d}" for i in range(MODELS)]


def write_specs(folder: Path) -> None:
    """A dataset and a model for each name."""
    for name in NAMES:
        data.write_specs(folder, (_model(name),), name, window="100d", margin=MARGIN)


def measure(place: Place) -> list[Row]:
    """The row of the table about many models; their specs were there when the stack started."""
    names = NAMES
    first, second = data.END + STEP, data.END + 2 * STEP
    workers = [bare.Worker(), bare.Worker()]
    try:
        _land(place, names, "history", data.START, data.END, ROWS)
        _shared(workers, names, data.END, "history", ("ingest", "train", "score"))
        _land(place, names, "first", data.END, first, ROWS // 10)
        with place.still():
            started = time.monotonic()
            _shared(workers, names, first, "first", ("ingest", "score", "watch", "train"))
            bare_seconds = time.monotonic() - started
    finally:
        for worker in workers:
            worker.stop()
    _require(names, first)
    kinds = ("score", "monitor", "train")
    dags = [f"ingest__{n}" for n in names] + [f"{k}__{_model(n)}" for n in names for k in kinds]
    place.api.wait_for_dags({*dags, MAIL}, timeout_s=300)
    for dag in [*dags, MAIL]:
        place.api.pause(dag, False)
    sent = place.api.wait(MAIL, place.api.trigger(MAIL, {}), timeout_s=LONGEST_S)
    assert sent == "success", place.api.runs(MAIL)
    _land(place, names, "second", first, second, ROWS // 10)
    seconds = _airflow(place, names, dags, second)
    _require(names, second)
    if won := _promoted(first) + _promoted(second):
        raise RuntimeError(f"{won} challengers won, so the nights were not the same work")
    ratio = seconds / bare_seconds
    return [
        Row(
            f"a night of {MODELS} models of {ROWS:,} rows",
            f"{seconds:.0f} s",
            f"the same cycles by a bare loop in two warm processes {bare_seconds:.0f} s",
            ratio,
            f"≤ {MOST} ×",
            ratio <= MOST,
            "the same work in both: no challenger wins",
        )
    ]


def _model(dataset: str) -> str:
    return f"{dataset}_value"


def _land(place: Place, names: Sequence[str], night: str, start: datetime, end: datetime, rows: int) -> None:
    """Put a file with rows of a time into each dataset's folder."""
    days = (end - start) / timedelta(days=1)
    for index, name in enumerate(names):
        folder = place.landing / name
        folder.mkdir(parents=True, exist_ok=True)
        # Keys and values differ between the nights and the models.
        offset = (start - data.START) // STEP
        part = folder / f".{night}.csv"
        data.write_csv(part, rows, seed=1000 * offset + index, start=start, days=days, first_id=offset * ROWS)
        part.rename(folder / f"{night}.csv")


def _shared(
    workers: Sequence[bare.Worker],
    names: Sequence[str],
    as_of: datetime,
    run_id: str,
    steps: Sequence[str],
) -> None:
    """Do the steps of every model; each worker takes the next model when it is free."""
    waiting = iter(names)

    def work(worker: bare.Worker) -> None:
        for name in waiting:
            for step in steps:
                worker.run(step, name if step == "ingest" else _model(name), as_of, run_id)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, workers))


def _airflow(place: Place, names: Sequence[str], dags: list[str], as_of: datetime) -> float:
    """Trigger every ingest, and each training when its ingest is done; wait until nothing is left to do."""
    conf = {"as_of": as_of.isoformat()}
    started = time.monotonic()
    for name in names:
        place.api.trigger(f"ingest__{name}", conf)
    waiting = set(names)
    while waiting or len(_done(names, as_of)) < len(names) or place.api.active(dags):
        for name in waiting & _published(as_of):
            place.api.trigger(f"train__{_model(name)}", conf)
            waiting.discard(name)
        if time.monotonic() - started > LONGEST_S:
            raise TimeoutError(f"the night does not end; active: {place.api.active(dags)}")
        time.sleep(2)
    return time.monotonic() - started


def _published(as_of: datetime) -> set[str]:
    with connect() as conn:
        rows = fetch(
            conn, "SELECT dataset FROM evergreen.batch WHERE as_of = %s AND state = 'published'", (as_of,)
        )
    return {row["dataset"] for row in rows}


def _promoted(as_of: datetime) -> int:
    with connect() as conn:
        return int(
            fetch(
                conn,
                "SELECT count(*) AS n FROM evergreen.decision WHERE as_of = %s AND kind = 'promoted'",
                (as_of,),
            )[0]["n"]
        )


def _done(names: Sequence[str], as_of: datetime) -> set[str]:
    """The models whose challenger is settled and whose newest window is judged; a champion of tonight judges none yet."""
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT model FROM (SELECT substr(subject, 7) AS model, kind FROM evergreen.decision WHERE as_of = %(t)s"
            " AND kind IN ('promoted', 'rejected')) AS d WHERE model = ANY(%(models)s) AND (kind = 'promoted'"
            " OR model IN (SELECT model FROM evergreen.window_judgement WHERE window_end = %(t)s))",
            {"t": as_of, "models": [_model(n) for n in names]},
        )
    return {row["model"] for row in rows}


def _require(names: Sequence[str], as_of: datetime) -> None:
    missing = {_model(n) for n in names} - _done(names, as_of)
    assert not missing, f"not done as of {as_of}: {sorted(missing)}"
