"""How a model is asked online: of all models at once for the overview, and of one for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg2 import sql

from evergreen import ledger
from evergreen.alerting.content.online import ADDED_UP, Traffic, added_up
from evergreen.errors import EvergreenError
from evergreen.health.subjects import Online, Service
from evergreen.health.told import LedgerRow, rows
from evergreen.ledger.reasons import DecisionKind
from evergreen.registry.rollout import Rollout, canary_rows, shared
from evergreen.warehouse.connection import Connection, fetch

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SHOWN_STEPS, SHOWN_WINDOWS = 5, 6
MOST_COUNTED = 50_000
"""Predictions of a window that are counted; of more it is said that there are more."""

SILENT = timedelta(minutes=4)
"""A service that has given no sign of life for so long is away: three of them are missing."""
GIVEN_UP = timedelta(days=30)
"""One that is away for so long is meant to be."""

# The newest minute of each model is one step in the index.
_NOW = sql.SQL(
    "WITH hour AS ({hour}) SELECT hour.*, w.model, newest.minute AS last, coalesce(day.lost, 0) AS lost_in_day"
    " FROM unnest(%(models)s::text[]) AS w (model) CROSS JOIN LATERAL (SELECT minute FROM evergreen.traffic WHERE model = w.model"
    " AND requests > 0 ORDER BY minute DESC LIMIT 1) AS newest LEFT JOIN hour ON hour.model = w.model"
    " LEFT JOIN LATERAL (SELECT sum(lost)::bigint AS lost FROM evergreen.traffic WHERE model = w.model AND lost > 0"
    " AND minute >= %(until)s - interval '1 day') AS day ON true"
).format(hour=ADDED_UP.format(keys=sql.Identifier("model")))
_WINDOWS = (
    "SELECT w.window_start, w.window_end, count(p.online)::int AS counted, count(*) FILTER (WHERE p.online)::int AS online"
    " FROM (SELECT DISTINCT window_start, window_end FROM evergreen.window_judgement WHERE model = %(model)s"
    " ORDER BY window_start DESC LIMIT %(windows)s) AS w LEFT JOIN LATERAL (SELECT run_id LIKE 'online/%%' AS online"
    " FROM evergreen.prediction WHERE model = %(model)s AND event_time >= w.window_start AND event_time < w.window_end"
    " LIMIT %(most)s) AS p ON true GROUP BY 1, 2 ORDER BY 1 DESC"
)


@dataclass(frozen=True)
class Answering:
    """A version: what it answered in the last hour and day, and for which share of the keys it answers now (None: for none any more)."""

    version: str
    hour: Traffic
    day: Traffic
    share: float | None


@dataclass(frozen=True)
class Hour:
    """An hour: when it begins, all that was asked, and how many requests each version answered."""

    begin: datetime
    traffic: Traffic
    answered: Mapping[str, int]


@dataclass(frozen=True)
class ServedWindow:
    """A judged window: predictions of its rows that were made online, and in batches; `more`: it has more than were counted."""

    start: datetime
    end: datetime
    online: int
    batch: int
    more: bool


@dataclass(frozen=True)
class OnlineDetails:
    """What the page of a model tells of its online predictions.

    Attributes:
        hour, day: all that was asked.
        versions: those that answered in the last day or answer now, the champion first.
        hours: of the last day, oldest first, those in which nothing was asked, too.
        rollout: who answers for which share of the keys; None: there is no champion, or the ledger does not say.
        problem: why the ledger does not say; else empty.
        steps: the newest rows of the share of the keys, newest first.
        windows: the newest ones, newest first.
        compared: the newest comparison of what was served with what a batch predicts of the same rows; None: there was none.
    """

    hour: Traffic
    day: Traffic
    versions: tuple[Answering, ...]
    hours: tuple[Hour, ...]
    rollout: Rollout | None
    problem: str
    steps: tuple[LedgerRow, ...]
    windows: tuple[ServedWindow, ...]
    compared: LedgerRow | None


def of_now(conn: Connection, models: Sequence[str], now: datetime | None = None) -> dict[str, Online]:
    """The last hour of those of the models that were ever asked online, in one statement.

    Args:
        conn: the warehouse.
        models: their names. Where none is given the warehouse is not asked, as who reads datasets alone may not see the traffic.
        now: default: now, by the clock.
    """
    if not models:
        return {}
    now = now or datetime.now(UTC)
    found = fetch(conn, _NOW, {"models": list(models), "since": now - HOUR, "until": now, "step": HOUR})
    return {
        row["model"]: Online(
            hour=Traffic() if row["requests"] is None else Traffic.of(row),
            lost=row["lost_in_day"],
            last=row["last"],
        )
        for row in found
    }


def service(
    conn: Connection, models: Sequence[str], asked: datetime | None, now: datetime | None = None
) -> Service | None:
    """Whether the prediction service lives; None: no process of it has said so for long.

    Args:
        conn: the warehouse.
        models: that are shown; where none is the warehouse is not asked, as in `of_now`.
        asked: the newest minute in which one of them was asked.
        now: default: now, by the clock.
    """
    if not models:
        return None
    heard = fetch(conn, "SELECT max(alive_at) AS heard FROM evergreen.serving_process")[0]["heard"]
    silent = (now or datetime.now(UTC)) - heard if heard is not None else GIVEN_UP
    return Service(heard, silent < SILENT, asked) if silent < GIVEN_UP else None


def details(conn: Connection, model: str, now: datetime | None = None) -> OnlineDetails:
    """The last day of a model online, and how its champion takes over there.

    Args:
        conn: the warehouse.
        model: its name.
        now: default: now, by the clock.
    """
    now = now or datetime.now(UTC)
    rollout, problem = _rollout(conn, model, now)
    subject = ledger.model_subject(model)
    steps = rows(conn, subject, kinds=[DecisionKind.CANARY.value], limit=SHOWN_STEPS)
    compared = rows(conn, subject, kinds=[DecisionKind.SERVING_COMPARED.value], limit=1)
    return OnlineDetails(
        hour=_all(conn, model, now - HOUR, now),
        day=_all(conn, model, now - DAY, now),
        versions=_versions(
            _by_version(conn, model, now - HOUR, now), _by_version(conn, model, now - DAY, now), rollout
        ),
        hours=_hours(conn, model, now),
        rollout=rollout,
        problem=problem,
        steps=tuple(steps),
        windows=_windows(conn, model),
        compared=compared[0] if compared else None,
    )


def _all(conn: Connection, model: str, since: datetime, until: datetime) -> Traffic:
    found = added_up(conn, [model], since, until, "model")
    return found[0][1] if found else Traffic()


def _by_version(conn: Connection, model: str, since: datetime, until: datetime) -> dict[str, Traffic]:
    found = added_up(conn, [model], since, until, "version")
    return {keys["version"]: traffic for keys, traffic in found if keys["version"]}


def _rollout(conn: Connection, model: str, now: datetime) -> tuple[Rollout | None, str]:
    """Who answers; a page is shown also where the ledger does not say."""
    try:
        return shared(ledger.champions(conn, model, now), canary_rows(conn, model, now), now), ""
    except EvergreenError as error:
        return None, str(error)


def _versions(
    hour: Mapping[str, Traffic], day: Mapping[str, Traffic], rollout: Rollout | None
) -> tuple[Answering, ...]:
    shares = {}
    if rollout is not None:
        shares[rollout.champion] = rollout.share
        if rollout.former is not None:
            shares[rollout.former] = 1 - rollout.share
    return tuple(
        Answering(version, hour.get(version, Traffic()), day.get(version, Traffic()), shares.get(version))
        for version in dict.fromkeys((*shares, *reversed(list(day))))
    )


def _hours(conn: Connection, model: str, now: datetime) -> tuple[Hour, ...]:
    first = now.replace(minute=0, second=0, microsecond=0) - DAY + HOUR
    traffic = {keys["begin"]: one for keys, one in added_up(conn, [model], first, now, "begin", step=HOUR)}
    answered: dict[datetime, dict[str, int]] = {}
    for keys, one in added_up(conn, [model], first, now, "begin", "version", step=HOUR):
        if keys["version"]:
            answered.setdefault(keys["begin"], {})[keys["version"]] = one.answered
    begins = [first + n * HOUR for n in range(24)]
    return tuple(Hour(at, traffic.get(at, Traffic()), answered.get(at, {})) for at in begins)


def _windows(conn: Connection, model: str) -> tuple[ServedWindow, ...]:
    asked = {"model": model, "windows": SHOWN_WINDOWS, "most": MOST_COUNTED + 1}
    return tuple(
        ServedWindow(
            row["window_start"],
            row["window_end"],
            row["online"],
            row["counted"] - row["online"],
            row["counted"] > MOST_COUNTED,
        )
        for row in fetch(conn, _WINDOWS, asked)
    )
