"""Commands that destroy or show much: what they ask before, and how little they show."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from evergreen.stack.commands import main
from evergreen.stack.layout import Layout


class Terminal(io.StringIO):
    """A terminal at which a person types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def landed(layout: Layout) -> Layout:
    """A home in which something has landed."""
    layout.create()
    file = layout.home / "landing" / "rides" / "a.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 2_000_000)
    return layout


@pytest.mark.parametrize(
    "answer",
    [io.StringIO("yes\n"), Terminal("y\n"), Terminal("\n")],
    ids=["no-terminal", "not-yes", "nothing"],
)
def test_clean_without_a_clear_word_removes_nothing(
    landed: Layout, answer: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", answer)
    assert main(["clean", "--home", str(landed.home)]) == 1
    assert (landed.home / "landing" / "rides" / "a.csv").exists()
    shown = "".join(capsys.readouterr())
    assert "Nothing was removed" in shown
    assert "landing" in shown
    assert "2.0 MB" in shown


@pytest.mark.parametrize(("words", "answer"), [(["--yes"], ""), ([], "yes\n")], ids=["said-before", "typed"])
def test_clean_removes_what_a_person_gave_up(
    landed: Layout, words: list[str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["clean", "--home", str(landed.home), *words]) == 0
    assert not landed.home.exists()


def test_env_shows_the_secret_that_was_asked_for_and_no_other(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.create()
    home = ["env", "--home", str(layout.home)]
    assert main([*home, "--secrets"]) == 0
    assert not any(secret in capsys.readouterr().out for secret in layout.secrets.values())
    assert main([*home, "--secrets", "AIRFLOW__CORE__FERNET_KEY"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("export ") == 1
    assert layout.secrets["fernet"] in shown
    assert main([*home, "NO_SUCH"]) == 1
    assert "NO_SUCH" in capsys.readouterr().err


def test_a_folder_without_dag_files_is_no_place_for_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow would start and have nothing to run."""
    for name in ("EVERGREEN_PROJECT", "EVERGREEN_HOME", "AIRFLOW__CORE__DAGS_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["up"]) == 1
    said = capsys.readouterr().err
    assert f"There is no folder {tmp_path / 'dags'} with DAG files" in said
    assert "evergreen init" in said
    assert list(tmp_path.iterdir()) == []
