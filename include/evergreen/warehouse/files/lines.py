"""On which lines of a file its rows begin: a row of a CSV file may span lines, so the two are not the same."""

from __future__ import annotations

from collections.abc import Collection

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import formats
from evergreen.warehouse.files.failure import UnreadableError
from evergreen.warehouse.files.landed_file import BINARY, LandedFile

# A person who looks for a row beyond this one has its number; reading so far takes about two seconds.
FURTHEST = 1_000_000


def lines_of(dataset: DatasetSpec, file: LandedFile, rows: Collection[int]) -> dict[int, int]:
    """The line on which each of some rows begins, both counted from 1.

    Args:
        dataset: says how the file is written.
        file: a file that was read before.
        rows: numbers of rows.

    Returns:
        By row; without those that are too far, or where the file has no lines.
    """
    wanted = {row for row in rows if row <= FURTHEST}
    if not wanted or file.format in BINARY:
        return {}
    found: dict[int, int] = {}
    before = 0
    try:
        with formats.feed(dataset, file) as feed:
            for batch in feed.batches([0]):
                if feed.line_of is None:
                    return {}
                here = [row for row in wanted if before < row <= before + batch.num_rows]
                found |= {row: feed.line_of(row - before) for row in here}
                before += batch.num_rows
                if len(found) == len(wanted):
                    break
    except (UnreadableError, OSError):
        return {}
    return found
