"""The watch after a promotion on the warehouse: its rows, its row in the ledger, its rollback."""

from __future__ import annotations

import logging
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
            if not _shadowed(conn, self._model, found, champion, self._as_of):
                return unseen(found, f"; the log of score__{self._model.name} says why"), 0.0
            coverage = _coverage(conn, self._model, found, champion, self._as_of)
        rows = _paired(self._specs, self._model, champion, found, self._as_of)
        return compared(self._model, rows), coverage

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


def _shadowed(
    conn: Connection, model: ModelSpec, found: WatchedChampion, champion: registry.Champion, as_of: datetime
) -> bool:
    """Whether the champion before has predicted anything that can be compared."""
    return bool(
        fetch(
            conn,
            "SELECT EXISTS (SELECT 1 FROM evergreen.shadow_prediction WHERE model = %s AND version = %s AND event_time >= %s"
            " AND as_of <= %s) AS found",
            (model.name, found.previous, champion.trained_until, as_of),
        )[0]["found"]
    )


def _coverage(
    conn: Connection, model: ModelSpec, found: WatchedChampion, champion: registry.Champion, as_of: datetime
) -> float:
    """The share of the rows that the champion scored in the watch period which the previous one predicted too."""
    return float(
        fetch(
            conn,
            "SELECT coalesce(count(o.key)::float8 / nullif(count(*), 0), 0) AS share FROM evergreen.prediction AS n"
            " LEFT JOIN evergreen.shadow_prediction AS o"
            " ON o.model = n.model AND o.key = n.key AND o.version = %s AND o.as_of <= %s"
            " WHERE n.model = %s AND n.version = %s AND n.event_time >= %s AND n.as_of <= %s",
            (
                found.previous, as_of, model.name, champion.version, champion.trained_until,
                min(as_of, found.shadowed_until),
            ),
        )[0]["share"]
    )  # fmt: skip


def _paired(
    specs: Specs, model: ModelSpec, champion: registry.Champion, found: WatchedChampion, as_of: datetime
) -> pa.Table:
    """Rows that the champion has not learnt, with a mature label and both predictions, as known at a time."""
    query = sql.SQL(
        "SELECT f._time, f._label, n.prediction AS _new, o.prediction AS _old FROM ({rows}) AS f"
        " JOIN ({new}) AS n ON n.key = f._key JOIN ({old}) AS o ON o.key = f._key"
        " ORDER BY f._hash, f._key LIMIT {most}"
    ).format(
        rows=feature_query.feature_query(
            model, champion.trained_until, None, mature_at=as_of, labelled=True, ordered=False
        ),
        new=_predicted(views.PREDICTIONS, champion.version, champion.trained_until, as_of),
        old=_predicted(views.SHADOW, str(found.previous), champion.trained_until, as_of),
        most=sql.Literal(MOST_ROWS),
    )
    with views.reading(specs, model, as_of) as reader:
        return reader.table(query, SCHEMA)


def _predicted(view: str, version: str, start: datetime, as_of: datetime) -> sql.Composable:
    return sql.SQL(
        "SELECT key, prediction FROM {view} WHERE version = {version} AND event_time >= {start}"
        " AND as_of <= {as_of}"
    ).format(
        view=sql.Identifier(view),
        version=sql.Literal(version),
        start=sql.Literal(start),
        as_of=sql.Literal(as_of),
    )
