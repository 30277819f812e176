"""The picture inside an alert: what left its limits, each value against its limit over the last windows.

Names from the data are never read as mathematical markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evergreen.alerting.content.history import number, windows
from evergreen.alerting.content.judgements import ERRORS
from evergreen.alerting.pictures.judged_windows import beyond, drawn_limits, estimated_key, hollow
from evergreen.drawing import BLUE, INK, RED, clean, png
from evergreen.ledger.words import column_name, num, statistic_name
from evergreen.spec import metric_name
from evergreen.warehouse.connection import Connection, fetch


@dataclass(frozen=True)
class Panel:
    """One small picture: a value against its limit, window after window (oldest first).

    `estimated`: the places of values that are estimates; they are drawn as rings.
    """

    title: str
    ends: tuple[datetime, ...]
    values: tuple[float | None, ...]
    limits: tuple[float | None, ...]
    violated: tuple[bool, ...]
    estimated: tuple[int, ...] = ()


def worst_columns_png(
    conn: Connection,
    judgements: Sequence[int],
    *,
    panels: int = 4,
    history: int = 16,
    metric: str | None = None,
) -> bytes | None:
    """Draw what violated its limit most in some judgements, each over the last windows.

    Args:
        conn: the warehouse.
        judgements: ids in `evergreen.window_judgement`, of one model.
        panels: how many columns at most, the largest value against its limit first.
        history: how many windows at most.
        metric: the served metric that is watched; it is drawn too where its limit was violated.

    Returns:
        A PNG of 1300 pixels' width (made to be shown at half of it), or None if nothing was in violation.
    """
    found = worst_panels(conn, judgements, panels=panels, history=history, metric=metric)
    if not found:
        return None
    figure = Figure(figsize=(5.0, 0.3 + 1.35 * len(found)), dpi=260, layout="constrained", facecolor="white")
    for index, panel in enumerate(found, start=1):
        _draw_panel(figure.add_subplot(len(found), 1, index), panel, last=index == len(found))
    return png(figure)


def worst_panels(
    conn: Connection,
    judgements: Sequence[int],
    *,
    panels: int = 4,
    history: int = 16,
    metric: str | None = None,
) -> list[Panel]:
    """What `worst_columns_png` draws."""
    ids = list(judgements)
    newest = fetch(
        conn,
        "SELECT model, as_of, window_end, violations FROM evergreen.window_judgement WHERE id = ANY(%s::bigint[])"
        " ORDER BY window_start DESC, id DESC LIMIT 1",
        (ids,),
    )
    if not newest:
        return []
    worst = fetch(
        conn,
        "SELECT column_name, kind, statistic, max(coalesce(value / nullif(threshold, 0), 'infinity')) AS excess"
        " FROM evergreen.window_column WHERE judgement_id = ANY(%s::bigint[]) AND violated"
        " GROUP BY column_name, kind, statistic ORDER BY bool_and(value IS NULL), excess DESC, column_name LIMIT %s",
        (ids, panels),
    )
    seen = fetch(
        conn,
        "SELECT w.window_start, w.window_end, c.column_name, c.kind, c.value, c.threshold, c.violated FROM ("
        " SELECT DISTINCT ON (window_start) id, window_start, window_end FROM evergreen.window_judgement"
        " WHERE model = %(model)s AND as_of <= %(as_of)s AND window_end <= %(end)s"
        " ORDER BY window_start DESC, as_of DESC, revision DESC, id DESC LIMIT %(history)s"
        ") AS w JOIN evergreen.window_column AS c ON c.judgement_id = w.id ORDER BY w.window_start",
        {
            "model": newest[0]["model"],
            "as_of": newest[0]["as_of"],
            "end": newest[0]["window_end"],
            "history": history,
        },
    )
    result = []
    for item in worst:
        rows = [r for r in seen if (r["column_name"], r["kind"]) == (item["column_name"], item["kind"])]
        title = f"{column_name(item['column_name'])}: {statistic_name(item['kind'], item['statistic'])}"
        result.append(
            Panel(
                title,
                tuple(r["window_end"] for r in rows),
                tuple(number(r, "value") for r in rows),
                tuple(number(r, "threshold") for r in rows),
                tuple(r["violated"] for r in rows),
            )
        )
    performance = any(v.get("kind") in ERRORS for v in newest[0]["violations"] if isinstance(v, dict))
    if metric and performance:
        past = windows(conn, newest[0]["model"], metric, until=newest[0]["as_of"])
        past = [w for w in past if w.end <= newest[0]["window_end"]][-history:]
        wrong = tuple(w.status == "violation" and beyond(metric, w) for w in past)
        result.insert(
            0,
            Panel(
                f"served predictions: {metric_name(metric)}",
                tuple(w.end for w in past), tuple(w.value for w in past),
                tuple(None if x != x else x for x in drawn_limits(metric, past)), wrong,
                tuple(i for i, w in enumerate(past) if w.value is not None and w.estimated),
            ),
        )  # fmt: skip
    return result[:panels]


def _draw_panel(axes: Axes, panel: Panel, *, last: bool) -> None:
    x = [date2num(t) for t in panel.ends]
    values = [float("nan") if v is None else v for v in panel.values]
    limits = [float("nan") if v is None else v for v in panel.limits]
    axes.plot(x, limits, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)
    axes.plot(x, values, color=BLUE, linewidth=1.6, zorder=3)
    fine = [i for i, bad in enumerate(panel.violated) if not bad and panel.values[i] is not None]
    bad = [i for i, bad in enumerate(panel.violated) if bad and panel.values[i] is not None]
    lost = [i for i, bad in enumerate(panel.violated) if bad and panel.values[i] is None]
    axes.scatter([x[i] for i in fine], [values[i] for i in fine], s=18, color=BLUE, zorder=4)
    axes.scatter([x[i] for i in bad], [values[i] for i in bad], s=34, color=RED, zorder=5)
    hollow(axes, [x[i] for i in panel.estimated], [values[i] for i in panel.estimated], 7)
    axes.scatter([x[i] for i in lost], [limits[i] for i in lost], s=40, color=RED, marker="x", zorder=5)
    known = [v for v in (*panel.values, *panel.limits) if v is not None]
    low, high = min([0.0, *known]), max([*known, 1e-9])
    axes.set_ylim(low, high + 0.22 * (high - low))
    pad = (x[-1] - x[0]) * 0.03 if len(x) > 1 else 1.0
    axes.set_xlim(x[0] - pad, x[-1] + 5 * pad)
    if panel.values[-1] is not None:
        guess = "est. " if len(panel.values) - 1 in panel.estimated else ""
        axes.annotate(
            f"{guess}{num(panel.values[-1], 3)}", (x[-1], values[-1]), xytext=(6, 0), textcoords="offset points", size=10,
            color=RED if panel.violated[-1] else BLUE, weight="bold", va="center",
        )  # fmt: skip
    if panel.limits[-1] is not None:
        axes.annotate(
            f"limit {num(panel.limits[-1], 3)}", (x[0], limits[0]), xytext=(0, 3), textcoords="offset points", size=9,
            color=INK, va="bottom",
        )  # fmt: skip
    clean(axes, "")
    axes.set_title(_cut(panel.title, 56), loc="left", size=11, weight="bold", color=INK, parse_math=False)
    if panel.estimated:
        axes.legend(handles=[estimated_key()], loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9,
                    borderpad=0, handletextpad=0.3)  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(3))
    if not last:
        axes.tick_params(labelbottom=False)


def _cut(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
