"""How judged windows look in pictures: which are beyond their limit, and which are estimates."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from evergreen.alerting.content.amounts import means_something
from evergreen.alerting.content.history import JudgedWindow
from evergreen.drawing import BLUE
from evergreen.spec import LARGER_IS_BETTER

ESTIMATED = "estimated without labels"


def beyond(metric: str, window: JudgedWindow) -> bool:
    """Whether the served error of a window is on the wrong side of its limit."""
    if window.value is None or window.limit is None:
        return False
    return window.value < window.limit if metric in LARGER_IS_BETTER else window.value > window.limit


def drawn_limits(metric: str, windows: Sequence[JudgedWindow]) -> list[float]:
    """The limits of some windows as they are drawn: NaN where one means nothing, as it would flatten the picture."""
    return [
        w.limit if w.limit is not None and means_something(metric, w.limit) else float("nan") for w in windows
    ]


def hollow(axes: Axes, x: Sequence[float], y: Sequence[float], size: float) -> None:
    """Make rings of points that are drawn: their values are estimates. Say so with `estimated_key`."""
    axes.scatter(x, y, s=size, color="white", zorder=6)


def estimated_key() -> Line2D:
    """What stands in a legend for the rings of `hollow`."""
    return Line2D(
        [], [], color=BLUE, marker="o", markersize=6, markerfacecolor="white", linewidth=0, label=ESTIMATED
    )
