"""What is said when a challenger became champion, and when it did not."""

from __future__ import annotations

from typing import Any

from evergreen.alerting.content import online
from evergreen.alerting.content.history import JudgedWindow, windows
from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    Picture,
    facts,
    known_links,
    numbers,
    recorded,
)
from evergreen.alerting.letters import takeover
from evergreen.alerting.letters.challenger_tables import (
    beside,
    check_table,
    gate_metric,
    improvement,
    metric_numbers,
    metric_table,
    metric_values,
    metrics_of,
    reworded,
)
from evergreen.alerting.pictures.comparison import Comparison, comparison_png
from evergreen.ledger import champions, find, words
from evergreen.ledger.answers import conclusive
from evergreen.ledger.check_words import PARTIES
from evergreen.ledger.evidence import TrainedEvidence
from evergreen.ledger.reasons import DecisionKind, TriggerReason, of_upkeep
from evergreen.links import (
    airflow_dag_url,
    airflow_run_url,
    experiment_of,
    mlflow_report_url,
    mlflow_version_url,
)
from evergreen.spec import metric_name
from evergreen.warehouse.connection import Connection

MOST_WINDOWS = 24
BECAME = {DecisionKind.PROMOTED: "promoted", DecisionKind.REJECTED: "rejected"}
BELOW_BASELINE = (
    "A forecast without a model beats {} on these rows: look at its features and labels, change what is trained, or use that forecast "
    "until a challenger beats it."
)


def promoted(conn: Connection, known: KnownIncident) -> Letter:
    """A new champion, with the numbers that made it one."""
    new, old = known.version, previous_version(conn, known)
    metric = gate_metric(known)
    first = old is None
    told = _told(known, metric)
    how = beside(known, metric, old)
    what = f"{known.name}: promoted version {new or '?'}{f', {how}' if how else ''}"
    what += (
        ", the first champion" if first else "" if how.endswith(f"version {old}") else f", was version {old}"
    )
    return Letter(
        headline=what,
        summary=what,
        lead=(
            f"Version {new or '?'} of {known.name} is champion as of {words.when(known.effective_from)}"
            + (", the first one." if first else f"; it replaces version {old}.")
            + (f" {told}" if told else ""),
            *takeover.begun(conn, known),
        ),
        tone="good",
        numbers=numbers(*metric_numbers(known, metric, old), ("Holdout rows judged", known.get("rows.judged"))),
        facts=facts(
            ("New champion", f"version {new or words.MISSING}"),
            ("Before", "none" if first else f"version {old}"),
            ("Why trained", trigger(conn, known)),
            *_asked_by_hand(known),
            ("Why promoted", _why(known)),
            *_answered(known),
            *_holdout(known),
            *online.line(conn, known.name, known.as_of),
        ),
        tables=(*metric_table(known, metric), *check_table(known, only_failed=False)),
        picture=picture(conn, known, metric, old),
        steps=(
            *((BELOW_BASELINE.format("the new champion, as it beat the one before,"),) if known.get("champion_below_baseline") else ()),
            "The next scoring run uses the new version; its reference replaces the old one in the monitoring.",
            "To undo it" + ("" if first else f" and return to version {old}")
            + f": start rollback__{known.name} in Airflow, with a reason.",
        ),
        links=links(known, new, rollback=not first),
        small=of_the_training(known),
    )  # fmt: skip


