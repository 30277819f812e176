"""What is said when an incident has ended: how long it lasted and what ended it."""

from __future__ import annotations

from datetime import datetime, timedelta

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.content import amounts
from evergreen.alerting.content.history import windows
from evergreen.alerting.content.letter import KnownIncident, Letter, facts, known_links, numbers, recorded
from evergreen.ledger import words
from evergreen.ledger.reasons import DecisionKind, EndReason, TriggerReason
from evergreen.links import airflow_dag_url, airflow_run_url, mlflow_version_url
from evergreen.spec import format_duration, metric_name
from evergreen.warehouse.connection import Connection

OVER: dict[str, str] = {
    AlertKind.DRIFT: "the drift is over",
    AlertKind.SERVING_SKEW: "online and batch predictions are alike",
    AlertKind.BATCH_QUARANTINED: "nothing is held back any more",
    AlertKind.RUN_FAILED: "it runs again",
    AlertKind.SPEC_UNUSABLE: "all of it can be used again",
}
WHAT: dict[str, str] = {
    AlertKind.DRIFT: "drift",
    AlertKind.DATA_PROBLEM: "windows or columns that could not be judged",
    AlertKind.SERVING_SKEW: "online predictions that differed from batch ones",
    AlertKind.BATCH_QUARANTINED: "batches or rows that were held back",
    AlertKind.RUN_FAILED: "a task that failed",
    AlertKind.SPEC_UNUSABLE: "a spec that could not be used",
}
REASONS = frozenset(reason.value for reason in TriggerReason)
# Of an alarm that estimates alone raised: nobody has seen a drift.
ESTIMATES = {TriggerReason.ESTIMATED_PERFORMANCE.value}
MOST_FILES = 10
NEXT: dict[str, str] = {
    AlertKind.DRIFT: "Nothing needs to be done. The champion is watched as before; a drift that comes back is told again.",
    AlertKind.DATA_PROBLEM: "Nothing needs to be done. Windows whose rows came late are judged again by themselves.",
    AlertKind.SERVING_SKEW: "Nothing needs to be done. What is served is compared once a day as before.",
    AlertKind.SPEC_UNUSABLE: "Nothing needs to be done. Airflow builds its DAGs again within a few minutes; what was missed meanwhile, "
    "the next runs take up.",
    AlertKind.RUN_FAILED: "Nothing needs to be done. What the failed runs would have done, this one has done or the next one does.",
}


def recovered(conn: Connection, known: KnownIncident) -> Letter:
    """The end of an incident."""
    of = str(known.get("of") or "")
    since, ended = _time(known.get("since")), _time(known.get("ended"))
    opened = known.get("opened")
    lasted = lasting(since, ended)
    code = known.decision.reason if known.decision else None
    version = known.version
    over = OVER.get(of, "it is over")
    if of == AlertKind.RUN_FAILED:
        over = f"{known.text('task')} runs again"
    if of == AlertKind.SPEC_UNUSABLE:
        over = f"{' and '.join(map(str, known.items('files')))} can be used again, or is gone"
    if of == AlertKind.DATA_PROBLEM or code == EndReason.NOT_COMPARED.value:
        over = words.reason(code)
    if of == AlertKind.DRIFT and REASONS.intersection(known.items("classes")) == ESTIMATES:
        over = "the error is no longer estimated beyond its limit"
    head = f"{known.name}{f' v{version}' if version else ''}: recovered, {over}"
    what = " and ".join(words.reason(str(c)) for c in known.items("classes") if c in words.REASONS)
    known.told |= {"incident", "classes", "since", "ended", "opened", "promotion", "held_files", "judgements"}
    return Letter(
        headline=head,
        summary=head + (f" after {lasted}" if lasted else ""),
        lead=(
            f"What was told as of {words.when(opened)} is over"
            + (f" after {lasted}" if lasted else "")
            + f": {_by(known, code)}.",
        ),
        tone="good",
        numbers=numbers(
            ("Lasted", lasted),
            *_more(known, of),
            ("Since", words.when(since)),
            ("Until", words.when(ended)),
            *_error(conn, known, of),
        ),
        facts=facts(
            ("What it was", what or WHAT.get(of, words.reason(of))),
            ("Ended by", _by(known, code)),
        ),
        small=recorded(("Airflow run", known.run_id)),
        steps=_steps(known, of),
        links=known_links(
            ("Model version", mlflow_version_url(known.name, version) if of == AlertKind.DRIFT else None),
            ("Airflow run", airflow_run_url(known.run_id)),
            ("Roll back", airflow_dag_url(f"rollback__{known.name}") if known.get("promotion") else None),
        ),
    )


def lasting(since: datetime | None, ended: datetime | None) -> str:
    """How long something lasted, in its two largest units, such as `9d 4h`; empty where that is not known."""
    if since is None or ended is None or ended <= since:
        return ""
    length = ended - since
    if length >= timedelta(hours=1):
        length = timedelta(hours=round(length / timedelta(hours=1)))
    else:
        length = timedelta(minutes=max(1, round(length / timedelta(minutes=1))))
    days, rest = divmod(length, timedelta(days=1))
    if days and rest:
        return f"{days}d {format_duration(rest)}"
    return format_duration(length)


def _by(known: KnownIncident, code: str | None) -> str:
    promotion = known.mapping("promotion")
    if promotion:
        verb = "rollback to" if promotion.get("kind") == DecisionKind.ROLLED_BACK.value else "promotion of"
        return f"{verb} version {promotion.get('version')} as of {words.when(promotion.get('as_of'))}"
    told = known.get("message")
    return str(told) if isinstance(told, str) else words.reason(code)


def _more(known: KnownIncident, of: str) -> tuple[tuple[str, object], ...]:
    windows = known.get("windows")
    known.told |= {"windows", "run_id"}
    return (("Healthy windows" if of == AlertKind.DRIFT else "Windows judged", windows),) if windows else ()


def _error(conn: Connection, known: KnownIncident, of: str) -> tuple[tuple[str, str], ...]:
    """The served error of the newest window that was measured, where a drift is over."""
    if of != AlertKind.DRIFT or known.model is None:
        return ()
    metric = known.model.performance_metric
    found = [w for w in windows(conn, known.name, metric, until=known.as_of) if w.value is not None]
    if not found:
        return ()
    side, guess = amounts.limit(metric, found[-1].limit), ", estimated" if found[-1].estimated else ""
    return (
        (f"{metric_name(metric)} now{guess}", f"{words.num(found[-1].value)}{f', {side}' if side else ''}"),
    )


def _steps(known: KnownIncident, of: str) -> tuple[str, ...]:
    if of == AlertKind.BATCH_QUARANTINED:
        # Of a mail that an earlier release owed: it ended while batches were still held.
        held, removed = known.get("still_held"), known.items("removed_files")
        if held:
            return (
                f"{amounts.count(held, 'batch', 'batches')} of {known.name} held back and still not published; the rows are in "
                f"quarantine.{known.name}. Mend and land them if they are missed.",
            )
        if removed:
            return (
                f"Files that are no longer in the folder, though not all of their rows were published: "
                f"{', '.join(map(str, removed[:MOST_FILES]))}"
                + (f" and {len(removed) - MOST_FILES} more" if len(removed) > MOST_FILES else "")
                + f". Land them again, mended, if their rows are missed; what failed is in quarantine.{known.name}.",
            )
        return ("Nothing needs to be done: what was held back was mended, published since or dismissed.",)
    return (NEXT[of],) if of in NEXT else ()


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
