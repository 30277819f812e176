"""Short phrases that several commands say: how long ago, how many, against which limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from evergreen.health.subjects import ModelHealth, ServedError, WorstColumn
from evergreen.ledger import words
from evergreen.spec import LARGER_IS_BETTER, metric_name

STYLES = {"act": "bad", "look": "warn", "answered": "warn", "fine": "good"}


def many(count: int, one: str, more: str = "") -> str:
    """A number with its word: `1 row`, `1,200 rows`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def age(since: datetime, now: datetime | None = None) -> str:
    """How long ago something was, in its largest unit: `3 hours`; what is to come is `less than a minute` old."""
    spent = (now or datetime.now(UTC)) - since
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):  # fmt: skip
        if spent >= 2 * length or (unit == "minute" and spent >= length):
            return many(int(spent / length), unit)
    return "less than a minute"


def error(found: ServedError | None) -> str:
    """The served error against its limit and against what the promotion promised."""
    if found is None:
        return "not measured yet"
    name = metric_name(found.metric)
    if found.value is None:
        return f"{name} could not be computed"
    larger = found.metric in LARGER_IS_BETTER
    side = ("below" if larger else "above") if found.violated else "within"
    limit = "no limit that alarms" if found.limit is None else f"{side} its limit {words.num(found.limit)}"
    promised = f"; {words.num(found.promised)} when promoted" if found.promised is not None else ""
    return f"{name} {words.num(found.value)}, {limit}{promised}"


def drift(worst: WorstColumn | None) -> str:
    """The worst column of the newest window against its limit."""
    if worst is None:
        return "not measured yet"
    measured = words.statistic_name(worst.kind, worst.statistic)
    drifting = f"{worst.drifting} of {many(worst.columns, 'column')} beyond their limits"
    if not worst.violated:
        drifting = f"none of {many(worst.columns, 'column')} beyond its limit"
    return (
        f"{words.column_name(worst.column)} {words.num(worst.value)}, limit {words.num(worst.limit)} ({measured}); {drifting}"
    )  # fmt: skip


def training(model: ModelHealth) -> str:
    """The newest verdict on a challenger in words."""
    last = model.training
    if last is None:
        return "none yet"
    version = f"v{last.version} " if last.version else ""
    told = {
        "promoted": "became champion",
        "rejected": "was rejected",
        "awaiting_approval": "waits for approval",
    }
    return f"{version}{told.get(last.kind, words.kind(last.kind))} {age(last.decided)} ago: {words.reason(last.reason)}"


def online(model: ModelHealth) -> str:
    """How the model was asked online in the last hour, and when last."""
    asked = model.online
    if asked is None:
        return "never asked"
    told = [asked.words or "not asked in the last hour"]
    told += [f"{many(asked.lost, 'record')} lost in the last day"] if asked.lost else []
    told += [model.takeover] if model.takeover else []
    return f"{', '.join(told)}; last asked {age(asked.last)} ago"