def rejected(conn: Connection, known: KnownIncident) -> Letter:
    """A challenger that was rejected."""
    metric = gate_metric(known)
    champion = known.get("champion_version") or champion_before(conn, known)
    told = _told(known, metric)
    how = beside(known, metric, champion)
    what = f"{known.name}: rejected version {known.version or '?'}{f', {how}' if how else ''}"
    return Letter(
        headline=what,
        summary=f"{what}; {_why(known)}",
        lead=(
            f"Version {known.version or '?'} did not become champion: {_why(known)}."
            + (f" {told}" if told else ""),
            f"Version {champion} stays champion and keeps scoring." if champion
            else "There is no champion; nothing is scored until a challenger passes.",
        ),
        numbers=numbers(*metric_numbers(known, metric, champion), ("Holdout rows judged", known.get("rows.judged"))),
        facts=facts(
            ("Challenger", f"version {known.version or words.MISSING}"),
            ("Champion", f"version {champion}" if champion else "none"),
            ("Why trained", trigger(conn, known)),
            *_asked_by_hand(known),
            ("Why rejected", _why(known)),
            *_answered(known),
            *_holdout(known),
        ),
        tables=(*metric_table(known, metric), *check_table(known, only_failed=True)),
        picture=picture(conn, known, metric, str(champion) if champion else None),
        steps=_rejected_steps(known, champion),
        links=links(known, known.version, rollback=False),
        small=of_the_training(known),
    )  # fmt: skip


def trigger(conn: Connection, known: KnownIncident) -> str:
    """Why the training ran, and why it was asked for."""
    code = known.get("trigger")
    told = words.reason(code if isinstance(code, str) else None)
    requested = _requests(known)
    found = find(conn, ids=requested) if requested else []
    asked = dict.fromkeys(
        words.reason(one.reason) for one in found if one.kind is DecisionKind.RETRAIN_REQUESTED
    )
    if asked:
        requests = ", ".join(asked)
        return requests if told in (words.MISSING, *asked) else f"{told}; {requests}"
    return told


def _requests(known: KnownIncident) -> tuple[int, ...]:
    """The ids of the requests that a training answers; a challenger that waits for approval has answered nothing yet."""
    answers = known.decision.answers if known.decision else ()
    return answers or tuple(i for i in known.items("requests") if isinstance(i, int))


def of_the_training(known: KnownIncident) -> tuple[tuple[str, str], ...]:
    """What tells a training from others."""
    return recorded(
        ("Answers request", ", ".join(map(str, _requests(known)))),
        ("Snapshot", known.get("fingerprint")),
        ("MLflow run", known.get("mlflow_run")),
        ("Airflow run", known.run_id),
    )


def picture(
    conn: Connection, known: KnownIncident, metric: str | None, champion: str | None
) -> Picture | None:
    """All three on the same rows, the interval of the improvement, and the served error up to now; None without numbers."""
    values = metric_values(known, metric)
    own = values["challenger"]
    if metric is None or own is None:
        return None
    gained = improvement(known)
    shown = Comparison(
        metric,
        (
            (f"version {known.version or '?'}", own),
            *(
                ((f"version {champion}", values["champion"]),)
                if champion and values["champion"] is not None
                else ()
            ),
            *((("naive baseline", values["baseline"]),) if values["baseline"] is not None else ()),
        ),
        gained[0] if gained else None,
        gained[1] if gained else None,
        f"version {champion}" if champion else "",
        known.model.performance_metric if known.model else metric,
        _served(conn, known),
        known.decision.effective_shown if known.decision else None,
        f"version {known.version or '?'}",
        BECAME.get(known.decision.kind, "waits") if known.decision else "waits",
    )
    return Picture(comparison_png(shown), shown.in_words())


def _served(conn: Connection, known: KnownIncident) -> tuple[JudgedWindow, ...]:
    """The served error of the newest windows that were judged by then."""
    if known.model is None or known.decision is None:
        return ()
    found = windows(conn, known.name, known.model.performance_metric, until=known.decision.effective_shown)
    return tuple(w for w in found[-MOST_WINDOWS:] if w.value is not None)


def previous_version(conn: Connection, known: KnownIncident) -> str | None:
    """The champion before the decision: as recorded, else the newest earlier one of the ledger."""
    found = known.get("previous_version", "champion_version")
    return str(found) if isinstance(found, (str, int)) else champion_before(conn, known)


