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
from airflow.sdk.exceptions import AirflowFailException

from evergreen.spec import ModelSpec
from evergreen_airflow import announcements, assets, forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project, doc


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the rollback DAG of a model."""
    callbacks = Callbacks(project)
    with DAG(
        dag_id,
        description=f"Return {spec.name} to its previous champion",
        doc_md=doc(__doc__, spec),
        schedule=None,
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "rollback", f"model:{spec.name}"],
        params={
            "reason": forms.reason_param(required=True),
            "to_version": Param(
                None,
                type=["null", "string"],
                pattern=r"^\s*\d*\s*$",
                title="To version",
                description="The number of a version that was champion once, as the mails and MLflow have it. Empty: the one before "
                "the present champion.",
            ),
            "as_of": forms.as_of_param(),
            "dry_run": forms.flag_param(
                "Dry run", "Check everything and say what would be done; move nothing."
            ),
        },
        **callbacks.model_dag(),
    ) as dag:

        @task
        def roll_back(**context: Any) -> dict[str, Any]:
            """Load and probe the earlier champion, write the decision, move the alias."""
            from evergreen.promotion.rollback import rollback

            params = context["params"]
            if not (params["reason"] or "").strip():
                raise AirflowFailException("Reason: a rollback needs one; fill the field")
            found, model = project.model(spec.name)
            as_of = runs.as_of(context)
            decision = rollback(
                found,
                model,
                as_of,
                runs.run_id(context),
                to_version=(params["to_version"] or "").strip() or None,
                reason=runs.because(context),
                dry_run=params["dry_run"],
            )
            if params["dry_run"]:
                message = notes.tell(context, f"dry run: would return to version {decision.version}")
                nothing = {"announce": {"due": False}, "message": message}
                return announcements.hand_on(context, nothing, announce=False, notify=False)
            return {
                "message": notes.tell(
                    context, f"version {decision.version} is champion again: {runs.because(context)}"
                ),
                "announce": announcements.owed(f"model/{spec.name}", True, as_of),
                "as_of": as_of.isoformat(),
                "version": decision.version,
                "decision_id": decision.id,
            }

        done = roll_back()
        announcements.announce(callbacks, assets.model_asset(spec.name), unless="nothing was rolled back")(
            done
        )
        done >> mailing.notify(project, f"model/{spec.name}")
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("rollback")}
