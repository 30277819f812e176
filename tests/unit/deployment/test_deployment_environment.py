"""`.env` of the compose stack: a secret for each part, nothing lost, nothing shown."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.deployment import environment

REPOSITORY = Path(__file__).resolve().parents[3]


def run(folder: Path, *arguments: str) -> str:
    """As `make compose-env` does it: by a Python that has no package installed."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
         "runpy.run_module('evergreen', run_name='__main__', alter_sys=True)",
         str(REPOSITORY / "include"), "compose-env", "--file", str(folder / ".env"), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_secret_is_made_once_and_read_by_its_owner_alone(tmp_path):
    said = run(tmp_path)
    file = tmp_path / ".env"
    first = environment.read(file)
    assert set(first) == set(environment.SECRETS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(set(first.values())) == len(first)
    assert all(len(value) >= 40 for value in first.values())
    assert len(base64.urlsafe_b64decode(first["FERNET_KEY"])) == 32
    assert not any(value in said for value in first.values())
    assert "nothing was missing" in run(tmp_path)
    assert environment.read(file) == first


def test_what_is_there_stays_and_what_is_missing_or_empty_is_added(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# mine\nEVERGREEN_PORT=9090\nJWT_SECRET=kept\nREDIS_PASSWORD=\n")
    run(tmp_path)
    text, found = file.read_text(), environment.read(file)
    assert (found["EVERGREEN_PORT"], found["JWT_SECRET"]) == ("9090", "kept")
    assert "# mine" in text
    assert found["REDIS_PASSWORD"]
    assert text.count("REDIS_PASSWORD=") == 1
    assert set(environment.SECRETS) <= set(found)


def test_a_store_is_chosen_once_beside_what_is_there(tmp_path):
    file, chosen = tmp_path / ".env", environment.STORES["s3"]
    file.write_text("COMPOSE_PROFILES=metrics\nEVERGREEN_LANDING=\n")
    run(tmp_path)
    before = environment.read(file)
    assert not set(chosen) & {name for name, value in before.items() if value}, "nothing is chosen by itself"
    said, first = run(tmp_path, "--store", "s3"), environment.read(file)
    assert first == {
        **before, **chosen, "COMPOSE_PROFILES": "metrics,s3", "AWS_SECRET_ACCESS_KEY": first["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    assert len(first["AWS_SECRET_ACCESS_KEY"]) >= 40
    assert first["AWS_SECRET_ACCESS_KEY"] not in said
    assert file.read_text().count("COMPOSE_PROFILES=m") == 1
    for arguments in ((), ("--store", "s3")):
        assert "nothing was missing" in run(tmp_path, *arguments)
        assert environment.read(file) == first


@pytest.mark.parametrize(
    "line", ["MLFLOW_ARTIFACTS=s3://mine/mlflow", "AWS_ACCESS_KEY_ID=AKIA", "AWS_ENDPOINT_URL_S3=https://other", "AWS_SESSION_TOKEN=x"]
)  # fmt: skip
def test_a_place_that_is_chosen_already_is_not_left_for_the_store(tmp_path, capsys, line):
    file = tmp_path / ".env"
    file.write_text(f"{line}\n")
    assert environment.main(["--file", str(file), "--store", "s3"]) == 1
    assert f"is chosen there by {line.partition('=')[0]}; remove" in capsys.readouterr().err
    assert file.read_text() == f"{line}\n"


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path, capsys):
    assert environment.main(["--file", str(tmp_path / "nowhere" / ".env")]) == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("ignored", [".env", "compose-demo.png"])
def test_git_does_not_take_it(ignored):
    assert ignored in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert not subprocess.run(
        ["git", "ls-files", "--error-unmatch", ignored], cwd=REPOSITORY, capture_output=True, check=False
    ).stdout
