"""What is said when a challenger waits for a person, in the e-mail and on the page on which it is approved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from evergreen.alerting.content.amounts import count
from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    Table,
    facts,
    known_links,
    numbers,
)
from evergreen.alerting.letters.challenger_tables import (
    beside,
    gate_metric,
    metric_numbers,
    metric_table,
    reworded,
)
from evergreen.alerting.letters.challengers import of_the_training, picture, trigger
from evergreen.ledger import check_words, words
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import (
    airflow_approval_url,
    airflow_run_url,
    experiment_of,
    mlflow_report_url,
    mlflow_version_url,
)
from evergreen.warehouse.connection import Connection, fetch

PROVENANCE = ("_run", "_as_of", "_snapshot", "_rows", "_metric_agrees")
EVALUATION_FILE = "gate.json"


def mailed(conn: Connection, known: KnownIncident) -> Letter:
    """The same as `waiting`, with the picture that a mail has."""
    champion = known.get("champion_version")
    shown = picture(conn, known, gate_metric(known), str(champion) if champion else None)
    return replace(waiting(conn, known), picture=shown)


def waiting(conn: Connection, known: KnownIncident) -> Letter:
    """A challenger that passed the gate and waits for a person."""
    version, metric = known.version or "?", gate_metric(known)
    champion = known.get("champion_version")
    run = known.get("mlflow_run")
    run = run if isinstance(run, str) else None
    known.told |= TOLD
    because = known.get("asked_because")
    note, hardly = known.get("note"), known.get("error_limit")
    known.told |= {"error_limit"}
    rows = known.mapping("rows")
    how = beside(known, metric, champion)
    what = f"{known.name}: version {version} waits for approval{f', {how}' if how else ''}"
    return Letter(
        headline=what,
        summary=what,
        lead=(
            f"Version {version} of {known.name} passed the gate and becomes champion if a person approves it by "
            f"{words.when(_until(known))}. Without an answer by then it is rejected.",
        ),
        numbers=numbers(
            *metric_numbers(known, metric, champion), ("Answer by", words.when(_until(known))), ("Holdout rows judged", rows.get("judged")),
        ),
        facts=facts(
            ("Challenger", f"version {version}"),
            ("Champion", f"version {champion}" if champion else "none"),
            ("Why trained", trigger(conn, known)),
            *((("Asked by hand because", because),) if because else ()),
            ("What the gate says", words.reason(known.decision.reason if known.decision else None)),
            ("Data as of", words.when(known.as_of)),
            *((("Note", note),) if note else ()),
            *((("Watch on its error", hardly),) if hardly else ()),
        ),
        tables=(*metric_table(known, metric), *_checks(known)),
        steps=(
            *_unasked(conn, known),
            f"Approve or refuse it on the approval page of promote__{known.name}, with a comment; both go to the ledger.",
            "If the champion changes before that, an approval rejects it, because the gate compared with another one.",
            "Retrain requests that it answers stay open until then.",
        ),
        links=known_links(
            ("Approve or refuse", airflow_approval_url(known.name)),
            (f"Version {version} in MLflow", mlflow_version_url(known.name, version)),
            ("The whole evaluation in MLflow",
             mlflow_report_url(run, EVALUATION_FILE, experiment_of(run)) if run else None),
            ("Airflow run", airflow_run_url(known.run_id)),
        ),
        small=of_the_training(known),
    )  # fmt: skip


# Numbers of the outcome that the letter tells in words, or that only a later run needs.
TOLD = {
    "model", "run_id", "as_of", "version", "dry_run", "verdict", "trigger", "requests", "rounds", "refitted", "holdout",
    "champion_decision", "champion_version", "previous_version", "message", "approval_timeout_s", "trained_until",
    "fingerprint", "spec_hash", "training_hash", "digest", "metric", "metrics", "rows", "mlflow_run",
}  # fmt: skip


def _checks(known: KnownIncident) -> tuple[Table, ...]:
    """Every check that says something about the model, as its sentence; those on provenance are counted."""
    checks = [c for c in known.items("verdict.checks") if isinstance(c, Mapping)]
    about = [c for c in checks if not str(c.get("check")).endswith(PROVENANCE)]
    rows = tuple(
        (
            reworded(str(c.get("sentence") or ""))
            or str(check_words.named(str(c.get("check"))) or c.get("check")),
            "passed" if c.get("passed") is True else "failed",
        )
        for c in about
    )
    if not rows:
        return ()
    rest = len(checks) - len(about)
    note = f"{count(rest, 'more check')} of where the numbers come from: {'all passed' if _all(checks) else 'see the ledger'}."
    return (Table("What the gate checked", ("Check", "Result"), rows, note=note),)


def _all(checks: list[Mapping[str, object]]) -> bool:
    return all(c.get("passed") is True for c in checks)


def _until(known: KnownIncident) -> object:
    seconds = known.get("approval_timeout_s")
    decided = known.decision.decided_at if known.decision else None
    if decided is None or not isinstance(seconds, (int, float)):
        return None
    return decided + timedelta(seconds=seconds)


def _unasked(conn: Connection, known: KnownIncident) -> tuple[str, ...]:
    """What to do first where the page is still empty."""
    asked = fetch(
        conn,
        "SELECT 1 FROM evergreen.decision WHERE subject = %s AND kind = %s AND (evidence->>'awaiting')::bigint = %s LIMIT 1",
        (known.subject, DecisionKind.APPROVAL_ASKED.value, known.decision.id if known.decision else None),
    )
    if asked:
        return ()
    return (
        f"No run of promote__{known.name} has asked yet, so its page is empty: is the DAG paused, or does it fail? Unpause it in "
        "Airflow; it asks within the hour, and at once where you trigger it.",
    )
