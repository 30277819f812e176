"""`make demo`: the whole loop, driven through the real scheduler over months of data in a few minutes.

Each delivery of the story is written into the landing folder and ingested as of its own time; scoring, monitoring
and retraining then happen by themselves, through Airflow's assets. The demo only waits and tells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import ledger, settings
from evergreen.alerting.letters import spec_problems
from evergreen.errors import ErrorReason, EvergreenError, TerminalError, TransientError
from evergreen.feeds import catalogue
from evergreen.ledger import reasons
from evergreen.ledger.evidence import SettledEvidence
from evergreen.links import airflow_approval_url
from evergreen.program import typed
from evergreen.spec import load_specs
from evergreen.stack import control, demo_request
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import Layout, StackError, write_private
from evergreen.stack.postgres import Postgres
from evergreen.stack.variables import environment, overrides
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.storage.bucket import Place

DATASET = "bike_hourly"
MODEL = "bike_demand"
SECOND_MODEL = "bike_rush"
OVERRIDES = {settings.SCHEDULES.name: "off"}
WAITING_IS_TOLD_S = 15
# Airflow's heartbeat of a task, and the seconds that it leaves a task to end in.
TASKS_END_S = 12
KINDS = ("train", "score", "monitor", "rollback")


@dataclass
class DemoProgress:
    """Prints what happens with the time since the start."""

    started: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        elapsed = time.monotonic() - self.started
        print(f"[{int(elapsed // 60):2d}:{int(elapsed % 60):02d}] {text}", flush=True)


def dag_ids(models: tuple[str, ...] = (MODEL, SECOND_MODEL)) -> list[str]:
    """The DAGs that the demo uses."""
    return [f"ingest__{DATASET}", *(f"{kind}__{model}" for model in models for kind in KINDS)]


def tell_story(api: AirflowApi, story: Any, landing: Place, say: Callable[[str], None]) -> None:
    """Drive a story through the running stack.

    Args:
        api: a logged-in Airflow client.
        story: `evergreen.feeds.story.Story`.
        landing: where the dataset's files land, a folder or a prefix of a bucket.
        say: is told each step.

    Raises:
        TransientError: something that was waited for did not happen in time.
        TerminalError: a step ended otherwise than the loop promises.
    """
    ids = dag_ids()
    for dag_id in ids:
        api.pause(dag_id, False)
    history = [d for d in story.deliveries if d.kind == "history"]
    for delivery in story.deliveries:
        say(f"{delivery.as_of:%Y-%m-%d}  {delivery.note}")
        land(delivery, landing)
        run = api.trigger(f"ingest__{DATASET}", {"as_of": delivery.as_of.isoformat()})
        state = api.wait(f"ingest__{DATASET}", run)
        expected = "failed" if delivery.kind == "broken" else "success"
        if state != expected:
            raise TerminalError(
                f"ingest of {delivery.name} ended as {state}, not as {expected}; see {typed('logs')} and the Airflow UI",
                ErrorReason.BAD_BATCH,
            )
        if delivery.kind == "broken":
            say("             quarantined and mailed; the champion keeps scoring what is good")
        elif delivery.kind == "history":
            if delivery is history[-1]:
                train_first(api, delivery.as_of, say)
        else:
            settle_week(api, delivery, say)
            # Each week stands for a real one: nothing of it is left to do when the next one lands.
            _wait(lambda: not api.active(ids) and not _open_requests(SECOND_MODEL), f"{SECOND_MODEL}", api)


def land(delivery: Any, where: Place) -> None:
    """Write a delivery's files where they land. Errors are `Store.put`'s."""
    if isinstance(where, Path):
        delivery.write(where)
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in delivery.write(Path(folder)):
            where.put(path, path.name)


def train_first(api: AirflowApi, as_of: datetime, say: Callable[[str], None]) -> None:
    """Train the first champion of both models."""
    say("             training the first champions (regression and classification)")
    conf = {"as_of": as_of.isoformat(), "reason": "demo: first champion"}
    runs = {model: api.trigger(f"train__{model}", conf) for model in (MODEL, SECOND_MODEL)}
    for model, run in runs.items():
        api.wait(f"train__{model}", run)
        with connect() as conn:
            found = ledger.find(conn, ledger.model_subject(model), (reasons.DecisionKind.PROMOTED,), limit=1)
        if not found:
            raise TerminalError(f"{model}: {no_champion(model, run)}", ErrorReason.NO_CHAMPION)
        say(f"             {model}: version {found[0].version} is champion ({found[0].reason})")


def no_champion(model: str, run: str) -> str:
    """Why a first training led to no champion: its challenger waits for a person, or the run says it."""
    with connect() as conn:
        waits = ledger.unanswered(conn, (model,), reasons.DecisionKind.AWAITING_APPROVAL, newest=1)
    if not waits:
        return f"no champion after run {run}; see the run in the Airflow UI"
    return (
        f"version {waits[0].version} passed and waits for a person, as the spec says gate.approval: manual; approve it at "
        f"{airflow_approval_url(model)}. The story goes on by itself only with gate.approval: auto: set that and run {typed('demo')} again"
    )


def settle_week(api: AirflowApi, delivery: Any, say: Callable[[str], None]) -> None:
    """Wait until the new week is scored and judged, and until a training that it caused has ended."""
    week = _wait(
        lambda: judged(delivery.as_of), f"the judgement of the week before {delivery.as_of:%Y-%m-%d}", api
    )
    value = (week["metrics"].get("rmse") or {}).get("value")
    limit = (week["metrics"].get("rmse") or {}).get("limit")
    shown = (
        f"served rmse {value:.1f} (limit {limit:.1f})"
        if value is not None and limit is not None
        else "labels not in yet"
    )
    found = ", ".join(dict.fromkeys(str(v.get("column") or v.get("kind")) for v in week["violations"]))
    say(f"             judged: {week['status']}, {shown}{f', in violation: {found}' if found else ''}")
    _wait(lambda: not api.active([f"monitor__{MODEL}", f"score__{MODEL}"]), "the monitor", api)
    waiting = _open_requests(MODEL)
    if not waiting:
        return
    say(f"             retrain request {waiting[0].id} ({waiting[0].reason}), mail sent; training runs")

    def answered() -> ledger.Decision | None:
        with connect() as conn:
            kinds = (reasons.DecisionKind.PROMOTED, reasons.DecisionKind.REJECTED)
            found = ledger.find(conn, ledger.model_subject(MODEL), kinds, limit=1)
        return found[0] if found and waiting[0].id in found[0].answers else None

    decision = _wait(answered, "the training", api)
    before, after = (_metric(decision, who) for who in ("champion", "challenger"))
    numbers = (
        f": rmse {after:.1f} against the champion's {before:.1f} on the same rows" if before and after else ""
    )
    say(f"             {decision.kind.value} version {decision.version}{numbers}")
    _wait(
        lambda: not api.active([f"train__{MODEL}", f"score__{MODEL}", f"monitor__{MODEL}"]),
        "the scoring",
        api,
    )


def _open_requests(model: str) -> list[ledger.Decision]:
    with connect() as conn:
        return ledger.open_requests(conn, model)


def judged(as_of: datetime) -> dict[str, Any] | None:
    """The newest judgement of the window that was complete at `as_of`, once there is one."""
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT status, violations, metrics, window_end FROM evergreen.window_judgement"
            " WHERE model = %s AND as_of = %s ORDER BY window_end DESC, revision DESC LIMIT 1",
            (MODEL, as_of),
        )
    return rows[0] if rows else None


def _metric(decision: ledger.Decision, who: str) -> float | None:
    return SettledEvidence.shown(decision).metrics.get(who, {}).get("rmse")


def _wait(question: Callable[[], Any], what: str, api: AirflowApi, timeout_s: float = 240) -> Any:
    """Ask until the answer is not empty; a red run meanwhile ends the waiting with its name."""
    started = time.monotonic()
    told = started
    while not (answer := question()):
        now = time.monotonic()
        if now > started + timeout_s:
            failed = [
                f"{dag_id} {run['dag_run_id']}" for dag_id in dag_ids() for run in api.runs(dag_id, state="failed")
                if not dag_id.startswith("ingest")
            ]  # fmt: skip
            raise TransientError(
                f"waited {timeout_s:.0f} s for {what} in vain; failed runs: {failed or 'none'}"
            )
        if now > told + WAITING_IS_TOLD_S:
            print(f"        still waiting for {what} ({now - started:.0f} s)", flush=True)
            told = now
        time.sleep(0.3)
    return answer


def outcome(
    story: Any, folder: Path, say: Callable[[str], None], mails: str = f"{typed('mail')} lists them"
) -> list[str]:
    """Print the ledger as a table, draw the picture, and return what the story promised but did not happen.

    Args:
        story: that was told.
        folder: where the picture goes.
        say: is told where things are.
        mails: where the e-mails can be read.
    """
    from evergreen.alerting.content.history import timeline_rows, timeline_text
    from evergreen.alerting.pictures.timeline import timeline_png

    specs = load_specs(settings.specs_folder())
    with connect() as conn:
        print("\nWhat happened, from the ledger:\n")
        for model, datasets in ((MODEL, [DATASET]), (SECOND_MODEL, [])):
            print(f"{model}\n{timeline_text(timeline_rows(conn, model, datasets))}\n")
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"{story.name}.png"
        picture.write_bytes(timeline_png(conn, specs.models[MODEL], title=f"{MODEL} on {story.name}"))
        kinds = {d.kind.value for d in ledger.find(conn)}
        alerts = ledger.find(conn, ledger.model_subject(MODEL), (reasons.DecisionKind.RETRAIN_REQUESTED,))
        promoted = ledger.find(conn, ledger.model_subject(MODEL), (reasons.DecisionKind.PROMOTED,))
        count = fetch(
            conn,
            "SELECT count(*) FILTER (WHERE sent_at IS NOT NULL) AS sent, count(*) AS n FROM evergreen.mail",
        )[0]
    say(f"error over time, with retrains and alarms: {picture}")
    say(f"e-mails sent: {count['sent']} of {count['n']} ({mails})")
    missing = [
        f"no {kind}" for kind in ("batch_quarantined", "retrain_requested", "promoted") if kind not in kinds
    ]
    if not any(set(p.answers) & {a.id for a in alerts} for p in promoted):
        missing.append("no promotion that answers a drift alarm")
    first_change = next((d.as_of for d in story.deliveries if d.kind == "broken"), None)
    if first_change and any(a.as_of < first_change for a in alerts):
        missing.append("an alarm in the quiet weeks")
    if count["sent"] < count["n"]:
        missing.append(f"{count['n'] - count['sent']} e-mail(s) not sent")
    return missing


def prepare(layout: Layout, say: Callable[[str], None]) -> AirflowApi:
    """Bring the stack up for the demo, with an empty warehouse, and put its environment into this process.

    The demo's data ended in the past, so cron schedules are switched off for this stack (they would find
    everything stale); `EVERGREEN_SCHEDULES=on make up` after `make down` switches them on.

    Raises:
        TerminalError: the stack holds data of its user.
        StackError: it does not come up.
    """
    if overrides(layout) != OVERRIDES:
        if control.status(layout.home):
            say("restarting the stack with cron schedules off")
            control.down(layout.home, say=say)
        layout.create()
        write_private(layout.overrides_file, json.dumps(OVERRIDES))
    login = control.up(layout.home, say=say)
    os.environ.update(environment(layout.home))
    api = AirflowApi(login.airflow_url, login.user, login.airflow_password)
    api.wait_for_dags(set(dag_ids()))
    for dag_id in dag_ids():
        api.pause(dag_id, True)
    for line in start_afresh(api, layout):
        say(line)
    return api


def start_afresh(api: AirflowApi, layout: Layout) -> list[str]:
    """Give the demo an empty warehouse, landing folder, mail folder and registry; those of an earlier one are renamed, never dropped.

    Returns:
        What an earlier demo has left and how it is kept, in words; nothing if there was none.

    Raises:
        TerminalError: the warehouse holds more than demos leave.
        TransientError: warehouse, Airflow or MLflow do not answer.
    """
    with connect() as conn:
        subjects = {row["subject"] for row in fetch(conn, "SELECT DISTINCT subject FROM evergreen.decision")}
    # A mistake in a spec is of the whole fleet, and nobody's data.
    foreign = subjects - {
        f"dataset/{DATASET}",
        f"model/{MODEL}",
        f"model/{SECOND_MODEL}",
        spec_problems.SUBJECT,
    }
    if foreign:
        raise TerminalError(
            f"this stack holds data of your own ({', '.join(sorted(foreign))}), and the demo wants an empty warehouse; "
            "run it in another home: EVERGREEN_HOME=.evergreen-demo make demo",
            ErrorReason.BUSY,
        )
    ended = 0
    for dag_id in dag_ids():
        for run in [*api.runs(dag_id, state="running"), *api.runs(dag_id, state="queued")]:
            api.call("PATCH", f"dags/{dag_id}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})
            ended += 1
    _wait(lambda: not api.active(dag_ids()), "the runs of the earlier demo to end", api)
    if (
        ended
    ):  # their tasks hear of it with their next heartbeat, and would write into the new warehouse until then
        time.sleep(TASKS_END_S)
    until = f"until_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    kept = [
        *([f"database {Postgres(layout).set_aside('warehouse', layout.ports()['postgres'])}"] if subjects else []),
        *(f"model {name} in MLflow" for name in models_aside(until)),
        *(str(folder) for folder in (folder_aside(layout.home / "landing" / DATASET, until), folder_aside(layout.mail, until)) if folder),
    ]  # fmt: skip
    layout.mail.mkdir(mode=0o700, exist_ok=True)
    return [f"an earlier demo was here; it is kept: {', '.join(kept)}"] if kept else []


def models_aside(until: str) -> list[str]:
    """Rename the demo's models in MLflow, so that their versions begin at 1 again; the new names of those that were there.

    Raises:
        TransientError: MLflow does not answer.
    """
    from evergreen.registry.client import client, guarded

    found = []
    for name in (MODEL, SECOND_MODEL):
        with guarded(f"keep the model {name} of an earlier demo as {name}_{until}"):
            if client().search_registered_models(f"name = '{name}'"):
                client().rename_registered_model(name, f"{name}_{until}")
                found.append(f"{name}_{until}")
    return found


def folder_aside(folder: Path, until: str) -> Path | None:
    """Rename a folder in which something is; its new path, None where nothing was."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    return folder.rename(folder.with_name(f"{folder.name}_{until}"))


