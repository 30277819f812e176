"""`evergreen init [FOLDER]`: makes a project's folder with the example's specs; files that are there stay as they are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evergreen import first_project


def main(argv: list[str] | None = None) -> int:
    """Make the folder and tell what is in it; 1 with the reason where it cannot be written."""
    parser = argparse.ArgumentParser(
        prog="evergreen init",
        description="Make a project's folder: DAG files (dags/), the specs of the example (include/), .env.example. A file that is there "
        "stays as it is, so it can be run again after an upgrade.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="where (default: the current folder)"
    )
    folder = parser.parse_args(argv).folder.absolute()
    try:
        made, kept = first_project.make(folder)
    except OSError as error:
        print(
            f"{error.filename or folder} cannot be written: {error.strerror}; choose another folder",
            file=sys.stderr,
        )
        return 1
    for name in made:
        print(f"made  {name}")
    for name in kept:
        print(f"kept  {name}")
    print(
        f"\n{folder} is a project. In it: `evergreen check` looks at the specs, `evergreen up` starts all of it on this machine "
        "(pip install 'evergreen[stack]'), `evergreen demo` shows the loop on the example. Your Airflow reads dags/ where "
        "evergreen[airflow] is installed."
    )
    return 0
