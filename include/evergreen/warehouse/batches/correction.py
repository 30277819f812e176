"""Corrections: what was published is taken back or replaced, from now on, and the past stays what was known.

Every correction is the same step: for the keys that it touches, the version that ought to be known now is found among all
versions of the batches that still count, and becomes a new version of its row; where there is none, the key is gone. The
version before it moves to the history and ends as of the correction.

Which one ought to be known is the order of the batches: a later one replaces what an earlier one said of a key (with
`arrival.column`, the later arrival does). A batch that is withdrawn does not count any more, one that is judged again keeps
its place. A file of keys is a batch, too: one that says of its keys that they are gone.

What a batch says of a key and what a later one has replaced stands in the history as a version that ends when it begins: no
as-of time sees it, and it comes back when the later batch is withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.warehouse import planner
from evergreen.warehouse.batches.publish import HELD
from evergreen.warehouse.batches.staging import Staged, table
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Corrected:
    """What became of the keys that a correction touched.

    Attributes:
        gone: keys that are not in the dataset any more.
        restored: keys that have the values of an earlier batch again.
        new: keys that the new reading of a file added.
        changed: keys to which it gave other values.
        unchanged: keys whose values it confirmed.
        replaced: rows of it that change nothing, because a later batch says something else of their keys.
    """

    gone: int = 0
    restored: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    replaced: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the dataset are others than before."""
        return self.gone + self.restored + self.new + self.changed


def mark_deleted(conn: Connection, dataset: DatasetSpec, keys: Staged, batch: int, as_of: datetime) -> int:
    """Let a batch say of keys that they are gone; returns how many of them are there. `settle` then takes them away.

    Args:
        conn: the transaction, in which `publish.prepare` was called.
        dataset: the spec.
        keys: a typed table with the key columns.
        batch: the id of the batch, whose state is `keys_deleted`.
        as_of: as-of time of the correction, aware.
    """
    parts = _parts(dataset, as_of)
    with conn.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)"
                " SELECT {c}, {as_of}, {batch}, {as_of} FROM {current} AS c"
                " WHERE EXISTS (SELECT 1 FROM {typed} AS a WHERE {c_a})"
            ).format(**parts, batch=sql.Literal(batch), typed=table(keys.typed))
        )
        return int(cursor.rowcount)


def settle(
    conn: Connection,
    dataset: DatasetSpec,
    batch: int,
    as_of: datetime,
    *,
    reading: tuple[Staged, int] | None = None,
    of_keys: bool = False,
) -> Corrected:
    """Make known what ought to be known, after the state of a batch was changed.

    Args:
        conn: the transaction, in which `publish.prepare` was called and evergreen.batch says which batches count.
        dataset: the spec.
        batch: the id of the batch that counts no more, or of a file of keys.
        as_of: from when on it is known, aware; for a version that arrives later, from its arrival on.
        reading: the new reading of its file and the id under which it counts; `publish.mark_held` was called for it.
        of_keys: the batch is a file of keys.
    """
    parts = _parts(dataset, as_of)
    none = sql.SQL("SELECT {columns} FROM {current} LIMIT 0").format(**parts)
    fresh = sql.SQL(
        "SELECT {n} FROM {typed} AS n WHERE NOT EXISTS (SELECT 1 FROM {held} AS held WHERE held._row = n._row)"
    ).format(n=parts["n"], typed=table(reading[0].typed), held=HELD) if reading else none  # fmt: skip
    parts |= {"batch": sql.Literal(batch), "fresh": fresh, "new": sql.Literal(reading[1] if reading else None),
              "had": parts["history" if of_keys else "current"]}  # fmt: skip
    with conn.cursor() as cursor:

        def run(statement: str) -> int:
            cursor.execute(sql.SQL(statement).format(**parts))
            return int(cursor.rowcount)

        for step in ("touched", "winner", "turn"):
            run(f"DROP TABLE IF EXISTS pg_temp._{step}")
        for statement, step in ((_TOUCHED, "touched"), (_WINNER, "winner"), (_TURN, "turn")):
            run(statement)
            run(f"ANALYZE pg_temp._{step}")
        run("SELECT _what, count(*) FROM pg_temp._turn GROUP BY 1")
        counts = {what: int(count) for what, count in cursor.fetchall() if what}
        run(_ARCHIVE)
        run(_SAID_ALIKE)
        run(_DELETE)
        run(_UPDATE)
        run(_INSERT)
        replaced = run(_REPLACED) if reading else 0
    done = Corrected(
        counts.get("gone", 0),
        counts.get("restored", 0) + counts.get("back", 0),
        counts.get("new", 0),
        counts.get("changed", 0),
        counts.get("confirmed", 0),
        replaced,
    )
    planner.refresh(conn, f"data.{dataset.name}", done.rows)
    planner.refresh(conn, f"data.{dataset.name}__history", done.rows + replaced)
    return done


