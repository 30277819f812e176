"""`python -m evergreen.check`: is every spec usable? Also writes the JSON Schemas that editors read.

Static mistakes are found without any service. With a warehouse (`make up`, or EVERGREEN_WAREHOUSE_URL) the feature
queries are planned too, and the windows compared with the history that is there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen import settings
from evergreen.errors import EvergreenError
from evergreen.spec import DatasetSpec, ModelSpec, Problem, Specs, format_duration, json_schema, load_specs

if TYPE_CHECKING:
    from evergreen.warehouse.connection import Connection

SCHEMAS = Path(__file__).parent / "schemas"


def write_schemas(folder: Path = SCHEMAS) -> None:
    """Write `dataset.json` and `model.json`."""
    for name, kind in (("dataset", DatasetSpec), ("model", ModelSpec)):
        text = json.dumps(json_schema(kind), indent=1, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def check_history(conn: Connection, specs: Specs, model: ModelSpec) -> list[Problem]:
    """Compare training window, holdout and monitoring window with the history in the warehouse."""
    from datetime import datetime, timezone

    from psycopg2 import sql

    from evergreen.warehouse import features
    from evergreen.warehouse.connection import fetch

    features.open_views(conn, specs.datasets_of(model), datetime(9999, 1, 1, tzinfo=timezone.utc))
    query = features.feature_query(model, None, None)
    found = fetch(
        conn, sql.SQL("SELECT min(_time) AS first, max(_time) AS last FROM ({}) AS _rows").format(query)
    )[0]
    file = f"models/{model.name}.yaml"
    if found["first"] is None:
        return [
            Problem(
                file, "datasets", ", ".join(model.datasets), "no row has landed yet; run the ingest DAG first"
            )
        ]
    history = found["last"] - found["first"]
    problems = []
    for field, length in (
        ("training.holdout", model.training.holdout),
        ("monitoring.window", model.monitoring.window),
    ):
        if length >= history:
            problems.append(
                Problem(
                    file,
                    field,
                    format_duration(length),
                    f"is longer than the history of {history.days} days; shorten it",
                )
            )
    window = model.training.window
    if window != "all" and window > history:
        problems.append(
            Problem(
                file,
                "training.window",
                format_duration(window),
                f"is longer than the history of {history.days} days; write all, or shorten it",
            )
        )
    return problems


def main(argv: list[str] | None = None) -> int:
    """Print every problem, a line each; exit status 1 if there is any."""
    parser = argparse.ArgumentParser(
        prog="python -m evergreen.check", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--specs",
        type=Path,
        default=None,
        help="folder with datasets/ and models/ (default: EVERGREEN_SPECS)",
    )
    parser.add_argument("--schemas", action="store_true", help="only write the JSON Schemas for editors")
    parser.add_argument("--no-warehouse", action="store_true", help="leave out what needs the warehouse")
    args = parser.parse_args(argv)
    if args.schemas:
        write_schemas()
        return 0
    folder = args.specs or settings.SPECS.path()
    specs = load_specs(folder)
    problems = list(specs.problems)
    if args.no_warehouse:
        print("feature queries: not planned (--no-warehouse)")
    else:
        from evergreen.warehouse import features
        from evergreen.warehouse.connection import connect

        try:
            for model in specs.models.values():
                with connect() as conn:
                    found = features.check(conn, specs, model)
                    problems += found or check_history(conn, specs, model)
        except EvergreenError as error:
            print(f"feature queries: not planned ({error})")
    for problem in problems:
        print(problem, file=sys.stderr)
    usable = f"{len(specs.datasets)} dataset(s), {len(specs.models)} model(s) in {folder}"
    print(f"{usable}: {'no problem found' if not problems else f'{len(problems)} problem(s)'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
