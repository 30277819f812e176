"""Every DAG is listed here, so that none appears or vanishes unnoticed, and each keeps the project's conventions."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from airflow.sdk.exceptions import AirflowTaskTimeout, DownstreamTasksSkipped

from evergreen.errors import ErrorReason, TerminalError, TransientError

REPOSITORY = Path(__file__).resolve().parents[2]

EXPECTED = {
    "ingest.py": {"ingest__bike_hourly"},
    "correct.py": {"correct__bike_hourly"},
    "train.py": {"train__bike_demand", "train__bike_rush"},
    "promote.py": {"promote__bike_demand", "promote__bike_rush"},
    "score.py": {"score__bike_demand", "score__bike_rush"},
    "monitor.py": {"monitor__bike_demand", "monitor__bike_rush"},
    "rollback.py": {"rollback__bike_demand", "rollback__bike_rush"},
    "mail.py": {"mail"},
    "digest.py": {"digest"},
    "silence.py": {"silence"},
    "replay.py": {"replay__bike_demand", "replay__bike_rush"},
    "specs.py": set(),
}


def test_every_dag_is_listed(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    found: dict[str, set[str]] = {}
    for dag_id, dag in dagbag.dags.items():
        found.setdefault(Path(dag.fileloc).name, set()).add(dag_id)
    assert found == {name: dags for name, dags in EXPECTED.items() if dags}


def test_every_file_is_listed() -> None:
    assert {p.name for p in (REPOSITORY / "dags").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("dag_id", sorted(set().union(*EXPECTED.values())))
def test_conventions(dagbag: Any, dag_id: str) -> None:
    dag = dagbag.dags[dag_id]
    for part in ("**What.**", "**When.**", "**Params.**", "**How to recover.**"):
        assert part in dag.doc_md, f"the page of {dag_id} has no {part}"
    # A question of promote waits beside the newer one that took its place.
    assert dag.max_active_runs == 1 or dag_id.startswith("promote__"), "single flight"
    assert dag.catchup is False
    assert dag.dagrun_timeout
    assert dag.tags >= {"evergreen"}
    assert dag.owner != "airflow"
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, f"{name}: no description"
        assert param.schema.get("title"), f"{name}: no title"
        assert param.schema.get("type"), f"{name}: no type"
    for task in dag.tasks:
        assert task.execution_timeout, f"{task.task_id} has no time-out"
        assert task.execution_timeout <= timedelta(hours=4)
        assert task.retry_policy is not None
        assert task.doc_md or task.python_callable.__doc__


def test_params_of_each_kind(dagbag: Any) -> None:
    params = {dag_id.partition("__")[0]: set(dag.params) for dag_id, dag in dagbag.dags.items()}
    assert params == {
        "ingest": {"as_of", "force"},
        "correct": {"action", "file", "reason", "dry_run"},
        "train": {"as_of", "reason", "dry_run"},
        "score": {"as_of", "from", "to"},
        "monitor": {"as_of"},
        "rollback": {"as_of", "reason", "to_version", "dry_run"},
        "promote": set(),
        "mail": set(),
        "digest": {"as_of"},
        "silence": {"subject", "until", "reason"},
        "replay": {"from", "to", "policies"},
    }


def test_tasks_of_each_kind(dagbag: Any) -> None:
    """Each costs a process; what mostly has nothing to do comes last and is skipped without one."""
    tasks = {
        dag_id.partition("__")[0]: [t.task_id for t in dag.topological_sort()]
        for dag_id, dag in dagbag.dags.items()
    }
    assert tasks == {
        "ingest": ["land", "announce", "notify", "verdict"],
        "correct": ["correct", "announce", "notify"],
        "train": ["snapshot", "fit", "settle", "announce", "announce_challenger", "notify"],
        "promote": ["find", "ask", "decide", "announce", "notify"],
        "score": ["score"],
        "monitor": ["judge", "announce", "announce_rollback", "notify", "verdict"],
        "rollback": ["roll_back", "announce", "notify"],
        "mail": ["send_waiting"],
        "digest": ["owe", "send_digests"],
        "silence": ["silence"],
        "replay": ["replay"],
    }


def test_what_emits_which_asset(dagbag: Any) -> None:
    outlets = {
        f"{dag_id.partition('__')[0]}.{t.task_id}": [a.name for a in t.outlets]
        for dag_id, dag in dagbag.dags.items()
        if not dag_id.endswith("bike_rush")
        for t in dag.tasks
        if t.outlets
    }
    assert outlets == {
        "ingest.announce": ["dataset_bike_hourly"],
        "correct.announce": ["dataset_bike_hourly"],
        "train.announce": ["model_bike_demand"],
        "train.announce_challenger": ["challenger_bike_demand"],
        "promote.announce": ["model_bike_demand"],
        "score.score": ["predictions_bike_demand"],
        "monitor.announce": ["drift_bike_demand"],
        "monitor.announce_rollback": ["model_bike_demand"],
        "rollback.announce": ["model_bike_demand"],
    }


class Pushed:
    """The part of a task instance that `hand_on` uses."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values[key] = value


