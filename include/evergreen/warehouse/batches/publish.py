"""Makes a staged batch part of the dataset, so that every as-of time keeps seeing what was known then.

`data.NAME` holds the newest version of each row and `data.NAME__history` the versions that it replaced, each
with the time from which it was known (`_arrived_at`) and, in the history, the time from which another one was
(`_superseded_at`). The versions of a key never overlap: a reader as of T finds exactly one, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import DatasetSpec
from evergreen.warehouse import planner
from evergreen.warehouse.batches.staging import Staged, SuiteFinding, table
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files.canonical import MARKED
from evergreen.warehouse.migrate import TYPES, ensure_dataset

HELD = sql.Identifier("pg_temp", "_held")


@dataclass(frozen=True)
class Published:
    """How many rows were new, how many were a new version of a row, and how many changed nothing."""

    new: int
    changed: int
    unchanged: int = 0


def prepare(conn: Connection, dataset: DatasetSpec) -> None:
    """Make sure that the dataset's tables are there and fit the spec, and that nobody else publishes into them.

    Raises:
        TerminalError: a column changed its type, or the key changed, since the tables were made.
    """
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext('evergreen.publish'), hashtext(%s))", (dataset.name,)
        )
    ensure_dataset(conn, dataset)
    name = f"data.{dataset.name}"
    rows = fetch(
        conn,
        "SELECT attname, format_type(atttypid, atttypmod) AS type, EXISTS (SELECT 1 FROM pg_index"
        " WHERE indrelid = attrelid AND indisprimary AND attnum = ANY(indkey)) AS key"
        " FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (name,),
    )
    there = {row["attname"]: row["type"] for row in rows}
    wanted = {"timestamptz": "timestamp with time zone"}
    problems = [
        f"columns.{n}: is {c.type} in the spec but {there[n]} in {name}"
        for n, c in dataset.columns.items()
        if there[n] != wanted.get(TYPES[c.type], TYPES[c.type])
    ]
    key = sorted(row["attname"] for row in rows if row["key"])
    if key != sorted(dataset.key):
        problems.append(f"key: is {', '.join(dataset.key)} in the spec but {', '.join(key)} in {name}")
    if problems:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: {'; '.join(problems)}. Published rows keep their shape: undo the change, "
            "or publish under a new dataset name",
            ErrorReason.BAD_SPEC,
        )


def mark_held(conn: Connection, findings: list[SuiteFinding], limit: int | None = None) -> int:
    """Note which rows of the batch fail and why, in a table of this transaction; returns how many rows.

    Args:
        findings: those that hold single rows back count, the others are ignored.
        limit: at most so many rows for each finding; None for all.
    """
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(HELD))
        cursor.execute(
            "CREATE TEMPORARY TABLE _held (_row bigint NOT NULL, reason text NOT NULL) ON COMMIT DROP"
        )
        for finding in findings:
            if finding.rows is None or finding.failure.whole:
                continue
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT DISTINCT _row, {} FROM ({}) AS failing ORDER BY _row LIMIT {}"
                ).format(HELD, sql.Literal(finding.failure.of_row), finding.rows, sql.Literal(limit))
            )
        cursor.execute(sql.SQL("ANALYZE {}").format(HELD))
        cursor.execute(sql.SQL("SELECT count(DISTINCT _row) FROM {}").format(HELD))
        return int((cursor.fetchone() or (0,))[0])


def to_publish(conn: Connection, staged: Staged) -> int:
    """How many rows of a typed table `mark_held` did not note: those that `upsert` would publish."""
    with conn.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT count(*) FROM {} AS n WHERE NOT EXISTS (SELECT 1 FROM {} AS held WHERE held._row = n._row)"
            ).format(table(staged.typed), HELD)
        )
        return int((cursor.fetchone() or (0,))[0])


def quarantine(
    conn: Connection, dataset: DatasetSpec, staged: Staged, batch: int, *, limit: int | None = None
) -> None:
    """Keep the rows that `mark_held` noted in quarantine.NAME, as the file had them, with every reason.

    Args:
        limit: at most so many, the first of the file; for a batch that is held as a whole, whose file stays.
    """
    target = sql.Identifier("quarantine", dataset.name)
    with conn.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (batch bigint NOT NULL, row_number bigint NOT NULL, row jsonb NOT NULL,"
                " reasons text[] NOT NULL, PRIMARY KEY (batch, row_number))"
            ).format(target)
        )
        cursor.execute(sql.SQL("DELETE FROM {} WHERE batch = %s").format(target), (batch,))
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} SELECT %s, r._row, (SELECT jsonb_object_agg(e.key, regexp_replace(e.value, %s, ''))"
                " FROM jsonb_each_text(to_jsonb(r) - '_row') AS e), h.reasons FROM {} AS r JOIN"
                " (SELECT _row, array_agg(DISTINCT reason ORDER BY reason) AS reasons FROM {} GROUP BY _row"
                " ORDER BY _row LIMIT {}) AS h ON h._row = r._row"
            ).format(target, table(staged.raw), HELD, sql.Literal(limit)),
            (batch, MARKED),
        )


def release(conn: Connection, dataset: DatasetSpec, batch: int) -> None:
    """Drop what quarantine.NAME has of a batch of which nothing is held back any more."""
    name = f"quarantine.{dataset.name}"
    if fetch(conn, "SELECT 1 WHERE to_regclass(%s) IS NOT NULL", (name,)):
        with conn.cursor() as cursor:
            cursor.execute(
                sql.SQL("DELETE FROM {} WHERE batch = %s").format(sql.Identifier("quarantine", dataset.name)),
                (batch,),
            )


def upsert(conn: Connection, dataset: DatasetSpec, staged: Staged, batch: int, as_of: datetime) -> Published:
    """Publish the rows of a typed table that are not held back.

    A key that is new arrived at the time in `arrival.column`, else at its event time + `arrival.delay`, else
    at as-of. A new version of a row arrived at the time in `arrival.column`, else at as-of, and never before
    the version that it replaces, which moves to the history. An older version that lands late goes to its
    place in the history. An identical row changes nothing. A key that was there and is gone (a correction took it away)
    comes back as a new version of its row: not before it was gone, so that no time sees two versions of it.

    Args:
        conn: a transaction in which `prepare` and `mark_held` were called.
        dataset: whose rows these are; the key is unique in the batch.
        staged: the batch.
        batch: its id in evergreen.batch.
        as_of: the run's as-of time, aware.
    """
    parts = _parts(dataset, staged, batch, as_of)

    with conn.cursor() as cursor:

        def run(statement: str, **more: sql.Composable) -> int:
            cursor.execute(sql.SQL(statement).format(**parts, **more))
            return cursor.rowcount

        insert = _INSERT_AGAIN if was_corrected(conn, dataset) else _INSERT
        run("SELECT EXISTS (SELECT 1 FROM {current})")
        if cursor.fetchone() == (False,):
            new = run(insert, unknown=sql.SQL("true"))
            planner.refresh(conn, f"data.{dataset.name}", new)
            return Published(new, 0, 0)
        run("DROP TABLE IF EXISTS pg_temp._changed")
        changed = 0
        if run(_CHANGED):
            run("ANALYZE pg_temp._changed")
            changed = run(_ARCHIVE)
            changed += run(_BACKFILL)
            run(_CUT)
            run(_UPDATE)
        new = run(insert, unknown=sql.SQL(_UNKNOWN).format(**parts))
        planner.refresh(conn, f"data.{dataset.name}", new + changed)
        planner.refresh(conn, f"data.{dataset.name}__history", changed)
        run(_COUNT)
        (rows,) = cursor.fetchone() or (0,)
        return Published(new, changed, int(rows) - new - changed)


def was_corrected(conn: Connection, dataset: DatasetSpec) -> bool:
    """Whether a key of the dataset may be gone: only a correction takes one away, and its batch says so."""
    return bool(
        fetch(
            conn,
            "SELECT 1 FROM evergreen.batch WHERE dataset = %s AND state IN ('withdrawn', 'keys_deleted') LIMIT 1",
            (dataset.name,),
        )
    )


def _parts(dataset: DatasetSpec, staged: Staged, batch: int, as_of: datetime) -> dict[str, Any]:
    names = list(dataset.columns)

    def columns(alias: str | None = None, only: list[str] | tuple[str, ...] = tuple(names)) -> sql.Composable:
        return sql.SQL(", ").join(sql.Identifier(alias, n) if alias else sql.Identifier(n) for n in only)

    time = sql.Literal(as_of) + sql.SQL("::timestamptz")
    # A fresh row's event time + delay may lie after as-of. It stays there: at as-of the source itself did not
    # have the row yet, and a replay that ran an hour earlier must not see it.
    arrival: sql.Composable = time
    if dataset.arrival.column:
        arrival = sql.SQL("{}::timestamptz").format(sql.Identifier("n", dataset.arrival.column))
    elif dataset.arrival.delay is not None:
        arrival = sql.SQL("({}::timestamptz + {})").format(
            sql.Identifier("n", dataset.event_time), sql.Literal(dataset.arrival.delay)
        )
    again = sql.SQL("greatest({}, gone._ended{})").format(
        time, sql.SQL(", ") + arrival if dataset.arrival.delay is not None else sql.SQL("")
    )
    if dataset.arrival.column:
        again = sql.SQL("CASE WHEN {0} > gone._ended THEN {0} ELSE {1} END").format(arrival, again)
    told = sql.SQL("{} > c._arrived_at").format(arrival) if dataset.arrival.column else sql.SQL("false")
    late = sql.SQL("{} < c._arrived_at").format(arrival) if dataset.arrival.column else sql.SQL("false")
    return {
        "current": sql.Identifier("data", dataset.name),
        "history": sql.Identifier("data", f"{dataset.name}__history"),
        "typed": table(staged.typed),
        "held": HELD,
        "columns": columns(),
        "n": columns("n"),
        "c": columns("c"),
        "set": sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("n", name)) for name in names
        ),
        "same": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("n", k), sql.Identifier("c", k)) for k in dataset.key
        ),
        "same_h": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("n", k), sql.Identifier("h", k)) for k in dataset.key
        ),
        "arrival": arrival,
        "again": again,
        "keys_h": columns("h", dataset.key),
        "same_gone": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("n", k), sql.Identifier("gone", k)) for k in dataset.key
        ),
        "told": told,
        "late": late,
        "as_of": time,
        "batch": sql.Literal(batch),
    }


# Rows whose key is there with other values. A version whose arrival column says nothing new (the same time
# with other values) is a correction that this run brings: taken at its word it would change what past as-of
# times saw.
_CHANGED = """
CREATE TEMPORARY TABLE _changed ON COMMIT DROP AS
SELECT n._row, c._arrived_at AS replaced_at, {late} AS late,
    CASE WHEN {told} OR {late} THEN {arrival} ELSE greatest({as_of}, c._arrived_at) END AS effective
