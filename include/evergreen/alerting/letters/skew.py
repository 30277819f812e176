"""What is said when online predictions are not those that a batch makes of the same rows: which columns, which clients, what to mend."""

from __future__ import annotations

from typing import Any

from evergreen.alerting.content.letter import KnownIncident, Letter, Table, facts, known_links, numbers
from evergreen.ledger import words
from evergreen.ledger.reasons import SkewReason
from evergreen.links import airflow_run_url
from evergreen.warehouse.connection import Connection

_LEAD = {
    SkewReason.FEATURES.value: "Requests to the prediction service had other features than the warehouse has of the same keys, so other "
    "predictions were answered than a batch makes. The model itself has not changed: a retraining does not help, and none is asked for.",
    SkewReason.NUMBERS.value: "The prediction service answered another number than the same version predicts of the same features in a batch. "
    "That must never be: a file of the version is damaged, or the two run on other releases of XGBoost. No retraining is asked for.",
    SkewReason.UNEXPLAINED.value: "The prediction service answered otherwise than a batch predicts of the same rows. The features that differ "
    "were not kept with the requests, so nobody can tell which. A retraining does not help, and none is asked for.",
}


def skew(conn: Connection, known: KnownIncident) -> Letter:
    """Online predictions that differ from batch ones."""
    reason = known.decision.reason if known.decision else ""
    columns, example = [c for c in known.items("columns") if isinstance(c, dict)], known.mapping("example")
    known.told |= {"message", "since", "until", "clients", "columns", "example", "share", "limit"}
    head = f"{known.name}: {_head(known, reason, columns)}"
    told = f"online {words.num(example.get('answered'))}, batch {words.num(example.get('batch'))}"
    return Letter(
        headline=head,
        summary=head,
        lead=(_LEAD.get(reason, "Online predictions are not those that a batch makes of the same rows."),),
        tone="bad",
        numbers=numbers(
            ("Online predictions that differ", _share(known)),
            ("Compared with the warehouse", known.get("rows")),
            ("The same features, another number", known.get("other_numbers")),
            ("Largest difference", _percent(known.get("largest"))),
            ("That one", told if example else None),
        ),
        facts=facts(
            ("Model", known.name),
            ("Asked for", f"{words.when(known.get('since'))} to {words.when(known.get('until'))}"),
            ("Clients", _clients(known)),
            ("The largest difference", f"key {example.get('key')}, version {example.get('version')}" if example else None),
            ("Looked at closely", known.get("closely")),
            ("Not compared", known.get("left_out") or "nothing"),
            ("As of", words.when(known.as_of)),
        ),
        tables=_table(columns),
        next_title="What to do",
        steps=_steps(known, reason, columns),
        links=known_links(("Monitoring run", airflow_run_url(known.run_id))),
    )  # fmt: skip


def _head(known: KnownIncident, reason: str, columns: list[dict[str, Any]]) -> str:
    if reason == SkewReason.NUMBERS.value:
        return f"online predictions differ from batch ones, {words.num(known.get('other_numbers'))} of the same features"
    share = known.get("share")
    much = f", {words.percent(share)} of them" if isinstance(share, float) else ""
    named = f", {columns[0].get('column')}" if columns else ""
    more = (
        f" and {len(columns) - 1} more sent otherwise"
        if len(columns) > 1
        else " sent otherwise"
        if columns
        else ""
    )
    return f"online predictions differ from batch ones{much}{named}{more}"  # fmt: skip


def _share(known: KnownIncident) -> str | None:
    share, limit = known.get("share"), known.get("limit")
    if not isinstance(share, float) or not isinstance(limit, float):
        return None
    return (
        f"{words.num(known.get('differing'))} ({words.percent(share)}), told from {words.percent(limit)} on"
    )


def _percent(value: Any) -> str | None:
    return f"{words.percent(value)} of the larger one" if isinstance(value, float) else None


def _clients(known: KnownIncident) -> str:
    found = [one for one in known.items("clients") if isinstance(one, dict)]
    return ", ".join(f"{one.get('client')} ({one.get('rows')})" for one in found) or words.MISSING


def _table(columns: list[dict[str, Any]]) -> tuple[Table, ...]:
    if not columns:
        return ()
    rows = tuple(
        (
            str(one.get("column")),
            words.percent(float(one.get("share") or 0)),
            *(str(one.get(name)) for name in ("sent", "found", "key")),
        )
        for one in columns
    )
    return (
        Table("Sent otherwise", ("Column", "Of the records", "In the request", "In the warehouse", "Key"), rows),
    )  # fmt: skip


def _steps(known: KnownIncident, reason: str, columns: list[dict[str, Any]]) -> tuple[str, ...]:
    end = "It ends by itself: the next comparison, after midnight UTC, sees what was mended."
    if reason == SkewReason.NUMBERS.value:
        return (
            "Start the prediction service again with an empty folder of kept versions, and see that it and the monitor have the same "
            "release of XGBoost. If it stays, roll back to the champion before.",
            end,
        )
    if reason == SkewReason.UNEXPLAINED.value:
        return (
            f"Let the features of requests be kept: serving.log.share and serving.sensitive in models/{known.name}.yaml. Until then, hold "
            "a request of the clients above against the rows by hand.",
            end,
        )
    named = ", ".join(str(one.get("column")) for one in columns[:3]) or "the columns below"
    return (
        f"Look at {named} in the table: another unit, another time zone, a default for what is missing? Mend the client, or let it "
        "ask by key, which takes the features from the feature query.",
        f"Where the client is right, mend the feature query of {known.name} or what lands in its datasets.",
        end,
    )
