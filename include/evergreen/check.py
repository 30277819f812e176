"""`python -m evergreen.check`: is every spec usable? Also writes the JSON Schemas that editors read.

Static mistakes are found without any service. With a warehouse (`make up`, or EVERGREEN_WAREHOUSE_URL) the feature
queries are planned too, and the windows compared with the history that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen import settings
from evergreen.errors import EvergreenError, TerminalError
from evergreen.spec import (
    DatasetSpec,
    ModelSpec,
    Problem,
    Specs,
    format_duration,
    json_schema,
    load_specs,
    metric_name,
    passable,
    worse,
)
from evergreen.spec.environment import environment_problems

if TYPE_CHECKING:
    from evergreen.warehouse.connection import Connection

EARLIEST = datetime(1, 1, 2, tzinfo=timezone.utc)
SCHEMAS = Path(__file__).parent / "schemas"


def write_schemas(folder: Path = SCHEMAS) -> None:
    """Write `dataset.json` and `model.json`."""
    for name, kind in (("dataset", DatasetSpec), ("model", ModelSpec)):
        text = json.dumps(json_schema(kind), indent=1, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def check_history(specs: Specs, model: ModelSpec) -> list[Problem] | None:
    """Compare training window, holdout and monitoring window with the history in the warehouse.

    Returns:
        The windows that are longer than the history, or the query that fails on its rows; None where nothing has
        landed yet.
    """
    from psycopg2 import sql

    from evergreen.warehouse import features, views

    query = sql.SQL("SELECT min(_time) AS first, max(_time) AS last FROM ({}) AS _rows").format(
        features.feature_query(model, None, None, ordered=False)
    )
    try:
        with views.reading(specs, model, features.LATEST) as reader:
            found = reader.rows(query)[0]
    except TerminalError as error:
        return [Problem(f"models/{model.name}.sql", "", "", str(error).removeprefix("the feature query "))]
    file = f"models/{model.name}.yaml"
    if found["first"] is None:
        return None
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
    training = model.training
    needed = training.holdout + training.folds * training.fold_length
    if training.validates and training.holdout < history <= needed:
        problems.append(
            Problem(
                file,
                "training.folds",
                str(training.folds),
                f"holdout and folds together take {format_duration(needed)}, the history has {history.days} days; take "
                "fewer or shorter ones",
            )
        )
    window = training.window
    # Of several windows, one that is too long for now does as well as all the history.
    if training.windows is None and window != "all" and window > history:
        problems.append(
            Problem(
                file,
                "training.window",
                format_duration(window),
                f"is longer than the history of {history.days} days; write all, or shorten it",
            )
        )
    return problems


def check_silent(specs: Specs, model: ModelSpec) -> list[Problem]:
    """The settings with which a part of the watch could never say anything, by the rows and labels in the warehouse."""
    from evergreen.monitoring import reads, silent
    from evergreen.monitoring.windows import window_of
    from evergreen.warehouse import features, views

    length, file = model.monitoring.window, f"models/{model.name}.yaml"
    with views.reading(specs, model, features.LATEST) as reader:
        found = reads.counted(reader, specs, model, features.LATEST, EARLIEST, EARLIEST)
    if found.newest is None:
        return []
    newest = window_of(found.newest, length).start
    due = [
        counts
        for start, counts in found.windows.items()
        if start < newest and start + length + model.label.delay <= newest
    ]
    return [Problem(file, one.field, one.value, one.text) for one in silent.silent(model, due)]


def _expectations(specs: Specs) -> list[Problem]:
    asking = [dataset for dataset in specs.datasets.values() if dataset.expectations]
    if not asking:
        return []
    from evergreen.validation import offered  # imports Great Expectations

    return [problem for dataset in asking for problem in offered.problems(dataset)]


def _parameters(specs: Specs) -> list[Problem]:
    if not specs.models:
        return []
    from evergreen.training.rehearse import parameter_problems  # imports XGBoost

    return [problem for model in specs.models.values() for problem in parameter_problems(model)]


def _no_rows(model: ModelSpec) -> Problem:
    names = ", ".join(f"ingest__{name}" for name in model.datasets)
    return Problem(f"models/{model.name}.yaml", "datasets", "", f"no row has landed yet; run {names}")


def check_alarms(conn: Connection, model: ModelSpec) -> list[Problem]:
    """What is known of the watch on the champion's served error: that it can hardly alarm on so few rows, or at once."""
    from evergreen.ledger import champions, promotion
    from evergreen.warehouse.connection import fetch

    if not fetch(conn, "SELECT to_regclass('evergreen.decision') IS NOT NULL AS there")[0]["there"]:
        return []
    made = promotion(champions(conn, model.name))
    told = made.evidence.get("error_limit") if made else ""
    file = f"models/{model.name}.yaml"
    found = [Problem(file, "monitoring.performance", "", f"the champion's watch: {told}")] if told else []
    metric, limit = model.performance_metric, model.monitoring.performance.limit
    holdout = (made.evidence.get("holdout") or {}).get(metric) if made else None
    if (
        limit is not None
        and holdout is not None
        and worse(metric, holdout, limit)
        and "monitoring.performance.limit" not in (told or "")
    ):
        text = (
            f"is better than the {metric_name(metric)} of the champion's holdout, {holdout:.4g}: it alarms from the first window on, unless "
            "served rows are easier"
        )
        found.append(Problem(file, "monitoring.performance.limit", f"{limit:g}", text))
    return found


