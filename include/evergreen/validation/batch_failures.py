"""What can be wrong with a batch as a whole, beside what its suite finds."""

from __future__ import annotations

import psycopg2

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files.failure import Failure

# SQLSTATE classes in which PostgreSQL refuses what a row holds: data exception, constraint, program limit.
REFUSED = ("22", "23", "54")
STORABLE = "rows_storable"


def no_rows() -> Failure:
    """Of a file with nothing but a header."""
    return Failure(
        "file_not_empty", None, "a header and no rows", "at least one row",
        remedy="ask the source for the rows; a file with rows is a new batch",
    )  # fmt: skip


def lost(found: int, records: int) -> Failure:
    """Rows that are not there any more between the file and the tables, or more than the file has."""
    return Failure(
        "rows_counted", None, f"{found} rows to publish or hold", f"{records} records, as the file was counted",
        remedy="something between the file and the tables dropped or added rows (a trigger or rule on the schema "
        "staging?); find it, then run with force",
    )  # fmt: skip


def refused(dataset: DatasetSpec, error: psycopg2.Error) -> Failure:
    """A row that PostgreSQL cannot hold."""
    # Detail and context of the message quote rows.
    text = " ".join((error.diag.message_primary or type(error).__name__).split())[:200]
    if "row is too big" in text:
        remedy = (
            "a row has to fit into a page of 8 kB, in which every number and every time takes 8 bytes: about 1,000 of them; "
            "put the columns into two datasets with the same key and join them in the feature query"
        )
    elif "index" in text:
        remedy = f"shorten the key ({', '.join(dataset.key)}): one over 2.7 kB cannot be indexed; then deliver the file again"
    else:
        remedy = "shorten or mend the value, then deliver the file again"
    return Failure(
        STORABLE, None, f"PostgreSQL refuses a row: {text} (SQLSTATE {error.pgcode})", "rows that the warehouse can hold",
        remedy=remedy,
    )  # fmt: skip
