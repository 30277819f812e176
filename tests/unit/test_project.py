"""What holds for the project as a whole: which room may import which, and that what is generated is current."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.check import SCHEMAS
from evergreen.spec import DatasetSpec, ModelSpec, json_schema

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "include" / "evergreen"

LEVELS = {
    "errors": 0, "settings": 0, "connections": 0, "spec": 0,
    "warehouse": 1, "ledger": 1,
    "validation": 2, "training": 2, "registry": 2, "scoring": 2, "monitoring": 2, "alerting": 2, "feeds": 2,
    "command": 3, "check": 3, "check_warehouse": 3, "changes": 3, "report": 3, "stack": 3, "replay": 3, "lineage": 3, "metrics": 3,
    "deployment": 4,
}  # fmt: skip
LIGHT = (
    "spec",
    "settings",
    "connections",
    "errors",
    "ledger",
    "lineage",
    "warehouse.connection",
    "warehouse.migrate",
    "warehouse.features",
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = [p for p in sorted(PACKAGE.rglob("*.py")) if room(p) != "__init__"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert room(path) in LEVELS, f"{path} is in a room that the design does not have"
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] != "airflow", f"{path}: the library never imports Airflow"
        if parts[0] == "evergreen" and len(parts) > 1 and parts[1] in LEVELS:
            assert LEVELS[parts[1]] <= LEVELS[room(path)], f"{path} imports {name}, which is above it"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, evergreen.{module};"
        "print(sorted({'pandas', 'numpy', 'xgboost', 'mlflow', 'evidently', 'great_expectations', 'pyarrow'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "kind"), [("dataset", DatasetSpec), ("model", ModelSpec)], ids=["dataset", "model"]
)
def test_exported_schemas_are_current(name: str, kind: type[DatasetSpec] | type[ModelSpec]) -> None:
    written = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    assert written == json_schema(kind), "run `python -m evergreen.check --schemas`"


def test_reference_page_is_current() -> None:
    shown = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr


def test_every_field_and_variable_of_the_reference_page_has_a_meaning() -> None:
    page = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 80
    assert [cells[0] for cells in rows if not cells[-1]] == []


def test_nothing_is_pickled() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(REPOSITORY / "dags").glob("*.py")]:
        assert not imports(path) & {"pickle", "joblib", "cloudpickle", "dill"}, f"{path} uses pickles"