FROM {typed} AS n JOIN {current} AS c ON {same}
WHERE ROW({n}) IS DISTINCT FROM ROW({c}) AND NOT EXISTS (SELECT 1 FROM {held} AS held WHERE held._row = n._row)
"""

_COUNT = """
SELECT count(*) FROM {typed} AS n WHERE NOT EXISTS (SELECT 1 FROM {held} AS held WHERE held._row = n._row)
"""

_ARCHIVE = """
INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)
SELECT {c}, c._arrived_at, c._batch, x.effective
FROM pg_temp._changed AS x JOIN {typed} AS n USING (_row) JOIN {current} AS c ON {same} WHERE NOT x.late
"""

# An older version that lands late takes its part of the time up to the next version, or until the key was gone. One that
# arrived at the very time of a known version is not told from it. A version that ends when it begins was never known ...
_BACKFILL = """
INSERT INTO {history} ({columns}, _arrived_at, _batch, _superseded_at)
SELECT {n}, x.effective, {batch}, least(x.replaced_at, h.next, h.until)
FROM pg_temp._changed AS x JOIN {typed} AS n USING (_row) LEFT JOIN (
    SELECT x._row, min(h._arrived_at) FILTER (WHERE h._arrived_at > x.effective) AS next,
        min(h._superseded_at) FILTER (WHERE h._arrived_at < x.effective AND h._superseded_at > x.effective) AS until,
        bool_or(h._arrived_at = x.effective) AS known
    FROM pg_temp._changed AS x JOIN {typed} AS n USING (_row) JOIN {history} AS h ON {same_h}
    WHERE x.late AND h._superseded_at > h._arrived_at GROUP BY x._row
) AS h USING (_row)
WHERE x.late AND h.known IS NOT TRUE
"""

# ... from the version that was known in its stead.
_CUT = """
UPDATE {history} AS h SET _superseded_at = x.effective
FROM pg_temp._changed AS x JOIN {typed} AS n USING (_row)
WHERE x.late AND {same_h} AND h._arrived_at < x.effective AND h._superseded_at > x.effective
"""

_UPDATE = """
UPDATE {current} AS c SET {set}, _arrived_at = x.effective, _batch = {batch}
FROM pg_temp._changed AS x JOIN {typed} AS n USING (_row) WHERE {same} AND NOT x.late
"""

# Not ON CONFLICT: it takes twice the time of a plain insert, and locks, that is rewrites, each identical row.
# Nobody else publishes meanwhile (`prepare`); should it happen all the same, the primary key refuses.
_UNKNOWN = "NOT EXISTS (SELECT 1 FROM {current} AS c WHERE {same})"
_INSERT = """
INSERT INTO {current} ({columns}, _arrived_at, _batch)
SELECT {n}, {arrival}, {batch} FROM {typed} AS n
WHERE {unknown} AND NOT EXISTS (SELECT 1 FROM {held} AS held WHERE held._row = n._row)
"""

# The history has no index, so it is asked only where a key can be gone at all.
_INSERT_AGAIN = """
INSERT INTO {current} ({columns}, _arrived_at, _batch)
SELECT {n}, CASE WHEN gone._ended IS NULL THEN {arrival} ELSE {again} END, {batch}
FROM {typed} AS n LEFT JOIN (
    SELECT {keys_h}, max(h._superseded_at) AS _ended FROM {history} AS h GROUP BY {keys_h}
) AS gone ON {same_gone}
WHERE {unknown} AND NOT EXISTS (SELECT 1 FROM {held} AS held WHERE held._row = n._row)
"""
