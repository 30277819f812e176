"""On which lines of a file its rows begin: a row of a CSV file may span lines, so the two are not the same."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator

from evergreen.spec import DatasetSpec
from evergreen.warehouse import landing
from evergreen.warehouse.failure import UnreadableError
from evergreen.warehouse.landing import Feed, LandedFile

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
    if not wanted or file.path.suffix.lower() == ".parquet":
        return {}
    found: dict[int, int] = {}
    try:
        with landing.feed(dataset, file) as feed:
            for row, line in _begins(feed):
                if row in wanted:
                    found[row] = line
                    if len(found) == len(wanted):
                        break
    except (UnreadableError, csv.Error, OSError):
        return {}
    return found


def _begins(feed: Feed) -> Iterator[tuple[int, int]]:
    reader = csv.reader(_lines(feed), delimiter=feed.delimiter)
    before = 0
    for row, _ in enumerate(reader, 1):
        yield row, feed.header_lines + before + 1
        before = reader.line_num


def _lines(feed: Feed) -> Iterator[str]:
    rest = ""
    while block := feed.read(landing.BLOCK_BYTES):
        text = rest + (block if isinstance(block, str) else block.decode())
        *whole, rest = text.split("\n")
        for line in whole:
            yield line + "\n"
    if rest:
        yield rest
