"""The overview of 200 models as the page reads and lays it out: `python -m benchmarks.pages` prints milliseconds, three times.

A ledger of 60,000 decisions, 28 judged windows of 10 columns for each model, in a PostgreSQL of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = 3


def main() -> None:
    """Fill a warehouse, read the overview, print how long it took."""
    sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "unit" / "exporter")]
    from test_exporter_many import DECISIONS, FILL, MODELS

    from conftest import running_postgres
    from evergreen.health.overview import overview
    from evergreen.spec import load_specs
    from evergreen.warehouse.connection import connect
    from evergreen.warehouse.migrate import migrate

    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        os.environ["EVERGREEN_WAREHOUSE_URL"], os.environ["EVERGREEN_HOME"] = server, folder
        with connect() as conn:
            migrate(conn)
            with conn.cursor() as cursor:
                cursor.execute(FILL)
        specs = load_specs(_specs(Path(folder), MODELS))
        for _ in range(RUNS):
            began = time.perf_counter()
            with connect() as conn:
                found = overview(conn, specs, mlflow=False)
            assert len(found.models) == MODELS
            print(f"{MODELS} models, {DECISIONS} decisions: {1000 * (time.perf_counter() - began):.0f} ms")


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
