"""Judging a very large monitoring window against judging one of 100,000 rows, and whether the sample misses anything."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import data, room
from benchmarks.table import Row
from evergreen import registry
from evergreen.monitoring.windows import kept_sample, reads
from evergreen.monitoring.windows import measure as columns
from evergreen.monitoring.windows.draw import draw
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.live_windows import REFERENCE_PATH, judge_windows
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.scoring.score import score
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect

WARM_UP, SMALL, LARGE, QUIET, FIRST_CASE = 0, 1, 2, 3, 4  # numbers of the windows
WARM_UP_ROWS, SMALL_ROWS, QUIET_ROWS, CASE_ROWS = 5_000, 100_000, 10_000, 1_000_000
TRIES, QUIET_TRIES = 2, 5
IDS = 100_000_000  # a window's own range of keys
Change = Callable[[pa.Table], pa.Table]


def measure(rows: int, case_rows: int = CASE_ROWS) -> list[Row]:
    """Judge a window of `rows` rows in the warehouse of EVERGREEN_WAREHOUSE_URL, which has to be empty and migrated."""
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-specs-") as name:
        folder = Path(name)
        specs, model = _specs(folder)
        room.champion(specs, model)
        for number, count in ((WARM_UP, WARM_UP_ROWS), (SMALL, SMALL_ROWS)):
            _window(specs, model, number, count)
        small = room.aside("benchmarks.watch.one", SMALL, folder)
        _window(specs, model, LARGE, rows)
        large = room.aside("benchmarks.watch.one", LARGE, folder)
        _window(specs, model, QUIET, QUIET_ROWS)
        quiet = room.aside("benchmarks.watch.quiet", QUIET, folder)
        verdicts = _verdicts(specs, model, case_rows)
    same = sum(sampled == whole for sampled, whole in verdicts.values())
    told = "; ".join(
        f"{case}: {_said(sampled)} / {_said(whole)}" for case, (sampled, whole) in verdicts.items()
    )
    sample = model.monitoring.sample_rows
    runs = ", ".join(f"{cpu:.2f}" for cpu in quiet["cpu_s"])
    return [
        Row(
            f"a quiet window of {QUIET_ROWS:,} rows: CPU of judging it, and what is kept",
            f"{max(quiet['cpu_s']):.2f} s, {quiet['kept'] / 1e3:.0f} kB", f"drawn as well: {quiet['drawn_s']:.2f} s", None,
            "≤ 0.3 CPU s and ≤ 100 kB", max(quiet["cpu_s"]) <= 0.3 and quiet["kept"] <= 100_000,
            f"17 features, the process alone (not PostgreSQL), the worst of {QUIET_TRIES} after a warm-up: {runs} s; {quiet['status']}",
        ),
        Row(
            f"one monitoring window of {rows:,} rows", f"{large['s']:.1f} s", f"{small['s']:.1f} s ({SMALL_ROWS:,} rows)",
            large["s"] / small["s"], "≤ 1.5", large["s"] <= 1.5 * small["s"],
            f"best of {TRIES}, the reference being stored; {large['sampled']:,} and {small['sampled']:,} rows were "
            f"sampled; of it counting and sampling: {large['reads_s']:.1f} s and {small['reads_s']:.1f} s",
        ),
        Row(
            f"peak memory of judging {rows:,} rows", f"{large['peak_mb']} MB", f"{small['peak_mb']} MB ({SMALL_ROWS:,} rows)",
            large["peak_mb"] / small["peak_mb"], "≤ 700 MB", large["peak_mb"] <= 700, "the process, imports included",
        ),
        Row(
            f"verdict by {sample:,} rows of a window against that by all its {case_rows:,}", f"{same} of {len(verdicts)} the same",
            "", None, "all", same == len(verdicts),
            f"against the same limits and the same stored {sample:,} rows of what the champion learnt; violated by sample / by all rows: {told}",
        ),
    ]  # fmt: skip


def one(number: str, folder: str) -> None:
    """Judge a window after a warm-up, the best of some tries, and print how it was, as JSON."""
    specs, model = _specs(Path(folder))
    _judged(specs, model, WARM_UP)
    tries = [_judged(specs, model, int(number)) for _ in range(TRIES)]
    took, read, sampled = min(tries)
    print(json.dumps({"s": took, "reads_s": read, "sampled": sampled, "peak_mb": room.peak_mb()}))


def quiet(number: str, folder: str) -> None:
    """Judge a window several times and draw it once; print CPU seconds and the size of what is kept, as JSON."""
    specs, model = _specs(Path(folder))
    _judged(specs, model, WARM_UP)
    window = _range(int(number))
    spent = []
    for _ in range(QUIET_TRIES):
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute("DELETE FROM evergreen.window_judgement WHERE window_start = %s", (window.start,))
        began = time.process_time()
        judged = judge_windows(specs, model, window.end + timedelta(minutes=10))
        found = next(j for j in judged if j.window == window)
        spent.append(time.process_time() - began)
    folder_of = str(found.report).rpartition("/")[0]
    file = registry.artifact_folder(str(found.mlflow_run), folder_of) / kept_sample.FILE
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as name:
        draw(model.name, window.start, Path(name))
    drawn = time.process_time() - began
    print(
        json.dumps(
            {"cpu_s": spent, "kept": file.stat().st_size, "drawn_s": drawn, "status": found.status.value}
        )
    )


def _judged(specs: Specs, model: ModelSpec, number: int) -> tuple[float, float, int]:
    """Seconds of one judgement, seconds of them in `reads`, and the rows that were sampled."""
    window = _range(number)
    as_of = window.end + timedelta(minutes=10)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM evergreen.window_judgement WHERE window_start = %s", (window.start,))
    began = time.perf_counter()
    found = judge_windows(specs, model, as_of)
    took = time.perf_counter() - began
    if [j.window for j in found] != [window] or found[0].held_back:
        raise RuntimeError(f"judged were {found}")
    began = time.perf_counter()
    facts = reads.feed(specs, model, as_of, window.start, window.start).facts[window.start]
    reads.sample(specs, model, as_of, window, facts)
    return took, time.perf_counter() - began, found[0].sampled_rows


def _specs(folder: Path) -> tuple[Specs, ModelSpec]:
    """The benchmarks' specs; a window may have any number of rows."""
    return room.with_settings(
        *room.specs_in(folder), monitoring={"volume": {"min": 0, "max": 1e6}, "min_rows": 1}
    )


