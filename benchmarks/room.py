"""A warehouse that holds the benchmarks' rows, and a champion that was trained on earlier ones."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg2 import sql

from benchmarks import data
from evergreen.promotion.settlement import settle
from evergreen.spec import ModelSpec, Specs, load_specs
from evergreen.training.train import train
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import snapshot
from evergreen.warehouse.migrate import ensure_dataset

DELAY_US = 60_000_000
LEARNT_ROWS = 300_000
LEARNT_DAYS = 100
LEARNT_FIRST_ID = 1_000_000_000


def specs_in(folder: Path) -> tuple[Specs, ModelSpec]:
    """The benchmarks' specs, written to a folder and read back."""
    data.write_specs(folder)
    specs = load_specs(folder)
    return specs, specs.models[data.MODEL]


def with_settings(specs: Specs, model: ModelSpec, **sections: dict[str, Any]) -> tuple[Specs, ModelSpec]:
    """The specs with settings of the model's sections replaced."""
    content = model.model_dump()
    for name, values in sections.items():
        content[name] = {**content[name], **values}
    changed = ModelSpec.model_validate(content)
    return Specs(specs.datasets, {**specs.models, changed.name: changed}), changed


def land(
    specs: Specs, rows: int, *, seed: int, start: datetime, days: float, first_id: int,
    change: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> None:  # fmt: skip
    """Publish rows by COPY, a block at a time; each arrived a minute after its event, as the dataset's spec says.

    Args:
        specs: all specs.
        rows, seed, start, days, first_id: see `data.table`.
        change: what happened to the rows of a block before they were published.
    """
    blocks = max(1, -(-rows // data.BLOCK))
    with connect(timeout_s=3600) as conn:
        ensure_dataset(conn, specs.datasets[data.DATASET])
        first = first_id
        for number in range(blocks):
            count = rows * (number + 1) // blocks - rows * number // blocks
            part = data.table(
                count, seed=seed + number, start=start + timedelta(days=days) * number / blocks,
                days=days / blocks, first_id=first,
            )  # fmt: skip
            part = change(part)
            first += count
            arrived = pc.add(part["ts"], pa.scalar(DELAY_US, pa.duration("us")))
            part = part.append_column("_arrived_at", arrived)
            part = part.append_column("_batch", pa.array([1] * count, pa.int64()))
            copy_in(conn, sql.Identifier("data", data.DATASET), part)


def copy_in(conn: Any, table: sql.Composable, rows: pa.Table) -> None:
    """COPY rows into the columns of their names."""
    text = io.BytesIO()
    pacsv.write_csv(rows, text, pacsv.WriteOptions(include_header=False))
    text.seek(0)
    with conn.cursor() as cursor:
        cursor.copy_expert(
            sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                table, sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
            ),
            text,
        )


def tidy(*tables: str) -> None:
    """VACUUM and ANALYZE, as autovacuum would have after such a load."""
    with connect(timeout_s=3600) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            for table in tables:
                cursor.execute(f"VACUUM (ANALYZE) {table}")


def champion(specs: Specs, model: ModelSpec) -> None:
    """Train on rows of the hundred days before `data.START`, and promote."""
    land(
        specs, LEARNT_ROWS, seed=1000, start=data.START - timedelta(days=LEARNT_DAYS), days=LEARNT_DAYS,
        first_id=LEARNT_FIRST_ID,
    )  # fmt: skip
    tidy(f"data.{data.DATASET}")
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        taken = snapshot.take(specs, model, data.START, Path(folder))
        outcome = train(specs, model, taken, data.START, "bench/train", trigger="manual")
        settle(specs, model, outcome, "bench/train")


def aside(call: str, *arguments: object) -> dict[str, Any]:
    """Run `benchmarks.MODULE.FUNCTION` with texts as arguments in a fresh process and return the JSON it prints last.

    It works in this process's folder: without a server MLflow keeps its models below it.
    """
    module, _, function = call.rpartition(".")
    root = Path(__file__).resolve().parents[1]
    code = f"import sys; from {module} import {function}; {function}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))},
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peak_mb() -> int:
    """The largest resident size of this process so far; unlike getrusage's it does not begin with the parent's."""
    (line,) = (n for n in Path("/proc/self/status").read_text().splitlines() if n.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024
