"""
### Monitor: is the champion still right about the world?

**What.** Judges each complete window once, and again when late labels arrive: freshness and volume first, then input
drift, prediction drift and, where labels are in, the served error, each against the champion's own reference.
Evidently computes and draws; the report is kept with the model in MLflow, its numbers in PostgreSQL. The trigger
policy may then open a retrain request.

**When.** On the spec's schedule, after scoring, and by hand.

**Params.** *As of*: windows that were complete by then are judged.

**Then.** An open request emits the drift asset, which wakes the training; a mail goes out, one per incident. Without
one `announce` and `notify` are skipped.

**How to recover.** Clear the failed task; a window that was judged is not judged twice. "Stale" or "insufficient" is
never "healthy": look at the data first (`ingest__DATASET`), a retraining does not help there.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

import wiring
from evergreen.spec import ModelSpec


def build(dag_id: str, spec: ModelSpec) -> DAG:
    """Build the monitoring DAG of a model."""
    subject = f"model/{spec.name}"
    with DAG(
        dag_id,
        description=f"Freshness, drift and performance of {spec.name}",
        doc_md=wiring.doc(__doc__, spec),
        schedule=wiring.schedule(spec.monitoring.schedule, wiring.predictions_asset(spec.name)),
        default_args=wiring.default_args(spec.owner),
        tags=["evergreen", "monitor", f"model:{spec.name}"],
        params={"as_of": wiring.as_of_param()},
        **wiring.MODEL_DAG,
    ) as dag:

        @task
        def judge(**context: Any) -> dict[str, Any]:
            """Judge every complete window that was not judged with these labels, then apply the trigger policy.

            The decision is a ledger row; announce and notify are skipped where there is nothing for them to do.
            """
            from evergreen import ledger
            from evergreen.monitoring.judge import judge as judge_windows
            from evergreen.monitoring.policy import apply, wake
            from evergreen.warehouse.connection import connect

            found, model = wiring.model_and_specs(spec.name)
            as_of = wiring.as_of(context)
            with connect() as conn:
                if not ledger.champions(conn, model.name, as_of):
                    raise AirflowSkipException(
                        f"{model.name} has no champion yet; run train__{model.name} first"
                    )
            judged = judge_windows(found, model, as_of, wiring.run_id(context))
            decision = apply(model, as_of, wiring.run_id(context))
            announce, request = wake(model, decision, as_of)
            return wiring.hand_on(
                context,
                {
                    "announce": announce,
                    "as_of": as_of.isoformat(),
                    "windows": [f"{j.window_start:%Y-%m-%d %H:%M} {j.status}" for j in judged],
                    "decision": decision.kind.value if decision else None,
                    "request": request,
                },
                announce=announce,
                notify=wiring.mails_wait(subject),
            )

        judged = judge()
        wiring.announce(
            wiring.drift_asset(spec.name),
            unless="no retrain request is open, or its training has just failed",
        )(judged)
        judged >> wiring.notify(subject)
    return dag


for _dag_id, _spec in wiring.wanted("monitor"):
    globals()[_dag_id] = build(_dag_id, _spec)
