"""`evergreen init`: a project that its own commands accept, and that is as this repository's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from evergreen import cli, dag_kinds, first_project, settings
from evergreen.spec import load_specs

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_dag_files_are_those_of_this_repository() -> None:
    made = {name: text for name, text in first_project.files() if name.startswith("dags/")}
    here = {f"dags/{path.name}": path.read_text() for path in (REPOSITORY / "dags").glob("*.py")}
    assert made == here
    assert len(made) == len(dag_kinds.FILES)


def test_the_specs_are_those_of_this_repository(tmp_path: Path) -> None:
    first_project.make(tmp_path)
    made, own = load_specs(tmp_path / "include"), load_specs(REPOSITORY / "include")
    assert made.problems == ()
    assert (made.models, made.datasets) == (own.models, own.datasets)


def test_editors_find_the_schemas(tmp_path: Path) -> None:
    first_project.make(tmp_path)
    for path in (tmp_path / "include").glob("*/*.yaml"):
        (schema,) = [
            line.partition("$schema=")[2] for line in path.read_text().splitlines() if "$schema=" in line
        ]
        assert set(yaml.safe_load(path.read_text())) <= set(
            json.loads((path.parent / schema).read_text())["properties"]
        )


def test_the_settings_name_each_variable_and_set_none(tmp_path: Path) -> None:
    first_project.make(tmp_path)
    lines = (tmp_path / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert {v.name for v in settings.ALL} <= {line[1:].partition("=")[0] for line in lines if line}


def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "dags" / "train.py"
    mine.parent.mkdir()
    mine.write_text("# mine\n")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "kept  dags/train.py" in capsys.readouterr().out
    assert mine.read_text() == "# mine\n"
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "made  " not in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["init", str(tmp_path / "file")]) == 1
    assert "cannot be written: Not a directory; choose another folder" in capsys.readouterr().err
