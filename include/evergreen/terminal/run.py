"""`evergreen run DAG`: start a DAG by hand, show its tasks as they go, and end with what came out or why nothing did."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests

from evergreen import settings
from evergreen.errors import EvergreenError
from evergreen.health.told import in_short
from evergreen.program import typed
from evergreen.spec import load_specs
from evergreen.stack import run_dag
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import StackError
from evergreen.terminal import as_json, outcome, place
from evergreen.terminal.outcome import Outcome
from evergreen.terminal.page import Page


def main(argv: list[str] | None = None) -> int:
    """Run it; returns 0 only if the run succeeded."""
    parser = place.parser(
        "run",
        "Trigger a DAG of the embedded stack, wait for its end, and say what came out or what went wrong.",
        'run train__bike_demand reason="a sensor moved"',
    )
    parser.add_argument("dag", help="such as ingest__bike_hourly")
    parser.add_argument("param", nargs="*", help="Params as name=value, such as as_of=2026-05-01T02:00:00Z")
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options.dag, options.param, options.home, options.json))


def _run(dag_id: str, texts: list[str], home: Path | None, as_text: bool) -> int:
    layout = place.find(home, all_of_it=True)
    if layout is None:
        raise StackError(
            f"No stack was ever up here, so there is no Airflow that could run it; {typed('up')} starts one."
        )
    # Needs what only the stack needs, which may not be installed where there is none.
    from evergreen.stack import control

    login = control.login(layout.home)
    api = AirflowApi(login.airflow_url, login.user, login.airflow_password)
    page, progress, started = Page(), Page(sys.stderr if as_text else None), time.monotonic()
    try:
        run_id = run_dag.begin(api, dag_id, texts)
        address = f"{api.url}/dags/{dag_id}/runs/{run_id}"
        progress.line(address)
        state = run_dag.follow(api, dag_id, run_id, progress.indented)
        specs = load_specs(settings.specs_folder())
        found = outcome.of_run(api, specs, dag_id, run_id, layout.logs / "airflow")
    except (EvergreenError, requests.HTTPError) as error:
        raise StackError(str(error)) from error
    good, spent = state == "success", timedelta(seconds=int(time.monotonic() - started))
    if as_text:
        print(as_json.text(_json(dag_id, run_id, address, good, found)))
    else:
        page.head(f"{dag_id} {'is done' if good else 'failed'} after {spent}")
        tell(page, found)
    return 0 if good else 1


def tell(page: Page, found: Outcome) -> None:
    """What came out."""
    told = outcome.lines(found)
    for line in told or ["There was nothing to do."]:
        page.indented(f"  {line}")


def _json(dag_id: str, run_id: str, address: str, good: bool, found: Outcome) -> dict[str, Any]:
    return {
        "dag": dag_id,
        "run": run_id,
        "page": address,
        "succeeded": good,
        "failed": found.failed,
        "not_needed": [{"task": task, "why": why} for task, why in found.not_needed],
        "decisions": [in_short(d) for d in found.decisions],
        "mails": found.mails,
        "results": found.results,
        "unread": found.unread,
    }
