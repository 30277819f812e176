"""The workflows of GitHub, as far as they can be judged without it: their form, their rights, and the steps that run anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from releasing import release

from evergreen.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[3]
FILES = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
FLOWS: dict[str, dict[str, Any]] = {f.stem: yaml.safe_load(f.read_text(encoding="utf-8")) for f in FILES}
JOBS = [(flow, name, job) for flow, content in FLOWS.items() for name, job in content["jobs"].items()]
STEPS = [(f"{flow}.{name}", step) for flow, name, job in JOBS for step in job["steps"]]
RUNS = [(where, step["run"]) for where, step in STEPS if "run" in step]
ZIZMOR = Path(sys.executable).with_name("zizmor")


def step(flow: str, name: str) -> str:
    """The command of a step by its id."""
    return next(s["run"] for job in FLOWS[flow]["jobs"].values() for s in job["steps"] if s.get("id") == name)


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step's command as GitHub does."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_workflows_are_these():
    assert list(FLOWS) == ["ci", "image", "specs"]


def test_they_are_what_githubs_schema_asks_for():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, FILES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_auditor_of_workflows_finds_nothing():
    done = subprocess.run(
        [str(ZIZMOR), "--offline", "--no-progress", *map(str, FILES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("flow", "name", "job"), JOBS, ids=[f"{f}.{n}" for f, n, _ in JOBS])
def test_each_job_has_a_limit_and_the_rights_that_it_needs(flow: str, name: str, job: dict[str, Any]):
    assert FLOWS[flow]["permissions"] == {}
    assert "concurrency" in FLOWS[flow]
    assert 0 < job["timeout-minutes"] <= 90
    writes = {right for right, level in job["permissions"].items() if level == "write"}
    allowed = {"specs.comment": {"pull-requests"}, "image.publish": {"contents", "packages"}}
    assert writes == allowed.get(f"{flow}.{name}", set())
    if writes:  # nothing that a pull request or a package brings runs beside a token that may write
        used = [s.get("uses", "").partition("@")[0] for s in job["steps"]]
        assert "actions/checkout" not in used
        assert not any(re.search(r"\b(make|python3?|pip|pipx)\b", s.get("run", "")) for s in job["steps"])


def test_no_workflow_gives_a_pull_request_the_rights_of_the_repository():
    for content in FLOWS.values():
        # YAML 1.1 reads `on` as true.
        assert not {"pull_request_target", "workflow_run"} & set(content[True])


@pytest.mark.parametrize(("where", "used"), [(w, s["uses"]) for w, s in STEPS if "uses" in s], ids=str)
def test_actions_are_pinned_and_leave_no_token_behind(where: str, used: str):
    assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), where
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    assert re.search(rf"{re.escape(used)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), (
        "the version stands beside it"
    )
    if used.startswith("actions/checkout@"):
        settings = [s["with"]["persist-credentials"] for _, s in STEPS if s.get("uses") == used]
        assert not any(settings)


def test_the_end_of_a_pipe_hides_no_failure():
    """GitHub runs a step without pipefail unless a workflow names bash as its shell; `shell` above has it."""
    assert {flow: content["defaults"]["run"]["shell"] for flow, content in FLOWS.items()} == dict.fromkeys(
        FLOWS, "bash"
    )


def test_an_action_has_one_version_in_all_workflows():
    used = {s["uses"] for _, s in STEPS if "uses" in s}
    assert len(used) == len({name.partition("@")[0] for name in used})


def test_every_python_that_is_supported_is_tested():
    """Those of pyproject.toml, and no others."""
    asked = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (REPOSITORY / "pyproject.toml").read_text()
    )
    assert asked is not None
    wanted = [f"3.{minor}" for minor in range(int(asked[1]), int(asked[2]))]
    assert FLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == wanted


def test_every_target_and_path_that_is_named_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = {t for _, run in RUNS for t in re.findall(r"\bmake (?:-\S+ )*([a-z][\w-]*)", run)}
    assert targets >= {"test", "demo", "venv"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    commands = {c for _, run in RUNS for c in re.findall(r"bin/evergreen ([a-z-]+)", run)}
    assert commands == {"check"}
    assert commands <= {name for group in COMMANDS.values() for name in group}
    scripts = {s for _, run in RUNS for s in re.findall(r"python3 (\S+\.py)", run)}
    assert scripts == {"deploy/release.py"}
    assert all((REPOSITORY / script).is_file() for script in scripts)
    paths = [
        p
        for c in FLOWS.values()
        for event in c[True].values()
        if isinstance(event, dict)
        for p in event.get("paths", ())
    ]
    paths += [p for _, run in RUNS for p in re.findall(r"(?<=-r )\S+", run)]
    assert len(paths) > 5
    for path in paths:
        assert list(REPOSITORY.glob(path.removesuffix("**") + ("*" if path.endswith("**") else ""))), path


def test_the_notes_of_a_release_are_made_by_the_step(tmp_path):
    for name in ("CHANGELOG.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(REPOSITORY / "deploy" / "release.py", tmp_path / "deploy")
    known = release.version((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    done = shell(step("image", "notes"), tmp_path, GITHUB_REF_NAME=f"v{known}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "release-notes.md").read_text(encoding="utf-8") == release.notes(f"v{known}")
    done = shell(step("image", "notes"), tmp_path, GITHUB_REF_NAME="v99.0.0")
    assert done.returncode == 1
    assert "v99.0.0 is no release: the tag is v99.0.0" in done.stderr


def test_the_steps_of_a_pull_request_make_the_summary(tmp_path):
    """In a clone of depth 2, as the workflow has it; a spec with problems fails the job, and the summary is there all the same."""
    origin, clone, summary = tmp_path / "origin", tmp_path / "clone", tmp_path / "summary.md"
    for kind in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / kind, origin / "include" / kind)
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]

    def commit() -> None:
        for command in (["add", "--all"], ["commit", "--quiet", "--message", "specs"]):
            subprocess.run([*git, *command], cwd=origin, check=True)

    subprocess.run([*git, "init", "--quiet", str(origin)], check=True)
    # Great Expectations, which takes seconds to import, is asked where a dataset has any.
    dataset = origin / "include" / "datasets" / "bike_hourly.yaml"
    dataset.write_text(dataset.read_text().partition("expectations:")[0])
    commit()
    models = origin / "include" / "models"
    for name, old, new in (
        ("bike_demand", "max_depth: 6", "max_depth: 7"),
        ("bike_rush", "max_depth: 5", "max_depht: 5"),
    ):
        text = (models / f"{name}.yaml").read_text()
        assert old in text
        (models / f"{name}.yaml").write_text(text.replace(old, new))
    commit()
    subprocess.run([*git, "clone", "--quiet", "--depth=2", origin.as_uri(), str(clone)], check=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    program = clone / ".venv" / "bin" / "evergreen"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m evergreen "$@"\n')
    program.chmod(0o755)
    here = {
        "EVERGREEN_SPECS": str(clone / "include"), "EVERGREEN_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "include"), *sys.path]),
    }  # fmt: skip
    done = shell(step("specs", "compare"), clone, **here)
    assert done.returncode == 1, done.stderr
    assert shell(step("specs", "summary"), clone, GITHUB_STEP_SUMMARY=str(summary)).returncode == 0
    text = summary.read_text(encoding="utf-8")
    assert "Compared with `HEAD^1`" in text
    assert "did you mean max_depth?" in text
    assert "| `training.params.max_depth` | `6 → 7` |" in text
