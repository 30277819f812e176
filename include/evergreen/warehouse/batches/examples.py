"""Where in a file the values stand that failed: a row for each different value, so that a person finds them.

Needs the raw table of a batch, which has the values as the file wrote them.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.warehouse.batches.staging import Staged, SuiteFinding, table
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files.canonical import MARKED
from evergreen.warehouse.files.failure import SAMPLES, TEXT, Example, short

# Of the rows that fail, as many are looked at: enough for five different values, whatever the size of the file.
LOOKED_AT = 10_000


def with_examples(
    conn: Connection, dataset: DatasetSpec, staged: Staged, finding: SuiteFinding
) -> SuiteFinding:
    """A finding whose failure names rows, the first one of each different value; unchanged where no row is at fault.

    Args:
        conn: the transaction in which the raw table is still there.
        dataset: its key tells the rows apart for people.
        staged: the batch, with a raw table.
        finding: any finding; its rows were confirmed.
    """
    if finding.rows is None:
        return finding
    named = [n for n in (finding.failure.column or "").split(", ") if n]
    rows = fetch(
        conn,
        sql.SQL(
            "SELECT value, min(_row) AS row, (array_agg(key ORDER BY _row))[1] AS key FROM ("
            " SELECT _row, left({value}, {most}) AS value, left({key}, {most}) AS key FROM ("
            "  SELECT _row, to_jsonb(r) - '_row' AS doc FROM {raw} AS r JOIN"
            "  (SELECT DISTINCT _row FROM ({rows}) AS failing ORDER BY _row LIMIT {looked_at}) AS f USING (_row)"
            " ) AS documents"
            ") AS found GROUP BY value ORDER BY min(_row) LIMIT {samples}"
        ).format(
            value=_listed(named or list(dataset.delivered.columns)), key=_listed(dataset.delivered.key), raw=table(staged.raw),
            rows=finding.rows, most=sql.Literal(TEXT + 1), looked_at=sql.Literal(LOOKED_AT),
            samples=sql.Literal(SAMPLES),
        ),
    )  # fmt: skip
    examples = tuple(Example(row["row"], short(row["value"]), short(row["key"])) for row in rows)
    sample = finding.failure.sample
    if len(sample) < len(examples):  # of the first rows that fail, which may all have one value
        sample = tuple(one.value for one in examples)
    failure = replace(finding.failure, rows=examples, sample=sample)
    return replace(finding, failure=failure)


def _listed(names: list[str] | tuple[str, ...]) -> sql.Composable:
    values = sql.SQL(", ").join(
        sql.SQL("regexp_replace(doc->>{}, {}, '')").format(sql.Literal(name), sql.Literal(MARKED))
        for name in names
    )
    return sql.SQL("array_to_string(ARRAY[{}]::text[], ', ', 'NULL')").format(values)
