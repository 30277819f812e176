"""`evergreen replay MODEL --from … --to …`: what would each retraining policy have come to?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evergreen import settings
from evergreen.command import moment, use_stack
from evergreen.errors import EvergreenError
from evergreen.replay.policies import DEFAULT, KNOWN
from evergreen.spec import load_model


def main(argv: list[str] | None = None) -> int:
    """Replay and print the table; 1 with a message where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="evergreen replay",
        description="Run a model's loop over past time under several retraining policies, and compare error and cost. "
        "Nothing is written to the warehouse or to MLflow. Run the same command again to go on after an interruption.",
    )
    parser.add_argument("model", help="name of the model (include/models/NAME.yaml)")
    parser.add_argument("--from", dest="begin", required=True, type=moment, metavar="TIME",
                        help="as-of time of the first champion, such as 2011-05-01 (UTC); moved up to the start of a window")  # fmt: skip
    parser.add_argument("--to", dest="end", required=True, type=moment, metavar="TIME",
                        help="end of the replay; labels that had arrived by then make the table")  # fmt: skip
    parser.add_argument("--policies", nargs="*", default=[], metavar="POLICY",
                        help=f"any of {KNOWN}; default: {' '.join(DEFAULT)}")  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: one a core; 0: this one alone)"
    )
    parser.add_argument("--specs", type=Path, default=None, help="folder with datasets/ and models/ (default: EVERGREEN_SPECS)")  # fmt: skip
    args = parser.parse_args(argv)
    names = [name for given in args.policies for name in given.replace(",", " ").split()] or list(DEFAULT)
    try:
        use_stack()
        found = load_model(args.specs or settings.specs_folder(), args.model)
        if args.model not in found.models:
            print("\n".join(map(str, found.problems)) or f"no model is named {args.model}", file=sys.stderr)
            return 1
        # What it needs takes seconds to import; --help and a mistyped name need not wait for it.
        from evergreen.replay.run import replay

        done = replay(found, found.models[args.model], args.begin, args.end, names, workers=args.workers)
    except EvergreenError as error:
        print(str(error), file=sys.stderr)
        return 1
    print(done.table)
    print(f"\n{done.files['page']}\n{done.files['table']}\n{done.files['picture']}")
    return 0
