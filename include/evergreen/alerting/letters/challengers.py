"""What is said when a challenger became champion, when it did not, and when an earlier champion came back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen.alerting.content.history import number
from evergreen.alerting.content.letter import KnownIncident, Letter, Table, facts, known_links, show
from evergreen.alerting.letters.challenger_tables import (
    check_table,
    gate_metric,
    metric_table,
    metrics_of,
)
from evergreen.ledger import Decision, champions, find, words
from evergreen.ledger.answers import conclusive
from evergreen.ledger.check_words import PARTIES
from evergreen.ledger.evidence import RollbackEvidence, TrainedEvidence
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

BELOW_BASELINE = (
    "A forecast without a model beats {} on these rows: look at its features and labels, change what is trained, or use that forecast "
    "until a challenger beats it."
)


def promoted(conn: Connection, known: KnownIncident) -> Letter:
    """A new champion, with the numbers that made it one."""
    new, old = known.version, previous_version(conn, known)
    metric = gate_metric(known)
    first = old is None
    numbers = _numbers(known, metric)
    return Letter(
        headline=f"{known.name}: v{new or '?'} is the new champion",
        summary=f"{known.name}: v{new or '?'} is champion" + ("" if first else f", was v{old}"),
        lead=(
            f"Version {new or '?'} of {known.name} is champion as of {words.when(known.effective_from)}"
            + (", the first one." if first else f"; it replaces version {old}.")
            + (f" {numbers}" if numbers else ""),
        ),
        tone="good",
        facts=facts(
            ("New champion", f"version {new or words.MISSING}"),
            ("Before", "none" if first else f"version {old}"),
            ("Why trained", trigger(conn, known)),
            *_asked_by_hand(known),
            ("Why promoted", _why(known)),
            *_answered(known),
            *_holdout(known),
        ),
        tables=(*metric_table(known, metric), *check_table(known, only_failed=False)),
        steps=(
            *((BELOW_BASELINE.format("the new champion, as it beat the one before,"),) if known.get("champion_below_baseline") else ()),
            "The next scoring run uses the new version; its reference replaces the old one in the monitoring.",
            "To undo it" + ("" if first else f" and return to version {old}")
            + f": start rollback__{known.name} in Airflow, with a reason.",
        ),
        links=_links(known, new, rollback=not first),
    )  # fmt: skip


def rejected(conn: Connection, known: KnownIncident) -> Letter:
    """A challenger that was rejected."""
    metric = gate_metric(known)
    champion = known.get("champion_version") or champion_before(conn, known)
    numbers = _numbers(known, metric)
    return Letter(
        headline=f"{known.name}: challenger v{known.version or '?'} was rejected",
        summary=f"{known.name}: challenger v{known.version or '?'} rejected, {_why(known)}",
        lead=(
            f"Version {known.version or '?'} did not become champion: {_why(known)}."
            + (f" {numbers}" if numbers else ""),
            f"Version {champion} stays champion and keeps scoring." if champion
            else "There is no champion; nothing is scored until a challenger passes.",
        ),
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
        steps=_rejected_steps(known, champion),
        links=_links(known, known.version, rollback=False),
    )  # fmt: skip


def rolled_back(conn: Connection, known: KnownIncident) -> Letter:
    """An earlier champion is back."""
    source = previous_version(conn, known)
    target = known.version
    why = known.get("message", "reason")
    known.told.add("reason")
    code = known.decision.reason if known.decision else None
    known.told |= {"message"}
    return Letter(
        headline=f"{known.name}: rolled back to v{target or '?'}",
        summary=f"{known.name}: rolled back to v{target or '?'}" + (f" from v{source}" if source else ""),
        lead=(
            f"Version {target or '?'} of {known.name} is champion again"
            + (f"; version {source} was taken out of service." if source else "."),
        ),
        facts=facts(
            ("From", f"version {source}" if source else words.MISSING),
            ("To", f"version {target}" if target else words.MISSING),
            ("Why", show(why) if why else words.reason(code)),
            ("As of", words.when(known.as_of)),
            ("Probe", known.get("probe_rows")),
        ),
        tables=_watch_table(known),
        steps=(
            f"Version {target or '?'} scores from the next run on; predictions already made keep their version.",
            *_blocked(known.decision),
            f"A later training may promote a new version; pause train__{known.name} if that must not happen.",
            f"To undo the rollback, start rollback__{known.name} with the version to return to.",
        ),
        links=_links(known, str(target) if target else None, rollback=True),
    )


def alias_repaired(conn: Connection, known: KnownIncident) -> Letter:
    """Somebody moved the alias in MLflow, and the monitor put it right."""
    found = known.get("found_version")
    was = f"named v{found}" if found else "was gone"
    known.told |= {"message", "alias", "champion_decision"}
    return Letter(
        headline=f"{known.name}: MLflow's alias champion {was}",
        summary=f"{known.name}: the alias champion in MLflow {was}, it is v{known.version or '?'} again",
        lead=(
            f"The alias champion of {known.name} in MLflow {was}; the champion by the ledger is "
            f"version {known.version or '?'}. The alias was put right. Nothing was scored by it: scoring, "
            "monitoring and rollback follow the ledger.",
        ),
        facts=facts(
            ("Found", f"version {found}" if found else "no alias"),
            ("Champion", f"version {known.version or words.MISSING}"),
            ("As of", words.when(known.as_of)),
        ),
        steps=(
            "Find out who or what moves it: whoever reads the alias took the wrong version for the champion.",
            f"To make an earlier champion champion again, start rollback__{known.name}; a new one comes from train__{known.name}.",
        ),
        links=_links(known, known.version, rollback=True),
    )


def trigger(conn: Connection, known: KnownIncident) -> str:
    """Why the training ran, with the requests that it answers."""
    code = known.get("trigger")
    told = words.reason(code if isinstance(code, str) else None)
    answers = known.decision.answers if known.decision else ()
    # A challenger that waits for approval has answered nothing yet.
    answers = answers or tuple(known.items("requests"))
    found = find(conn, ids=answers) if answers else []
    asked: dict[str, list[str]] = {}
    for one in found:
        if one.kind is DecisionKind.RETRAIN_REQUESTED:
            asked.setdefault(words.reason(one.reason), []).append(str(one.id))
    if asked:
        requests = ", ".join(
            f"{why} (request{'s' if len(ids) > 1 else ''} {', '.join(ids)})" for why, ids in asked.items()
        )
        return requests if told in (words.MISSING, *asked) else f"{told}; {requests}"
    return told


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


def _numbers(known: KnownIncident, metric: str | None) -> str:
    code = known.decision.reason if known.decision else ""
    told = words.message(code, known.decision.evidence) if known.decision else ""
    known.told |= {"message", "requests", "metric"}
    if told:
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
    rows = known.get("rows.judged")
    hardly = known.get("error_limit")
    watch = (("Watch on its error", hardly),) if hardly else ()
    return (("Holdout rows judged", rows), ("Data as of", words.when(known.as_of)), *watch)


def _watch_table(known: KnownIncident) -> tuple[Table, ...]:
    """What the watch after a promotion measured, where it asked for the rollback."""
    told = known.mapping("watch")
    known.told |= {"watch", "blocked"}
    if not told:
        return ()
    metric = told.get("metric")
    rows = tuple(
        (f"version {told.get(version) or words.MISSING}", words.num(told.get(value)))
        for version, value in (("version", "value"), ("previous", "previous_value"))
    )
    note = (
        f"{words.num(told.get('rows'))} rows since {words.when(told.get('since'))}; the improvement (share of the distance from "
        f"perfect) is {_share(told, 'improvement')}, surely below {_share(told, 'at_most')}; {_share(told, 'margin')} worse is "
        f"allowed. Look {words.num(told.get('look'))} of {words.num(told.get('looks'))}."
    )
    return (Table("On the same new rows", ("Champion", metric_name(metric)), rows, (True, False), note),)


def _share(told: Mapping[str, Any], name: str) -> str:
    found = number(dict(told), name)
    return words.MISSING if found is None else f"{found:.1%}"


def _blocked(decision: Decision | None) -> tuple[str, ...]:
    if (
        decision is None
        or not isinstance(decision.evidence, RollbackEvidence)
        or not decision.evidence.blocked
    ):
        return ()
    return (
        "A training on the same rows is not promoted again, unless the spec changes what is trained; one on newer rows may be.",
    )


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
            "The gate could not tell, so the requests above are closed unanswered; after the cool-down what goes on asks again."
        )
    elif requested and trigger == TriggerReason.DECAY.value:
        steps.append(
            "The request above is answered by this. Decay is asked for once for each champion; after this its age asks "
            "(monitoring.trigger.max_age), and an alarm does."
        )
    elif requested and of_upkeep(trigger):
        steps.append(
            "The request above is answered by this; it asks again only when as much has changed once more."
        )
    elif requested:
        steps.append(
            "The retrain requests above are answered by this. After two answers to the same drift a person is told, and when it is asked "
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


def _links(
    known: KnownIncident, version: str | None, *, rollback: bool
) -> tuple[tuple[str, str | None], ...]:
    run = known.get("mlflow_run")
    run = run if isinstance(run, str) else None
    return known_links(
        (f"Version {version} in MLflow", mlflow_version_url(known.name, version)),
        ("Training in MLflow", mlflow_report_url(run, None, experiment_of(run)) if run else None),
        ("Airflow run", airflow_run_url(known.run_id)),
        ("Roll back", airflow_dag_url(f"rollback__{known.name}") if rollback else None),
    )
