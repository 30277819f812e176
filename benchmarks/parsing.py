"""What Airflow pays for dags/ with two hundred models: each file as the DAG processor parses it, and as a task does.

Each measurement is a process of its own, forked as Airflow forks it.
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from benchmarks import data
from benchmarks.table import Row
from evergreen.stack.variables import PRELOADED

REPOSITORY = Path(__file__).resolve().parents[1]
DAGS = REPOSITORY / "dags"
TASKS = REPOSITORY / "include" / "evergreen_airflow"
MODELS = 200
ROUNDS = 3
HEAVY = (
    "pandas", "numpy", "pyarrow", "mlflow", "xgboost", "sklearn", "scipy", "great_expectations", "evidently", "matplotlib",
    "adbc_driver_postgresql",
)  # fmt: skip
MS_A_DAG = 8.0
DAGS_A_MODEL = 5
"""Train, score, monitor, rollback, replay."""
IMPORT_LIMIT_S = 30.0
"""Airflow's `dagbag_import_timeout`."""
PROCESSOR_LIMIT_S = 50.0
"""Airflow's `dag_file_processor_timeout`; it has the DAGs' serialization in it."""
OWN_PARSE_MS = 50.0


def measure() -> list[Row]:
    """Parse every file, and one file for the task of one DAG; medians of three rounds, the seconds of the clock."""
    names = tuple(f"model_{i:03d}" for i in range(MODELS))
    dag_id = f"train__{names[MODELS // 2]}"
    with tempfile.TemporaryDirectory(prefix="evergreen-parsing-") as folder:
        data.write_specs(Path(folder) / "specs", names)
        found = _in_a_fresh_process(Path(folder), dag_id)
    files, own, tasks = found["files"], found["own"], found["tasks"]
    dags = sum(rounds[0]["dags"] for rounds in files.values())
    if dags < DAGS_A_MODEL * MODELS or own[0]["dags"] != 1:
        raise ValueError(f"{dags} DAGs were built of all specs and {own[0]['dags']} for a task of {dag_id}")
    imported = {file: _median(rounds, "parse_s") for file, rounds in files.items()}
    whole = {file: _median(rounds, "whole_s") for file, rounds in files.items()}
    slowest, longest = (max(times, key=lambda file: times[file]) for times in (imported, whole))
    a_dag, own_ms = 1000 * sum(imported.values()) / dags, 1000 * _median(own, "parse_s")
    cpu = 1000 * sum(_median(rounds, "cpu_s") for rounds in files.values()) / dags
    heavy = sorted({name for rounds in files.values() for one in rounds for name in one["heavy"]})
    return [
        Row(
            f"parse a DAG, {MODELS} models", f"{a_dag:.1f} ms", "", None, f"≤ {MS_A_DAG:.0f} ms", a_dag <= MS_A_DAG,
            f"{dags} DAGs of {len(files)} files in {sum(imported.values()):.1f} s; {cpu:.1f} ms of CPU",
        ),
        Row(
            "slowest file", f"{imported[slowest]:.1f} s", "", None, f"≤ {IMPORT_LIMIT_S / 2:.0f} s",
            imported[slowest] <= IMPORT_LIMIT_S / 2, f"{slowest}; half of Airflow's limit of a file's import",
        ),
        Row(
            "slowest file, serialized", f"{whole[longest]:.1f} s", "", None, f"≤ {PROCESSOR_LIMIT_S / 2:.0f} s",
            whole[longest] <= PROCESSOR_LIMIT_S / 2, f"{longest}; half of the DAG processor's limit",
        ),
        Row(
            "a task's own parse", f"{own_ms:.0f} ms", "", None, f"≤ {OWN_PARSE_MS:.0f} ms", own_ms <= OWN_PARSE_MS,
            f"{dag_id} among {MODELS} models, {1000 * _median(own, 'cpu_s'):.0f} ms of CPU; reads {', '.join(own[0]['read'])}",
        ),
        Row("heavy imports at parse", str(len(heavy)), "", None, "0", not heavy, ", ".join(heavy)),
        Row(
            "heavy imports in a task's process", str(len(tasks["heavy"])), "", None, "0", not tasks["heavy"],
            f"all {tasks['modules']} modules that the tasks of dags/ import, in a fork of what the stack has imported before: "
            f"{1000 * tasks['s']:.0f} ms" + "".join(f"; {name}" for name in tasks["heavy"]),
        ),
    ]  # fmt: skip


