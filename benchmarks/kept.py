"""Keeps the newest figures of each part with their time and commit, and draws a page from all that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.table import Row, commit, machine, markdown

EARLIER = 5


def keep(
    path: Path, found: Mapping[str, Sequence[Row]], command: str, seconds: float | None = None
) -> dict[str, dict[str, Any]]:
    """Write the rows of the parts that ran over what is kept of them; returns all that is kept, by part.

    A row remembers the ratios of its earlier runs: one figure of a shared machine says little.

    Args:
        path: the file.
        found: the rows of the parts that ran.
        command: runs them again.
        seconds: that they took.
    """
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    about = {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "commit": commit(),
        "command": command,
        "machine": machine(),
        "seconds": seconds,
    }
    for part, rows in found.items():
        before = kept.get(part, {}).get("rows", ())
        kept[part] = {**about, "rows": [asdict(_remembering(row, before)) for row in rows]}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def _remembering(row: Row, before: Sequence[dict[str, Any]]) -> Row:
    same = [b for b in before if (b["what"], b["limit"]) == (row.what, row.limit) and b["ratio"] is not None]
    if row.ratio is None or len(same) != 1:
        return row
    return replace(row, earlier=(same[0]["ratio"], *same[0].get("earlier", ()))[:EARLIER])


def section(kept: Mapping[str, dict[str, Any]], order: Sequence[str]) -> list[str]:
    """The lines of a section: the machine, the command of each part and when it was measured, and one table.

    Args:
        kept: by part, of `keep`.
        order: the parts of this section; those that are not kept are left out.
    """
    parts = [part for part in order if part in kept]
    if not parts:
        return []
    newest = max((kept[part] for part in parts), key=lambda p: str(p["at"]))
    measured = "; ".join(_when(kept[part]) for part in parts)
    return [
        str(newest["machine"]),
        "",
        f"By command, with time (UTC) and commit: {measured}.",
        "",
        markdown([Row(**row) for part in parts for row in kept[part]["rows"]]),
    ]


def _when(part: Mapping[str, Any]) -> str:
    took = f" ({part['seconds'] / 60:.0f} min)" if part.get("seconds") else ""
    return f"`{part['command']}` {part['at']}, {part['commit']}{took}"
