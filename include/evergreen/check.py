"""`evergreen check`: is every spec usable? Also writes the JSON Schemas that editors read.

Static mistakes are found without any service. With a warehouse (`make up`, or EVERGREEN_WAREHOUSE_URL) the feature
queries are planned too, and the windows compared with the history that is there. With --changed it also says what differs from a
commit, and what that means: which champions are retrained, which tables change.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen import settings
from evergreen.command import moment, use_stack
from evergreen.errors import EvergreenError, TerminalError
from evergreen.spec import (
    DatasetSpec,
    ModelSpec,
    Problem,
    Specs,
    json_schema,
    load_specs,
    metric_name,
    passable,
)
from evergreen.spec.environment import channels, environment_problems

if TYPE_CHECKING:
    from evergreen.changes.compare import Compared

SCHEMAS = Path(__file__).parent / "schemas"


def write_schemas(folder: Path = SCHEMAS) -> None:
    """Write `dataset.json` and `model.json`."""
    for name, kind in (("dataset", DatasetSpec), ("model", ModelSpec)):
        text = json.dumps(json_schema(kind), indent=1, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _expectations(specs: Specs) -> list[Problem]:
    asking = [dataset for dataset in specs.datasets.values() if dataset.expectations]
    if not asking:
        return []
    from evergreen.validation import offered  # imports Great Expectations

    return [problem for dataset in asking for problem in offered.problems(dataset)]


def _parameters(specs: Specs) -> list[Problem]:
    if not specs.models:
        return []
    from evergreen.training.parameters import parameter_problems  # imports XGBoost

    return [problem for model in specs.models.values() for problem in parameter_problems(model)]


def _channels(specs: Specs) -> list[Problem]:
    """What apprise says of the channels whose URL is in the environment."""
    names = [name for name in channels(specs) if "://" in os.environ.get(settings.channel(name).name, "")]
    if not names:
        return []
    from evergreen.alerting.services import unusable  # imports apprise

    return [Problem(settings.channel(n).name, "", "", text) for n in names if (text := unusable(n))]


def _never_alarms(model: ModelSpec) -> list[Problem]:
    """A `max_worse` that no value of a metric can reach: an area under the curve is never worse than 0."""
    metric, share = model.performance_metric, model.monitoring.performance.max_worse
    if share < 1 or passable(metric, 0.0):
        return []
    text = f"{metric_name(metric)} cannot fall by so much, so its error never alarms; areas under the curve move little, write 0.02"
    return [Problem(f"models/{model.name}.yaml", "monitoring.performance.max_worse", f"{share:g}", text)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evergreen check",
        description=(__doc__ or "").splitlines()[0],
        epilog="Exit codes: 0, no problem was found; 1, a spec has problems, or a rehearsal that was asked for could not be made; "
        "2, the arguments cannot be used, such as a BASE that git does not know.",
    )
    parser.add_argument(
        "--specs",
        type=Path,
        default=None,
        help="folder with datasets/ and models/ (default: EVERGREEN_SPECS)",
    )
    parser.add_argument(
        "--schemas",
        type=Path,
        nargs="?",
        const=SCHEMAS,
        metavar="FOLDER",
        help="only write the JSON Schemas for editors (default: those of the package)",
    )
    parser.add_argument("--no-warehouse", action="store_true", help="leave out what needs the warehouse")
    parser.add_argument(
        "--changed",
        metavar="BASE",
        help="also say what differs between a commit (main, a tag, HEAD^1) and the working tree; what a branch alone changes: "
        '--changed "$(git merge-base main HEAD)"',
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default=None,
        help="with --changed: text (default), markdown for a pull request, json",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="with --changed and a warehouse: train each model whose training or gate changed on a sample of its rows, and tell the "
        "gate's verdict; nothing is registered or decided",
    )
    parser.add_argument(
        "--as-of",
        type=moment,
        default=None,
        help="with --rehearse: the cut-off of the rows (ISO, UTC; default: now)",
    )
    return parser


def _nowhere(folder: Path) -> str:
    """That no specs were found, and where they were looked for."""
    if os.environ.get(settings.SPECS.name):
        where = f"{settings.SPECS.name} names {folder}, which has neither datasets/ nor models/"
    else:
        where = f"neither {folder} nor {settings.project()} has datasets/ or models/, and {settings.SPECS.name} is not set"
    return f"no specs were found: {where}. Go to the project's folder, name the specs' (--specs), or make a first project: evergreen init FOLDER"


def _without_warehouse() -> str:
    """Use the embedded stack where no other is named; returns why there is no warehouse."""
    try:
        use_stack()
        settings.WAREHOUSE.read()
    except EvergreenError as error:
        return str(error)
    return ""


def _with_warehouse(
    compared: Compared, specs: Specs, as_of: datetime | None, *, rehearse: bool
) -> tuple[Compared, list[Problem]]:
    """The comparison with what ledger and rehearsals say, and what keeps a model from being trained."""
    from evergreen.changes import champions

    changes = champions.with_champions(compared.changes, specs)
    problems: list[Problem] = []
    if rehearse:
        changes, problems = champions.rehearsed(changes, specs, as_of or datetime.now(UTC))
    return replace(compared, changes=changes), problems


def main(argv: list[str] | None = None) -> int:
    """Print every problem, a line each, and what differs from a commit where one is named; see the epilog for the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.schemas:
        write_schemas(args.schemas)
        return 0
    for name, given in (("--format", args.format), ("--rehearse", args.rehearse)):
        if given and args.changed is None:
            parser.error(f"{name} goes with --changed BASE")
    if args.as_of and not args.rehearse:
        parser.error("--as-of goes with --rehearse")
    folder = args.specs or settings.specs_folder()
    if not args.specs and not settings.holds_specs(folder):
        print(_nowhere(folder), file=sys.stderr)
        return 1
    specs = load_specs(folder)
    try:
        compared = _compared(folder, specs, args.changed)
    except TerminalError as error:
        print(str(error), file=sys.stderr)
        return 2
    problems = [
        *environment_problems(specs),
        *_channels(specs),
        *specs.problems,
        *_expectations(specs),
        *_parameters(specs),
    ]
    notes = [note for model in specs.models.values() for note in _never_alarms(model)]
    unseen = "--no-warehouse" if args.no_warehouse else _without_warehouse()
    if not unseen:
        compared, unseen = _look(specs, compared, problems, notes, args)
    if unseen and args.rehearse:
        problems.append(Problem("--rehearse", "", "", f"nothing was rehearsed: {unseen}"))
    _print(folder, specs, compared, args.format or "text", problems, notes, unseen)
    return 1 if problems else 0


