"""Figures about how good the challenger is on the judged rows, beside champion and baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from sklearn import metrics as sk

from evergreen.drawing import BLUE, INK, PALE, dated
from evergreen.metrics import resampled
from evergreen.microseconds import moment
from evergreen.spec import LARGER_IS_BETTER, ModelSpec, metric_name
from evergreen.training.figures.judged_sample import JudgedSample
from evergreen.training.figures.sheet import COLOURS, cut, legend, named, sheet, ticked
from evergreen.training.figures.slice_errors import SliceError

# More points than these are drawn as a density, and curves as so many points.
MOST_POINTS = 2000
CELLS = 60
CURVE_POINTS = 200
BINS = 10
TIME_BINS = 60

Floats = npt.NDArray[np.float64]


def predicted_against_actual(model: ModelSpec, sample: JudgedSample) -> Figure | None:
    """Each row's prediction against its label; None for a binary model."""
    if model.task == "binary":
        return None
    y, p = sample.y, sample.by["challenger"]
    figure, (axes,) = sheet(4.2)
    named(
        axes,
        f"Predicted against actual, {_rows(sample)}",
        f"actual {model.label.column}",
        f"predicted {model.label.column}",
    )
    low, high = float(min(y.min(), p.min())), float(max(y.max(), p.max()))
    pad = 0.03 * ((high - low) or 1.0)
    edges = (low - pad, high + pad)
    if len(y) > MOST_POINTS:
        counts, *_ = np.histogram2d(y, p, bins=CELLS, range=(edges, edges))
        shown = np.ma.masked_equal(counts.T, 0)
        axes.imshow(
            np.log1p(shown),
            origin="lower",
            extent=(*edges, *edges),
            aspect="auto",
            cmap="Blues",
            vmin=-1,
            zorder=2,
        )
    else:
        axes.scatter(y, p, s=12, color=BLUE, alpha=0.55, linewidth=0, zorder=3)
    axes.plot(edges, edges, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=4, label="perfect")
    axes.set_xlim(edges)
    axes.set_ylim(edges)
    legend(axes, "upper left")
    return figure


