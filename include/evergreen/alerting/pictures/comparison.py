"""The picture of a challenger: its metric beside the others' on the same rows, how sure the difference is, and the served error up to then.

Names from the data are never read as mathematical markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evergreen.alerting.content import amounts
from evergreen.alerting.content.history import JudgedWindow
from evergreen.alerting.pictures.judged_windows import beyond, drawn_limits, hollow
from evergreen.drawing import BLUE, GREEN, GREY, INK, RED, clean, plain, png
from evergreen.ledger.words import num
from evergreen.spec import LARGER_IS_BETTER, metric_name

LONGEST_NAME = 24


@dataclass(frozen=True)
class Comparison:
    """What is drawn.

    Attributes:
        metric: the deciding one.
        parties: name and value of challenger, champion and baseline, as far as they are known; the challenger first.
        improvement: over the champion, as a share of its distance from perfect; None: not compared.
        bound: the end of its interval that the gate went by; None: not known.
        champion: the version that it was compared with; empty: none.
        watched: the metric of what was served.
        served: the newest judged windows with a value, oldest first.
        at: when the decision was in force.
        version: the challenger's.
        became: what was decided about it: promoted, rejected, or that it waits.
    """

    metric: str
    parties: tuple[tuple[str, float], ...]
    improvement: float | None
    bound: float | None
    champion: str
    watched: str
    served: tuple[JudgedWindow, ...]
    at: datetime | None
    version: str
    became: str

    @property
    def promoted(self) -> bool:
        """Whether it is champion."""
        return self.became == "promoted"

    @property
    def over_time(self) -> bool:
        """Whether there is a past to be drawn."""
        return len(self.served) > 1 and self.at is not None

    def in_words(self) -> str:
        """What stands for the picture where it is not seen."""
        side = "more" if self.metric in LARGER_IS_BETTER else "less"
        told = [
            f"{metric_name(self.metric)} on the same rows ({side} is better): "
            + ", ".join(f"{name} {num(value)}" for name, value in self.parties)
        ]
        if self.improvement is not None:
            told.append(
                f"beside {self.champion or 'the champion'} {self.version} is {amounts.change(self.improvement)}"
                + (
                    f", its interval reaches to {amounts.change(self.bound)}"
                    if self.bound is not None
                    else ""
                )
            )
        if self.over_time:
            values = [w.value for w in self.served if w.value is not None]
            what = "the promotion" if self.promoted else "now"
            told.append(
                f"served {metric_name(self.watched)} over {amounts.count(len(values), 'window')} until {what}, {num(min(values))} to {num(max(values))}, "
                f"last {num(values[-1])}"
            )
        return "; ".join(told)


def comparison_png(shown: Comparison) -> bytes:
    """Draw a comparison: a PNG of 1300 pixels' width, made to be shown at half of it."""
    heights = [0.5 + 0.33 * len(shown.parties)]
    heights += [0.85] if shown.improvement is not None else []
    heights += [1.9] if shown.over_time else []
    figure = Figure(figsize=(5.0, 0.2 + sum(heights)), dpi=260, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    _draw_parties(figure.add_subplot(grid[0]), shown)
    if shown.improvement is not None:
        _draw_improvement(figure.add_subplot(grid[1]), shown, shown.improvement)
    if shown.over_time:
        _draw_served(figure.add_subplot(grid[len(heights) - 1]), shown)
    return png(figure)


def _draw_parties(axes: Axes, shown: Comparison) -> None:
    values = [value for _, value in shown.parties]
    places = range(len(values))
    colours = [GREEN if shown.promoted else BLUE, *[GREY] * (len(values) - 1)]
    axes.barh(places, values, color=colours, height=0.62, zorder=3)
    low, high = min([0.0, *values]), max([0.0, *values])
    axes.set_xlim(low, high + 0.18 * ((high - low) or 1.0))
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            num(value), (max(value, 0.0), place), xytext=(5, 0), textcoords="offset points", va="center", size=10, color=INK,
            weight="bold" if place == 0 else "normal",
        )  # fmt: skip
    plain(axes, grid="x")
    axes.set_yticks(places, [_cut(name) for name, _ in shown.parties], parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(4))
    side = "more" if shown.metric in LARGER_IS_BETTER else "less"
    _named(axes, f"{metric_name(shown.metric)} on the same rows, {side} is better")


def _draw_improvement(axes: Axes, shown: Comparison, point: float) -> None:
    bound = point if shown.bound is None else shown.bound
    colour = GREEN if min(point, bound) >= 0 else RED if max(point, bound) < 0 else BLUE
    axes.axvline(0.0, color=INK, linewidth=1.2, zorder=2)
    axes.plot([bound, point], [0, 0], color=colour, linewidth=3, solid_capstyle="butt", zorder=3)
    if shown.bound is not None:
        axes.plot([bound, bound], [-0.22, 0.22], color=colour, linewidth=2, zorder=3)
    axes.scatter([point], [0], s=55, color=colour, zorder=4)
    reach = max(abs(point), abs(bound), 0.01)
    axes.set_xlim(min(0.0, point, bound) - 0.25 * reach, max(0.0, point, bound) + 0.25 * reach)
    axes.set_ylim(-0.6, 0.6)
    plain(axes, grid="x")
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    _named(axes, f"Beside {_cut(shown.champion or 'the champion')}: {amounts.change(point)}")


def _draw_served(axes: Axes, shown: Comparison) -> None:
    x = [date2num(w.end) for w in shown.served]
    values = [w.value for w in shown.served if w.value is not None]
    axes.plot(
        x,
        drawn_limits(shown.watched, shown.served),
        color=INK,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        zorder=2,
    )
    axes.plot(x, values, color=BLUE, linewidth=1.6, zorder=3)
    for wrong, colour, size in ((False, BLUE, 16), (True, RED, 34)):
        some = [i for i, w in enumerate(shown.served) if beyond(shown.watched, w) == wrong]
        axes.scatter([x[i] for i in some], [values[i] for i in some], s=size, color=colour, zorder=4)
    rings = [i for i, w in enumerate(shown.served) if w.estimated]
    hollow(axes, [x[i] for i in rings], [values[i] for i in rings], 6)
    if shown.at is not None:
        at = date2num(shown.at)
        axes.axvline(at, color=GREEN if shown.promoted else GREY, linewidth=1.8, zorder=3)
        what = f"{_cut(shown.version)} {shown.became} "
        axes.annotate(
            what, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, -3), textcoords="offset points", size=9, color=INK,
            ha="right", va="top", parse_math=False,
        )  # fmt: skip
    known: Sequence[float] = [*values, *(v for v in drawn_limits(shown.watched, shown.served) if v == v)]
    low, high = min(known), max(known)
    axes.set_ylim(low - 0.1 * ((high - low) or 1.0), high + 0.3 * ((high - low) or 1.0))
    clean(axes, "")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    _named(axes, f"Served {metric_name(shown.watched)} (dashed: limit, red: beyond)")


def _named(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=10.5, weight="bold", color=INK, parse_math=False)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