def _range(number: int) -> Window:
    start = data.START + number * data.WINDOW
    return Window(start, start + data.WINDOW)


def _window(specs: Specs, model: ModelSpec, number: int, rows: int) -> None:
    """Land a window's rows, and predictions that are as far from the labels as the champion's."""
    window = _range(number)
    days = data.WINDOW / timedelta(days=1)
    room.land(specs, rows, seed=2000 + 100 * number, start=window.start, days=days, first_id=number * IDS)
    with connect(timeout_s=3600) as conn, conn.cursor() as cursor:
        found = registry.champion(conn, model.name, repair=False)
        assert found is not None
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
            f" SELECT %s, %s, json_build_array(id)::text, ts, 0.97 * y, %s, 'bench/score' FROM data.{data.DATASET}"
            " WHERE ts >= %s AND ts < %s",
            (model.name, found.version, window.end, window.start, window.end),
        )
    room.tidy(f"data.{data.DATASET}", "evergreen.prediction")


def _cases() -> dict[str, Change]:
    """What may happen to the data of a window."""
    rng = np.random.default_rng(11)

    def replaced(name: str, values: Callable[[pa.ChunkedArray], pa.Array]) -> Change:
        return lambda rows: rows.set_column(rows.column_names.index(name), name, values(rows[name]))

    def some(column: pa.ChunkedArray, share: float, value: str | None) -> pa.Array:
        return pc.if_else(pa.array(rng.random(len(column)) < share), pa.scalar(value, column.type), column)

    spread = 1 - 1 / 24  # of the rows are of another region; the share of this one rises by ten points
    return {
        "unchanged": lambda rows: rows,
        "mean +0.5 σ": replaced("n05", lambda c: pc.add(c, 0.5)),
        "share +10 points": replaced("region", lambda c: some(c, 0.1 / spread, "region_00")),
        "nulls +5 points": replaced("n06", lambda c: some(c, 0.05, None)),
        "another unit": replaced("n09", lambda c: pc.add(pc.multiply(c, 1.8), 32.0)),
    }


def _verdicts(specs: Specs, model: ModelSpec, rows: int) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """For each case what is violated, by the sample and by every row of a window."""
    whole = room.with_settings(specs, model, monitoring={"sample_rows": rows})[1]
    with connect() as conn:
        found = registry.champion(conn, model.name, repair=False)
    assert found is not None
    reference = Reference.read(registry.artifact_folder(found.run_id, REFERENCE_PATH)).for_window(model)
    verdicts = {}
    for number, (case, change) in enumerate(_cases().items(), FIRST_CASE):
        window = _range(number)
        room.land(
            specs, rows, seed=2000 + 100 * number, start=window.start, days=data.WINDOW / timedelta(days=1),
            first_id=number * IDS, change=change,
        )  # fmt: skip
        as_of = window.end + timedelta(minutes=10)
        score(specs, model, as_of, "bench/score", start=window.start, end=window.end)
        room.tidy(f"data.{data.DATASET}", "evergreen.prediction")
        sampled, all_rows = (_violated(specs, m, reference, window, as_of) for m in (model, whole))
        verdicts[case] = (sampled, all_rows)
    return verdicts


def _violated(
    specs: Specs, model: ModelSpec, reference: Reference, window: Window, as_of: datetime
) -> frozenset[str]:
    facts = reads.feed(specs, model, as_of, window.start, window.start).facts.get(window.start, WindowFacts())
    rows = columns.frame(reads.sample(specs, model, as_of, window, facts))
    if len(rows) != min(facts.rows, model.monitoring.sample_rows):
        raise RuntimeError(f"{len(rows)} of {facts} were sampled")
    found = columns.columns(model, rows, reference, labels=True)
    return frozenset(f"{c.kind.value} {c.column}" for c in found if c.violated)


def _said(violated: frozenset[str]) -> str:
    return ", ".join(sorted(violated)) or "nothing"
