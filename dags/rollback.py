"""
### Rollback: back to the model that really was champion before

**What.** Finds the last champion before the present one in the ledger (never "version minus one"), loads it, lets it
predict a probe from its own reference and compares, and only then moves the alias. The decision, its reason and who
asked are a row of the ledger.

**When.** By hand. The monitor does the same by itself when a new champion is worse than the one before it; only then the
challenger is blocked, a rollback by hand blocks nothing.

**Params.** *Reason*: required. *To version*: another version that was champion once. *Dry run*: say what would be
done.

**Then.** An event of the model's asset wakes the scoring; an e-mail tells everyone.

**How to recover.** A rollback is itself undone by a rollback with *To version*. If the earlier champion cannot be
loaded or its probe fails, nothing moves and the run says why.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import wiring
from evergreen.spec import ModelSpec


def build(dag_id: str, spec: ModelSpec) -> DAG:
    """Build the rollback DAG of a model."""
    with DAG(
        dag_id,
        description=f"Return {spec.name} to its previous champion",
        doc_md=wiring.doc(__doc__, spec),
        schedule=None,
        default_args=wiring.default_args(spec.owner),
        tags=["evergreen", "rollback", f"model:{spec.name}"],
        params={
            "reason": wiring.reason_param(required=True),
            "to_version": Param(
                None,
                type=["null", "string"],
                title="To version",
                description="A version that was champion once. Empty: the one before the present champion.",
            ),
            "as_of": wiring.as_of_param(),
            "dry_run": wiring.flag_param(
                "Dry run", "Check everything and say what would be done; move nothing."
            ),
        },
        **wiring.MODEL_DAG,
    ) as dag:

        @task
        def roll_back(**context: Any) -> dict[str, Any]:
            """Load and probe the earlier champion, write the decision, move the alias."""
            from evergreen.promotion.rollback import rollback

            params = context["params"]
            if not (params["reason"] or "").strip():
                raise AirflowFailException("a rollback needs a reason; fill the field Reason")
            found, model = wiring.model_and_specs(spec.name)
            as_of = wiring.as_of(context)
            decision = rollback(
                found,
                model,
                as_of,
                wiring.run_id(context),
                to_version=params["to_version"],
                reason=wiring.because(context),
                dry_run=params["dry_run"],
            )
            if params["dry_run"]:
                raise AirflowSkipException(f"dry run: would return to version {decision.version}")
            return {
                "announce": wiring.owed(f"model/{spec.name}", True, as_of),
                "as_of": as_of.isoformat(),
                "version": decision.version,
                "decision_id": decision.id,
            }

        done = roll_back()
        wiring.announce(wiring.model_asset(spec.name), unless="nothing was rolled back")(done)
        done >> wiring.notify(f"model/{spec.name}")
    return dag


for _dag_id, _spec in wiring.wanted("rollback"):
    globals()[_dag_id] = build(_dag_id, _spec)
