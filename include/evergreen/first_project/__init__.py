"""A project's folder as `evergreen init` makes it: DAG files, the example's specs, settings to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evergreen import dag_kinds, settings

EXAMPLE = Path(__file__).parent / "example"
SCHEMAS = Path(__file__).parents[1] / "schemas"
IGNORED = ".evergreen*/\n.env\n__pycache__/\n"
SETTINGS_HEAD = """\
# Settings of the Airflow services, each with its default. `evergreen up` needs none of them; on servers of your own set those
# that must be set there, and keep the secrets among them where you keep secrets.
"""


def dag_file(kind: str) -> str:
    """The text of the file in the DAG folder that makes the DAGs of a kind."""
    return f"from evergreen_airflow.dags import {kind}\n\nglobals().update({kind}.dags(__file__))\n"


def settings_page() -> str:
    """Every environment variable with its meaning, as an env file in which no line does anything."""
    lines = [SETTINGS_HEAD]
    for variable in settings.ALL:
        required = " (must be set)" if variable.default is None else ""
        lines += [f"# {variable.meaning}{required}", f"#{variable.name}={variable.default or ''}", ""]
    return "\n".join(lines)


def files() -> Iterator[tuple[str, str]]:
    """The files of a new project: path below its folder, text."""
    for kind in dag_kinds.FILES:
        yield f"dags/{kind}.py", dag_file(kind)
    for path in sorted(p for p in EXAMPLE.glob("*/*") if p.is_file()):
        text = path.read_text(encoding="utf-8")
        yield f"include/{path.parent.name}/{path.name}", text.replace("../evergreen/schemas/", "../schemas/")
    for path in sorted(SCHEMAS.glob("*.json")):
        yield f"include/schemas/{path.name}", path.read_text(encoding="utf-8")
    yield ".env.example", settings_page()
    yield ".gitignore", IGNORED


def make(folder: Path) -> tuple[list[str], list[str]]:
    """Write the files of a project that are not there; one that is there stays as it is.

    Returns:
        The paths that were written, and those that were there.

    Raises:
        OSError: a file cannot be written.
    """
    made, kept = [], []
    for name, text in files():
        path = folder / name
        if path.exists():
            kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        made.append(name)
    return made, kept