def ranking(model: ModelSpec, sample: JudgedSample) -> Figure | None:
    """ROC curve, precision against recall, and calibration; None for a regression, or where the rows have one class."""
    y = sample.y
    if model.task != "binary" or not 0 < y.sum() < len(y):
        return None
    figure, (roc, precision, calibrated) = sheet(2.9, panels=3, left=0.5, bottom=0.85)
    named(roc, "ROC", "false positives", "true positives")
    named(precision, "Precision, recall", "recall", "precision")
    named(calibrated, "Calibration", "predicted share", "observed share")
    for axes in (roc, calibrated):
        axes.plot((0, 1), (0, 1), color=PALE, linewidth=1.2, zorder=2)
    precision.axhline(float(y.mean()), color=PALE, linewidth=1.2, zorder=2)
    for who in ("champion", "challenger"):
        if who not in sample.by:
            continue
        p, colour = sample.by[who], COLOURS[who]
        wrong, right, _ = sk.roc_curve(y, p)
        roc.plot(*_thinned(wrong, right), color=colour, linewidth=1.7, label=who)
        share, recall, _ = sk.precision_recall_curve(y, p)
        precision.plot(*_thinned(recall, share), color=colour, linewidth=1.7)
        calibrated.plot(*_calibration(y, p), color=colour, linewidth=1.7, marker="o", markersize=3.5)
    for axes in (roc, precision, calibrated):
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    handles, labels = roc.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def residuals_over_time(model: ModelSpec, sample: JudgedSample) -> Figure | None:
    """Predicted minus actual along the judged rows: what a model that is late or lasts badly shows."""
    times, error = sample.times, sample.by["challenger"] - sample.y
    begin, end = int(times.min()), int(times.max())
    if begin == end:
        return None
    figure, (axes,) = sheet(3.2)
    what = (
        "probability minus label"
        if model.task == "binary"
        else f"predicted minus actual {model.label.column}"
    )
    named(axes, f"Residuals over time, {_rows(sample)}", y=what)
    dated(axes)
    count = max(1, min(TIME_BINS, len(np.unique(times)) // 3))
    place = np.minimum((times - begin) * count // (end - begin), count - 1)
    order = np.argsort(place, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
    x = [
        date2num(moment(begin + (2 * int(place[part[0]]) + 1) * (end - begin) // (2 * count)))
        for part in parts
    ]
    if model.task != "binary":
        low, high = np.array([np.quantile(error[part], (0.1, 0.9)) for part in parts]).T
        axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, zorder=2, label="8 of 10 rows")
    for who in ("champion", "challenger"):
        if who in sample.by:
            means = [float((sample.by[who][part] - sample.y[part]).mean()) for part in parts]
            axes.plot(x, means, color=COLOURS[who], linewidth=1.7, zorder=4, label=f"mean, {who}")
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    legend(axes, "upper left", columns=3)
    low_y, high_y = axes.get_ylim()
    axes.set_ylim(low_y, high_y + 0.18 * (high_y - low_y))
    return figure


def error_by_slice(model: ModelSpec, sample: JudgedSample, slices: Sequence[SliceError]) -> Figure | None:
    """The deciding metric by part of the rows; None where there are no parts."""
    if not slices:
        return None
    places = _places(slices)
    height = 1.15 + 0.2 * (places[-1] + 1)
    figure, (axes,) = sheet(height, left=2.25, bottom=0.75)
    better = "larger" if model.gate_metric in LARGER_IS_BETTER else "smaller"
    named(
        axes,
        f"{metric_name(model.gate_metric)} by slice, with its rows",
        f"{metric_name(model.gate_metric)}; {better} is better",
    )
    ends = [(min(s.values.values()), max(s.values.values())) for s in slices]
    axes.hlines(places, *zip(*ends, strict=True), color=PALE, linewidth=2.2, zorder=2)
    for who, size, mark in (("baseline", 46, "|"), ("champion", 26, "o"), ("challenger", 34, "o")):
        known = [(s.values[who], at) for s, at in zip(slices, places, strict=True) if who in s.values]
        if known:
            x, y = zip(*known, strict=True)
            axes.scatter(x, y, s=size, color=COLOURS[who], marker=mark, label=who, zorder=3)
    whole = resampled.value(model.gate_metric, sample.y, sample.by["challenger"], model.cut)
    axes.axvline(
        whole, color=BLUE, linewidth=1, linestyle=(0, (4, 3)), zorder=2, label="challenger, all rows"
    )
    ticked(axes, [f"{cut(s.feature, 16)} {cut(s.value, 20)}  ({s.rows:,})" for s in slices], places)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=PALE, linewidth=0.8, zorder=1)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK, borderpad=0.2
    )
    return figure


def _places(slices: Sequence[SliceError]) -> list[float]:
    """Where each part is drawn: below each other, with a gap between features."""
    found, at = [], 0.0
    for number, one in enumerate(slices):
        at += 0 if number == 0 else 1 if one.feature == slices[number - 1].feature else 1.6
        found.append(at)
    return found


def _rows(sample: JudgedSample) -> str:
    if sample.rows == len(sample.y):
        return f"{sample.rows:,} judged rows"
    return f"{len(sample.y):,} of {sample.rows:,} judged rows"


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """A curve by at most `CURVE_POINTS` of its points, its ends among them."""
    some = np.unique(np.linspace(0, len(x) - 1, min(CURVE_POINTS, len(x))).astype(np.int64))
    return x[some], y[some]


def _calibration(y: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Predicted and observed share in bins of about equally many rows, see `gate.calibration`."""
    edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, p, "right")
    rows = np.bincount(place)
    some = rows > 0
    return np.bincount(place, p)[some] / rows[some], np.bincount(place, y)[some] / rows[some]
