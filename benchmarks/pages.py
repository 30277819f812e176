"""The overview of 200 models as the page reads and lays it out: `python -m benchmarks.pages` prints milliseconds, five times.

A ledger of 60,000 decisions, 28 judged windows of 10 columns for each model, in a PostgreSQL of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from fastapi import Request

from benchmarks import place
from evergreen.health.overview import overview
from evergreen.spec import load_specs
from evergreen.warehouse.connection import connect
from evergreen_airflow.pages.rendering import page

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS, MODELS = 5, 200
ASKED = Request({"type": "http", "path": "/", "root_path": "", "headers": [], "query_string": b""})


def main() -> None:
    """Fill a warehouse, read the overview, print how long it took."""
    with place.warehouse() as url, tempfile.TemporaryDirectory() as folder:
        with connect(url) as conn, conn.cursor() as cursor:
            cursor.execute((REPOSITORY / "benchmarks" / "many_models.sql").read_text())
        specs = load_specs(_specs(Path(folder), MODELS))
        for _ in range(RUNS):
            began = time.perf_counter()
            with connect(url) as conn:
                found = overview(conn, specs, mlflow=False)
            read = time.perf_counter() - began
            names = {"model": [m.name for m in found.models], "dataset": [d.name for d in found.datasets]}
            shown = page(ASKED, "overview.html", overview=found, seen=names, dags={}, silent=[])
            assert len(found.models) == MODELS
            took = time.perf_counter() - began
            print(
                f"{MODELS} models: {1000 * took:.0f} ms, of which {1000 * read:.0f} ms to read; {len(shown.body) / 1e3:.0f} kB"
            )


def _specs(folder: Path, models: int) -> Path:
    """Specs of so many models, which differ in their names."""
    include = REPOSITORY / "include"
    for kind in ("datasets", "models"):
        (folder / kind).mkdir()
    (folder / "datasets" / "bike_hourly.yaml").write_text(
        (include / "datasets" / "bike_hourly.yaml").read_text()
    )
    text, query = (
        (include / "models" / "bike_demand.yaml").read_text(),
        (include / "models" / "bike_demand.sql").read_text(),
    )
    for number in range(models):
        (folder / "models" / f"m{number}.yaml").write_text(
            text.replace("name: bike_demand", f"name: m{number}")
        )
        (folder / "models" / f"m{number}.sql").write_text(query)
    return folder


if __name__ == "__main__":
    main()
