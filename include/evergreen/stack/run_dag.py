"""`evergreen run`: start a DAG by hand, show its tasks as they go, and say what came out or what went wrong."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import requests

from evergreen import dag_kinds, ledger, settings
from evergreen.errors import EvergreenError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence, TrainedEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.program import typed
from evergreen.spec import Specs, load_specs
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import StackError
from evergreen.warehouse.connection import connect

Say = Callable[[str], None]
WAIT_S = 3600.0
DONE = ("success", "failed", "skipped", "upstream_failed", "removed")
MOST_LINES = 20


def run(api: AirflowApi, dag_id: str, texts: Iterable[str], say: Say) -> bool:
    """Start a DAG with Params, wait for its end and tell what became of it.

    Args:
        api: a logged-in client.
        dag_id: such as `train__bike_demand`.
        texts: Params as `name=value`; a part without `=` goes on with the one before (make splits at spaces).
        say: gets each line.

    Returns:
        Whether the run succeeded.

    Raises:
        StackError: there is no such DAG or Param, one that is required is missing, or the run does not end.
    """
    try:
        require_dag(api, dag_id)
        conf = params(dag_id, texts, dict(api.call("GET", f"dags/{dag_id}/details")["params"]))
        run_id = api.trigger(dag_id, conf)
        api.pause(dag_id, False)
        say(f"{api.url}/dags/{dag_id}/runs/{run_id}")
        state = follow(api, dag_id, run_id, say)
        for line in outcome_lines(api, dag_id, run_id) or ["There was nothing to do."]:
            say(line)
    except (EvergreenError, requests.HTTPError) as error:
        raise StackError(str(error)) from error
    say(f"{dag_id}: {state}")
    return state == "success"


def require_dag(api: AirflowApi, dag_id: str) -> None:
    """Refuse a DAG that the specs do not make; wait for one that Airflow has not parsed yet.

    Raises:
        StackError: there is none; the message has those with similar names, or what is wrong with its spec.
        TransientError: it does not appear.
    """
    known = api.dag_ids()
    if dag_id in known:
        return
    specs = load_specs(settings.specs_folder())
    expected = dags_of(specs)
    if dag_id not in expected:
        name = dag_id.partition("__")[2]
        wrong = [str(p) for p in specs.problems if name and name in str(p)]
        raise StackError(
            "\n".join([f"There is no DAG {dag_id!r}{_near(dag_id, known | expected)}", *wrong])
            if dag_id
            else f"Name a DAG, such as {typed('run ingest__bike_hourly', 'run DAG=ingest__bike_hourly')}; there are: {', '.join(sorted(known | expected))}."
        )
    api.wait_for_dags({dag_id})


def dags_of(specs: Specs) -> set[str]:
    """The DAGs that the specs make."""
    return {
        *dag_kinds.SHARED, *(f"{kind}__{name}" for name in specs.datasets for kind in dag_kinds.OF_DATASETS),
        *(f"{kind}__{name}" for name in specs.models for kind in dag_kinds.OF_MODELS),
    }  # fmt: skip


def params(dag_id: str, texts: Iterable[str], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The Params of a run as Airflow takes them.

    Args:
        dag_id: for messages.
        texts: see `run`.
        known: the DAG's Params, each with `value` (its default) and `schema`, as Airflow's API gives them.

    Raises:
        StackError: a text that is no Param of this DAG, or one that a person must fill in and did not.
    """
    joined: list[str] = []
    for part in texts:
        if "=" in part or not joined:
            joined.append(part)
        else:
            joined[-1] += f" {part}"
    found = {}
    for text in joined:
        name, equals, value = text.partition("=")
        if not equals:
            raise StackError(f"{text!r} is no Param; write name=value, such as reason=test.")
        if name not in known:
            raise StackError(f"{dag_id} has no Param {name!r}{_near(name, known)}")
        found[name] = _value(name, value, known[name]["schema"])
    for name, param in known.items():
        required = param["value"] is None and "null" not in _types(param["schema"])
        if required and not str(found.get(name) or "").strip():
            why = str(param.get("description") or "").rstrip(".")
            raise StackError(
                f"{dag_id} needs {name}: {why}. Add it: {typed(f'run {dag_id} {name}=...', f'run DAG={dag_id} PARAMS={name}=...')}. Nothing was started."
            )
    return found


