"""The DAG processor forks for each file: what parsing imports, it imports before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# As the DAG processor starts, with one fork for each file.
PROCESSOR = """
import json, os, sys
from pathlib import Path
from airflow.dag_processing import manager, processor
from airflow.dag_processing.dagbag import DagBag
from airflow.listeners.listener import get_listener_manager
import structlog
files = sys.argv[2]
sys.argv = ["airflow", sys.argv[1]]
get_listener_manager().hook.on_starting(component=None)
sys.path.append(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
before = set(sys.modules)
for path in sorted(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).glob(files)):
    if not os.fork():
        bag = DagBag(str(path), load_op_links=False)
        processor._serialize_dags(bag, structlog.get_logger())
        assert not bag.import_errors, bag.import_errors
        fresh = {m for m in set(sys.modules) - before if not m.startswith("unusual_prefix_")}
        print(json.dumps({"file": path.name, "dags": len(bag.dags), "fresh": sorted(fresh)}), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, path
"""


def imported_by_parsing(component: str, files: str, dags: int) -> dict[str, set[str]]:
    command = [sys.executable, "-c", PROCESSOR, component, files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"file"')]
    assert sum(line["dags"] for line in lines) >= dags
    return {line["file"]: set(line["fresh"]) for line in lines}


def test_a_parse_imports_nothing_but_the_files_of_dags() -> None:
    own = {path.stem for path in (REPOSITORY / "dags").glob("*.py")}
    imported = imported_by_parsing("dag-processor", "*.py", 11)
    assert imported.keys() == {f"{name}.py" for name in own}
    assert {name: fresh - own for name, fresh in imported.items() if fresh - own} == {}


def test_other_components_import_nothing_for_it() -> None:
    assert "requests" in imported_by_parsing("triggerer", "train.py", 1)["train.py"]


def test_what_cannot_be_imported_does_not_stop_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_on_purpose.py").write_text("raise ValueError('half written')")
    (tmp_path / "imported_after_it.py").write_text("")
    from evergreen_airflow import plugin

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin, "PARSED", ("broken_on_purpose", "not_there_at_all", "imported_after_it"))
    monkeypatch.setattr(sys, "argv", ["airflow", "dag-processor"])
    plugin.Start().on_starting(component=None)
    assert sys.modules.pop("imported_after_it", None)