def test_what_has_nothing_to_do_is_skipped_and_the_result_is_kept() -> None:
    from evergreen_airflow import announcements

    ti, news = Pushed(), {"announce": False, "version": "7"}
    with pytest.raises(DownstreamTasksSkipped) as caught:
        announcements.hand_on({"ti": ti}, news, announce=False, notify=True, verdict=False)
    assert caught.value.tasks == ["announce", "verdict"]
    assert ti.values == {"return_value": news}
    assert announcements.hand_on({"ti": ti}, news, announce=True, notify=True) is news


# As a task starts: Airflow is there, then the one file is parsed. A fork for each, because Airflow takes seconds to import.
READS = """
import json, os, sys
read = []
sys.addaudithook(lambda event, args: read.append(str(args[0])) if event == "open" else None)
sys.path[:0] = ["dags", "include"]
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
for file, dag_id, asked in json.loads(sys.argv[1]):
    if os.fork():
        assert os.wait()[1] == 0, file
        continue
    with _airflow_parsing_context_manager(dag_id=dag_id, task_id="x"):
        parsed = __import__(file)
    from evergreen_airflow.project import Project
    if asked:
        getattr(Project(parsed.__file__), asked)(dag_id.partition("__")[2])
    dags = sorted(k for k in vars(parsed) if "__" in k and not k.startswith("_"))
    specs = sorted({p.rpartition("/")[2] for p in read if "/include/" in p and p.endswith((".yaml", ".sql"))})
    print(json.dumps([file, dags, specs]), flush=True)
    os._exit(0)
"""
OWN = {
    "train": ("train__bike_demand", "model", ["bike_demand.sql", "bike_demand.yaml", "bike_hourly.yaml"]),
    "monitor": ("monitor__bike_rush", "model", ["bike_hourly.yaml", "bike_rush.sql", "bike_rush.yaml"]),
    "ingest": ("ingest__bike_hourly", "dataset", ["bike_hourly.yaml"]),
}


