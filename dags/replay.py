"""
### Replay: what would each retraining policy have come to?

**What.** Runs the model's loop over past time under several policies, with the functions that the live loop uses, and each
decision sees only what had arrived by then. Writes a table, a picture and a page that holds both, with the served error
over time, retrains, alarms, rejections, rollbacks and fit seconds of each policy, below `EVERGREEN_HOME/replays/MODEL/`.
Nothing is written to the warehouse, the ledger or MLflow.

**When.** By hand, before a trigger or a schedule is changed. It takes the time of the fits: 200 windows of the bike data
under five policies take minutes on two cores.

**Params.** *From*: the as-of time of the first champion; an error names the earliest that works. *To*: the end; labels that
had arrived by then make the table. *Policies*: `never`, `every_window`, `weekly`, `on_drift` (the model's own trigger),
`every:14d`, `even:K`, `random:K:SEED`, or the path of a changed spec of the model.

**Then.** The task's result names the files and has the totals; the log has the table.

**How to recover.** Clear the task, or start a run with the same Params: it goes on after the last finished window.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException

import wiring
from evergreen.spec import ModelSpec


def _time_param(title: str, description: str) -> Param:
    return wiring.required_param(**wiring.TIME, title=title, description=description)


def build(dag_id: str, spec: ModelSpec) -> DAG:
    """Build the replay DAG of a model."""
    with DAG(
        dag_id,
        description=f"Compare retraining policies of {spec.name} over past time",
        doc_md=wiring.doc(__doc__, spec),
        schedule=None,
        default_args=wiring.default_args(spec.owner),
        tags=["evergreen", "replay", f"model:{spec.name}"],
        params={
            "from": _time_param(
                "From", "As-of time of the first champion; moved up to the start of a window."
            ),
            "to": _time_param("To", "End of the replay; moved down to the end of a window."),
            "policies": Param(
                ["never", "every_window", "weekly", "on_drift"],
                type="array",
                items={"type": "string"},
                title="Policies",
                description="One a line: never, every_window, weekly, on_drift, every:14d, even:K, random:K:SEED, or the path "
                "of a changed spec of the model.",
            ),
        },
        **wiring.MODEL_DAG,
    ) as dag:

        @task(execution_timeout=timedelta(hours=4), pool=wiring.pool("training"))
        def replay(**context: Any) -> dict[str, Any]:
            """Replay all policies and write the table, the picture and the page."""
            import logging

            from evergreen.replay.run import replay as replay_policies
            from evergreen.warehouse.storage import progress_store

            log = logging.getLogger("evergreen")
            params = context["params"]
            begin, end = (wiring.parse_time(params[n]) for n in ("from", "to"))
            if begin is None or end is None:
                raise AirflowFailException("a replay needs a time range; fill the fields From and To")
            found, model = wiring.model_and_specs(spec.name)
            done = replay_policies(found, model, begin, end, list(params["policies"]), say=log.info)
            log.info("%s", done.table)
            return {
                "files": {name: progress_store.where(path) for name, path in done.files.items()},
                "policies": [outcome.totals() for outcome in done.outcomes],
            }

        replay()
    return dag


for _dag_id, _spec in wiring.wanted("replay"):
    globals()[_dag_id] = build(_dag_id, _spec)
