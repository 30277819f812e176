"""Columns drawn: a value against its limit, how that moved, and the distribution of a reference beside that of now."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.health.charts import svg
from evergreen.ledger import words

WIDTH, HEIGHT = 160.0, 22.0
MOST = 2.5  # of the limit: what is farther beyond is drawn at the edge
BINS_HEIGHT = 56.0


def against_limit(of_limit: float | None, past: Sequence[float | None], name: str, *, violated: bool) -> str:
    """A column's value as a share of its limit, in this window and those before; the dashed line is the limit.

    Args:
        of_limit: value divided by limit; None: it could not be computed.
        past: of the windows up to this one, oldest first.
        name: of the column.
        violated: whether it is a violation.
    """
    edge = 3.0
    top = max(1.15, min(MOST, max((v for v in (*past, of_limit) if v is not None), default=1.0)))

    def y(share: float) -> float:
        return HEIGHT - edge - (HEIGHT - 2 * edge) * max(0.0, min(share, top)) / top

    def x(index: int) -> float:
        return edge + (WIDTH - 2 * edge) * (index / max(1, len(past) - 1) if len(past) > 1 else 1.0)

    parts = [
        svg.element("path", d=f"M0 {y(1.0):.1f}H{WIDTH:g}", class_="limit"),
        svg.line([(x(i), y(v)) if v is not None else None for i, v in enumerate(past)], "value"),
    ]
    if of_limit is not None:
        at = x(max(0, len(past) - 1)), y(of_limit)
        parts.append(
            svg.element("rect", x=at[0] - 2.5, y=at[1] - 2.5, width=5, height=5, class_="bad") if violated
            else svg.element("circle", cx=at[0], cy=at[1], r=2.4, class_="now")
        )  # fmt: skip
    told = "could not be computed" if of_limit is None else f"{of_limit:.0%} of its limit"
    return svg.picture(
        f"{name} against its limit", f"{told}, over {len(past)} windows", WIDTH, HEIGHT, parts, "spark wide"
    )


def distribution(bins: Sequence[str], reference: Sequence[float], now: Sequence[float], name: str) -> str:
    """Shares of rows by bin: of the reference as filled bars, of now as an outline."""
    if not bins:
        return ""
    width = WIDTH * 1.5
    step, high = width / len(bins), max([*reference, *now, 1e-9])

    def y(share: float) -> float:
        return BINS_HEIGHT - (BINS_HEIGHT - 4) * share / high

    parts = [
        svg.element(
            "rect", svg.element("title", svg.text(f"{bins[i]}: reference {share:.1%}{f', now {now[i]:.1%}' if now else ''}")),
            x=step * i + 0.5, y=y(share), width=max(1.0, step - 1), height=BINS_HEIGHT - y(share), class_="reference",
        )
        for i, share in enumerate(reference)
    ]  # fmt: skip
    outline = [
        point for i, share in enumerate(now) for point in ((step * i, y(share)), (step * (i + 1), y(share)))
    ]
    parts.append(svg.line(outline, "outline"))
    told = f"{len(bins)} bins from {bins[0]} to {bins[-1]}" + ("" if now else "; no window was measured yet")
    return svg.picture(f"{name}: reference and now", told, width, BINS_HEIGHT, parts, "distribution")


def share_bar(share: float, name: str) -> str:
    """A share as a bar, such as a feature's of the gain."""
    bar = svg.element("rect", x=0, y=4, width=max(1.0, WIDTH * share), height=HEIGHT - 12, class_="reference")
    return svg.picture(name, f"{words.num(100 * share, 3)} %", WIDTH, HEIGHT - 4, [bar], "spark wide")
