"""What is said when the monitor raises an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evergreen.alerting.content.judgements import (
    ERRORS,
    beyond,
    error_of,
    names_of,
    newest_judgement,
    revised,
    told,
    violation_table,
    violations_of,
    window_of,
)
from evergreen.alerting.content.letter import KnownIncident, Letter, Picture, facts, known_links, numbers
from evergreen.alerting.pictures.worst_columns import worst_columns_png
from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, of_a_drift
from evergreen.links import (
    airflow_dag_url,
    airflow_run_url,
    mlflow_version_url,
    report_url,
)
from evergreen.monitoring.trigger import given_up
from evergreen.warehouse.connection import Connection

MOST_TOLD = 1
"""How many columns the subject names; the others are counted."""
MOST_PANELS = 4
WHAT = {
    "performance": "served error beyond its limit",
    "estimated_performance": "estimated error beyond its limit",
    "data_drift": "data drift",
    "prediction_drift": "prediction drift",
}


def drifted(conn: Connection, known: KnownIncident) -> Letter:
    """A model's inputs, predictions or served error left their limits."""
    judgement = newest_judgement(conn, known)
    violations = violations_of(judgement, known)
    model, version = known.name, known.version or (judgement or {}).get("version")
    codes = _codes(known, violations)
    names = names_of(violations)
    gave_up = known.get("gave_up") is True
    headline = f"{model}{f' v{version}' if version else ''}{' needs a person' if gave_up else ''}: {_what(codes, violations)}"
    since = words.when(known.get("since")) if known.get("since") else words.MISSING
    rule = known.get("rule")
    columns = {v["column"] for v in violations if v["kind"] not in ERRORS and v.get("column")}
    known.told |= {
        "judgements", "judgement", "windows", "window", "violations", "signature", "window_start", "causes",
        "drifted", "message", "request", "incident", "alternates", "budget", "spent", "next_free", "new_rows", "needed", "endings",
        "again",
    }  # fmt: skip
    return Letter(
        headline=headline,
        summary=headline,
        lead=(f"{_lead(known, codes, names, version)} {_to_do(known, gave_up)}".strip(),),
        tone="bad",
        numbers=numbers(
            *map(beyond, _worst(violations, 2)),
            ("Columns beyond their limits", len(columns) if len(columns) > 1 else None),
            ("Since", since),
            ("Rows in the newest window", (judgement or {}).get("row_count")),
        ),
        facts=facts(
            ("Model", f"{model}, version {version or words.MISSING}"),
            ("Reason", ", and ".join(map(words.reason, codes)) or words.MISSING),
            *((("Since", since),) if since == words.MISSING else ()),
            ("Newest window", window_of(judgement, known)),
            *((("Judged before", again),) if (again := revised(conn, judgement)) else ()),
            *((("Rows in it", few),) if (few := _sampled(judgement or {})) else ()),
            *((("Error in it", error),) if (error := error_of(judgement)) else ()),
            ("Rule", rule if isinstance(rule, str) else _rule(known)),
        ),
        tables=violation_table(violations, "What left its limits, in the newest window"),
        picture=_picture(conn, known, judgement, names),
        steps=_given_up_steps(known) if gave_up else _next_steps(known),
        links=known_links(
            ("Evidently report", _report(judgement, codes)),
            ("Model version", mlflow_version_url(model, version)),
            ("Monitoring run", airflow_run_url(known.run_id)),
            ("Training DAG", airflow_dag_url(f"train__{model}")),
        ),
    )