def _types(schema: dict[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _value(name: str, text: str, schema: dict[str, Any]) -> Any:
    kinds = _types(schema)
    if "boolean" in kinds:
        if text.lower() not in ("true", "false"):
            raise StackError(f"{name}={text}: write {name}=true or {name}=false.")
        return text.lower() == "true"
    if "array" in kinds:
        return [part.strip() for part in text.split(",") if part.strip()]
    if not text and "null" in kinds:
        return None
    if schema.get("format") == "date-time" and not re.search(schema.get("pattern", ""), text):
        raise StackError(
            f"{name}={text}: write a time of the years 1900 to 2199, such as {name}=2026-05-01T02:00:00Z. Nothing was started."
        )
    choices = schema.get("enum")
    if choices and text not in choices:
        raise StackError(f"{name}={text}: there is no such choice{_near(text, [c for c in choices if c])}")
    return text


def _near(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are: {', '.join(known) or 'none'}."


def follow(api: AirflowApi, dag_id: str, run_id: str, say: Say, timeout_s: float = WAIT_S) -> str:
    """Wait for the end of a run, telling each change of a task, and return its state.

    Raises:
        TransientError: it has not ended in time.
    """
    started, seen = time.monotonic(), dict[str, str | None]()
    while True:
        state = str(api.run(dag_id, run_id)["state"])
        for task, how in api.tasks(dag_id, run_id).items():
            if how != seen.get(task) and how in ("running", "up_for_retry", "awaiting_input", *DONE):
                elapsed = timedelta(seconds=int(time.monotonic() - started))
                note = {
                    "up_for_retry": "failed and is tried again",
                    "awaiting_input": "waits for a person, on the run's page",
                }
                say(f"  [{elapsed}] {task:18} {note.get(str(how), how)}")
            seen[task] = how
        if state in ("success", "failed"):
            return state
        if time.monotonic() > started + timeout_s:
            raise TransientError(
                f"{dag_id} {run_id} is still {state} after {timeout_s:.0f} s and goes on; its page shows how it ends"
            )
        time.sleep(0.5)


def outcome_lines(api: AirflowApi, dag_id: str, run_id: str) -> list[str]:
    """What a run that has ended came to: the errors of its tasks, why one was skipped, and its rows of the ledger."""
    lines = []
    tasks = api.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    for task in tasks:
        if task["state"] not in ("failed", "skipped") or not task["try_number"]:
            continue  # what never ran has nothing to say
        why = reason(api, task)
        lines.append(f"{task['task_id']} {task['state']}: {why}")
        if task["state"] == "failed":
            page = f"{api.url}/dags/{dag_id}/runs/{run_id}/tasks/{task['task_id']}?try_number={task['try_number']}"
            lines.append(f"  Log: {page}")
            lines.append("  Mend what the error names; then clear the task there, or run the DAG again.")
    lines += outcome(dag_id, run_id)
    for task in tasks:
        if task["state"] == "success":
            lines += result(api, task)
    return lines[: 2 * MOST_LINES]


def reason(api: AirflowApi, task: dict[str, Any]) -> str:
    """Why a task failed or was skipped, from the end of its log."""
    path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
    try:
        answer = api.call("GET", path, params={"full_content": True}, headers={"Accept": "application/json"})
    except (EvergreenError, requests.HTTPError) as error:
        return f"its log cannot be read ({error})"
    for event in reversed(answer["content"]):
        if not isinstance(event, dict):
            continue
        if detail := event.get("error_detail"):
            return f"{detail[0]['exc_value']} ({detail[0]['exc_type']})"
        if event.get("event") == "Skipping task.":
            return str(event.get("reason", ""))
        if signal := event.get("signal_name"):
            return f"its process was killed by {signal}, mostly for want of memory"
    return "its log does not say why"


def outcome(dag_id: str, run_id: str) -> list[str]:
    """The decisions of a run in words, oldest first; nothing where the warehouse does not answer."""
    try:
        with connect(timeout_s=10) as conn:
            found = ledger.of_run(conn, f"{dag_id}/{run_id}")
    except EvergreenError as error:
        return [f"The ledger cannot be read: {error}"]
    lines = [line for decision in found for line in said(decision)]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} more lines in evergreen.decision"]
    return lines


def said(decision: Decision) -> list[str]:
    """One decision as lines: what was decided, its numbers against their limits."""
    if decision.kind in (DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_QUARANTINED):
        batch = BatchEvidence.shown(decision)
        how = "published" if decision.kind is DecisionKind.BATCH_PUBLISHED else "quarantined"
        counts = f"{batch.rows_read} rows, {batch.rows_new} new, {batch.rows_changed} changed, {batch.rows_held} held back"
        lines = [f"{batch.file}: {how} ({decision.reason}): {counts}"]
        for failure in batch.failures[:5]:
            where = f"{failure.column}: " if failure.column else ""
            lines.append(
                f"  {where}{failure.expectation}: {failure.observed}, expected {failure.limit}. {failure.remedy}"
            )
        return lines
    if decision.kind is DecisionKind.RUN_FAILED:
        return []  # the task's own error stands above
    version = f"version {decision.version}: " if decision.version else ""
    lines = [f"{version}{decision.kind.value.replace('_', ' ')} ({decision.reason})"]
    if isinstance(decision.evidence, TrainedEvidence) and (metric := decision.evidence.metric):
        values = {
            who: value
            for who in ("challenger", "champion", "baseline")
            if (value := decision.evidence.metrics.get(who, {}).get(metric)) is not None
        }
        if values:
            lines.append(f"  {metric}: " + ", ".join(f"{who} {value:.4g}" for who, value in values.items()))
    if told := decision.evidence.sentence():
        lines.append(f"  {told}")
    return lines


def result(api: AirflowApi, task: dict[str, Any]) -> list[str]:
    """What a task that lands, scores, judges or replays handed on, which no decision tells."""
    if task["task_id"] not in ("land", "score", "judge", "replay"):
        return []
    path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/xcomEntries/return_value"
    try:
        value = api.call("GET", path)["value"]
    except (EvergreenError, requests.HTTPError):
        return []
    if not isinstance(value, dict):
        return []
    if task["task_id"] == "land":
        waits = list((value.get("waiting") or {}).items())
        more = [f"and {len(waits) - MOST_LINES} more files wait"] if len(waits) > MOST_LINES else []
        return [
            f"{file}: waits, {why}; the next run takes it when it is finished"
            for file, why in waits[:MOST_LINES]
        ] + more
    if task["task_id"] == "score":
        return [f"{value['rows']} predictions by version {value['version']} as of {value['as_of']}"]
    if task["task_id"] == "judge":
        windows = value.get("windows") or ["no window was due"]
        return [
            *(f"window {w}" for w in windows[:MOST_LINES]),
            f"retrain request: {value.get('request') or 'none open'}",
        ]
    return [f"{name}: {path}" for name, path in value.get("files", {}).items()]
