"""The pictures: the served error over a model's whole life, and (from `worst_columns`) what drifted lately.

Names from the data are never read as mathematical markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from evergreen.alerting.content.history import JudgedWindow, Tenure, marks, tenures, windows
from evergreen.alerting.pictures.judged_windows import beyond, drawn_limits, estimated_key, hollow
from evergreen.alerting.pictures.worst_columns import worst_columns_png
from evergreen.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, clean, png
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import ModelSpec, metric_name
from evergreen.warehouse.connection import Connection

__all__ = ["timeline_png", "worst_columns_png"]

BANDS = ("#eef4fa", "#dbe8f4")


@dataclass(frozen=True)
class Style:
    """How one kind of decision is marked: in the strip below, and by a line across the picture if `line` is set."""

    label: str
    colour: str
    marker: str
    line: Any = None


STYLES = {
    DecisionKind.RETRAIN_REQUESTED: Style("alarm", RED, "^", (0, (2, 2))),
    DecisionKind.PROMOTED: Style("promoted", GREEN, "o", "-"),
    DecisionKind.REJECTED: Style("rejected", GREY, "x"),
    DecisionKind.ROLLED_BACK: Style("rolled back", PURPLE, "<", "-"),
    DecisionKind.BATCH_QUARANTINED: Style("quarantined", ORANGE, "s"),
}


def timeline_png(conn: Connection, model: ModelSpec, *, title: str | None = None) -> bytes:
    """Draw the served error of a model over time, its limit, its champions, and what was decided when.

    A point is one judged window at the window's end, by its newest judgement; a gap is a window that could not be
    measured. Bands are champions by the as-of time of their promotion. Returns a PNG of 1400 x 700 pixels.
    """
    metric = model.performance_metric
    judged = windows(conn, model.name, metric)
    told = [d for d in marks(conn, model.name, model.datasets) if d.kind in STYLES]
    rules = tenures(conn, model.name)
    figure = Figure(figsize=(14, 7), dpi=100, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 1, height_ratios=(5, 1.25), hspace=0.02)
    top: Axes = figure.add_subplot(grid[0])
    strip: Axes = figure.add_subplot(grid[1], sharex=top)
    figure.suptitle(
        title or f"{model.name}: served {metric_name(metric)} over time", x=0.01, ha="left", size=17, weight="bold", color=INK,
        parse_math=False,
    )  # fmt: skip
    span = _span(judged, told, rules)
    if span is None:
        for axes in (top, strip):
            axes.set_axis_off()
        top.text(0.5, 0.4, "Nothing has been judged or decided yet", ha="center", size=15, color=GREY)
        return png(figure)
    top.set_xlim(date2num(span[0]), date2num(span[1]))
    _draw_bands((top, strip), rules, span)
    _draw_error(top, judged, metric)
    _draw_marks(top, strip, told)
    clean(top, metric_name(metric))
    top.tick_params(labelbottom=False, length=0)
    top.legend(handles=_legend(told, judged, metric), loc="lower left", bbox_to_anchor=(0, 1.005), ncols=8, frameon=False,
               fontsize=12, handlelength=1.8, columnspacing=1.6, borderpad=0, handletextpad=0.6)  # fmt: skip
    return png(figure)


def _draw_bands(all_axes: Sequence[Axes], rules: Sequence[Tenure], span: tuple[datetime, datetime]) -> None:
    width = span[1] - span[0]
    for index, rule in enumerate(rules):
        start, end = max(rule.start, span[0]), min(rule.end or span[1], span[1])
        if end <= start:
            continue
        for axes in all_axes:
            axes.axvspan(date2num(start), date2num(end), color=BANDS[index % 2], zorder=0, linewidth=0)
        name = f"v{rule.version}"
        # A short time in office has no room for its name; the strip below still shows its promotion.
        if end - start >= width * (0.006 + 0.0085 * len(name)) or rule.end is None:
            all_axes[0].text(
                date2num(start + width * 0.003), 0.985, name, size=12, weight="bold", color="#486581",
                va="top", transform=all_axes[0].get_xaxis_transform(), parse_math=False, clip_on=True, zorder=6,
            )  # fmt: skip


def _draw_error(axes: Axes, judged: Sequence[JudgedWindow], metric: str) -> None:
    x = [date2num(w.end) for w in judged]
    values = [float("nan") if w.value is None else w.value for w in judged]
    axes.plot(x, values, color=BLUE, linewidth=2, zorder=4)
    edges: list[float] = []
    limits: list[float] = []
    for w, limit in zip(judged, drawn_limits(metric, judged), strict=True):
        edges += [date2num(w.start), date2num(w.end)]
        limits += [limit, limit]
    axes.plot(edges, limits, color=INK, linewidth=1.3, linestyle=(0, (5, 3)), zorder=3)
    for wrong, colour, size in ((False, BLUE, 22), (True, RED, 46)):
        some = [i for i, w in enumerate(judged) if w.value is not None and beyond(metric, w) == wrong]
        axes.scatter([x[i] for i in some], [values[i] for i in some], s=size, color=colour, zorder=5)
    guessed = [i for i, w in enumerate(judged) if w.value is not None and w.estimated]
    hollow(axes, [x[i] for i in guessed], [values[i] for i in guessed], 14)
    known = [v for v in (*(w.value for w in judged), *limits) if v is not None and v == v]
    if known:
        low, high = min(known), max(known)
        low = min(0.0, low) if low < 0.5 * high else low - 0.2 * (high - low)
        axes.set_ylim(low, high + 0.16 * ((high - low) or 1.0))
    else:
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "no window with labels yet", ha="center", size=13, color=GREY, transform=axes.transAxes
        )


def _draw_marks(top: Axes, strip: Axes, told: Sequence[Decision]) -> None:
    kinds = [k for k in STYLES if any(d.kind is k for d in told)]
    for row, kind in enumerate(kinds):
        style = STYLES[kind]
        times = [date2num(d.effective_shown) for d in told if d.kind is kind]
        strip.scatter(
            times, [row] * len(times), s=70, color=style.colour, marker=style.marker, linewidth=1.6, zorder=4
        )
        if style.line:
            for time in times:
                top.axvline(
                    time, color=style.colour, linewidth=1.4, linestyle=style.line, zorder=2 + (row == 0) / 2
                )
    clean(strip, "")
    strip.set_yticks(range(len(kinds)), [STYLES[k].label for k in kinds], size=12, color=INK)
    strip.set_ylim(len(kinds) - 0.4, -0.6)
    strip.tick_params(axis="x", labelsize=12)
    strip.grid(visible=False)


def _legend(told: Sequence[Decision], judged: Sequence[JudgedWindow], metric: str) -> list[Any]:
    handles: list[Any] = []
    if any(w.value is not None for w in judged):
        name = f"served {metric_name(metric)}"
        handles.append(Line2D([], [], color=BLUE, marker="o", markersize=5, linewidth=2, label=name))
        handles.append(
            Line2D([], [], color=RED, marker="o", markersize=7, linewidth=0, label="beyond its limit")
        )
        handles.append(Line2D([], [], color=INK, linewidth=1.3, linestyle=(0, (5, 3)), label="limit"))
    if any(w.value is not None and w.estimated for w in judged):
        handles.append(estimated_key())
    handles.append(Patch(color=BANDS[1], label="champion"))
    for kind, style in STYLES.items():
        if style.line and any(d.kind is kind for d in told):
            handles.append(
                Line2D([], [], color=style.colour, linewidth=1.8, linestyle=style.line, label=style.label)
            )
    return handles


def _span(
    judged: Sequence[JudgedWindow], told: Sequence[Decision], rules: Sequence[Tenure]
) -> tuple[datetime, datetime] | None:
    times = (
        [t for w in judged for t in (w.start, w.end)]
        + [d.effective_shown for d in told]
        + [r.start for r in rules]
    )
    if not times:
        return None
    pad = max((max(times) - min(times)) * 0.012, timedelta(hours=6))
    return min(times) - pad, max(times) + pad
