"""The last day online: requests of each hour by the version that answered, and below it how long they took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC

from evergreen.alerting.content.online import milliseconds
from evergreen.health.charts import svg
from evergreen.health.online import Hour
from evergreen.ledger import words

WIDTH, LEFT, RIGHT = 960.0, 78.0, 14.0
TOP, BARS, GAP, TIMES = 26.0, 120.0, 40.0, 90.0
HEIGHT = TOP + BARS + GAP + TIMES + 24
EVERY = 4  # hours have a mark
FAR = 3.0
"""A minute that took longer than so many times the axis's usual end is drawn at its edge, or the rest would be flat."""


def online_day(hours: Sequence[Hour], champion: str | None) -> str:
    """The picture; empty where nothing was asked.

    Args:
        hours: oldest first.
        champion: its requests are at the foot of each bar.
    """
    if not any(one.traffic.requests for one in hours):
        return ""
    step = (WIDTH - LEFT - RIGHT) / len(hours)
    versions = sorted({v for one in hours for v in one.answered}, key=lambda v: (v != champion, v))
    parts = [*_bars(hours, step, versions, champion), *_times(hours, step)]
    for index, one in enumerate(hours):
        if index % EVERY == 0:
            at = f"{one.begin.astimezone(UTC):%H:%M}"
            parts.append(svg.label(LEFT + step * index, HEIGHT - 8, at, "t", "middle" if index else "start"))
    asked = sum(one.traffic.requests for one in hours)
    wrong = sum(one.traffic.errors for one in hours)
    worst = max((one.traffic.worst_ms or 0.0 for one in hours), default=0.0)
    told = (
        f"{asked:,} requests from {words.when(hours[0].begin)} on, {wrong:,} of them failed; answered by "
        f"{', '.join(f'v{v}' for v in versions) or 'no version'}; the slowest minute had a p99 of {milliseconds(worst)}"
    )
    return svg.picture("Requests of each hour, and how long they took", told, WIDTH, HEIGHT, parts, "history")


def _bars(hours: Sequence[Hour], step: float, versions: Sequence[str], champion: str | None) -> list[str]:
    _, high, ticks = svg.axis(0.0, float(max(one.traffic.requests for one in hours)))
    foot = TOP + BARS

    def y(value: float) -> float:
        return foot - BARS * value / high

    parts = [svg.label(LEFT, TOP - 10, "Requests an hour", "t strong"), *_grid(ticks, y)]
    for index, one in enumerate(hours):
        below, drawn = 0.0, []
        layers = [(one.answered.get(v, 0), "reference" if v == champion else "beside") for v in versions]
        for many, class_ in (*layers, (one.traffic.refused, "refused"), (one.traffic.errors, "bad")):
            if many:
                drawn.append(
                    svg.element(
                        "rect", x=LEFT + step * index + 1, y=y(below + many), width=step - 2,
                        height=max(1.0, y(below) - y(below + many)), class_=class_,
                    )
                )  # fmt: skip
                below += many
        if drawn:
            parts.append(svg.element("g", svg.element("title", svg.text(_said(one))), *drawn))
    return parts


def _said(one: Hour) -> str:
    traffic = one.traffic
    parts = [f"{words.when(one.begin)}: {traffic.requests:,} requests"]
    parts += [f"{many:,} by v{version}" for version, many in sorted(one.answered.items())]
    parts += [f"{traffic.errors:,} failed"] if traffic.errors else []
    parts += [f"{traffic.refused:,} refused"] if traffic.refused else []
    if traffic.p50_ms is not None and traffic.p99_ms is not None:
        parts.append(f"p50 {milliseconds(traffic.p50_ms)}, p99 {milliseconds(traffic.p99_ms)}")
        parts.append(f"p99 of the slowest minute {milliseconds(traffic.worst_ms or 0.0)}")
    return ", ".join(parts)


def _times(hours: Sequence[Hour], step: float) -> list[str]:
    top = TOP + BARS + GAP
    usual = max((one.traffic.p99_ms or 0.0 for one in hours), default=0.0)
    worst = max((one.traffic.worst_ms or 0.0 for one in hours), default=0.0)
    if not usual:
        return []
    _, high, ticks = svg.axis(0.0, min(worst, FAR * usual))

    def y(value: float) -> float:
        return top + TIMES - TIMES * min(value, high) / high

    def x(index: int) -> float:
        return LEFT + step * (index + 0.5)

    def through(values: Sequence[float | None], class_: str) -> str:
        return svg.line([None if v is None else (x(i), y(v)) for i, v in enumerate(values)], class_)

    parts = [svg.label(LEFT, top - 10, "p99, in ms", "t strong"), *_grid(ticks, y)]
    parts.append(through([one.traffic.worst_ms for one in hours], "baseline"))
    parts.append(through([one.traffic.p99_ms for one in hours], "value"))
    for index, one in enumerate(hours):
        if one.traffic.worst_ms is not None and one.traffic.p99_ms is not None:
            title = svg.element("title", svg.text(_said(one)))
            if one.traffic.worst_ms > high:
                parts.append(
                    svg.element("rect", title, x=x(index) - 4, y=top - 4, width=8, height=8, class_="bad")
                )
            parts.append(
                svg.element("circle", title, cx=x(index), cy=y(one.traffic.p99_ms), r=2.6, class_="point")
            )
    return parts


def _grid(ticks: Sequence[float], y: Callable[[float], float]) -> list[str]:
    parts = []
    for value in ticks:
        parts.append(svg.element("path", d=f"M{LEFT:g} {y(value):.1f}H{WIDTH - RIGHT:g}", class_="grid"))
        parts.append(svg.label(LEFT - 8, y(value) + 4, words.num(float(value)), "t", "end"))
    return parts