def _never_alarms(model: ModelSpec) -> list[Problem]:
    """A `max_worse` that no value of a metric can reach: an area under the curve is never worse than 0."""
    metric, share = model.performance_metric, model.monitoring.performance.max_worse
    if share < 1 or passable(metric, 0.0):
        return []
    text = f"{metric_name(metric)} cannot fall by so much, so its error never alarms; areas under the curve move little, write 0.02"
    return [Problem(f"models/{model.name}.yaml", "monitoring.performance.max_worse", f"{share:g}", text)]


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
    problems = [*environment_problems(), *specs.problems, *_expectations(specs), *_parameters(specs)]
    notes = [note for model in specs.models.values() for note in _never_alarms(model)]
    unseen = "--no-warehouse" if args.no_warehouse else ""
    if not args.no_warehouse:
        from evergreen.stack.layout import Layout, StackError
        from evergreen.stack.variables import environment
        from evergreen.validation.patterns import pattern_problems
        from evergreen.warehouse import features
        from evergreen.warehouse.connection import connect

        try:
            if not os.environ.get(settings.WAREHOUSE.name) and Layout.of().secrets_file.exists():
                os.environ[settings.WAREHOUSE.name] = environment()[settings.WAREHOUSE.name]
            settings.WAREHOUSE.read()
        except (EvergreenError, StackError) as error:
            unseen = str(error)
    if not (args.no_warehouse or unseen):
        try:
            for dataset in specs.datasets.values():
                with connect() as conn:
                    problems += pattern_problems(conn, dataset)
            for model in specs.models.values():
                found = features.check(specs, model)
                problems += found
                if not found:
                    history = check_history(specs, model)
                    problems += history if history is not None else []
                    notes += [] if history is not None else [_no_rows(model)]
                    notes += [] if history else check_silent(specs, model)
                with connect() as conn:
                    notes += check_alarms(conn, model)
        except TerminalError as error:
            problems.append(Problem("the warehouse", "", "", str(error)))
        except EvergreenError as error:
            unseen = str(error)
    for note in notes:
        print(f"note: {note}")
    for problem in problems:
        print(problem, file=sys.stderr)
    usable = f"{len(specs.datasets)} dataset(s), {len(specs.models)} model(s) in {folder}"
    if unseen:
        print(f"the feature queries and windows were NOT checked: {unseen}")
    found_text = (
        f"{len(problems)} problem(s)" if problems else "no problem found" + (" in the rest" if unseen else "")
    )
    print(f"{usable}: {found_text}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