def _parts(dataset: DatasetSpec, as_of: datetime) -> dict[str, Any]:
    names = list(dataset.columns)

    def columns(alias: str | None, only: list[str] | tuple[str, ...] = tuple(names)) -> sql.Composable:
        return sql.SQL(", ").join(sql.Identifier(alias, n) if alias else sql.Identifier(n) for n in only)

    def same(one: str, other: str) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(one, k), sql.Identifier(other, k)) for k in dataset.key
        )

    arrival: sql.Composable = sql.SQL("NULL::timestamptz")
    if dataset.arrival.column:
        arrival = sql.SQL("{}::timestamptz").format(sql.Identifier("w", dataset.arrival.column))
    elif dataset.arrival.delay is not None:
        arrival = sql.SQL("({}::timestamptz + {})").format(
            sql.Identifier("w", dataset.event_time), sql.Literal(dataset.arrival.delay)
        )
    later: sql.Composable = sql.SQL("")
    if dataset.arrival.column:
        later = sql.SQL("{} DESC NULLS LAST, ").format(sql.Identifier("v", dataset.arrival.column))
    return {
        "current": sql.Identifier("data", dataset.name),
        "history": sql.Identifier("data", f"{dataset.name}__history"),
        "dataset": sql.Literal(dataset.name),
        "as_of": sql.Literal(as_of) + sql.SQL("::timestamptz"),
        "arrival": arrival,
        "later": later,
        "columns": columns(None),
        **{alias: columns(alias) for alias in ("c", "h", "n", "v", "w")},
        **{f"key_{alias}": columns(alias, dataset.key) for alias in ("a", "c", "h", "n", "v")},
        **{f"{one}_{other}": same(one, other) for one in "chwt" for other in "acwtn" if one != other},
        "gone_a": same("gone", "a"),
        "set": sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(n), sql.Identifier("w", n)) for n in names
        ),
    }


_TOUCHED = """
CREATE TEMPORARY TABLE _touched ON COMMIT DROP AS
SELECT {key_c} FROM {had} AS c WHERE c._batch = {batch}
UNION SELECT {key_n} FROM ({fresh}) AS n
"""

# A batch has one row of a key at most, so its versions of a key are all alike.
_WINNER = """
CREATE TEMPORARY TABLE _winner ON COMMIT DROP AS
SELECT DISTINCT ON ({key_v}) {v}, v._batch, v._fresh, coalesce(b.state = 'keys_deleted', false) AS _gone FROM (
    SELECT {c}, c._batch, false AS _fresh FROM {current} AS c JOIN pg_temp._touched AS a ON {c_a}
    UNION ALL SELECT {h}, h._batch, false FROM {history} AS h JOIN pg_temp._touched AS a ON {h_a}
    UNION ALL SELECT {n}, {new}::bigint, true FROM ({fresh}) AS n
) AS v LEFT JOIN evergreen.batch AS b ON b.id = v._batch AND b.dataset = {dataset}
WHERE coalesce(b.state, 'published') IN ('published', 'keys_deleted')
ORDER BY {key_v}, {later}coalesce(b.place, b.id, 0) DESC
"""

_TURN = """
CREATE TEMPORARY TABLE _turn ON COMMIT DROP AS
SELECT {key_a}, greatest({as_of}, c._arrived_at, gone._ended, CASE WHEN w._fresh THEN {arrival} END) AS _effective, CASE
    WHEN w._gone IS NOT FALSE THEN CASE WHEN c._batch IS NOT NULL THEN 'gone' END
    WHEN c._batch IS NULL THEN CASE WHEN w._fresh THEN 'new' ELSE 'back' END
    WHEN ROW({w}) IS DISTINCT FROM ROW({c}) THEN CASE WHEN w._fresh THEN 'changed' ELSE 'restored' END
    WHEN w._fresh THEN 'confirmed'
    WHEN w._batch <> c._batch THEN 'same' END AS _what
FROM pg_temp._touched AS a
LEFT JOIN pg_temp._winner AS w ON {w_a}
LEFT JOIN {current} AS c ON {c_a}
LEFT JOIN (
    SELECT {key_h}, max(h._superseded_at) AS _ended FROM {history} AS h JOIN pg_temp._touched AS a ON {h_a} GROUP BY {key_h}
) AS gone ON {gone_a}
"""

_ARCHIVE = """
INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)
SELECT {c}, c._arrived_at, c._batch, t._effective FROM {current} AS c JOIN pg_temp._turn AS t ON {c_t}
WHERE t._what IN ('gone', 'changed', 'restored')
"""

# What the batch before said of the key stands, too: it comes back when this one is withdrawn, or read anew without the key.
_SAID_ALIKE = """
INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)
SELECT {c}, c._arrived_at, c._batch, c._arrived_at
FROM {current} AS c JOIN pg_temp._turn AS t ON {c_t} JOIN pg_temp._winner AS w ON {w_t}
WHERE t._what IN ('confirmed', 'same') AND c._batch <> w._batch AND c._batch <> {batch}
"""

_DELETE = """
DELETE FROM {current} AS c USING pg_temp._turn AS t WHERE {c_t} AND t._what = 'gone'
"""

_UPDATE = """
UPDATE {current} AS c SET {set}, _batch = w._batch,
    _arrived_at = CASE WHEN t._what IN ('changed', 'restored') THEN t._effective ELSE c._arrived_at END
FROM pg_temp._winner AS w JOIN pg_temp._turn AS t ON {w_t}
WHERE {c_w} AND t._what IN ('changed', 'restored', 'confirmed', 'same')
"""

_INSERT = """
INSERT INTO {current} ({columns}, _arrived_at, _batch)
SELECT {w}, t._effective, w._batch FROM pg_temp._winner AS w JOIN pg_temp._turn AS t ON {w_t} WHERE t._what IN ('new', 'back')
"""

_REPLACED = """
INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)
SELECT {n}, {as_of}, {new}, {as_of} FROM ({fresh}) AS n
WHERE NOT EXISTS (SELECT 1 FROM pg_temp._winner AS w WHERE {w_n} AND w._fresh)
"""
