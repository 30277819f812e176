"""Does the service's memory stay what it is under full load, with the database away for a part of it, and is every answer logged?"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks import serving_load
from benchmarks.serving_load import counted
from benchmarks.serving_place import Asked, World
from benchmarks.table import Row
from evergreen.serving import spool
from evergreen.warehouse.connection import connect, fetch

PARTS = 6
GROWS, PEAKS = 1.05, 1.2


@dataclass(frozen=True)
class Sizes:
    """Resident memory (MB) of a process over a load.

    Attributes:
        after_warm_up: the mean of the second sixth.
        last: the mean of the last sixth.
        most: the largest after the first sixth.
        slope: MB an hour, a line through all after the first sixth.
    """

    after_warm_up: float
    last: float
    most: float
    slope: float

    @property
    def flat(self) -> bool:
        """Whether it has not grown, and no peak stands out."""
        return self.last <= GROWS * self.after_warm_up and self.most <= PEAKS * self.after_warm_up


def sizes(samples: list[tuple[float, float]], seconds: float) -> Sizes:
    """Of (seconds since the beginning, MB)."""
    at, mb = (np.array(column) for column in zip(*samples, strict=True))
    part = seconds / PARTS
    counts = at >= part
    second, last = (at >= part) & (at < 2 * part), at >= seconds - part
    return Sizes(
        float(mb[second].mean()),
        float(mb[last].mean()),
        float(mb[counts].max()),
        float(np.polyfit(at[counts] / 3600, mb[counts], 1)[0]),
    )


def memory(
    world: World, asked: Asked, process: subprocess.Popen[bytes], connections: int, seconds: float
) -> list[Row]:
    """Load as much as is answered, and stop PostgreSQL for the third sixth of the time."""
    serving_load.settled()
    server, companion = serving_load.family(process)
    before = _logged(), counted(asked, "evergreen_serving_requests_total"), _lost(asked)
    samples: dict[str, list[tuple[float, float]]] = {"server": [], "companion": []}
    away, most_waiting, began = False, 0, time.monotonic()
    with serving_load.started(world.cores, asked, seconds, connections) as load:
        while load.poll() is None:
            at = time.monotonic() - began
            wanted = 2 <= PARTS * at / seconds < 3
            if wanted != away:
                (world.postgres.stop if wanted else world.postgres.start)()
                away = wanted
            for name, one in (("server", server), ("companion", companion)):
                samples[name].append((at, _mb(one)))
            most_waiting = max(most_waiting, len(spool.waiting()))
            time.sleep(0.5)
        out, _ = load.communicate()
    if away:
        world.postgres.start()
    told = json.loads(out.strip().splitlines()[-1])
    backlog, ended = len(spool.waiting()), time.monotonic()
    serving_load.settled(seconds=600 + seconds)
    logged = _logged() - before[0]
    answered = int(counted(asked, "evergreen_serving_requests_total") - before[1])
    lost = int(_lost(asked) - before[2])
    # What was on its way when the load ended was answered, and wrk does not count it.
    whole = logged == answered and not lost and 0 <= answered - told["requests"] <= connections
    drained = time.monotonic() - ended
    found = {name: sizes(of, seconds) for name, of in samples.items()}
    flat = all(size.flat for size in found.values())
    errors = told["refused"] + told["failed"]
    minutes = f"{seconds / 60:g} minutes"
    return [
        Row(
            f"memory over {minutes} at full load, with the database away for {seconds / PARTS / 60:g} of it",
            "; ".join(f"{name} {size.after_warm_up:.0f} → {size.last:.0f} MB, most {size.most:.0f}" for name, size in found.items()),
            "", None, f"flat: ≤ {GROWS:.2f} × at the end, ≤ {PEAKS:.1f} × at most", flat,
            f"the mean of the second sixth against that of the last; through all but the first "
            f"{', '.join(f'{name} {size.slope:+.0f} MB an hour' for name, size in found.items())}",
        ),
        Row(
            "the same: requests that are missing in the log afterwards", f"{answered - logged:,} of {answered:,}", "", None, "0, 0 errors",
            whole and not errors,
            f"{told['requests'] / told['seconds']:,.0f}/s, {errors} errors; at most {most_waiting} files waited, {backlog} when the load ended, "
            f"none {drained:.0f} s later",
        ),
    ]  # fmt: skip


def _mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _logged() -> int:
    with connect(timeout_s=600) as conn:
        (row,) = fetch(conn, "SELECT count(*) AS n FROM evergreen.request")
    return int(row["n"])


def _lost(asked: Asked) -> float:
    return counted(asked, "evergreen_serving_log_lost_records_total")
