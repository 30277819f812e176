"""`evergreen COMMAND`: what is found, what is said where it is not, and that nothing is imported before it is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen import cli, settings

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [name for group in cli.COMMANDS.values() for name in group]


def test_the_list_of_commands_imports_nothing_but_python() -> None:
    code = (
        "import sys; before = set(sys.modules); from evergreen.cli import main; main(['--help']);"
        "own = {m.partition('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names;"
        "print(sorted(own), sorted(m for m in sys.modules if m.startswith('evergreen')))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "['evergreen'] ['evergreen', 'evergreen.cli']"
    assert all(f"  {name} " in shown for name in NAMES)


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evergreen", "--help"],
            stdout=writes,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("name", NAMES)
def test_each_command_tells_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: evergreen {name} ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "evergreen has no command 'chek'; did you mean check?"),
        (["frobnicate"], "evergreen has no command 'frobnicate'; `evergreen --help` lists them"),
    ],
    ids=["a slip of the pen", "nothing like it"],
)
def test_an_unknown_command_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.strip() == said


def test_what_is_hidden_is_started_by_the_stack_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert not [name for name in cli.HIDDEN if name in capsys.readouterr().out]


@pytest.mark.parametrize(
    ("command", "module", "package", "extra"),
    [
        ("exporter", "evergreen.exporter.command", "prometheus_client", "metrics"),
        ("logs", "evergreen.stack.processes", "psutil", "stack"),
    ],
    ids=["exporter", "stack"],
)
def test_a_part_that_is_not_installed_is_told_with_how_to_install_it(
    command: str, module: str, package: str, extra: str
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from evergreen.cli import main; sys.exit(main([{command!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == f"evergreen {command} needs {package}, which is not installed; install it: pip install 'evergreen[{extra}]'"
    )


def test_a_module_that_is_missing_for_another_reason_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS["a project"], "check", cli.Command("evergreen.no_such_module", ""))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main(["check"])


# ------------------------------------------------------------------ where the specs are


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, with no variable that names another."""
    for variable in (settings.SPECS, settings.PROJECT):
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("folders", "variables", "found"),
    [
        ([], {}, "include"),
        (["include/datasets", "models"], {}, "include"),
        (["include", "models"], {}, ""),
        (["include/datasets"], {"EVERGREEN_SPECS": "mine"}, "mine"),
        (["other/include/models", "include/models"], {"EVERGREEN_PROJECT": "other"}, "other/include"),
        (["other/datasets"], {"EVERGREEN_PROJECT": "other"}, "other"),
    ],
    ids=[
        "nothing there",
        "include",
        "the folder itself",
        "named",
        "another project",
        "another project itself",
    ],
)
def test_the_folder_of_the_specs(
    here: Path, folders: list[str], variables: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in folders:
        (here / folder).mkdir(parents=True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert settings.specs_folder() == here / found


@pytest.mark.parametrize("named", [False, True], ids=["nothing named", "a folder that is not there"])
def test_where_no_specs_are_it_is_said_where_they_were_looked_for(
    here: Path, named: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if named:
        monkeypatch.setenv("EVERGREEN_SPECS", "gone")
    assert cli.main(["check"]) == 1
    said = capsys.readouterr().err
    assert "no specs were found" in said
    assert "evergreen init" in said
    wanted = [str(here / "gone")] if named else [str(here / "include"), f" {here} "]
    assert all(folder in said for folder in wanted)


def test_specs_are_checked_where_nothing_of_the_stack_is_installed(here: Path) -> None:
    """Where no server is named, commands look for the embedded stack."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(cli.EXTRAS)!r})); from evergreen.cli import main;"
        f"main(['init', {str(here / 'p')!r}]); sys.exit(main(['check', '--specs', {str(here / 'p' / 'include')!r}]))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "EVERGREEN_HOME": str(here / "home")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 dataset(s), 2 model(s)" in done.stdout
    assert "no problem found" in done.stdout