def main(argv: list[str] | None = None) -> int:
    """Start the stack, tell the story, show the result; the stack stays up."""
    parser = argparse.ArgumentParser(prog="evergreen demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", choices=("simulated", "bike_sharing"), default="simulated", help="what to run on"
    )
    parser.add_argument("--home", type=Path, default=None, help="the stack's home (default: EVERGREEN_HOME)")
    args = parser.parse_args(argv)
    say, layout = DemoProgress(), Layout.of(args.home)
    try:
        story = catalogue.get(args.data)
        api = prepare(layout, say)
        tell_story(api, story, layout.home / "landing" / DATASET, say)
        missing = outcome(story, layout.home / "demo", say)
        login = control.login(layout.home)
        key = demo_request.key_in(login.serving_key_file)
        missing += demo_request.tell(MODEL, say, url=login.serving_url, key=key)
    except (EvergreenError, StackError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nThe demo was interrupted. The stack is still up: {typed('status')} shows it, {typed('down')} stops it; another "
            f"{typed('demo')} starts the story over.",
            file=sys.stderr,
        )
        return 130
    print(f"\nAirflow  {login.airflow_url}   user {login.user}   password {login.airflow_password}")
    print(f"MLflow   {login.mlflow_url}   user {login.user}   password {login.mlflow_password}")
    print(f"Predictions  {login.serving_url}/models   key of this machine in {login.serving_key_file}")
    print(
        f"The stack stays up: {typed('status')}, {typed('mail')}, {typed('down')}. Cron schedules are off in it (old data)."
    )
    if missing:
        print(f"\nThe story did not go as promised: {'; '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0
