"""The served error of the newest windows in the room of a word, with its limit."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.alerting.content.history import JudgedWindow
from evergreen.health.charts import svg
from evergreen.ledger import words

WIDTH, HEIGHT, EDGE = 120.0, 28.0, 3.0
FAR = 3.0


def sparkline(trend: Sequence[JudgedWindow], metric: str) -> str:
    """A line of the newest windows, oldest first; empty where nothing was measured.

    Windows in violation are squares, the newest value is a dot, estimates are hollow; the limit is a dashed line, where it is near.
    """
    known = [(index, w) for index, w in enumerate(trend) if w.value is not None]
    if not known:
        return ""
    values = [w.value for _, w in known if w.value is not None]
    low, high = min(values), max(values)
    # A limit that is far off would flatten the line; that it is far off is good news.
    reach = FAR * ((high - low) or abs(high) or 1.0)
    limits = [
        w.limit if w.limit is not None and low - reach <= w.limit <= high + reach else None for w in trend
    ]
    near = [limit for limit in limits if limit is not None]
    low, high = min([low, *near]), max([high, *near])
    span = (high - low) or 1.0

    def at(index: int, value: float) -> tuple[float, float]:
        x = EDGE + (WIDTH - 2 * EDGE) * (index / max(1, len(trend) - 1))
        return x, HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / span

    parts = [
        svg.line([at(i, limit) if limit is not None else None for i, limit in enumerate(limits)], "limit"),
        svg.line([at(i, w.value) if w.value is not None else None for i, w in enumerate(trend)], "value"),
    ]
    for index, window in known:
        x, y = at(index, window.value or 0.0)
        if window.status == "violation":
            parts.append(svg.element("rect", x=x - 2, y=y - 2, width=4, height=4, class_="bad"))
        elif index == known[-1][0]:
            parts.append(
                svg.element("circle", cx=x, cy=y, r=2.2, class_="estimated" if window.estimated else "now")
            )
    newest = known[-1][1]
    bad = sum(w.status == "violation" for w in trend)
    told = (
        f"{len(known)} windows to {words.when(newest.end)}; newest {words.num(newest.value)}"
        f"{', estimated' if newest.estimated else ''}{f', limit {words.num(newest.limit)}' if newest.limit is not None else ''}; "
        f"{bad} in violation"
    )
    return svg.picture(f"{metric} of the newest windows", told, WIDTH, HEIGHT, parts, "spark")
