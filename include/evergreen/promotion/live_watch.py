"""The watch after a promotion on the warehouse: its rows, its row in the ledger, its rollback."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from psycopg2 import sql

from evergreen import ledger, registry
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RollbackEvidence
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.promotion import superseded_watches
from evergreen.promotion.after_promotion import (
    MOST_ROWS,
    SCHEMA,
    WatchLook,
    compared,
    look_if_due,
    unseen,
)
from evergreen.promotion.rollback import RollbackCause, rollback
from evergreen.registry.under_watch import WatchedChampion
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import feature_query, views

log = logging.getLogger(__name__)


def watch(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Look at the newest promotion as of a time, see `after_promotion.look_if_due`.

    A rollback is returned to runs as of its own time only, so that they announce it.

    Raises:
        TerminalError: it must be rolled back and cannot be, see `rollback`; or the feature query does not run.
        TransientError: warehouse or MLflow do not answer, or the champion changed meanwhile; nothing was decided.
    """
    return look_if_due(LiveWatch(specs, model, as_of, run_id), model, as_of, run_id)


class LiveWatch:
    """See `after_promotion.WatchStore`."""

    def __init__(self, specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> None:
        self._specs, self._model, self._as_of, self._run_id = specs, model, as_of, run_id

    def changes(self) -> list[Decision]:
        with connect() as conn:
            return ledger.champions(conn, self._model.name, self._as_of)

    def ended(self) -> set[int | None]:
        with connect() as conn:
            ends = ledger.find(conn, ledger.model_subject(self._model.name), (DecisionKind.WATCH_ENDED,))
        return superseded_watches.ended(ends)

    def taken(self, key: str) -> Decision | None:
        with connect() as conn:
            return next(iter(ledger.find(conn, dedupe_key=key)), None)

    def champion(self) -> registry.Champion:
        with connect() as conn:
            champion = registry.champion(conn, self._model.name, repair=False, as_of=self._as_of)
        assert champion is not None
        return champion

    def look(self, champion: registry.Champion, found: WatchedChampion) -> tuple[WatchLook, float]:
        with connect() as conn:
            if not _predicted_by_former(conn, self._model, found, champion, self._as_of):
                return unseen(found, f"; the log of score__{self._model.name} says why"), 0.0
            coverage = _coverage(conn, self._model, found, champion, self._as_of)
        rows = _paired(self._specs, self._model, champion, found, self._as_of)
        return compared(self._model, rows), coverage

    def takeover(self, promotion: Decision) -> list[Decision]:
        kinds = (DecisionKind.CANARY, DecisionKind.WATCHED, DecisionKind.WATCH_ENDED)
        with connect() as conn:
            if ledger.champions(conn, self._model.name)[0].id != promotion.id:
                return []
            return ledger.find(conn, ledger.model_subject(self._model.name), kinds, as_of=self._as_of)

    def append(self, decision: Decision) -> Decision:
        with connect() as conn:
            return ledger.append(conn, decision)

    def roll_back(
        self, champion: registry.Champion, found: WatchedChampion, key: str, evidence: RollbackEvidence
    ) -> Decision | None:
        with connect() as conn:
            newest = ledger.champions(conn, self._model.name)[0]
        if newest.id != found.promotion.id and newest.as_of > self._as_of:
            log.warning(
                "%s: version %s was worse than version %s as of %s, but the champion has changed since; nothing is rolled back",
                self._model.name, champion.version, found.previous, self._as_of.isoformat(),
            )  # fmt: skip
            return None
        cause = RollbackCause(WatchReason.WORSE, found.promotion.id or 0, key, evidence)
        return rollback(
            self._specs, self._model, self._as_of, self._run_id,
            to_version=found.previous, reason=evidence.message or "", finding=cause,
        )  # fmt: skip

    def again(self, done: Decision) -> Decision | None:
        """The alias is moved if the run before could not."""
        if done.as_of != self._as_of:
            return None
        with connect() as conn:
            registry.champion(conn, self._model.name)
        return done


def _predicted_by_former(
    conn: Connection, model: ModelSpec, found: WatchedChampion, champion: registry.Champion, as_of: datetime
) -> bool:
    """Whether the champion before has predicted anything that can be compared."""
    every = _Predictions(model, champion, found, as_of)
    query = sql.SQL("SELECT EXISTS {beside} OR EXISTS {answered} AS found").format(
        beside=every.beside(str(found.previous)), answered=every.answered_by_former()
    )
    return bool(fetch(conn, query)[0]["found"])


def _coverage(
    conn: Connection, model: ModelSpec, found: WatchedChampion, champion: registry.Champion, as_of: datetime
) -> float:
    """The share of the rows that one of both answered in the watch period which the other predicted too."""
    answered = _Predictions(model, champion, found, min(as_of, found.shadowed_until))
    every = _Predictions(model, champion, found, as_of)
    # Two joins, no full one: its rows without a key on one side would all be of one hash, which PostgreSQL cannot part.
    query = sql.SQL(
        "SELECT coalesce(sum(covered)::float8 / nullif(sum(rows), 0), 0) AS share FROM ("
        "SELECT count(*) AS rows, count(*) FILTER (WHERE o.key IS NOT NULL OR b.key IS NOT NULL) AS covered FROM {new} AS n"
        " LEFT JOIN {old_beside} AS o ON o.key = n.key LEFT JOIN {new_beside} AS b ON b.key = n.key"
        " UNION ALL SELECT count(*), count(b.key) FROM {old} AS s LEFT JOIN {new_beside} AS b ON b.key = s.key"
        " WHERE NOT EXISTS (SELECT FROM {new} AS n WHERE n.key = s.key)) AS counted"
    ).format(
        new=answered.answered(),
        old=answered.answered_by_former(),
        old_beside=every.beside(str(found.previous)),
        new_beside=every.beside(champion.version),
    )
    return float(fetch(conn, query)[0]["share"])


def _paired(
    specs: Specs, model: ModelSpec, champion: registry.Champion, found: WatchedChampion, as_of: datetime
) -> pa.Table:
    """Rows that the champion has not learnt, with a mature label and both predictions, as known at a time.

    A pair is what one of both answered and what the other predicted beside it, of the same features: out of one read of a
    batch, or in one request. Where the champion before answered a key online that a batch predicts with both too, the pair
    counts that was answered first.
    """
    every = _Predictions(model, champion, found, as_of, views.PREDICTIONS, views.SHADOW)
    query = sql.SQL(
        "SELECT f._time, f._label, CASE WHEN {first} THEN a.new ELSE b.new END AS _new,"
        " CASE WHEN {first} THEN a.old ELSE b.old END AS _old FROM ({rows}) AS f"
        " LEFT JOIN (SELECT n.key, n.prediction AS new, o.prediction AS old, n.as_of AS at FROM {new} AS n"
        " JOIN {old_beside} AS o ON o.key = n.key) AS a ON a.key = f._key"
        " LEFT JOIN (SELECT o.key, n.prediction AS new, o.prediction AS old, o.as_of AS at FROM {old} AS o"
        " JOIN {new_beside} AS n ON n.key = o.key) AS b ON b.key = f._key"
        " WHERE a.key IS NOT NULL OR b.key IS NOT NULL ORDER BY f._hash, f._key LIMIT {most}"
    ).format(
        first=sql.SQL("b.key IS NULL OR a.at <= b.at"),
        rows=feature_query.feature_query(
            model, champion.trained_until, None, mature_at=as_of, labelled=True, ordered=False
        ),
        new=every.answered(),
        old_beside=every.beside(str(found.previous)),
        old=every.answered_by_former(),
        new_beside=every.beside(champion.version),
        most=sql.Literal(MOST_ROWS),
    )
    with views.reading(specs, model, as_of) as reader:
        return reader.table(query, SCHEMA)


@dataclass(frozen=True)
class _Predictions:
    """What champion and former champion have predicted of rows that the champion has not learnt, as known at a time; as SQL.

    Attributes:
        as_of: predictions of a later time do not count.
        answers, shadows: the tables, or the views of a reader.
    """

    model: ModelSpec
    champion: registry.Champion
    found: WatchedChampion
    as_of: datetime
    answers: str = "evergreen.prediction"
    shadows: str = "evergreen.shadow_prediction"

    def answered(self) -> sql.Composable:
        """What the champion answered, in batches and online."""
        return self._of(self.answers, self.champion.version)

    def answered_by_former(self) -> sql.Composable:
        """What the champion before answered online for its share of the keys: that is what it did while the promotion was in force."""
        return self._of(self.answers, str(self.found.previous), self.found.promotion.effective_from)

    def beside(self, version: str) -> sql.Composable:
        """What a version predicted beside the one that answered."""
        return self._of(self.shadows, version)

    def _of(self, table: str, version: str, since: datetime | None = None) -> sql.Composable:
        return sql.SQL(
            "(SELECT key, prediction, as_of FROM {table} WHERE model = {model} AND version = {version}"
            " AND event_time >= {learnt} AND as_of <= {as_of}{since})"
        ).format(
            table=sql.Identifier(*table.split(".")),
            model=sql.Literal(self.model.name),
            version=sql.Literal(version),
            learnt=sql.Literal(self.champion.trained_until),
            as_of=sql.Literal(self.as_of),
            since=sql.SQL(" AND as_of >= {}").format(sql.Literal(since)) if since else sql.SQL(""),
        )
