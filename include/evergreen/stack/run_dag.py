"""A DAG started by hand: what is refused before it starts, and its tasks as they go."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from evergreen import dag_kinds, settings
from evergreen.errors import TransientError
from evergreen.program import typed
from evergreen.spec import Specs, load_specs
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import StackError

Say = Callable[[str], None]
WAIT_S = 3600.0
SAID = {
    "running": "works", "success": "done", "skipped": "not needed", "failed": "failed", "up_for_retry": "failed and is tried again",
    "upstream_failed": "not reached, because of what failed", "removed": "is no part of the DAG any more",
    "awaiting_input": "waits for a person, on the run's page",
}  # fmt: skip
"""The states of a task that a person is told, in words."""


def begin(api: AirflowApi, dag_id: str, texts: Iterable[str]) -> str:
    """Start a DAG with Params; returns the id of the run.

    Args:
        api: a logged-in client.
        dag_id: such as `train__bike_demand`.
        texts: Params as `name=value`; a part without `=` goes on with the one before (make splits at spaces).

    Raises:
        StackError: there is no such DAG or Param, or one that is required is missing.
        TransientError: Airflow does not answer.
        requests.HTTPError: it answers with an error.
    """
    require_dag(api, dag_id)
    conf = params(dag_id, texts, dict(api.call("GET", f"dags/{dag_id}/details")["params"]))
    run_id = api.trigger(dag_id, conf)
    api.pause(dag_id, False)
    return run_id


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
            if how != seen.get(task) and how in SAID:
                elapsed = timedelta(seconds=int(time.monotonic() - started))
                say(f"  [{elapsed}] {task:18} {SAID[how]}")
            seen[task] = how
        if state in ("success", "failed"):
            return state
        if time.monotonic() > started + timeout_s:
            raise TransientError(
                f"{dag_id} {run_id} is still {state} after {timeout_s:.0f} s and goes on; its page shows how it ends"
            )
        time.sleep(0.5)
