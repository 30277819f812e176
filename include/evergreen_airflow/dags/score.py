"""
### Score: the champion predicts the rows that have no prediction yet

**What.** Runs the feature query as of a time and writes the champion's predictions to `evergreen.prediction`, with
key, event time and the version that made them, in chunks of bounded size. Doing it again changes nothing. For the spec's
`watch.period` after a promotion the previous champion predicts the same rows into `evergreen.shadow_prediction`: it is
never served, the monitor compares the two.

**When.** After new data, after a change of champion, on the spec's schedule (which finds what an event that got lost
would have told), and by hand for a range.

**Params.** *As of*: what was known by then is scored. *From*, *To*: score every row of this event-time range with
the present champion, also rows that have predictions of earlier versions (those are kept; what was served stays).

**Then.** An event of the predictions' asset wakes the monitor. Where every row has its prediction, the run says so and
there is no event.

**How to recover.** Clear the task; it goes on with the rows that are still missing. Without a champion there is nothing
to score with: run `train__MODEL` first. A previous champion that cannot be loaded does not stop the scoring; the log and the
result (`shadow`) say why it has no shadow.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, Param, task

from evergreen.spec import ModelSpec
from evergreen_airflow import announcements, assets, forms, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.pools import pool
from evergreen_airflow.project import Project, doc
from evergreen_airflow.schedules import schedule

log = logging.getLogger("evergreen")


def _time_param(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        **forms.TIME,
        title=title,
        description=description,
    )


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the scoring DAG of a model."""
    callbacks = Callbacks(project)
    predictions = assets.predictions_asset(spec.name)
    # The task succeeds where there is nothing to score, and then has no event: an alias has one only where it is given one.
    news_of = AssetAlias(predictions.name)
    with DAG(
        dag_id,
        description=f"Batch predictions of {spec.name}",
        doc_md=doc(__doc__, spec),
        schedule=schedule(
            spec.scoring.schedule,
            *map(assets.dataset_asset, spec.datasets),
            assets.model_asset(spec.name),
        ),
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "score", f"model:{spec.name}"],
        params={
            "as_of": forms.as_of_param(),
            "from": _time_param("From", "First event time of a range to score again."),
            "to": _time_param("To", "End of that range (excluded)."),
        },
        **callbacks.model_dag(),
    ) as dag:

        @task(
            execution_timeout=timedelta(hours=4),
            pool=pool("judging"),
            outlets=[news_of],
            on_success_callback=[callbacks.report_success, announcements.forget_event(predictions, news_of)],
        )
        def score(**context: Any) -> dict[str, Any]:
            """Write the champion's predictions for every row that lacks one."""
            from evergreen import ledger, lineage
            from evergreen.scoring.score import score as score_rows
            from evergreen.warehouse.connection import connect

            found, model = project.model(spec.name)
            as_of = runs.as_of(context)
            with connect() as conn:
                none_yet = not ledger.champions(conn, model.name, as_of)
            if none_yet and runs.run_type(context) != "manual":
                message = f"nothing to score with: no champion yet, run train__{model.name} first"
                log.info("%s: %s", model.name, notes.tell(context, message))
                return {"message": message, "as_of": as_of.isoformat(), "rows": 0, "version": None}
            start, end = (forms.parse_time(context["params"][n.lower()], n) for n in ("From", "To"))
            with lineage.score(runs.task_run(context, as_of), found, model) as told:
                told.outcome = result = score_rows(
                    found, model, as_of, runs.run_id(context), start=start, end=end
                )
            shadowed = result.shadow.rows if result.shadow else 0
            # A run that was killed may have written some; a skipped task emits no event.
            event = announcements.owed(f"predictions/{model.name}", bool(result.rows or shadowed), as_of)
            news = {
                "message": notes.tell(context, result.sentence()),
                "as_of": event["as_of"],
                "upto": event["upto"],
                "rows": result.rows,
                "version": result.version,
                "unseen": result.unseen,
                "shadow": result.to_dict()["shadow"],
            }
            if event["due"]:
                context["outlet_events"][news_of].add(predictions, extra=news)
            return news

        score()
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("score")}
