"""Each recipe of docs/extending.md, followed on a copy of the code: with all steps its tests pass, without any one its test fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import clean_fork

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "extending.md"
COPIED = ("include", "dags", "docs", "benchmarks", "tests")
TEST = re.compile(r"`(tests/\S+\.py::\w+)`")


@dataclass(frozen=True)
class Step:
    """What one step changes, and the tests that fail without it.

    `edits` are (file, lines that are there, lines that are there afterwards); `commands` are run in the copy.
    """

    title: str
    edits: tuple[tuple[str, str, str], ...]
    commands: tuple[str, ...]
    told_by: tuple[str, ...]


def recipes() -> dict[str, list[Step]]:
    """The steps by the recipe's heading; a section without steps is none."""
    sections = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {title: steps(text) for title, text in zip(sections[::2], sections[1::2], strict=True)}
    return {title: given for title, given in found.items() if given}


def steps(section: str) -> list[Step]:
    parts = re.split(r"^\*\*(\d+\. [^*]+)\*\*", section, flags=re.MULTILINE)[1:]
    return [step(title, text) for title, text in zip(parts[::2], parts[1::2], strict=True)]


def step(title: str, text: str) -> Step:
    edits = [
        (path, *before_and_after(hunk))
        for path, diff in re.findall(r'^```diff title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
        for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE)
    ]
    commands = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    told_by = tuple(TEST.findall(text[text.index("Forgotten:") :]))
    return Step(title, tuple(edits), tuple(commands), told_by)


def before_and_after(hunk: str) -> tuple[str, str]:
    lines = hunk.splitlines(keepends=True)
    return tuple("".join(line[1:] or line for line in lines if line[0] != sign) for sign in "+-")  # type: ignore[return-value]


# Of pytest: a test failed, or what it needs could not be imported; that there is such a test is shown with all steps done.
TOLD = (1, 2, 4)
RECIPES = recipes()
# Each step left out takes some seconds; EVERGREEN_EVERY_STEP=1 leaves out all of them in turn, else the last one of each recipe.
STEPS = [
    (recipe, number)
    for recipe, given in RECIPES.items()
    for number in range(0 if os.environ.get("EVERGREEN_EVERY_STEP") else len(given) - 1, len(given))
]


class Copy:
    """The code in a folder of its own, with a recipe followed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            # With what is compiled, which is valid by the time and size of its source; not what is being written now.
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        for file in [*REPOSITORY.glob("*.md"), REPOSITORY / "pyproject.toml"]:
            shutil.copy(file, folder)

    def edit(self, given: Step) -> None:
        for path, before, after in given.edits:
            file = self.folder / path
            text = file.read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{given.title}: {path} has not once\n{before}"
            file.write_text(text.replace(before, after), encoding="utf-8")

    def run(self, command: str) -> None:
        # What is imported is the copy, wherever the package is installed from.
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "include")}
        words = [sys.executable, *command.split()[1:]]
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test(self, *tests: str) -> tuple[int | None, str]:
        """Run tests of the copy; pytest's exit code and what it wrote."""
        log = self.folder / "pytest.log"
        process = clean_fork.start(
            partial(in_copy, str(self.folder), tests, str(log)), modules=(sys.modules[__name__],)
        )
        process.join()
        return process.exitcode, log.read_text(encoding="utf-8")[-4000:]


def in_copy(folder: str, tests: tuple[str, ...], log: str) -> None:
    """In a process of its own, which has imported the libraries and this code: forget this code, then test the copy's."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    here = f"{REPOSITORY}{os.sep}"
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(here) and "site-packages" not in file:
            del sys.modules[name]
    sys.path[:] = [f"{folder}/include", *(path for path in sys.path if not path.startswith(f"{here}include"))]
    os.environ["PYTHONPATH"] = f"{folder}/include"
    os.chdir(folder)
    os._exit(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]))


def test_the_recipes_are_these() -> None:
    assert list(RECIPES) == [
        "A trigger reason",
        "A hold",
        "A check of the gate",
        "A metric",
        "A format of files",
    ]
    for recipe, given in RECIPES.items():
        assert [one.title.partition(".")[0] for one in given] == [str(n + 1) for n in range(len(given))], (
            recipe
        )
        assert all((one.edits or one.commands) and one.told_by for one in given), recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_followed_passes_its_tests(tmp_path: Path, recipe: str) -> None:
    copy = Copy(tmp_path / "copy")
    for given in RECIPES[recipe]:
        copy.edit(given)
        for command in given.commands:
            copy.run(command)
    code, said = copy.test(*dict.fromkeys(test for one in RECIPES[recipe] for test in one.told_by))
    assert code == 0, said


@pytest.mark.parametrize(("recipe", "number"), STEPS, ids=[f"{r}, without {n + 1}" for r, n in STEPS])
def test_a_step_that_is_forgotten_is_told(tmp_path: Path, recipe: str, number: int) -> None:
    copy = Copy(tmp_path / "copy")
    for given in (*RECIPES[recipe][:number], *RECIPES[recipe][number + 1 :]):
        copy.edit(given)
    for test in RECIPES[recipe][number].told_by:
        code, said = copy.test(test)
        assert code in TOLD, f"{test} does not tell:\n{said}"