@pytest.fixture(scope="module")
def parsed() -> dict[str, tuple[list[str], list[str]]]:
    """The DAGs that each file builds for a task, and the specs that are read for it; `score` for a task of another file."""
    asked = [(file, dag_id, what) for file, (dag_id, what, _) in OWN.items()]
    shown = subprocess.run(
        [sys.executable, "-c", READS, json.dumps([*asked, ("score", "train__bike_demand", "")])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in shown.stdout.splitlines() if line.startswith("[")]
    return {file: (dags, specs) for file, dags, specs in lines}


@pytest.mark.parametrize(("file", "dag_id", "own"), [(f, v[0], v[2]) for f, v in OWN.items()], ids=OWN.keys())
def test_a_task_builds_its_own_dag_and_reads_its_own_specs(
    parsed: dict[str, tuple[list[str], list[str]]], file: str, dag_id: str, own: list[str]
) -> None:
    assert parsed[file] == ([dag_id], own)


def test_a_task_of_another_file_builds_nothing_here(parsed: dict[str, tuple[list[str], list[str]]]) -> None:
    assert parsed["score"] == ([], [])


FORKED = """
import os, sys, evergreen_airflow.preload
threads = [t for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
print(sorted({{open(f"/proc/self/task/{{t}}/comm").read().strip() for t in threads}} - {{"jemalloc_bg_thd"}}))
print(sorted({wanted!r} - set(sys.modules)))
sys.stdout.flush()
if not os.fork():
    import numpy, xgboost
    rows = numpy.arange(2000.0).reshape(-1, 2)
    xgboost.train({{"nthread": 2}}, xgboost.DMatrix(rows, rows[:, 0]), 3)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_what_tasks_import_is_imported_before_the_fork_and_nothing_is_started() -> None:
    """A thread would be missing in the tasks, and a pool that had run would make their trainings hang.

    The allocator's own thread (of pyarrow's jemalloc) minds forks itself.
    """
    wanted = {
        node.module
        for path in (REPOSITORY / "include" / "evergreen_airflow").rglob("*.py")
        # Those are the scheduler's and the API server's.
        if path.name not in ("pools.py", "notes.py") and path.parent.name != "pages"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.col_offset and node.module
    }
    assert "evergreen.training.train" in wanted
    shown = subprocess.run(
        [sys.executable, "-c", FORKED.format(wanted=wanted)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2", "PYTHONPATH": "include"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # From Python 3.12 on a fork beside the allocator's thread is warned of, which Airflow logs to the same place.
    assert [line for line in shown.stdout.splitlines() if line.startswith("[")] == ["[]", "[]"]


RETRIES = {
    "our-transient": (TransientError("x"), "retry"),
    "lost-connection": (psycopg2.OperationalError("x"), "retry"),
    "refused": (ConnectionRefusedError("x"), "retry"),
    "mlflow-away": (requests.exceptions.ConnectionError("x"), "retry"),
    "our-terminal": (TerminalError("x", ErrorReason.BAD_BATCH), "fail"),
    "bug": (KeyError("x"), "fail"),
    "time-out": (AirflowTaskTimeout("x"), "fail"),
}


@pytest.mark.parametrize(("error", "action"), RETRIES.values(), ids=RETRIES.keys())
def test_only_what_may_pass_is_tried_again(dagbag: Any, error: BaseException, action: str) -> None:
    for dag in dagbag.dags.values():
        for task in dag.tasks:
            assert task.retry_policy.evaluate(error, 1, 4).action.value == action, task.task_id


def test_nightly_on_drift_and_by_hand(dagbag: Any) -> None:
    timetable = dagbag.dags["train__bike_demand"].timetable
    assert timetable.timetable.expression == "0 2 * * *"
    assert "drift_bike_demand" in repr(timetable.asset_condition)


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.path[:0] = ['dags', 'include']; import ingest, correct, train, promote, score, monitor, rollback, replay, specs, mail, digest, silence;"
        "heavy = {'pandas', 'numpy', 'xgboost', 'mlflow', 'evidently', 'great_expectations', 'sklearn', 'matplotlib', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip().splitlines()[-1] == "[]"


def test_a_bad_spec_switches_off_its_own_dags_and_is_shown(make_dagbag: Any, tmp_path: Path) -> None:
    for folder in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / folder, tmp_path / folder)
    bad = tmp_path / "models" / "bike_rush.yaml"
    bad.write_text(bad.read_text().replace("training:\n", "training:\n  wimdow: 3d\n"))
    bag = make_dagbag(tmp_path)
    assert "train__bike_demand" in bag.dags
    assert "train__bike_rush" not in bag.dags
    (message,) = bag.import_errors.values()
    assert "models/bike_rush.yaml: training.wimdow: unknown field; did you mean window?" in message


def test_airflow_starts_no_run_without_what_a_person_must_fill_in(dagbag: Any) -> None:
    from airflow.sdk.definitions.param import ParamsDict
    from airflow.sdk.exceptions import ParamValidationError

    def start(dag: Any, conf: dict[str, Any]) -> None:
        params = ParamsDict({name: deepcopy(dag.params.get_param(name)) for name in dag.params})
        params.update(conf)
        params.validate()

    given = {"rollback__bike_demand": {"reason": "x"}, "correct__bike_hourly": {"action": "withdraw", "file": "a.csv", "reason": "x"},
             "silence": {"subject": "model/bike_demand", "reason": "x"},
             "replay__bike_demand": {"from": "2025-06-02T00:00:00Z", "to": "2025-12-15T00:00:00Z"}}  # fmt: skip
    for dag_id, needed in given.items():
        dag = dagbag.dags[dag_id]
        for name in needed:
            others = {n: v for n, v in needed.items() if n != name}
            for wrong in ({}, {name: None}, {name: "  "}):
                with pytest.raises(ParamValidationError):
                    start(dag, {**others, **wrong})
        start(dag, needed)
    with pytest.raises(ParamValidationError):
        start(dagbag.dags["correct__bike_hourly"], {"action": "forget", "file": "a.csv", "reason": "x"})


def test_the_corrections_of_the_form_are_those_of_the_library(dagbag: Any) -> None:
    from evergreen.validation.undo import ACTIONS

    assert dagbag.dags["correct__bike_hourly"].params.get_param("action").schema["enum"] == list(ACTIONS)


YEARS = ["0001-01-01T00:00:00Z", "0202-05-01T00:00:00Z", "9999-12-31T23:59:59Z"]


@pytest.mark.parametrize("value", YEARS)
def test_no_run_is_started_with_a_time_that_no_data_has(dagbag: Any, value: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

    from evergreen_airflow import forms

    seen = 0
    for dag in dagbag.dags.values():
        for name in dag.params:
            param = deepcopy(dag.params.get_param(name))
            if param.schema.get("format") == "date-time":
                seen += 1
                with pytest.raises(ParamValidationError):
                    param.resolve(value)
                param.resolve("2026-05-01T02:00:00Z")
    assert seen > 10
    for given in (value, value.replace("Z", "+14:00"), value.replace("Z", "-12:00")):
        with pytest.raises(AirflowFailException, match="outside of the years 1900 to 2199"):
            forms.parse_time(given, "From")


def test_an_error_about_a_time_names_its_field() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from evergreen_airflow import forms

    with pytest.raises(AirflowFailException, match=r"^From: 'yesterday' is no ISO time"):
        forms.parse_time("yesterday", "From")
    assert forms.parse_time("", "From") is None


@pytest.mark.parametrize(
    ("dag_id", "field", "good", "bad"),
    [
        ("rollback__bike_demand", "to_version", (None, "", "3", " 12 "), ("v3", "latest", "-1")),
        ("silence", "until", ("now", "3d", "12 h", "2026-05-01", "2026-05-01T06:00Z"), ("soon", "", "3 days")),
    ],
)  # fmt: skip
def test_a_form_refuses_what_cannot_be_meant_before_the_run(
    dagbag: Any, dag_id: str, field: str, good: tuple[str | None, ...], bad: tuple[str, ...]
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    for value in good:
        deepcopy(dagbag.dags[dag_id].params.get_param(field)).resolve(value)
    for value in bad:
        with pytest.raises(ParamValidationError):
            deepcopy(dagbag.dags[dag_id].params.get_param(field)).resolve(value)
