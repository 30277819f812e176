"""How much room is left where Evergreen writes files."""

from __future__ import annotations

import shutil

from evergreen import settings
from evergreen.exporter import families as f
from evergreen.exporter.families import MetricFamily, Sample

STORES = {"home": settings.HOME, "landing": settings.LANDING, "snapshots": settings.SNAPSHOTS}


def read() -> dict[MetricFamily, list[Sample]]:
    """Free bytes and size of the file system of each folder; a folder that is not there, or is an address, has none."""
    found: dict[MetricFamily, list[Sample]] = {f.FREE: [], f.STORE: []}
    for name, variable in STORES.items():
        if "://" in variable.read():
            continue
        try:
            usage = shutil.disk_usage(variable.path())
        except OSError:
            continue
        found[f.FREE].append(((name,), float(usage.free)))
        found[f.STORE].append(((name,), float(usage.total)))
    return found
