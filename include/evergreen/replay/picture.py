"""The picture of a replay: the served error of each policy over time, with its retrains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from evergreen.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, clean, png
from evergreen.replay.result import PolicyOutcome
from evergreen.spec import metric_name

COLOURS = (GREY, BLUE, GREEN, RED, PURPLE, ORANGE, "#56b4e9", "#f0e442", INK)
MARKERS = {"promoted": "o", "rejected": "x", "failed": "v"}
SMOOTHED_FROM = 60


def draw(title: str, metric: str, outcomes: Sequence[PolicyOutcome]) -> bytes:
    """A PNG: above, each policy's error (a mean over windows where there are many); below, its retrains, a row each."""
    height = 6.2 + 0.34 * len(outcomes)
    figure = Figure(figsize=(14, height), dpi=100, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 1, height_ratios=(5.2, 0.6 + 0.34 * len(outcomes)), hspace=0.02)
    top = figure.add_subplot(grid[0])
    below = figure.add_subplot(grid[1], sharex=top)
    figure.suptitle(title, x=0.01, ha="left", size=17, weight="bold", color=INK, parse_math=False)
    most = max(len(o.points) for o in outcomes)
    width = max(1, most // 40) if most >= SMOOTHED_FROM else 1
    for place, outcome in enumerate(outcomes):
        colour = COLOURS[place % len(COLOURS)]
        at = np.array([date2num(p.end) for p in outcome.points])
        value = np.array([np.nan if p.error is None else p.error for p in outcome.points])
        if width > 1:
            top.plot(at, value, color=colour, linewidth=0.6, alpha=0.25, zorder=2)
        told = "" if outcome.error is None else f" ({outcome.error:.4g}, {outcome.retrains} retrains)"
        top.plot(at, _smooth(value, width), color=colour, linewidth=2, label=outcome.policy + told, zorder=3)
        for came, marker in MARKERS.items():
            x = [date2num(p.end) for p in outcome.points if p.came_of_it == came]
            style: dict[str, Any] = {"color": colour, "marker": marker, "s": 26, "zorder": 3}
            below.scatter(x, [-place] * len(x), **style)
    clean(top, metric_name(metric) + (f", mean of {width} windows" if width > 1 else ""))
    top.tick_params(labelbottom=False)
    legend = top.legend(loc="upper left", frameon=False, fontsize=11, ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)
    clean(below, "")
    below.set_ylim(-len(outcomes) + 0.4, 0.6)
    below.set_yticks([-n for n in range(len(outcomes))], [o.policy for o in outcomes], parse_math=False)
    below.set_xlabel("retrains: ● promoted, × rejected by the gate, ▼ failed", color=INK, size=11)
    return png(figure)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each window and those before it, `width` in all, without the missing ones."""
    found = np.full(len(values), np.nan)
    for i in range(len(values)):
        part = values[max(0, i + 1 - width) : i + 1]
        part = part[np.isfinite(part)]
        found[i] = part.mean() if len(part) else np.nan
    return found