def champion_before(conn: Connection, known: KnownIncident) -> str | None:
    """The champion that the ledger names before the decision."""
    if known.decision is None or known.decision.id is None:
        return None
    earlier = (d for d in champions(conn, known.name) if (d.id or 0) < (known.decision.id or 0))
    return next((d.version for d in earlier), None)


def _told(known: KnownIncident, metric: str | None) -> str:
    code = known.decision.reason if known.decision else ""
    told = words.message(code, known.decision.evidence) if known.decision else ""
    known.told |= {"message", "requests", "metric"}
    if told:
        told = reworded(told)
        return f"{told[0].upper()}{told[1:]}{'' if told.endswith('.') else '.'}"
    if metric is None:
        return ""
    values = {party: metrics_of(known, party).get(metric) for party in PARTIES}
    shown = [f"{party} {words.num(values[party])}" for party in PARTIES if values[party] is not None]
    return f"{metric_name(metric)} on the same rows: {', '.join(shown)}." if shown else ""


def _why(known: KnownIncident) -> str:
    return words.reason(known.decision.reason if known.decision else known.get("reason"))


def _asked_by_hand(known: KnownIncident) -> tuple[tuple[str, Any], ...]:
    because = known.get("asked_because")
    return (("Asked by hand because", because),) if because else ()


def _answered(known: KnownIncident) -> tuple[tuple[str, Any], ...]:
    """Who approved or refused a challenger that waited for a person, and with which words."""
    known.told |= {"awaiting", "gate", "answered_at"}
    pairs = (("Answered by", known.get("answered_by")), ("Comment", known.get("comment")))
    return tuple(pair for pair in pairs if pair[1])


def _holdout(known: KnownIncident) -> tuple[tuple[str, Any], ...]:
    hardly = known.get("error_limit")
    watch = (("Watch on its error", hardly),) if hardly else ()
    return (("Data as of", words.when(known.as_of)), *watch)


def _rejected_steps(known: KnownIncident, champion: Any) -> tuple[str, ...]:
    steps = []
    if known.get("champion_below_baseline"):
        steps.append(BELOW_BASELINE.format("the champion"))
    # The row by which a challenger waited for a person is settled too, and is no request.
    waited = known.get("awaiting")
    requested = known.decision is not None and any(i != waited for i in known.decision.answers)
    training = known.decision.evidence if known.decision else None
    trigger = training.trigger if isinstance(training, TrainedEvidence) else None
    if requested and known.decision is not None and not conclusive(known.decision):
        steps.append(
            "The gate could not tell, so the requests for it are closed unanswered; after the cool-down what goes on asks again."
        )
    elif requested and trigger == TriggerReason.DECAY.value:
        steps.append(
            "The request for it is answered by this. Decay is asked for once for each champion; after this its age asks "
            "(monitoring.trigger.max_age), and an alarm does."
        )
    elif requested and of_upkeep(trigger):
        steps.append(
            "The request for it is answered by this; it asks again only when as much has changed once more."
        )
    elif requested:
        steps.append(
            "The requests for it are answered by this. After two answers to the same drift a person is told, and when it is asked "
            "for again."
        )
    nightly = known.model is None or known.model.schedule is not None
    if known.decision is not None and known.decision.kind is DecisionKind.REJECTED and nightly:
        steps.append("The next nightly training makes a new challenger; nothing needs to be done for that.")
    if champion:
        steps.append(
            "If the champion's error keeps growing, look at the monitoring's report before forcing anything."
        )
    return tuple(steps)


def links(known: KnownIncident, version: str | None, *, rollback: bool) -> tuple[tuple[str, str | None], ...]:
    run = known.get("mlflow_run")
    run = run if isinstance(run, str) else None
    return known_links(
        (f"Version {version} in MLflow", mlflow_version_url(known.name, version)),
        ("Training in MLflow", mlflow_report_url(run, None, experiment_of(run)) if run else None),
        ("Airflow run", airflow_run_url(known.run_id)),
        ("Roll back", airflow_dag_url(f"rollback__{known.name}") if rollback else None),
    )
