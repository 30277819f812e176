"""The picture of the weekly digest: the served error of each model against its limit, one small panel each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evergreen.alerting.content.week import ModelWeek
from evergreen.alerting.pictures.judged_windows import beyond, drawn_limits, estimated_key, hollow
from evergreen.drawing import BLUE, INK, RED, clean, png
from evergreen.spec import metric_name

MOST_PANELS = 6
LONGEST_TITLE = 52


def trends_png(weeks: Sequence[ModelWeek]) -> bytes | None:
    """Draw the newest windows of up to MOST_PANELS models, those with open incidents and violations first.

    Rings are estimates; a legend says so where there are any.

    Returns:
        A PNG of 1300 pixels' width, or None if no served error is known.
    """
    found = drawn(weeks)
    if not found:
        return None
    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    guessed = any(map(estimates, found))
    figure = Figure(
        figsize=(5.0, 0.3 + 1.3 * lines + 0.2 * guessed), dpi=260, layout="constrained", facecolor="white"
    )
    for index, week in enumerate(found, start=1):
        axes = figure.add_subplot(lines, columns, index)
        x = [date2num(w.end) for w in week.trend]
        values = [float("nan") if w.value is None else w.value for w in week.trend]
        limits = drawn_limits(week.metric, week.trend)
        axes.plot(x, limits, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.plot(x, values, color=BLUE, linewidth=1.5)
        bad = [i for i, w in enumerate(week.trend) if beyond(week.metric, w)]
        axes.scatter([x[i] for i in bad], [values[i] for i in bad], s=26, color=RED, zorder=5)
        rings = estimates(week)
        fine = [i for i in rings if i not in bad]
        axes.scatter([x[i] for i in fine], [values[i] for i in fine], s=26, color=BLUE, zorder=5)
        hollow(axes, [x[i] for i in rings], [values[i] for i in rings], 8)
        clean(axes, "")
        axes.set_title(
            _cut(f"{week.name}: {metric_name(week.metric)}", LONGEST_TITLE // columns),
            loc="left",
            size=10,
            weight="bold",
            color=INK,
            parse_math=False,
        )
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_locator(MaxNLocator(3)) if columns > 1 else None
        axes.tick_params(labelsize=8)
    if guessed:
        figure.legend(
            handles=[estimated_key()], loc="outside lower left", frameon=False, fontsize=9, borderpad=0
        )
    return png(figure)


def drawn(weeks: Sequence[ModelWeek]) -> list[ModelWeek]:
    """The models that `trends_png` draws, in its order."""
    known = [week for week in weeks if sum(w.value is not None for w in week.trend) > 1]
    return sorted(known, key=lambda w: (-len(w.open), -w.violations, w.name))[:MOST_PANELS]


def estimates(week: ModelWeek) -> list[int]:
    """Which of a model's newest windows have an estimated value, by their place in `trend`."""
    return [i for i, w in enumerate(week.trend) if w.value is not None and w.estimated]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
