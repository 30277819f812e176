"""How much models are asked online, how long that takes and what fails: added up from the minutes that the prediction service tells.

How percentiles are put together: no percentile of an hour can be had from those of its minutes. So `p50_ms` and `p99_ms` are the
minute in the middle, each minute counted with the requests that it answered, and `worst_ms` is the largest p99 of any minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg2 import sql

from evergreen.alerting.content import amounts
from evergreen.ledger import words
from evergreen.warehouse.connection import Connection, fetch

WEEK = timedelta(days=7)
ON_ITS_WAY = timedelta(minutes=10)
"""A letter leaves out the last minutes before its as-of time: the service may still be writing them, and a letter that is written again
would say more. What comes later still, as the warehouse was away, it does say then."""

# The service tells times in steps of a twelfth, so few of them differ: added up by time first, there is little left to sort.
ADDED_UP = sql.SQL(
    "SELECT {keys}, sum(requests)::bigint AS requests, sum(records)::bigint AS records, sum(errors)::bigint AS errors,"
    " sum(refused)::bigint AS refused, sum(lost)::bigint AS lost,"
    " min(p50_ms) FILTER (WHERE answered > 0 AND 2 * up_to_p50 >= in_all) AS p50_ms,"
    " min(p99_ms) FILTER (WHERE answered > 0 AND 2 * up_to_p99 >= in_all) AS p99_ms,"
    " max(p99_ms) FILTER (WHERE answered > 0) AS worst_ms FROM (SELECT *, sum(answered) OVER (PARTITION BY {keys}) AS in_all,"
    " sum(answered) OVER (PARTITION BY {keys} ORDER BY p50_ms) AS up_to_p50,"
    " sum(answered) OVER (PARTITION BY {keys} ORDER BY p99_ms) AS up_to_p99"
    " FROM (SELECT {keys}, p50_ms, p99_ms, sum(requests) AS requests, sum(records) AS records, sum(errors) AS errors,"
    " sum(refused) AS refused, sum(lost) AS lost, sum(requests - errors - refused)::float8 AS answered"
    " FROM (SELECT *, date_bin(%(step)s, minute, %(since)s) AS begin FROM evergreen.traffic"
    " WHERE model = ANY(%(models)s) AND minute >= %(since)s AND minute < %(until)s) AS minutes GROUP BY {keys}, p50_ms, p99_ms"
    ") AS by_time) AS ranked GROUP BY {keys}"
)
"""The traffic of some models in a span, by some of the keys `model`, `version` and `begin` (of a part of the span that is `step` long)."""


@dataclass(frozen=True)
class Traffic:
    """What was asked in a span of time.

    Attributes:
        requests: all that came.
        records: that were predicted.
        errors: requests that failed by the service's own fault.
        refused: requests that were wrong, by the client's.
        lost: records that are not in the log, so that monitoring and labels that come late know nothing of them.
        p50_ms, p99_ms: time of a request that was answered, of the minute in the middle; None: none was answered.
        worst_ms: the largest p99 of a minute.
    """

    requests: int = 0
    records: int = 0
    errors: int = 0
    refused: int = 0
    lost: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    worst_ms: float | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Traffic:
        """From a row of ADDED_UP."""
        return cls(*(row[name] for name in cls.__dataclass_fields__))

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return self.requests - self.errors - self.refused

    @property
    def error_share(self) -> float:
        """Errors among all requests, 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def refused_share(self) -> float:
        """Refused ones among all requests, 0 to 1."""
        return self.refused / self.requests if self.requests else 0.0


def added_up(
    conn: Connection,
    models: Sequence[str],
    since: datetime,
    until: datetime,
    *keys: str,
    step: timedelta = timedelta(days=1),
) -> list[tuple[dict[str, Any], Traffic]]:
    """The traffic of a span, in the order of its keys; nothing where nothing was asked.

    Args:
        conn: the warehouse.
        models: their names.
        since, until: minutes that begin in this span, without its end.
        keys: by what it is told apart: `model`, `version` (empty: no version answered), `begin` of a part of the span.
        step: how long a part is, counted from `since`.
    """
    named = sql.SQL(", ").join(map(sql.Identifier, keys))
    query = ADDED_UP.format(keys=named) + sql.SQL(" ORDER BY ") + named
    found = fetch(conn, query, {"models": list(models), "since": since, "until": until, "step": step})
    return [({key: row[key] for key in keys}, Traffic.of(row)) for row in found]


def week(conn: Connection, model: str, as_of: datetime) -> Traffic | None:
    """The week of a model up to some minutes before a time; None: it was not asked."""
    until = as_of - ON_ITS_WAY
    found = added_up(conn, [model], until - WEEK, until, "model")
    return found[0][1] if found else None


def by_version(conn: Connection, model: str, as_of: datetime) -> dict[str, Traffic]:
    """What each version answered in that week."""
    until = as_of - ON_ITS_WAY
    found = added_up(conn, [model], until - WEEK, until, "version")
    return {key["version"]: traffic for key, traffic in found if key["version"]}


def told(found: Traffic) -> str:
    """Traffic in a phrase: `1,200 requests, p99 4 ms, 0.1% errors, no record lost`."""
    parts = [amounts.count(found.requests, "request")]
    if found.p99_ms is not None:
        parts.append(f"p99 {milliseconds(found.p99_ms)}")
    parts.append(f"{percent(found.error_share)} errors" if found.errors else "no errors")
    if found.refused:
        parts.append(f"{percent(found.refused_share)} refused")
    parts.append(
        f"{amounts.count(found.lost, 'record')} lost from the log" if found.lost else "no record lost"
    )
    return ", ".join(parts)


def percent(share: float) -> str:
    """A share as `20%`, `1.7%`; one that is small and not nothing as `< 0.1%`."""
    if 0 < share < 0.0005:
        return "< 0.1%"
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%".replace(".0%", "%")


def milliseconds(value: float) -> str:
    """A time as `0.87 ms`, `4.4 ms`, `250 ms`: a percentile is known to within 5 %."""
    return f"{words.num(float(value), 2)} ms"


def line(conn: Connection, model: str, as_of: datetime | None) -> tuple[tuple[str, str], ...]:
    """A fact for a letter about a model's champion: its week online, and which version answered how much; nothing where it was not asked."""
    found = week(conn, model, as_of) if as_of is not None else None
    if found is None or as_of is None:
        return ()
    said, versions = told(found), by_version(conn, model, as_of)
    if len(versions) > 1:
        most = sorted(versions, key=lambda version: -versions[version].answered)
        shares = (f"version {v} {percent(versions[v].answered / (found.answered or 1))}" for v in most)
        said += f"; answered by {', '.join(shares)}"
    return (("Online, the week before", said),)