def _compared(folder: Path, specs: Specs, commit: str | None) -> Compared | None:
    """What differs from a commit; None where none is named."""
    if commit is None:
        return None
    from evergreen.changes.compare import compare

    return compare(folder, specs, commit)


def _look(
    specs: Specs,
    compared: Compared | None,
    problems: list[Problem],
    notes: list[Problem],
    args: argparse.Namespace,
) -> tuple[Compared | None, str]:
    """Add what the warehouse says to the problems and notes; returns the comparison with it, and why it said nothing."""
    from evergreen import check_warehouse

    try:
        check_warehouse.look(specs, problems, notes)
        if compared is not None:
            compared, found = _with_warehouse(compared, specs, args.as_of, rehearse=args.rehearse)
            problems += found
    except TerminalError as error:
        problems.append(Problem("the warehouse", "", "", str(error)))
    except EvergreenError as error:
        return compared, str(error)
    return compared, ""


def _print(
    folder: Path,
    specs: Specs,
    compared: Compared | None,
    form: str,
    problems: list[Problem],
    notes: list[Problem],
    unseen: str,
) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
    if compared is not None:
        from evergreen.changes import show

        if form != "text":
            shown = show.markdown if form == "markdown" else show.as_json
            print(shown(compared, problems, notes, unseen))
            return
        print(f"{show.text(compared)}\n")
    for note in notes:
        print(f"note: {note}")
    usable = f"{len(specs.datasets)} dataset(s), {len(specs.models)} model(s) in {folder}"
    if unseen:
        print(f"the feature queries and windows were NOT checked: {unseen}")
    found_text = (
        f"{len(problems)} problem(s)" if problems else "no problem found" + (" in the rest" if unseen else "")
    )
    print(f"{usable}: {found_text}")