def _median(rounds: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(found[key] for found in rounds))


def _in_a_fresh_process(folder: Path, dag_id: str) -> dict[str, Any]:
    """What `parse_all` finds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "EVERGREEN_SPECS": str(folder / "specs"),
        "EVERGREEN_SCHEDULES": "on",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parsing", dag_id],
        env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def parse_all(dag_id: str) -> dict[str, Any]:
    """Parse each file and, as a task of `dag_id` does, its file.

    Both in forks, as Airflow does it: the DAG processor's are of a process that has imported Airflow, a task's of one
    that has also imported what the stack imports before tasks start.
    """
    import airflow.dag_processing.manager  # noqa: F401

    paths = sorted(DAGS.glob("*.py"))
    files = {path.name: [_forked(partial(parse, path)) for _ in range(ROUNDS)] for path in paths}
    for name in PRELOADED.split(","):
        import_module(name)
    path = DAGS / f"{dag_id.partition('__')[0]}.py"
    own = [_forked(partial(parse, path, dag_id)) for _ in range(ROUNDS)]
    return {"files": files, "own": own, "tasks": _forked(import_of_tasks)}


def import_of_tasks() -> dict[str, Any]:
    """Import what the bodies of all tasks import: seconds, how many modules, and the heavy libraries among what is new."""
    wanted = {
        node.module
        for path in TASKS.rglob("*.py")
        if path.name != "pools.py"  # the scheduler's
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.col_offset and node.module
    }
    before, start = set(sys.modules), time.perf_counter()
    for name in sorted(wanted):
        import_module(name)
    took = time.perf_counter() - start
    heavy = {name.partition(".")[0] for name in set(sys.modules) - before} & set(HEAVY)
    return {"s": took, "modules": len(wanted), "heavy": sorted(heavy)}


def _forked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    source, target = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(target, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    found: dict[str, Any] = json.loads(text)
    return found


def parse(path: Path, dag_id: str | None = None) -> dict[str, Any]:
    """Parse a file in this process, for all DAGs or for a task of one, and serialize what it makes.

    Returns:
        How many DAGs were built; the seconds and CPU seconds of the import and the seconds with serialization; which
        heavy libraries were imported meanwhile; the spec files that were read.
    """
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.dag_processing.processor import _serialize_dags
    from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager

    before, read, specs = set(sys.modules), set(), os.environ["EVERGREEN_SPECS"]
    sys.addaudithook(
        lambda event, args: read.add(str(args[0])) if event == "open" and specs in str(args[0]) else None
    )
    with _airflow_parsing_context_manager(dag_id=dag_id, task_id="fit") if dag_id else nullcontext():
        start, cpu = time.perf_counter(), time.process_time()
        bag = BundleDagBag(
            dag_folder=str(path),
            bundle_path=DAGS,
            bundle_name="dags",
            load_op_links=False,
            safe_mode=not dag_id,
        )
        parse_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    heavy = {name.partition(".")[0] for name in set(sys.modules) - before} & set(HEAVY)
    serialized, errors = _serialize_dags(bag, structlog.get_logger())
    if bag.import_errors or errors:
        raise ValueError(f"{bag.import_errors} {errors}")
    return {
        "dags": len(serialized),
        "parse_s": parse_s,
        "cpu_s": cpu_s,
        "whole_s": time.perf_counter() - start,
        "heavy": sorted(heavy),
        "read": sorted(Path(name).name for name in read) if dag_id else [],
    }


if __name__ == "__main__":
    print(json.dumps(parse_all(sys.argv[1])))
