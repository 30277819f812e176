"""What `make status` says about landed files that are not taken yet; reads the folders, or lists the bucket, and the warehouse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from evergreen import settings
from evergreen.errors import EvergreenError
from evergreen.spec import Specs
from evergreen.validation import batch_rows
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.storage import bucket

MOST_LINES = 20


def lines(conn: Connection, specs: Specs) -> list[str]:
    """Files that wait because they may be unfinished, as lines for a terminal: each with since when, and what it waits for.

    A folder that cannot be read is said instead.

    Args:
        conn: the warehouse, which knows the files that were taken.
        specs: of the datasets, whose folders are below EVERGREEN_LANDING.
    """
    found: list[str] = []
    datasets, root = specs.datasets, settings.LANDING.read()
    taken = {name: batch_rows.stamps(conn, dataset) for name, dataset in datasets.items()}
    now = datetime.now(UTC)
    for name, dataset in datasets.items():
        try:
            source = bucket.of(settings.below(root, dataset.source.folder or name))
            if isinstance(source, Path) and not dataset.source.folder and not source.exists():
                continue  # the first ingest makes it
            waits = landing_store.waits(dataset, source, taken[name], now)
        except EvergreenError as error:
            found.append(str(error))
            continue
        if waits:
            found.append(f"{len(waits)} file(s) of {name} in {source} wait:")
            found += [
                f"  {one.name}  since {one.since:%Y-%m-%d %H:%M} UTC: {one.why}" for one in waits[:MOST_LINES]
            ]
            if len(waits) > MOST_LINES:
                found.append(f"  and {len(waits) - MOST_LINES} more")
    return found
