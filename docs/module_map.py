"""The map of the code in docs/architecture.md: each floor with its files, and what the first lines of each say of it.

`docs/generate.py` writes it between the two marks of that page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from floors import FLOORS

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
LIBRARY = REPOSITORY / "include" / "evergreen"
# What stands above the library: the only places that import Airflow. A folder that is not there is left out.
ABOVE = {
    "dags": "What Airflow reads: two lines for each kind of DAG, whose code is the module of the same name in `include/evergreen_airflow/dags`.",
    "include/evergreen_airflow": "The DAGs, what they share, and the plugin. Wiring only.",
    "plugins": "Airflow's plugin.",
}
BEGIN, END = "<!-- map: begin -->", "<!-- map: end -->"


def page() -> str:
    """The page with its map made anew.

    Raises:
        ValueError: the page has lost a mark.
    """
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN} and {END}, one time each")
    return f"{before}{BEGIN}\n\n{chr(10).join(_map())}\n{END}{after}"


def _map() -> Iterator[str]:
    for folder, about in ABOVE.items():
        path = REPOSITORY / folder
        yield from _room(f"{folder}/", about, path, sorted(path.rglob("*.py")))
    for floor in reversed(FLOORS):
        path = LIBRARY.joinpath(*floor.split("."))
        yield from _room(floor, FLOORS[floor], path if path.is_dir() else LIBRARY, files_of(floor))


def files_of(floor: str) -> list[Path]:
    """The files of a floor, Python and SQL; those of a sub-folder with a floor of its own are not among them."""
    path = LIBRARY.joinpath(*floor.split("."))
    if not path.is_dir():
        return [path.with_suffix(".py")]
    inside = sorted(file for file in path.rglob("*") if file.suffix in (".py", ".sql"))
    own = [LIBRARY.joinpath(*name.split(".")) for name in FLOORS if name.startswith(f"{floor}.")]
    return [file for file in inside if not any(file.is_relative_to(other) for other in own)]


def _room(name: str, about: str, folder: Path, files: list[Path]) -> Iterator[str]:
    told = [(file, text) for file in files if (text := first_lines(file)) or file.name != "__init__.py"]
    if not told:
        return
    yield from (f"### {name}", "", about, "", "| file | what it is for |", "| --- | --- |")
    for file, text in told:
        where = file.relative_to(REPOSITORY).as_posix()
        yield f"| [{file.relative_to(folder).as_posix()}](../{where}) | {text} |"
    yield ""


def first_lines(file: Path) -> str:
    """What the first paragraph of a file's docstring, or comment, says, as a cell of a table; empty where it has none."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sql":
        lines = list(takewhile(lambda line: line.startswith("--"), text.splitlines()))
        told = "\n".join(line.removeprefix("--").strip() for line in lines)
    else:
        told = ast.get_docstring(ast.parse(text)) or ""
    return " ".join(told.partition("\n\n")[0].split()).lstrip("# ").replace("|", "\\|")
