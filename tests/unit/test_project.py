"""What holds for the project as a whole: which room may import which, and that what is generated is current."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from evergreen.check import SCHEMAS
from evergreen.spec import DatasetSpec, ModelSpec, json_schema

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "include" / "evergreen"
FLOORS: list[str] = list(runpy.run_path(str(REPOSITORY / "docs" / "floors.py"))["FLOORS"])
WIDEST = 20
"""Files in one folder; more of them nobody looks through."""

LIGHT = (
    "spec",
    "settings",
    "airflow_connections",
    "errors",
    "ledger",
    "lineage",
    "warehouse.connection",
    "warehouse.migrate",
    "warehouse.features.feature_query",
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The library's modules that one imports, wherever in the file it does so; a package only where a name of its own is meant."""
    names = imports(SOURCES[module]) & SOURCES.keys()
    of_modules = {name.rpartition(".")[0] for name in names}
    return {name for name in names if name not in of_modules or _takes_a_name_of(module, name)} - {
        module,
        "evergreen",
    }


def _takes_a_name_of(module: str, package: str) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == package
        and f"{package}.{alias.name}" not in SOURCES
        for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def floor_of(module: str) -> str:
    """The longest name of a floor that a module lies under; `warehouse` is the floor of the files beside its sub-folders."""
    parts = [part for part in module.split(".")[1:] if part != "__main__"] or ["cli"]
    named = (".".join(parts[:length]) for length in (2, 1))
    return next((name for name in named if name in FLOORS), ".".join(parts))


def wrong_imports(module: str, imports_of: set[str]) -> list[str]:
    """Imports of the library that do not come from a floor below, or from the same one."""
    here = FLOORS.index(floor_of(module))
    return [name for name in sorted(imports_of) if FLOORS.index(floor_of(name)) > here]


INSIDE = [module for module in SOURCES if module != "evergreen"]


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_down(module: str) -> None:
    assert floor_of(module) in FLOORS, f"{module} is on no floor; docs/floors.py has the list"
    assert wrong_imports(module, imported(module)) == [], f"{module} imports from a floor above it"
    above = {"airflow", "evergreen_airflow"} & {name.partition(".")[0] for name in imports(SOURCES[module])}
    assert not above, "the library imports neither Airflow nor what is built on it"


AIRFLOW_PART = REPOSITORY / "include" / "evergreen_airflow"


@pytest.mark.parametrize(
    "path", sorted(AIRFLOW_PART.rglob("*.py")), ids=lambda path: str(path.relative_to(AIRFLOW_PART))
)
def test_the_part_for_airflow_stands_on_the_library(path: Path) -> None:
    """Nothing of it starts a stack or is a command: it runs in Airflow of whatever kind."""
    floors = {floor_of(name) for name in imports(path) & SOURCES.keys() if name != "evergreen"}
    assert not floors & {
        "stack",
        "command",
        "cli",
        "check",
        "report",
        "exporter",
        "deployment",
        "first_project",
    }


def test_the_part_for_airflow_is_the_only_one_that_imports_it() -> None:
    """The DAG files hand on to it; the benchmarks and the documentation are no part of the distribution."""
    top = {
        path: {name.partition(".")[0] for name in imports(path)}
        for path in [
            *REPOSITORY.glob("include/**/*.py"),
            *REPOSITORY.glob("dags/*.py"),
            *REPOSITORY.glob("deploy/*.py"),
        ]
    }
    assert {
        path for path, names in top.items() if "airflow" in names and AIRFLOW_PART not in path.parents
    } == set()
    assert any("airflow" in names for names in top.values())


def test_no_two_files_of_the_part_for_airflow_import_each_other() -> None:
    own = {
        f"evergreen_airflow.{'.'.join(p.relative_to(AIRFLOW_PART).with_suffix('').parts)}": p
        for p in AIRFLOW_PART.rglob("*.py")
    }
    graph = {module: imports(path) & own.keys() - {module} for module, path in own.items()}
    assert sum(map(len, graph.values())) > 20
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("evergreen.registry.aliases", "evergreen.alerting.delivery"),
        ("evergreen.registry.champions", "evergreen.training.train"),
        ("evergreen.incidents.outbox", "evergreen.alerting.compose"),
        ("evergreen.training.gate.gate", "evergreen.training.record.outcome"),
        ("evergreen.monitoring.windows.judge", "evergreen.monitoring.trigger.policy"),
        ("evergreen.warehouse.files.feed", "evergreen.warehouse.batches.staging"),
    ],
)
def test_an_import_from_above_is_found(module: str, name: str) -> None:
    assert name in SOURCES
    assert wrong_imports(module, imported(module) | {name}) == [name]


def test_no_two_files_import_each_other() -> None:
    """Imports inside functions and for type checkers count, too: such files are one file."""
    TopologicalSorter({module: imported(module) for module in INSIDE}).prepare()


def test_every_floor_has_files_and_few_enough_to_look_through() -> None:
    held = {
        floor: [m for m in INSIDE if floor_of(m) == floor and not SOURCES[m].name.startswith("__")]
        for floor in FLOORS
    }
    assert [floor for floor, modules in held.items() if not modules] == []
    assert {floor: len(modules) for floor, modules in held.items() if len(modules) > WIDEST} == {}


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
    assert written == json_schema(kind), "run `evergreen check --schemas`"


def test_generated_pages_are_current() -> None:
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
    for path in [*PACKAGE.rglob("*.py"), *AIRFLOW_PART.rglob("*.py")]:
        assert not imports(path) & {"pickle", "joblib", "cloudpickle", "dill"}, f"{path} uses pickles"
