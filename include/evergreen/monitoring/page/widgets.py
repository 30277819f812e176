"""Evidently's widgets put in order for a reader: named in plain words, with figures that also fit a phone and stay small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

MOST_BARS = 40
LONGEST = 30
TABS = {"DATA DRIFT": "Over the rows", "DATA DISTRIBUTION": "Distribution"}


@dataclass(frozen=True)
class Section:
    """What a section is about: its title, a line of text below it, and what its column's values were divided by."""

    title: str
    text: str
    unit: float = 1.0


def arranged(widgets: Sequence[Any], sections: Mapping[str, Section]) -> list[Any]:
    """The widgets of a page, in their order.

    Args:
        widgets: Evidently's; they are changed.
        sections: by fingerprint of a metric (`linked_metrics`); other widgets keep their own words.

    Returns:
        One heading for each section, and each figure once: Evidently repeats one that two metrics share.
    """
    kept: list[Any] = []
    named: set[str] = set()
    for widget in widgets:
        metrics = widget.linked_metrics or []
        if widget.type == "counter" and len(metrics) == 1 and metrics[0] in sections:
            if metrics[0] in named:
                continue
            named.add(metrics[0])
            section = sections[metrics[0]]
            widget.title, widget.size = "", 2
            widget.params = {"counters": [{"value": section.title, "label": section.text}]}
        elif any(widget is other for other in kept):
            continue
        for title, figure in _figures(widget):
            unit = next((sections[m].unit for m in metrics if m in sections), 1.0)
            _fit(figure, unit, "y" if title == "DATA DRIFT" else "x")
        for tab in widget.tabs or ():
            tab.title = TABS.get(tab.title, tab.title)
        kept.append(widget)
    return kept


def _figures(widget: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of a widget, plotly's, each with the title of its tab."""
    if widget.type == "big_graph" and widget.params:
        yield "", widget.params
    for tab in widget.tabs or ():
        for _, figure in _figures(tab.widget):
            yield tab.title, figure


def _fit(figure: dict[str, Any], unit: float, axis: str) -> None:
    """Values in their own unit, few bars, and a legend above the plot: beside it there is no room on a phone."""
    traces = figure.get("data") or []
    if unit != 1.0:
        for trace in traces:
            trace[axis] = [v * unit if isinstance(v, Real) else v for v in _values(trace, axis)]
    bars = [t for t in traces if t.get("type") == "bar" and any(isinstance(x, str) for x in _values(t, "x"))]
    if bars:
        _few(bars)
    layout = figure.setdefault("layout", {})
    layout["legend"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    named = sum(t.get("showlegend") is not False and t.get("visible") is not False for t in traces)
    # On a phone each name has a line of its own, below plotly's buttons.
    layout["margin"] = {"l": 48, "r": 12, "t": 116 if named > 2 else 72, "b": 48}
    for menu in layout.get("updatemenus") or ():
        menu.update({"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"})
    for name in ("xaxis", "yaxis"):
        title = layout.get(name, {}).get("title")
        if isinstance(title, dict) and title.get("text"):
            title["text"] = _short(title["text"].removesuffix(" (mean +/- std)"))


def _few(bars: Sequence[dict[str, Any]]) -> None:
    """The most frequent categories, and all others as one bar; the same ones in each trace."""
    weight: Counter[str] = Counter()
    for trace in bars:
        total = sum(_values(trace, "y")) or 1
        for name, count in zip(_values(trace, "x"), _values(trace, "y"), strict=True):
            weight[str(name)] += count / total
    kept = [name for name, _ in weight.most_common(MOST_BARS if len(weight) <= MOST_BARS else MOST_BARS - 1)]
    shown: dict[str, str] = {}
    for name in kept:
        label = _short(name)
        shown[name] = label if label not in shown.values() else f"{label} ({len(shown) + 1})"
    others = f"{len(weight) - len(kept):,} others"
    for trace in bars:
        found: Counter[str] = Counter()
        for name, count in zip(_values(trace, "x"), _values(trace, "y"), strict=True):
            found[shown.get(str(name), others)] += count
        order = [name for name in (*shown.values(), others) if name in found]
        trace["x"], trace["y"] = order, [found[name] for name in order]


def _values(trace: Mapping[str, Any], axis: str) -> list[Any]:
    found = trace.get(axis)
    return [] if found is None else list(found)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
