"""Which parts of a model's watch could never say anything, by how many rows and labels come; each with values that would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.spec import ModelSpec, format_duration

# A part of the watch that speaks in so few of the windows is as good as silent.
SELDOM = 0.1


@dataclass(frozen=True)
class Silent:
    """A setting that keeps a part of the watch silent: its field, its value, why, and what would do."""

    field: str
    value: str
    text: str


def silent(model: ModelSpec, windows: Sequence[tuple[int, int]]) -> list[Silent]:
    """The settings that keep a part of the watch silent.

    Args:
        model: its `monitoring` and `watch`.
        windows: rows and rows with a label of each past window that has rows and whose labels are due.
    """
    if not windows:
        return []
    monitoring, least = model.monitoring, model.monitoring.performance.min_labels
    length = monitoring.window
    rows, labels = (median(found) for found in zip(*windows, strict=True))
    found = []
    if _seldom([count >= monitoring.min_rows for count, _ in windows]):
        longer = format_duration(length * math.ceil(monitoring.min_rows / rows))
        found.append(
            Silent(
                "monitoring.min_rows",
                str(monitoring.min_rows),
                f"a window of {format_duration(length)} has {rows:g} rows as a rule, so hardly any is judged; write monitoring.window: "
                f"{longer}, or min_rows: {max(1, int(rows / 2))}",
            )
        )
    enough = [WindowFacts(count, labelled, count, True).enough_labels(least) for count, labelled in windows]
    if labels and _seldom(enough):
        needed = WindowFacts(int(rows), int(labels), int(rows), True).labels_needed(least)
        fewer = max(1, int(labels / 2)) if labels < 60 else 30
        told = f"{least:g}" if least > 1 else f"{least:.0%} of the rows"
        longer = (
            f", or monitoring.window: {format_duration(length * math.ceil(30 / labels))}" if least > 1 else ""
        )
        found.append(
            Silent(
                "monitoring.performance.min_labels",
                f"{least:g}",
                f"a window of {format_duration(length)} has {rows:g} rows and {labels:g} labels as a rule, {told} are asked for "
                f"({needed}), so its served error is hardly ever judged; write min_labels: {max(2, fewer)}{longer}",
            )
        )
    if model.watch.period is not None and labels:
        period = max(model.watch.period, length)
        come = labels * (period / length)
        if come < model.watch.min_rows:
            long_enough = format_duration(length * math.ceil(model.watch.min_rows / labels))
            found.append(
                Silent(
                    "watch.period",
                    format_duration(model.watch.period),
                    f"about {come:.0f} rows with a label come in {format_duration(period)}, watch.min_rows is {model.watch.min_rows}, so no "
                    f"new champion could be compared with the one before; write watch.period: {long_enough}"
                    + (f", or watch.min_rows: {int(come / 2)}" if come >= 40 else ""),
                )
            )
    return found


def _seldom(spoke: Sequence[bool]) -> bool:
    return sum(spoke) < SELDOM * len(spoke)
