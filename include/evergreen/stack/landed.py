"""What `make status` says about landed files that are not taken yet; reads the folders, or lists the bucket, and the stack's warehouse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from evergreen import settings
from evergreen.errors import EvergreenError
from evergreen.spec import load_specs
from evergreen.stack.layout import StackError
from evergreen.stack.variables import environment, specs_folder
from evergreen.validation import batch_rows
from evergreen.warehouse.connection import connect
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.storage import bucket

MOST_LINES = 20


def lines(home: Path | str | None = None) -> list[str]:
    """Files that wait because they may be unfinished, as lines for a terminal: each with since when, and what it waits for.

    None where the warehouse is not up: then nobody can tell which files were taken. A folder that cannot be read is said
    instead.
    """
    found: list[str] = []
    try:
        variables = environment(home)
        datasets = load_specs(specs_folder(variables)).datasets
        root = variables.get(settings.LANDING.name, settings.LANDING.read())
        with connect(variables["EVERGREEN_WAREHOUSE_URL"], timeout_s=10) as conn:
            taken = {name: batch_rows.stamps(conn, dataset) for name, dataset in datasets.items()}
    except (EvergreenError, StackError, KeyError):
        return []
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
