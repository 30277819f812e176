"""
### Promote: a person approves a challenger before it is champion

**What.** For a model whose spec says `gate.approval: manual`, and for any other one whose champion cannot be evaluated any
more (`champion_cannot_be_evaluated`). A challenger that passed the gate waits in the ledger;
this DAG asks about it on Airflow's page of required actions: metrics of challenger, champion and baseline on the same
rows, every check of the gate with its numbers, links to MLflow. The answer, who gave it and the comment are a row of the
ledger.

**When.** When a training leaves a challenger that waits (the asset wakes this DAG), and with `gate.approval: manual` every
hour, so that no challenger is forgotten whose event was lost or whose run was ended. Unlike other DAGs it is not paused when it
is new. The e-mail is sent when the question is on its page, and a quarter of an hour later where no run asks. A run that finds
nothing to ask ends at once. Waiting takes no
worker: the task is parked (`awaiting_input`), and it holds up neither trainings nor other runs.

**Params.** None. The page has *Comment*: why.

**Then.** *Approve*: the challenger is champion, if the champion is still the one that the gate compared with; the model's
asset wakes the scoring. *Reject*, or no answer within `gate.approval_timeout`: it is rejected. Either way an e-mail tells,
and the retrain requests that it answers are closed. A newer challenger that passes takes the place of one that waits;
an answer to the older one changes nothing then.

**How to recover.** Clear the failed task: there is one decision for each version, whoever asks again. A run that was ended
by mistake is replaced within an hour.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, task

from evergreen.spec import ModelSpec
from evergreen_airflow import announcements, assets, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project, doc
from evergreen_airflow.schedules import schedule

log = logging.getLogger("evergreen")

APPROVE, REJECT = "Approve", "Reject"
OVER = {"success", "failed", "skipped", "upstream_failed", "removed"}
# A run that waits is no work; superseded challengers wait beside the newest until they are answered or their time is up.
MOST_AT_ONCE = 16


class AskPerson(HITLOperator):
    """Show a challenger and wait for *Approve* or *Reject* as long as its time lasts, whenever this run began to ask."""

    def __init__(self, *, project: Project, **more: Any) -> None:
        super().__init__(**more)
        self.project = project

    def execute(self, context: Any) -> Any:
        """Ask, and send the mail that says so; the task is parked until there is an answer or none can count any more."""
        self.notifiers = [self._mail]  # type: ignore[list-item]  # any callable; called when the question is on its page
        until = datetime.fromisoformat(context["ti"].xcom_pull(task_ids="find")["until"])
        self.response_timeout = max(until - datetime.now(UTC), timedelta(seconds=1))
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """The answer; `by` is null where Airflow answered because nobody did."""
        found = super().execute_complete(context, event)
        user = found["responded_by_user"]
        return {
            "approved": found["chosen_options"] == [APPROVE],
            "by": (user["name"] or user["id"]) if user and not event.get("timedout") else None,
            "at": found["responded_at"].isoformat(),
            "comment": str(found["params_input"].get("comment") or ""),
        }

    def _mail(self, context: Any) -> None:
        """Send the mail that names the page; without a mail server the question stands nonetheless, and the mail waits."""
        try:
            mailing.deliver(self.project, f"model/{context['dag'].dag_id.partition('__')[2]}")
        except Exception:
            log.exception("the mail about the question could not be sent; the DAG mail tries again")


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the approval DAG of a model."""
    callbacks = Callbacks(project)
    subject = f"model/{spec.name}"
    with DAG(
        dag_id,
        description=f"A person approves the next champion of {spec.name}",
        doc_md=doc(__doc__, spec),
        # Where a person is asked only if the champion is lost, an event that was lost is told again by the next training.
        schedule=schedule(
            "47 * * * *" if spec.gate.approval == "manual" else None, assets.challenger_asset(spec.name)
        ),
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "promote", f"model:{spec.name}"],
        # It only asks, and the training that it asks about was unpaused by a person.
        is_paused_upon_creation=False,
        **{
            **callbacks.model_dag(),
            "max_active_runs": MOST_AT_ONCE,
            "dagrun_timeout": spec.gate.approval_timeout + timedelta(hours=8),
        },
    ) as dag:

        @task
        def find(**context: Any) -> dict[str, Any]:
            """Look for a challenger that waits, and that no other run asks about.

            One whose time is long over is rejected here, without asking.
            """
            from evergreen import ledger
            from evergreen.warehouse.connection import connect

            with connect() as conn:
                waiting = ledger.awaiting_approval(conn, spec.name)
            if waiting is None:
                message = notes.tell(context, "no challenger waits for approval")
                return announcements.hand_on(
                    context, {"message": message, "waiting": None}, ask=False, decide=False
                )
            # Heavy, and mostly nothing waits.
            from evergreen.alerting.approval_page import page
            from evergreen.promotion import approval

            found, model = project.model(spec.name)
            run = runs.run_id(context)
            late = approval.expire(model, datetime.now(UTC), run)
            if late is not None:
                return announcements.hand_on(context, {"version": late.version}, ask=False, decide=True)
            with connect() as conn:
                asking = approval.asking(conn, waiting)
            other = asking if asking is not None and asking.run_id != run else None
            mine = other is None or not _still_asks(context["ti"], other.run_id)
            with connect() as conn:
                if mine and (asking is None or other is not None):
                    mine = approval.ask(conn, waiting, run, instead_of=other)
                if not mine:
                    message = notes.tell(context, f"another run asks about version {waiting.version}")
                    return announcements.hand_on(
                        context, {"message": message, "waiting": waiting.version}, ask=False, decide=False
                    )
                headline, body = page(conn, found, waiting)
            return {
                "message": notes.tell(context, f"version {waiting.version} waits for a person"),
                "version": waiting.version,
                "until": approval.until(waiting).isoformat(),
                "headline": headline,
                "body": body,
            }

        ask = AskPerson(
            project=project,
            task_id="ask",
            doc_md="Show the evaluation and wait for Approve or Reject; no answer in time rejects.",
            subject="{{ ti.xcom_pull(task_ids='find')['headline'] }}",
            body="{{ ti.xcom_pull(task_ids='find')['body'] }}",
            options=[APPROVE, REJECT],
            defaults=REJECT,
            params={
                "comment": Param(
                    "", type="string", title="Comment", description="Why; it goes to the ledger."
                )
            },
            response_timeout=spec.gate.approval_timeout,
        )

        @task(trigger_rule="none_failed")
        def decide(news: dict[str, Any], answer: dict[str, Any] | None, **context: Any) -> dict[str, Any]:
            """Promote or reject by the answer: one row in the ledger, then the alias in MLflow."""
            from evergreen.promotion import approval, ruling

            _, model = project.model(spec.name)
            said = approval.Answer(
                approved=bool(answer and answer["approved"]),
                by=answer["by"] if answer else None,
                at=datetime.fromisoformat(answer["at"]) if answer else datetime.now(UTC),
                comment=answer["comment"] if answer else "",
            )
            decision = approval.conclude(model, news["version"], said, runs.run_id(context))
            promoted = decision.kind.value == "promoted"
            # What arrived while it waited is the new champion's to score.
            event = announcements.owed(subject, promoted, decision.effective_from)
            return announcements.hand_on(
                context,
                {
                    "message": notes.tell(context, ruling.told(decision)),
                    "announce": event,
                    "as_of": decision.effective_from.isoformat(),
                    "decision": decision.kind.value,
                    "reason": decision.reason,
                    "decision_id": decision.id,
                    "version": decision.version,
                },
                announce=event["due"],
                notify=mailing.mails_wait(subject),
            )

        found: Any = find()
        answer: Any = ask.output
        decided = decide(found, answer)
        found >> ask
        announcements.announce(
            callbacks,
            assets.model_asset(spec.name),
            unless="the challenger was rejected, and no earlier change is untold",
        )(decided)
        decided >> mailing.notify(project, subject)
    return dag


def _still_asks(ti: Any, other: str) -> bool:
    """Whether the run that asks about a challenger is still there, and its answer not worked up."""
    dag_id, _, run_id = other.partition("/")
    states = ti.get_task_states(dag_id=dag_id, run_ids=[run_id], task_ids=["decide"])
    return run_id in states and states[run_id].get("decide") not in OVER


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("promote")}
