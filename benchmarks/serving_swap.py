"""Another version comes into office while the service is loaded: is a request dropped, answered by the wrong version, or slow?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks import serving_load
from benchmarks.serving_load import Constant, Seen
from benchmarks.serving_place import REPOSITORY, Asked, World, on
from benchmarks.table import Row

STEP_S = 0.05
MOST_S = 5.0


@dataclass(frozen=True)
class Swap:
    """A load in which the version changed.

    Attributes:
        unanswered: requests that were not answered with 200.
        mixed: answers of the version before that the server made, by its own count, after the first one of the new version,
            or that a client had who asked after it had that answer.
        wrong: predictions that are not those of the version that they name, of that record, to the last bit.
        before_ms, during_ms: p99 before the promotion, and in the worst second that has the first answer of the new version in it.
        worst_before_ms: p99 of the worst second before.
        took_s: from the ledger's commit to that answer.
        old, new: answers of each.
    """

    unanswered: int
    mixed: int
    wrong: int
    before_ms: float
    during_ms: float
    worst_before_ms: float
    took_s: float
    old: int
    new: int


def swap(world: World, asked: Asked, rate: float, seconds: float) -> list[Row]:
    """Promote the version that waits after two fifths of a load of `rate` requests a second."""
    serving_load.settled()
    with ExitStack() as stack:
        promoting = stack.enter_context(_aside(world, "promote", str(world.folder)))
        telling = stack.enter_context(_aside(world, "commits", str(seconds + 60)))
        load = Constant(world.cores, asked, world.folder, rate=rate, seconds=seconds, read=True)
        time.sleep(0.4 * seconds)
        assert promoting.stdin
        assert promoting.stdout
        assert telling.stdout
        promoting.stdin.write("\n")
        promoting.stdin.flush()
        seen = load.end()
        decision = json.loads(promoting.stdout.readline())
        if decision["version"] != world.versions[1] or "promoted" not in decision["kind"].lower():
            raise RuntimeError(f"the version that waited was not promoted: {decision}")
        committed = json.loads(telling.stdout.readline())["at"]
    return _rows(read(world, seen, committed), rate)


@contextmanager
def _aside(world: World, function: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A function of `serving_champion` in a process of its own, from when it has loaded what it needs."""
    code = f"import sys; from benchmarks.serving_champion import {function}; {function}(*sys.argv[1:])"
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    command = on(world.cores.rest, sys.executable, "-c", code, *arguments)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{function} did not begin")
        try:
            yield process
        finally:
            process.terminate()


def read(world: World, seen: Seen, committed: float) -> Swap:
    """What became of a load.

    Args:
        world: has the predictions that each version makes.
        seen: with what was answered.
        committed: when the ledger had the promotion (CLOCK_MONOTONIC).

    Raises:
        RuntimeError: one of the versions never answered.
    """
    old, new = world.versions
    good = seen.status == 200
    version, number, prediction = (seen.found[name][good] for name in ("version", "number", "prediction"))
    due, ended = seen.due[good], seen.ended[good]
    record = np.flatnonzero(good) % len(world.records)
    if not (version == old).any() or not (version == new).any():
        raise RuntimeError(f"only {', '.join(sorted(set(version)))} answered; the load ended before the swap")
    wrong = sum(
        int((world.said[name][record[version == name]] != prediction[version == name]).sum())
        for name in (old, new)
    ) + int((~np.isin(version, (old, new))).sum())
    first_number, first = number[version == new].min(), float(ended[version == new].min())
    late = (version == old) & ((number > first_number) | (due > first))
    begin = float(seen.due[0])
    return Swap(
        unanswered=seen.errors,
        mixed=int(late.sum()),
        wrong=wrong,
        before_ms=seen.p99_between(begin + 1, committed),
        during_ms=max(seen.p99_between(t, t + 1) for t in np.arange(first - 1, first, STEP_S)),
        worst_before_ms=max(seen.p99_between(t, t + 1) for t in np.arange(begin + 1, committed - 1, STEP_S)),
        took_s=first - committed,
        old=int((version == old).sum()),
        new=int((version == new).sum()),
    )


def _rows(found: Swap, rate: float) -> list[Row]:
    ratio = found.during_ms / found.before_ms
    return [
        Row(
            f"a promotion under load, {rate:,.0f} requests/s: dropped, of a wrong version, of a wrong prediction",
            f"{found.unanswered}, {found.mixed}, {found.wrong}", "", None, "0, 0, 0",
            not (found.unanswered or found.mixed or found.wrong),
            f"{found.old:,} answers of the version before, then {found.new:,} of the new one, in the server's order and in the client's; each "
            "held to the last bit against what the batch scorer says of the record with the version that the answer names",
        ),
        Row(
            "the same: p99 in that second", f"{found.during_ms:.1f} ms", f"before {found.before_ms:.1f} ms", ratio, "≤ 3 ×", ratio <= 3,
            f"the worst second with the first answer of the new version in it, against all before the promotion, whose worst second had "
            f"{found.worst_before_ms:.1f} ms",
        ),
        Row(
            "the same: from the ledger's commit to the first answer", f"{found.took_s:.2f} s", "", None, f"≤ {MOST_S:.0f} s",
            found.took_s <= MOST_S, "fetched from MLflow, tried, loaded and warmed up meanwhile",
        ),
    ]  # fmt: skip
