"""How many decisions of each kind the ledger has, counted once and then only what was added.

The ledger is append-only and grows for years, so a scrape never counts it whole: the rows up to a point are counted in steps and
remembered, and a scrape reads what came after. A row gets its id before it is committed, so the point lags: a transaction that
appended a decision and goes on for longer than `SETTLED` would be missed by one.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import Connection, fetch

STEP = 50_000
"""Rows that one question reads."""
SETTLED = "1 hour"
_HELD = [DecisionKind.BATCH_PUBLISHED.value, DecisionKind.BATCH_QUARANTINED.value]
_NEXT = (
    "WITH next AS MATERIALIZED (SELECT id, decided_at, kind,"
    " CASE WHEN starts_with(subject, 'dataset/') THEN substr(subject, 9) ELSE '' END AS dataset,"
    " CASE WHEN kind = ANY(%(held)s) THEN coalesce((evidence->>'rows_held')::bigint, 0) ELSE 0 END AS held"
    " FROM evergreen.decision WHERE id > %(upto)s ORDER BY id LIMIT %(step)s),"
    " settled AS (SELECT coalesce(max(id), %(upto)s) AS upto FROM next WHERE decided_at < clock_timestamp() - %(settled)s::interval)"
    " SELECT dataset, kind, id <= upto AS settled, upto, count(*)::bigint AS decisions, sum(held)::bigint AS held"
    " FROM next, settled GROUP BY 1, 2, 3, 4"
)


@dataclass
class DecisionCounts:
    """Decisions by dataset (empty: not of a dataset) and kind, and rows held back by dataset; kept between scrapes."""

    upto: int = 0
    ledger: int | None = None
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)

    def read(self, conn: Connection, until: float) -> tuple[Counter[tuple[str, str]], Counter[str]] | None:
        """The counts of now, decisions and rows held; None where the ledger is not counted yet: the next scrape goes on.

        Args:
            conn: the warehouse.
            until: no further step is begun after this time (`time.monotonic`).
        """
        self._start_over_where_it_is_another(conn)
        while True:
            rows = fetch(
                conn,
                _NEXT,
                {"upto": self.upto, "step": STEP, "held": _HELD, "settled": SETTLED},
            )
            decisions, held = Counter(self.decisions), Counter(self.held)
            for row in rows:
                for counted in ((decisions, held), (self.decisions, self.held))[: 1 + row["settled"]]:
                    counted[0][row["dataset"], row["kind"]] += row["decisions"]
                    counted[1][row["dataset"]] += row["held"]
            moved = bool(rows) and rows[0]["upto"] > self.upto
            self.upto = rows[0]["upto"] if rows else self.upto
            if sum(row["decisions"] for row in rows) < STEP:
                return decisions, held
            if not moved or time.monotonic() > until:
                return None

    def _start_over_where_it_is_another(self, conn: Connection) -> None:
        (found,) = fetch(
            conn,
            "SELECT 'evergreen.decision'::regclass::oid::bigint AS ledger,"
            " %(upto)s = 0 OR EXISTS (SELECT 1 FROM evergreen.decision WHERE id = %(upto)s) AS there",
            {"upto": self.upto},
        )
        if self.ledger != found["ledger"] or not found["there"]:
            self.upto, self.ledger = 0, found["ledger"]
            self.decisions, self.held = Counter(), Counter()
