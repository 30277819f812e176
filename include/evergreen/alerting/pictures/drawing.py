"""What the pictures share: colours, plain axes, and the way to a PNG without pyplot, so that tasks can draw at once."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evergreen.alerting.content.history import JudgedWindow
from evergreen.spec import LARGER_IS_BETTER

# Okabe and Ito's palette, which stays distinct for colour-blind readers.
INK, GREY, PALE = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, RED, GREEN, ORANGE, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7"

ESTIMATED = "estimated without labels"


def beyond(metric: str, window: JudgedWindow) -> bool:
    """Whether the served error of a window is on the wrong side of its limit."""
    if window.value is None or window.limit is None:
        return False
    return window.value < window.limit if metric in LARGER_IS_BETTER else window.value > window.limit


def hollow(axes: Axes, x: Sequence[float], y: Sequence[float], size: float) -> None:
    """Make rings of points that are drawn: their values are estimates. Say so with `estimated_key`."""
    axes.scatter(x, y, s=size, color="white", zorder=6)


def estimated_key() -> Line2D:
    """What stands in a legend for the rings of `hollow`."""
    return Line2D(
        [], [], color=BLUE, marker="o", markersize=6, markerfacecolor="white", linewidth=0, label=ESTIMATED
    )


def clean(axes: Axes, y_label: str) -> None:
    """Axes without a frame, with a pale grid and readable dates."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.grid(axis="y", color=PALE, linewidth=0.8, zorder=1)
    axes.tick_params(colors=INK, labelsize=10 if not y_label else 12, length=0)
    locator = AutoDateLocator(minticks=3, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if y_label:
        axes.set_ylabel(y_label, size=13, color=INK)


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
