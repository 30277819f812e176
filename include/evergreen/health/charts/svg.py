"""SVG as text: elements with escaped attributes, and a picture with its title and description."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import count

Value = str | float | int | None
_ids = count()


def element(tag: str, *children: str, **attributes: Value) -> str:
    """An element; `class_` is `class`, other underscores are dashes, attributes of None are left out.

    Args:
        tag: its name.
        children: markup; text goes through `text`.
        attributes: values are escaped; numbers have a digit after the point at most.
    """
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_shown(value)}"' for name, value in attributes.items() if value is not None
    )  # fmt: skip
    return f"<{tag}{said}>{''.join(children)}</{tag}>" if children else f"<{tag}{said}/>"


def text(said: object) -> str:
    """Text that is no markup."""
    return escape(str(said))


def label(x: float, y: float, said: object, class_: str = "t", anchor: str = "start") -> str:
    """A text at a point."""
    return element("text", text(said), x=x, y=y, class_=class_, text_anchor=anchor)


def picture(
    title: str,
    description: str,
    width: float,
    height: float,
    parts: Iterable[str],
    class_: str,
    *,
    role: str = "img",
) -> str:
    """A whole picture; `description` says in words what is to be seen. One that holds links has the role `group`."""
    number = next(_ids)
    first, second = f"svg-t{number}", f"svg-d{number}"
    named = (element("title", text(title), id=first), element("desc", text(description), id=second))
    return element(
        "svg", *named, *parts, class_=f"chart {class_}", viewBox=f"0 0 {width:g} {height:g}", role=role,
        aria_labelledby=f"{first} {second}",
    )  # fmt: skip


def line(points: Sequence[tuple[float, float] | None], class_: str) -> str:
    """A line through points; None interrupts it."""
    path, pen = "", False
    for point in points:
        if point is None:
            pen = False
            continue
        path += f"{'L' if pen else 'M'}{point[0]:.1f} {point[1]:.1f}"
        pen = True
    return element("path", d=path, class_=class_) if path else ""


def axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """The ends of an axis and its marks, at round numbers; it begins at 0 where that costs little."""
    low = 0.0 if 0 <= low < 0.6 * high else low
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return (
        first * step,
        max(last, first + 1) * step,
        [n * step for n in range(first, max(last, first + 1) + 1)],
    )


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escape(str(value), quote=True)
