"""The tests themselves: they lie where what they test lies, and none stands on another one."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
UNIT = TESTS / "unit"
PACKAGE = TESTS.parent / "include" / "evergreen"
BESIDE_THE_PACKAGES = {"upgrade": "What earlier releases left, of whatever package."}


def of_other_tests(source: str) -> list[str]:
    """Test modules that a file imports from, wherever in it; a relative import is of one beside it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return [
        name
        for name in found
        if name.startswith(".") or any(part.startswith("test_") for part in name.split("."))
    ]


@pytest.mark.parametrize("folder", ["unit", "dags", "attack", "e2e", "compose"])
def test_no_test_imports_from_another_test_module(folder: str) -> None:
    files = sorted((TESTS / folder).rglob("*.py"))
    assert len(files) > 3
    assert {
        str(f.relative_to(TESTS)): named for f in files if (named := of_other_tests(f.read_text("utf-8")))
    } == {}


@pytest.mark.parametrize(
    "line",
    [
        "from test_monitoring_apply import promote",
        "import test_monitoring_apply as apply",
        "from monitoring import test_monitoring_apply",
        "from tests.unit.monitoring.test_monitoring_apply import promote",
        "from .test_monitoring_apply import promote",
        "from . import test_monitoring_apply",
        "def late():\n    from test_monitoring_apply import promote",
    ],
)
def test_an_import_from_a_test_module_is_found(line: str) -> None:
    assert of_other_tests(line) != []


@pytest.mark.parametrize(
    "line",
    ["from monitoring_scene import promote", "import clean_fork", "from pytest import mark as test_marks"],
)
def test_an_import_of_a_helper_is_none(line: str) -> None:
    assert of_other_tests(line) == []


def test_each_package_has_its_folder_of_tests() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.parent.name for path in UNIT.glob("*/test_*.py")}
    assert folders == packages | BESIDE_THE_PACKAGES.keys()


def test_a_file_of_tests_is_named_after_its_folder() -> None:
    named = {path: f"test_{path.parent.name}_" for path in [*UNIT.glob("*/*.py"), *TESTS.glob("dags/*.py")]}
    tests = {path: prefix for path, prefix in named.items() if path.name.startswith("test_")}
    assert [str(path) for path, prefix in tests.items() if not path.name.startswith(prefix)] == []


def test_no_two_files_that_a_test_may_import_share_a_name() -> None:
    """pytest puts each folder on the path, so that the first one of a name would hide the others."""
    names = Counter(
        path.name for part in (TESTS, UNIT) for path in part.glob("*.py") if path.name != "conftest.py"
    )
    names += Counter(path.name for path in UNIT.glob("*/*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
