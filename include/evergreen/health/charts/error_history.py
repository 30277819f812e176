"""The served error over time with champions, alarms, retrainings and rollbacks, each window as wide as the next."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from evergreen.alerting.content.history import JudgedWindow
from evergreen.health.charts import svg
from evergreen.health.model import ChampionRow, Mark
from evergreen.ledger import words

WIDTH, LEFT, RIGHT = 960.0, 78.0, 14.0
TOP, PLOT, LANE = 30.0, 190.0, 22.0
TICKS = 6
LANES = ("alarms", "retraining", "champion")
# A sign for each kind, so that nobody has to tell colours apart: lane, letter, class, what it says in the legend.
SIGNS = {
    "retrain_requested": (1, "○", "asked", "retraining asked for"),
    "rejected": (1, "×", "rejected", "challenger rejected"),
    "awaiting_approval": (1, "?", "asked", "waits for approval"),
    "promoted": (2, "▲", "promoted", "new champion"),
    "rolled_back": (2, "↶", "rolled", "rolled back"),
    "canary": (2, "△", "promoted", "share of the keys online"),
}
LEGEND = (
    ("■", "bad", "window in violation"),
    ("◇", "estimated", "estimated, without labels"),
    ("!", "alarm", "alarm"),
    *(s[1:] for s in SIGNS.values()),
)


class _Scale:
    """Where a time stands: windows are of one width, and what lies in a gap between two stands at its edge."""

    def __init__(self, windows: Sequence[JudgedWindow]) -> None:
        self._starts = [w.start for w in windows]
        self._ends = [w.end for w in windows]
        self.step = (WIDTH - LEFT - RIGHT) / len(windows)

    def of(self, time: datetime) -> float:
        index = bisect_right(self._starts, time) - 1
        if index < 0:
            return LEFT
        start, end = self._starts[index], self._ends[index]
        return LEFT + self.step * (index + min(1.0, (time - start) / (end - start)))


def error_history(
    windows: Sequence[JudgedWindow],
    metric: str,
    marks: Sequence[Mark],
    alarms: Sequence[tuple[datetime, str]],
    champions: Sequence[ChampionRow],
    href: Callable[[int], str],
) -> str:
    """The picture; empty where no window was judged.

    Args:
        windows: oldest first.
        metric: as people write it.
        marks: decisions on the time line.
        alarms: when incidents began, and what they are.
        champions: times in office, newest first.
        href: the address of a decision's evidence.
    """
    if not windows:
        return ""
    scale, height = _Scale(windows), TOP + PLOT + 24 + LANE * len(LANES)
    values = [v for w in windows for v in (w.value, w.limit, w.baseline) if v is not None]
    low, high, ticks = svg.axis(min(values, default=0.0), max(values, default=1.0))

    def y(value: float) -> float:
        return TOP + PLOT - PLOT * (value - low) / (high - low)

    def x(index: int) -> float:
        return LEFT + scale.step * (index + 0.5)

    parts = [*_bands(champions, scale, height), *_axes(windows, ticks, y, x)]
    parts.append(
        svg.line(
            [(x(i), y(w.baseline)) if w.baseline is not None else None for i, w in enumerate(windows)],
            "baseline",
        )
    )
    parts.append(
        svg.line(
            [(x(i), y(w.limit)) if w.limit is not None else None for i, w in enumerate(windows)], "limit"
        )
    )
    parts.append(
        svg.line(
            [(x(i), y(w.value)) if w.value is not None else None for i, w in enumerate(windows)], "value"
        )
    )
    parts += [_point(x(i), y(w.value), w, metric) for i, w in enumerate(windows) if w.value is not None]
    parts += _lanes(marks, alarms, scale, href)
    bad = sum(w.status == "violation" for w in windows)
    told = (
        f"{len(windows)} windows from {words.when(windows[0].start)} to {words.when(windows[-1].end)}, {bad} in violation; "
        f"{len(alarms)} alarms; champions in turn: {', '.join(f'v{c.version} from {words.when(c.since)}' for c in reversed(champions)) or 'none'}"
    )
    return svg.picture(f"Served {metric} over time", told, WIDTH, height, parts, "history", role="group")


def _bands(champions: Sequence[ChampionRow], scale: _Scale, height: float) -> list[str]:
    """Who was in office, as bands behind everything."""
    parts = []
    for number, row in enumerate(reversed(champions)):
        begin, end = scale.of(row.since), WIDTH - RIGHT if row.until is None else scale.of(row.until)
        if end - begin < 1:
            continue
        parts.append(
            svg.element(
                "rect",
                x=begin,
                y=TOP,
                width=end - begin,
                height=height - TOP - 24,
                class_="band" if number % 2 else "band other",
            )
        )
        if end - begin > 18:
            parts.append(svg.label(begin + 4, TOP - 8, f"v{row.version}", "t strong"))
    return parts


def _axes(
    windows: Sequence[JudgedWindow],
    ticks: Sequence[float],
    y: Callable[[float], float],
    x: Callable[[int], float],
) -> list[str]:
    parts = []
    for value in ticks:
        parts.append(svg.element("path", d=f"M{LEFT:g} {y(value):.1f}H{WIDTH - RIGHT:g}", class_="grid"))
        parts.append(svg.label(LEFT - 8, y(value) + 4, words.num(float(value)), "t", "end"))
    every = max(1, math.ceil(len(windows) / TICKS))
    for index in range(0, len(windows), every):
        shown = windows[index].start.astimezone(UTC)
        parts.append(
            svg.label(x(index), TOP + PLOT + 16, f"{shown:%Y-%m-%d}", "t", "middle" if index else "start")
        )
    for index, (before, after) in enumerate(pairwise(windows)):
        if after.start - before.end > (before.end - before.start):
            at = (x(index) + x(index + 1)) / 2
            parts.append(svg.element("path", svg.element("title", svg.text("no window was judged in between")),
                                     d=f"M{at:.1f} {TOP:g}V{TOP + PLOT:g}", class_="gap"))  # fmt: skip
    return parts


def _point(x: float, y: float, window: JudgedWindow, metric: str) -> str:
    kind = "estimated, " if window.estimated else ""
    limit = f", limit {words.num(window.limit)}" if window.limit is not None else ""
    said = svg.element("title", svg.text(
        f"{words.when(window.start)} to {words.when(window.end)}, v{window.version}: {metric} {kind}{words.num(window.value)}{limit}, {window.status}"
    ))  # fmt: skip
    if window.estimated:
        return svg.element("path", said, d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", class_="estimated")
    if window.status == "violation":
        return svg.element("rect", said, x=x - 4, y=y - 4, width=8, height=8, class_="bad")
    return svg.element("circle", said, cx=x, cy=y, r=3.2, class_="point")


def _lanes(
    marks: Sequence[Mark], alarms: Sequence[tuple[datetime, str]], scale: _Scale, href: Callable[[int], str]
) -> list[str]:
    """What was decided, a lane for each kind of thing below the error."""
    top = TOP + PLOT + 24
    parts = [svg.label(LEFT - 8, top + LANE * n + 15, name, "t", "end") for n, name in enumerate(LANES)]
    for time, what in alarms:
        said = svg.element("title", svg.text(f"{words.when(time)}: {what}"))
        parts.append(
            svg.element(
                "text", said, "!", x=scale.of(time), y=top + 16, class_="sign alarm", text_anchor="middle"
            )
        )
    for mark in marks:
        if mark.kind not in SIGNS:
            continue
        lane, sign, class_, name = SIGNS[mark.kind]
        version = f" v{mark.version}" if mark.version else ""
        said = svg.element("title", svg.text(f"{words.when(mark.time)}: {name}{version}: {mark.words}"))
        drawn = svg.element(
            "text",
            said,
            svg.text(sign),
            x=scale.of(mark.time),
            y=top + LANE * lane + 16,
            class_=f"sign {class_}",
            text_anchor="middle",
        )
        parts.append(
            svg.element(
                "a", drawn, href=href(mark.decision), aria_label=f"{name}{version}, {words.when(mark.time)}"
            )
        )
    return parts
