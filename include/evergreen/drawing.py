"""How every picture is drawn: colours, plain axes, and the way to a PNG without pyplot, so that tasks can draw at once."""

from __future__ import annotations

import io
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

# Okabe and Ito's palette, which stays distinct for colour-blind readers.
INK, GREY, PALE = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, RED, GREEN, ORANGE, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7"


def plain(axes: Axes, *, grid: Literal["x", "y", "both"] = "y") -> None:
    """Axes without a frame, with a pale grid."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.grid(axis=grid, color=PALE, linewidth=0.8, zorder=1)
    axes.tick_params(colors=INK, labelsize=10, length=0)


def dated(axes: Axes) -> None:
    """Readable dates below."""
    locator = AutoDateLocator(minticks=3, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def clean(axes: Axes, y_label: str) -> None:
    """Plain axes over dates."""
    plain(axes)
    dated(axes)
    if y_label:
        axes.tick_params(labelsize=12)
        axes.set_ylabel(y_label, size=13, color=INK)


def png(figure: Figure, *, effort: int = 6) -> bytes:
    """The figure as PNG; `effort` is zlib's, 0 to 9: with less it takes less time and more bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": effort})
    return buffer.getvalue()
