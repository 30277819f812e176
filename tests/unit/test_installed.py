"""What `make` installs works in whatever folder and locale, and what is told while the stack is down promises nothing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.errors import TransientError
from evergreen.stack.airflow_api import AirflowApi
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = REPOSITORY / "include" / "evergreen"


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_the_package_is_found_in_a_folder_that_is_not_ascii(tmp_path: Path, locale: str) -> None:
    (found,) = Path(sysconfig.get_path("purelib")).glob("__editable__.evergreen-*.pth")
    checkout = tmp_path / "é ü"
    venv.create(checkout / ".venv", with_pip=False, symlinks=True)
    (site,) = (checkout / ".venv" / "lib").glob("python*/site-packages")
    shutil.copy(found, site)
    (checkout / "include" / "evergreen").mkdir(parents=True)
    (checkout / "include" / "evergreen" / "__init__.py").write_text("")
    told = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-c", "import evergreen; print(ascii(evergreen.__file__))"],
        env={"LC_ALL": locale, "PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    assert ascii(str(checkout))[1:-1] in told.stdout, "made by an older Makefile? Run `make venv`"


def promises(path: Path) -> list[str]:
    """The texts of a module, doc strings left out, that say that something is done again."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs
    ]
    return [text for text in texts if "is tried again" in text or "are tried again" in text]


# Airflow's own word for a try that failed: that task is tried again.
SAID_BY_THE_RUN = {"stack/run_dag.py"}


def test_a_message_of_the_library_promises_no_second_try() -> None:
    """A task is tried again, a command in a terminal is not, and of a task that has failed for good it is mailed."""
    found = {str(path.relative_to(LIBRARY)): promises(path) for path in sorted(LIBRARY.rglob("*.py"))}
    assert {name: texts for name, texts in found.items() if texts and name not in SAID_BY_THE_RUN} == {}


def _connect() -> None:
    with connect():
        pass


def _read() -> None:
    with arrow.reading():
        pass


@pytest.mark.parametrize(
    "ask",
    [
        _connect,
        _read,
        lambda: AirflowApi("http://127.0.0.1:1", "admin", "x").dag_ids(),
    ],
    ids=["warehouse", "warehouse in bulk", "Airflow"],
)
def test_what_is_down_is_told_with_how_to_start_it(
    ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(TransientError, match="`evergreen up`") as told:
        ask()
    assert "`evergreen status`" in str(told.value)