def _worst(violations: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The served error if it is beyond its limit, then the worst columns that could be measured, each once."""
    columns: dict[str, dict[str, Any]] = {}
    for one in violations:
        if one["kind"] not in ERRORS:
            columns.setdefault(str(one.get("column")), one)
    errors = [v for v in violations if v["kind"] in ERRORS]
    return [*errors, *columns.values()][: max(most, len(errors))]


def _what(codes: Sequence[str], violations: Sequence[dict[str, Any]]) -> str:
    """What the subject says: `drift, temp 3.1 × its limit and 2 more, RMSE 71 above its limit 55`."""
    errors = [told(v) for v in violations if v["kind"] in ERRORS]
    columns = dict.fromkeys(
        str(v.get("column")) for v in violations if v["kind"] not in ERRORS and v.get("column")
    )
    if not columns and not errors:
        return " and ".join(WHAT.get(code, words.reason(code)) for code in codes) or "drift"
    if not columns:
        return ", ".join(errors)
    first = told(next(v for v in violations if v["kind"] not in ERRORS and v.get("column")))
    more = len(columns) - MOST_TOLD
    return ", ".join(["drift", f"{first}{f' and {more} more' if more > 0 else ''}", *errors])


def _sampled(judgement: dict[str, Any]) -> str | None:
    """On how many of its rows a window was measured; None where on all."""
    rows, measured = judgement.get("row_count"), judgement.get("sampled_rows")
    if not rows or not measured or measured >= rows:
        return None
    return f"{words.num(rows)}; drift was measured on {words.num(measured)} of them"


def _codes(known: KnownIncident, violations: Sequence[dict[str, Any]]) -> list[str]:
    recorded = [code for code in known.items("reasons") if isinstance(code, str)]
    decision = known.decision
    if not recorded and decision is not None and decision.kind is not DecisionKind.RETRAIN_SUPPRESSED:
        recorded = [decision.reason]
    return recorded or [kind for kind in WHAT if any(v["kind"] == kind for v in violations)]


def _rule(known: KnownIncident) -> str:
    if known.model is None:
        return words.MISSING
    rule = known.model.monitoring.trigger
    return f"{rule.m} of the last {rule.n} windows in violation, and the newest"


def _lead(known: KnownIncident, codes: Sequence[str], names: str, version: str | None) -> str:
    said = []
    if "performance" in codes:
        said.append(
            f"The predictions that {known.name} version {version or '?'} served are worse than allowed."
        )
    if "estimated_performance" in codes:
        said.append(
            f"The predictions that {known.name} version {version or '?'} served are worse than allowed by an estimate: "
            "their labels are not in yet. The value of the labels replaces it when they are."
        )
    if not set(codes) <= set(ERRORS):
        only = list(codes) == ["prediction_drift"]
        seen = f"The predictions of {known.name} are" if only else f"The data that {known.name} sees is"
        moved = f": {names} moved beyond the limit." if names else "."
        said.append(f"{seen} no longer like what version {version or '?'} was trained on{moved}")
    return " ".join(said)


def _to_do(known: KnownIncident, gave_up: bool) -> str:
    if gave_up:
        why = given_up.because(_suppressed(known).endings)
        return f"Retraining did not help twice: a person must look. {why[0].upper()}{why[1:]}."
    kind = known.decision.kind if known.decision else None
    if kind is DecisionKind.RETRAIN_REQUESTED:
        return "Nothing needs to be done now: a retraining is requested."
    return "No retraining is started; why stands below." if kind is DecisionKind.RETRAIN_SUPPRESSED else ""


def _next_steps(known: KnownIncident) -> tuple[str, ...]:
    decision = known.decision
    if decision is not None and decision.kind is DecisionKind.RETRAIN_SUPPRESSED:
        why = words.sentence(decision.kind.value, decision.reason, decision.evidence)
        return (
            f"No retraining is started: {why.rstrip('.')}.",
            f"To train all the same, start train__{known.name} by hand.",
        )
    if decision is not None and decision.kind is DecisionKind.RETRAIN_REQUESTED:
        return (
            f"A retraining is requested and train__{known.name} is woken for it "
            f"now; if a training is already running, the request waits for its turn{_swept(known)}.",
            f"The new version replaces the champion only if it is {_gate_demand(known, decision)} on the same rows; you get an e-mail "
            "either way.",
            "Until then the present champion keeps scoring.",
        )
    return ("No retraining was decided with this alarm. The present champion keeps scoring.",)


def _swept(known: KnownIncident) -> str:
    """That the nightly run takes up what is open, where there is one."""
    return (
        ""
        if known.model is not None and known.model.schedule is None
        else " and the nightly run sweeps it up"
    )


def _gate_demand(known: KnownIncident, decision: Decision) -> str:
    """What the gate asks of a training that answers a request."""
    if known.model is None:
        return "good enough beside it"
    gate = known.model.gate
    wanted = gate.on_drift if of_a_drift(decision.reason) else gate.otherwise
    sure = f"with {gate.confidence:.0%} confidence"
    return {
        "better": f"better, {sure},",
        "not_worse": f"not worse by more than {gate.tolerance:.1%}, {sure},",
    }.get(wanted, f"neither surely worse, {sure}, nor worse by more than {gate.max_worse:.1%} as measured,")


def _suppressed(known: KnownIncident) -> RetrainEvidence:
    """What the ledger keeps of the decision about the drift; empty where none stands for it."""
    found = known.decision.evidence if known.decision else None
    return found if isinstance(found, RetrainEvidence) else RetrainEvidence()


def _given_up_steps(known: KnownIncident) -> tuple[str, ...]:
    told = words.message(known.decision.reason, known.decision.evidence) if known.decision else ""
    later = given_up.later(_suppressed(known).again)
    return (
        "No further retraining is asked for because of this now: two trainings had their turn and it is still there"
        + (f" ({told.rstrip('.')})." if told else "."),
        *(
            (f"{later[0].upper()}{later[1:]}; you get a mail if a new version becomes champion.",)
            if later
            else ()
        ),
        f"A person must look: {given_up.remedy(_suppressed(known).endings)}",
        f"To train all the same, start train__{known.name} by hand. Until then the present champion keeps scoring.",
    )


def _report(judgement: dict[str, Any] | None, codes: Sequence[str]) -> str | None:
    """Evidently's page of the newest window, where something was kept of which it is drawn."""
    if not judgement or not judgement["mlflow_run"] or not judgement["report"]:
        return None
    file = "performance.html" if list(codes) == ["performance"] else "drift.html"
    return report_url(judgement["model"], judgement["window_start"], str(judgement["version"]), file)


def _picture(
    conn: Connection, known: KnownIncident, judgement: dict[str, Any] | None, names: str
) -> Picture | None:
    if not judgement:
        return None
    metric = known.model.performance_metric if known.model else None
    png = worst_columns_png(conn, [judgement["id"]], metric=metric)
    return (
        Picture(
            png,
            f"Over the last windows up to {words.when(judgement['window_end'])}, each value as a line against its dashed limit, red where it "
            f"is beyond: {'; '.join(map(told, _worst(violations_of(judgement, known), MOST_PANELS))) or names or 'served error'}",
        )
        if png
        else None
    )
