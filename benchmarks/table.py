"""One line of the results, and how the results are written down."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

LIBRARIES = (
    "apache-airflow", "xgboost-cpu", "mlflow", "evidently", "great-expectations", "pandas", "pyarrow", "psycopg2-binary",
    "adbc-driver-postgresql",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was measured against what.

    `ratio` is ours through the baseline's (None where a row is a plain number), `limit` what it must reach; without one the
    row is there to compare with. `earlier` are the ratios of earlier runs of the same row, the newest first.
    """

    what: str
    ours: str
    baseline: str
    ratio: float | None
    limit: str
    met: bool
    note: str = ""
    earlier: tuple[float, ...] = ()


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | ours | baseline | ratio | must reach | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        what = f"{row.what} <br>*{row.note}*" if row.note else row.what
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        if row.earlier:
            ratio += f" <br>*before: {', '.join(f'{value:.2f}' for value in row.earlier)}*"
        met = ("yes" if row.met else "**no**") if row.limit else ""
        lines.append(f"| {what} | {row.ours} | {row.baseline} | {ratio} | {row.limit} | {met} |")
    return "\n".join(lines)


def machine() -> str:
    """The machine and the versions, in a sentence each."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{cores} cores ({model}), {memory:.0f} GiB, Linux; Python {platform.python_version()}, {libraries}."
    )


def commit() -> str:
    """The commit that was measured; with a plus sign where files differ from it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = [line for line in git("status", "--porcelain").splitlines() if "benchmarks/" not in line]
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
