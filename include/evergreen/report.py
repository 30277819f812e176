"""`evergreen report MODEL WINDOW`: draws the pages of a judged window."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evergreen import settings
from evergreen.command import moment, use_stack
from evergreen.errors import EvergreenError


def main(argv: list[str] | None = None) -> int:
    """Draw and print where the pages are; 1 with a message where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="evergreen report",
        description="Draw the pages of a judged window from the sample that was kept: drift against the champion's "
        "reference, and the served error where labels are in. They are put beside the sample in MLflow, too.",
    )
    parser.add_argument("model", help="name of the model")
    parser.add_argument("window", type=moment, help="start of the window, or any moment of it, such as 2025-06-02 or 2025-06-02T13:00 (UTC)")  # fmt: skip
    parser.add_argument(
        "--version", default=None, help="the judgement under this version (default: the last one)"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where the files go (default: reports/ below EVERGREEN_HOME)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        use_stack()
        # What draws takes seconds to import; --help and a mistyped time need not wait for it.
        from evergreen.monitoring.windows.draw import draw

        folder = args.folder or settings.HOME.path() / "reports"
        done = draw(args.model, args.window, folder, args.version)
    except EvergreenError as error:
        print(str(error), file=sys.stderr)
        return 1
    print(done.window)
    for file, link in zip(done.files, done.links, strict=True):
        print(file)
        if link:
            print(link)
    return 0
