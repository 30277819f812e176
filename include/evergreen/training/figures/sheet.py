"""The sheet that a figure is drawn on: its size, its margins, the colours of those who are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evergreen.drawing import BLUE, GREY, INK, ORANGE, plain

WIDTH, DPI = 6.5, 130  # inches, dots an inch
COLOURS = {"challenger": BLUE, "champion": ORANGE, "baseline": GREY}


def sheet(
    height: float, *, panels: int = 1, left: float = 0.7, right: float = 0.2, bottom: float = 0.55
) -> tuple[Figure, list[Axes]]:
    """An empty sheet with one or more plots beside each other.

    The margins are given, since what finds them out by itself takes longer than all else.

    Args:
        height: inches.
        panels: how many plots.
        left, right, bottom: inches beside and below.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    every = figure.subplots(1, panels, squeeze=False)[0]
    figure.subplots_adjust(
        left=left / WIDTH, right=1 - right / WIDTH, bottom=bottom / height, top=1 - 0.42 / height, wspace=0.42
    )
    return figure, list(every)


def named(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Plain axes with a title and names; none of them is read as mathematical markup."""
    plain(axes)
    axes.tick_params(labelsize=9)
    axes.set_title(title, loc="left", size=11, weight="bold", color=INK, parse_math=False)
    if x:
        axes.set_xlabel(x, size=10, color=INK, parse_math=False)
    if y:
        axes.set_ylabel(y, size=10, color=INK, parse_math=False)


def legend(axes: Axes, place: Literal["best", "upper left"] = "best", columns: int = 1) -> None:
    """What the colours mean."""
    axes.legend(loc=place, ncols=columns, frameon=False, fontsize=9, labelcolor=INK, handlelength=1.6)


def ticked(axes: Axes, labels: Sequence[str], places: Sequence[float] | None = None) -> None:
    """Names at the side, the first one on top."""
    axes.set_yticks(
        range(len(labels)) if places is None else places, labels, size=9, color=INK, parse_math=False
    )
    axes.invert_yaxis()


def cut(text: str, length: int = 26) -> str:
    """A text in one line of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
