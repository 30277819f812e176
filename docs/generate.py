"""Writes what the code says into the docs: docs/reference.md (DAG pages, environment variables, every field of the spec files),
and the map of the code in docs/architecture.md.

`python docs/generate.py` writes, `python docs/generate.py --check` fails if a page is not what the code says.
"""

from __future__ import annotations

import ast
import sys
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import module_map
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from evergreen import settings
from evergreen.spec import DatasetSpec, ModelSpec, format_duration

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET = REPOSITORY / "docs" / "reference.md"
DAGS = (
    "ingest",
    "correct",
    "train",
    "promote",
    "score",
    "monitor",
    "rollback",
    "replay",
    "silence",
    "mail",
    "digest",
)


def dag_pages() -> Iterator[str]:
    """The docstring of each kind of DAG, as it stands in the UI."""
    for name in DAGS:
        tree = ast.parse(
            (REPOSITORY / "include" / "evergreen_airflow" / "dags" / f"{name}.py").read_text(encoding="utf-8")
        )
        yield (ast.get_docstring(tree) or "").strip() + "\n"


def settings_table() -> Iterator[str]:
    """Every environment variable with default and meaning."""
    yield "| variable | default | meaning |"
    yield "| --- | --- | --- |"
    for variable in settings.ALL:
        default = (
            "must be set"
            if variable.default is None
            else f"`{variable.default}`"
            if variable.default
            else "(empty)"
        )
        yield f"| `{variable.name}` | {default} | {variable.meaning} |"


def fields(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A row per field of a spec model, nested ones with dots."""
    for name, field in kind.model_fields.items():
        if name == "query":
            continue
        inner = _models(field.annotation)
        if inner:
            many = typing.get_origin(field.annotation) in (dict, tuple)
            yield from fields(inner[0], f"{prefix}{name}{'.*' if many else ''}.")
        else:
            about = field.description or ""
            yield f"| `{prefix}{field.alias or name}` | {_type(field.annotation)} | {_default(field.get_default(call_default_factory=True))} | {about} |"


def _models(annotation: Any) -> list[type[BaseModel]]:
    found = [annotation, *typing.get_args(annotation)]
    return [a for a in found if isinstance(a, type) and issubclass(a, BaseModel)]


def _type(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return " \\| ".join(f"`{a}`" for a in typing.get_args(annotation))
    args = [a for a in typing.get_args(annotation) if a is not type(None)]
    if annotation is timedelta:
        return "duration"
    if typing.get_origin(annotation) is dict:
        return "mapping"
    if typing.get_origin(annotation) is tuple:
        return f"list of {_type(args[0])}"
    if args:
        return " \\| ".join(dict.fromkeys(_type(a) for a in args))
    return {"str": "text", "int": "integer", "bool": "true/false", "Any": "anything"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    if value in ((), None, "", {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def text() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "",
        "Made from the code by `python docs/generate.py`; a test fails when it is not up to date.",
        "",
        "## DAGs",
        "",
        *dag_pages(),
        "## Environment variables",
        "",
        *settings_table(),
        "",
        "## datasets/NAME.yaml",
        "",
        "A duration is a number and a unit: `90m`, `36h`, `14d`, `2w`.",
        "",
        "| field | type | default | meaning |",
        "| --- | --- | --- | --- |",
        *fields(DatasetSpec),
        "",
        "## models/NAME.yaml",
        "",
        "The feature query stands beside it in `models/NAME.sql`: one SELECT on tables that carry the datasets' names.",
        "",
        "| field | type | default | meaning |",
        "| --- | --- | --- | --- |",
        *fields(ModelSpec),
        "",
    ]
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """Every page that is made here, or a part of it, as the code has it."""
    return {TARGET: text(), module_map.PAGE: module_map.page()}


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        old = [path.name for path, wanted in pages().items() if path.read_text(encoding="utf-8") != wanted]
        sys.exit(f"docs/{', docs/'.join(old)} is old: python docs/generate.py" if old else 0)
    for path, wanted in pages().items():
        path.write_text(wanted, encoding="utf-8")
