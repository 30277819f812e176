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

from evergreen.spec import ModelSpec
from evergreen_airflow import forms, notes
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.pools import pool
from evergreen_airflow.project import Project, doc


def _time_param(title: str, description: str) -> Param:
    return forms.required_param(**forms.TIME, title=title, description=description)


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the replay DAG of a model."""
    callbacks = Callbacks(project)
    with DAG(
        dag_id,
        description=f"Compare retraining policies of {spec.name} over past time",
        doc_md=doc(__doc__, spec),
        schedule=None,
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "replay", f"model:{spec.name}"],
        params={
            "from": _time_param(
                "From",
                "As-of time of the first champion; moved up to the start of a window. One that is too early is refused before "
                "anything is fitted, and the error names the earliest that works.",
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
        **callbacks.model_dag(),
    ) as dag:

        @task(execution_timeout=timedelta(hours=4), pool=pool("training"))
        def replay(**context: Any) -> dict[str, Any]:
            """Replay all policies and write the table, the picture and the page."""
            import logging

            from evergreen.replay.run import replay as replay_policies
            from evergreen.warehouse.storage import progress_store

            log = logging.getLogger("evergreen")
            params = context["params"]
            begin, end = (forms.parse_time(params[n.lower()], n) for n in ("From", "To"))
            if begin is None or end is None:
                raise AirflowFailException("From, To: a replay needs a time range; fill both fields")
            found, model = project.model(spec.name)
            done = replay_policies(found, model, begin, end, list(params["policies"]), say=log.info)
            log.info("%s", done.table)
            count = (
                f"{len(done.outcomes)} policies compared" if len(done.outcomes) != 1 else "1 policy replayed"
            )
            return {
                "message": notes.tell(
                    context, f"{count}; the page is {progress_store.where(done.files['page'])}"
                ),
                "files": {name: progress_store.where(path) for name, path in done.files.items()},
                "policies": [outcome.totals() for outcome in done.outcomes],
            }

        replay()
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("replay")}
