"""Keeps the newest figures of each part with their time and commit, and draws a page from all that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.table import Row, commit, machine, markdown


def keep(path: Path, found: Mapping[str, Sequence[Row]], command: str) -> dict[str, dict[str, Any]]:
    """Write the rows of the parts that ran over what is kept of them; returns all that is kept, by part."""
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    about = {
        "at": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}",
        "commit": commit(),
        "command": command,
        "machine": machine(),
    }
    kept |= {part: {**about, "rows": [asdict(row) for row in rows]} for part, rows in found.items()}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def section(
    kept: Mapping[str, dict[str, Any]], order: Sequence[str], name: Callable[[str], str] = str
) -> list[str]:
    """The lines of a section: the command, the machine, when each part was measured, and one table.

    Args:
        kept: by part, of `keep`.
        order: the parts of this section; those that are not kept are left out.
        name: how a part is called in the text.
    """
    parts = [part for part in order if part in kept]
    if not parts:
        return []
    newest = max((kept[part] for part in parts), key=lambda p: str(p["at"]))
    measured = "; ".join(f"{name(part)} {kept[part]['at']} at {kept[part]['commit']}" for part in parts)
    return [
        f"`{newest['command']}`. {newest['machine']}",
        "",
        f"Measured, in UTC and at which commit: {measured}.",
        "",
        markdown([Row(**row) for part in parts for row in kept[part]["rows"]]),
    ]
