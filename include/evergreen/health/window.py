"""One judged window: what was measured, against what, the worst columns that count first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen.ledger import words
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.error_text import sentence
from evergreen.monitoring.windows.judgement import Judgement, What, not_judged, worst_first
from evergreen.warehouse.connection import Connection, fetch

PAST_WINDOWS = 26
OF_THE_ERROR = (What.PERFORMANCE, What.ESTIMATED_PERFORMANCE)


@dataclass(frozen=True)
class WindowColumn:
    """One statistic of one column.

    Attributes:
        column: its name; `label` as people read it.
        measure: what was measured, in words.
        value: None: could not be computed.
        limit: of the value.
        violated: it is a violation.
        not_judged: why it is shown only and counts for nothing; empty where it is judged.
        detail: what else is known.
        past: its value as a share of its limit in the newest windows up to this one, oldest first; None: not measured.
    """

    column: str
    label: str
    measure: str
    value: float | None
    limit: float
    violated: bool
    not_judged: str
    detail: str
    past: tuple[float | None, ...]

    @property
    def of_limit(self) -> float | None:
        """The value as a share of its limit."""
        return _share(self.value, self.limit)


@dataclass(frozen=True)
class Revision:
    """How a window came out in one of its judgements: number, version, as of when, status, rows, labels."""

    revision: int
    version: str
    as_of: datetime
    status: str
    rows: int
    labelled: int


@dataclass(frozen=True)
class WindowDetails:
    """A window as it was judged last.

    Attributes:
        judged: the judgement.
        errors: each metric of the served error in a sentence, and whether it is a violation; the watched one first.
        columns: those beyond their limits, the worst first; those within; those only shown; at the end what is not judged and could not be computed.
        violations: what else was on the wrong side of its limit, such as too few rows, in sentences.
        revisions: all judgements of the window, the newest first.
        before, after: starts of the windows beside it that were judged.
    """

    judged: Judgement
    errors: tuple[tuple[str, bool], ...]
    columns: tuple[WindowColumn, ...]
    violations: tuple[str, ...]
    revisions: tuple[Revision, ...]
    before: datetime | None
    after: datetime | None


def details(conn: Connection, model: str, when: datetime, version: str | None = None) -> WindowDetails | None:
    """The window in which a moment lies, as it was judged last; None where no such window was judged.

    Args:
        conn: the warehouse.
        model: its name.
        when: any moment of the window, aware.
        version: the judgement under this version; None: under whichever judged it last.
    """
    judged = store.at(conn, model, when, version=version)
    if judged is None:
        return None
    beside = fetch(
        conn,
        "SELECT max(window_start) FILTER (WHERE window_start < %(start)s) AS before, min(window_start) FILTER"
        " (WHERE window_start > %(start)s) AS after FROM evergreen.window_judgement WHERE model = %(model)s",
        {"start": judged.window_start, "model": model},
    )[0]
    revisions = fetch(
        conn,
        "SELECT revision, version, as_of, status, row_count AS rows, labelled FROM evergreen.window_judgement"
        " WHERE model = %s AND window_start = %s ORDER BY as_of DESC, id DESC",
        (model, judged.window_start),
    )
    watched = sorted(judged.metrics.items(), key=lambda found: found[1].state == "shown")
    measured = {(c.column, c.kind) for c in judged.columns}
    return WindowDetails(
        judged=judged,
        errors=tuple((sentence(name, found), found.violated) for name, found in watched),
        columns=_columns(conn, judged),
        violations=tuple(
            v.detail or f"{words.reason(v.kind.value)}: {words.num(v.value)}, limit {words.num(v.limit)}"
            for v in judged.violations
            if (v.column, v.kind) not in measured and v.kind not in OF_THE_ERROR
        ),
        revisions=tuple(Revision(**row) for row in revisions),
        before=beside["before"],
        after=beside["after"],
    )


def _columns(conn: Connection, judged: Judgement) -> tuple[WindowColumn, ...]:
    past = _past(conn, judged)
    return tuple(
        WindowColumn(
            c.column, words.column_name(c.column), words.statistic_name(c.kind.value, c.statistic), c.value, c.limit, c.violated,
            not_judged(c.detail), c.detail, past.get((c.column, c.kind.value), ()),
        )
        for c in sorted(judged.columns, key=worst_first)
    )  # fmt: skip


def _past(conn: Connection, judged: Judgement) -> dict[tuple[str, str], tuple[float | None, ...]]:
    """The same statistics in the windows up to this one, as shares of their limits."""
    ids = [
        row["id"]
        for row in fetch(
            conn,
            "SELECT id FROM (SELECT DISTINCT ON (window_start) id, window_start FROM evergreen.window_judgement WHERE model = %s"
            " AND window_start < %s ORDER BY window_start DESC, as_of DESC, revision DESC, id DESC LIMIT %s) AS newest ORDER BY window_start",
            (judged.model, judged.window_start, PAST_WINDOWS - 1),
        )
    ]
    ids.append(judged.id or 0)
    place = {identifier: index for index, identifier in enumerate(ids)}
    found: dict[tuple[str, str], list[float | None]] = {}
    for row in fetch(
        conn, "SELECT judgement_id, column_name, kind, value, threshold FROM evergreen.window_column WHERE judgement_id = ANY(%s)", (ids,)
    ):  # fmt: skip
        shares = found.setdefault((row["column_name"], row["kind"]), [None] * len(ids))
        shares[place[row["judgement_id"]]] = _share(row["value"], row["threshold"])
    return {key: tuple(shares) for key, shares in found.items()}


def _share(value: float | None, limit: float) -> float | None:
    if value is None:
        return None
    return value / limit if limit else (0.0 if not value else 1e6)
