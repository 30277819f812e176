"""What each setting that docs/scaling.md names does to a training: seconds and peak memory, against the spec's way.

Nothing has to be reached here; the table says which setting is worth it at which size.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import data, room
from benchmarks.table import Row
from evergreen.training.train import train
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import snapshot

AS_OF = data.END + timedelta(hours=1)
# The spec's, but for the rounds: with its 500 a setting would be as good as the moment at which it stops.
DEFAULTS = {"early_stopping_rounds": 30, "refit": True, "max_rounds": data.ROUNDS}
WORKERS = 2


@dataclass(frozen=True)
class Knob:
    """A setting: fields of the spec's `training`, environment variables, whether a Dask cluster is there."""

    name: str
    training: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    cluster: bool = False


KNOBS = (
    Knob(f"early stopping, judged, fitted again, as by default; at most {data.ROUNDS} rounds"),
    Knob("`refit: false`", {"refit": False}),
    Knob("`early_stopping_rounds: null`", {"early_stopping_rounds": None}),
    Knob("both", {"refit": False, "early_stopping_rounds": None}),
    Knob("both, `window: 50d` (half the rows)", {"refit": False, "early_stopping_rounds": None, "window": "50d"}),
    Knob(
        "both, `EVERGREEN_TRAINING_MEMORY_MB=16`",
        {"refit": False, "early_stopping_rounds": None},
        {"EVERGREEN_TRAINING_MEMORY_MB": "16"},
    ),
    Knob("both, `engine: dask`, two workers here", {"refit": False, "early_stopping_rounds": None, "engine": "dask"}, cluster=True),
)  # fmt: skip


def measure(rows: int) -> list[Row]:
    """Train with each setting on a tenth of `rows` and on `rows`, each in a fresh process, imports not counted."""
    found = []
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-knobs-") as folder:
        specs, _ = room.specs_in(Path(folder))
        done = 0
        for count in (rows // 10, rows):
            # The smaller set is a part of the larger one: the same days, more rows in each.
            room.land(specs, count - done, seed=7 + done, start=data.START, days=data.DAYS, first_id=done)
            done = count
            room.tidy(f"data.{data.DATASET}")
            usual: dict[str, Any] = {}
            for number, knob in enumerate(KNOBS):
                took = _with(knob, number, count, Path(folder))
                usual = usual or took
                found.append(
                    Row(
                        f"training on {count:,} rows: {knob.name}",
                        f"{took['s']:.1f} s, {took['peak_mb']} MB",
                        f"{usual['s']:.1f} s, {usual['peak_mb']} MB",
                        took["s"] / usual["s"],
                        "",
                        True,
                        took["metric"],
                    )
                )
    return found


def one(training: str, run_id: str, folder: str) -> None:
    """Take a snapshot, train without deciding anything, and print how it was, as JSON."""
    specs, model = room.with_settings(*room.specs_in(Path(folder)), training=json.loads(training))
    began = time.perf_counter()
    taken = snapshot.take(specs, model, AS_OF, Path(folder) / "snapshots")
    outcome = train(specs, model, taken, AS_OF, run_id, trigger="manual", dry_run=True)
    took = time.perf_counter() - began
    challenger = outcome.metrics["challenger"][outcome.metric]
    metric = f"{outcome.rounds} rounds, {outcome.metric} {challenger:.4f}"
    print(json.dumps({"s": took, "peak_mb": room.peak_mb(), "metric": metric}))


def _with(knob: Knob, number: int, count: int, folder: Path) -> dict[str, Any]:
    before = dict(os.environ)
    training = json.dumps({**DEFAULTS, **knob.training})
    try:
        with _cluster(knob) as address:
            os.environ.update(knob.variables | ({"EVERGREEN_DASK_SCHEDULER": address} if address else {}))
            return room.aside("benchmarks.knobs.one", training, f"bench/knobs_{count}_{number}", folder)
    finally:
        os.environ.clear()
        os.environ.update(before)
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute("CHECKPOINT")


@contextmanager
def _cluster(knob: Knob) -> Iterator[str]:
    if not knob.cluster:
        yield ""
        return
    import distributed

    with distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as cluster:
        yield str(cluster.scheduler_address)
