"""A DAG bundle keeps several commits of a repository at once: each DAG file reads the specs that lie beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from evergreen import settings

REPOSITORY = Path(__file__).resolve().parents[2]

# As a task of the bundle does it: the bundle's folder on the path, the library from elsewhere. One process for all, as Airflow's
# import takes seconds: that another commit was parsed before in it changes nothing.
LOOK = """
import json, os, sys
from inspect import getclosurevars
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
import evergreen, evergreen_airflow
for root, specs in zip(sys.argv[1::2], sys.argv[2::2]):
    os.environ["EVERGREEN_SPECS"] = specs
    before, folder = list(sys.path), Path(root, "dags")
    bag = BundleDagBag(str(folder / "ingest.py"), bundle_path=folder, bundle_name="evergreen", safe_mode=False)
    dag = bag.dags["ingest__bike_hourly"]
    # What the task works with: it was made when the file was parsed.
    (project,) = {getclosurevars(task.python_callable).nonlocals["project"] for task in dag.tasks if task.task_id == "land"}
    print("told", json.dumps({
        "dag": dag.doc_md.splitlines()[0],
        "task": project.dataset("bike_hourly").description,
        "model": project.model("bike_rush")[1].description,
        "mail": dag.on_failure_callback.__self__.project.subject("dataset/bike_hourly").datasets["bike_hourly"].description,
        "file": dag.fileloc,
        "library": evergreen.__file__,
        "airflow": evergreen_airflow.__file__,
    }))
    sys.path[:] = before
"""


def commit(versions: Path, name: str) -> Path:
    """What a commit of the repository is in a bundle, without `.git`: its specs name it; its library must not be read."""
    folder = versions / name
    shutil.copytree(REPOSITORY / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    for kind in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / kind, folder / "include" / kind)
    for path in (folder / "include").glob("*/*.yaml"):
        lines = [
            f"description: of commit {name}" if line.startswith("description:") else line
            for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines) + "\n")
    for package in ("evergreen", "evergreen_airflow"):
        (folder / "include" / package).mkdir()
        (folder / "include" / package / "__init__.py").write_text("raise RuntimeError('the bundle has it')\n")
    return folder


def look(*places: tuple[Path, str]) -> list[dict[str, str]]:
    """What a task of each commit reads where EVERGREEN_SPECS is as given."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *(str(part) for place in places for part in place)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "include")},
        capture_output=True, text=True, check=False, cwd=places[0][0],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("told ")]


def test_each_commit_has_its_own_specs_and_the_library_is_the_installed_one(
    tmp_path: Path, airflow_db: None
) -> None:
    first, second = (commit(tmp_path, name) for name in ("first", "second"))
    *own, other = look((first, ""), (second, ""), (first, str(second / "include")))
    for folder, told in zip((first, second), own, strict=True):
        assert Path(told.pop("library")).parent == REPOSITORY / "include" / "evergreen"
        assert Path(told.pop("airflow")).parent == REPOSITORY / "include" / "evergreen_airflow"
        assert told.pop("file") == str(folder / "dags" / "ingest.py")
        assert told.pop("dag") == f"**bike_hourly**: of commit {folder.name}"
        assert set(told.values()) == {f"of commit {folder.name}"}
    assert other["task"] == other["mail"] == "of commit second", "whoever sets the variable means it"


def test_the_commit_of_a_run_is_its_bundles() -> None:
    from evergreen_airflow import runs

    task = SimpleNamespace(bundle_instance=SimpleNamespace(version="c0ffee"))
    assert runs.commit({"ti": task}) == "c0ffee"
    task.bundle_instance.version = None
    assert runs.commit({"ti": task}) is None, "a folder has no versions"


@pytest.mark.parametrize("set_to", [None, ""], ids=["unset", "empty"])
def test_specs_lie_beside_the_folder_of_the_dag_file(
    monkeypatch: pytest.MonkeyPatch, set_to: str | None
) -> None:
    monkeypatch.delenv("EVERGREEN_SPECS", raising=False)
    if set_to is not None:
        monkeypatch.setenv("EVERGREEN_SPECS", set_to)
    assert settings.specs_beside("/opt/evergreen/dags/train.py") == Path("/opt/evergreen/include")
    assert settings.specs_beside(str(REPOSITORY / "dags" / "train.py")) == settings.SPECS.path()


def test_an_installed_library_takes_relative_folders_from_where_it_is_started(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "include" / "evergreen",
        tmp_path / "site-packages" / "evergreen",
        ignore=lambda folder, names: [
            n for n in names if n not in ("__init__.py", "settings.py", "errors.py", "program.py")
        ],
    )
    (tmp_path / "opt" / "include").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != settings.SPECS.name}
    told = subprocess.run(
        [sys.executable, "-c", "from evergreen import settings; print(settings.SPECS.path())"],
        env={**environment, "PYTHONPATH": str(tmp_path / "site-packages")},
        cwd=tmp_path / "opt", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == str(tmp_path / "opt" / "include")
