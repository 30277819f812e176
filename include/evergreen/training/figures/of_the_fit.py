"""Figures about how the challenger was made: its learning curve, what it goes by, and what else was tried."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

from evergreen.drawing import BLUE, GREY, INK, ORANGE
from evergreen.spec import metric_name
from evergreen.training.figures.sheet import cut, legend, named, sheet, ticked
from evergreen.training.fitting.fit import Fitted
from evergreen.training.search.leaderboard import Leaderboard, common_params, params_text
from evergreen.training.search.validate import XGBOOST

MOST_FEATURES = 15
MOST_CANDIDATES = 12
BAR = "#cbd2d9"


def learning_curve(fitted: Fitted) -> Figure | None:
    """Early stopping's metric after each round; None without early stopping."""
    curve = fitted.curve
    if not curve.newest:
        return None
    figure, (axes,) = sheet(3.2)
    metric = metric_name(fitted.stopping_metric)
    named(axes, f"Learning curve: {metric} by round", "rounds", metric)
    rounds = range(1, len(curve.newest) + 1)
    if curve.learnt:
        axes.plot(rounds, curve.learnt, color=GREY, linewidth=1.4, label="rows that it learns", zorder=3)
    axes.plot(
        rounds, curve.newest, color=BLUE, linewidth=1.8, label="newest 15 % of the training part", zorder=4
    )
    best = curve.newest[fitted.rounds - 1]
    axes.axvline(fitted.rounds, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)
    axes.scatter(
        [fitted.rounds],
        [best],
        color=ORANGE,
        s=34,
        zorder=5,
        label=f"best: {fitted.rounds} rounds, {best:.4g}",
    )
    legend(axes)
    return figure


def importance(shares: Mapping[str, float]) -> Figure | None:
    """Each feature's share of the gain of all splits, largest first; None for a model without a split."""
    found = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    if not found:
        return None
    shown = found[:MOST_FEATURES]
    figure, (axes,) = sheet(0.75 + 0.22 * len(shown), left=2.2, bottom=0.2)
    more = f", the first {len(shown)} of {len(found)}" if len(found) > len(shown) else ""
    named(axes, f"Importance: share of the gain of all splits{more}")
    axes.barh(range(len(shown)), [share for _, share in shown], color=BLUE, height=0.62, zorder=3)
    ticked(axes, [f"{cut(name)}  {100 * share:.1f} %" for name, share in shown])
    axes.set_xticks([])
    axes.grid(visible=False)
    return figure


def leaderboard(board: Leaderboard | None) -> Figure | None:
    """The best candidates with what tells them apart; None where nothing was open to choice."""
    if board is None:
        return None
    places = [place for place in board.order if board.relative[place] is not None]
    shown = places[:MOST_CANDIDATES]
    if board.chosen in places[MOST_CANDIDATES:]:
        shown[-1] = board.chosen
    if len(shown) < 2:
        return None
    figure, (axes,) = sheet(0.95 + 0.34 * len(shown), left=1.65, bottom=0.4)
    named(axes, f"Candidates: {metric_name(board.metric)} error as a share of the first one's")
    common = common_params([board.scored[place].candidate.params for place in shown])
    values = [board.relative[place] or 0.0 for place in shown]
    # One that is far off would make all others look alike.
    low, high = min(values), min(max(values), 2 * max(1.0, min(values)))
    begin = max(0.0, low - 0.3 * ((high - low) or 1.0))
    colours = [BLUE if place == board.chosen else BAR for place in shown]
    lengths = [min(v, high) - begin for v in values]
    axes.barh(range(len(shown)), lengths, left=begin, color=colours, height=0.62, zorder=2)
    for at, place in enumerate(shown):
        one = board.scored[place].candidate
        told = params_text({n: v for n, v in one.params.items() if n not in common}) or (
            "the spec's parameters" if one.kind == XGBOOST else "untuned"
        )
        lines = textwrap.wrap(told, 60, max_lines=2, placeholder=" …")
        axes.annotate("\n".join(lines), (0.28, at), xycoords=("axes fraction", "data"), size=7.5, color=INK, va="center",
                      zorder=4, parse_math=False, linespacing=1.25)  # fmt: skip
    ticked(axes, [f"{_label(board, p)}  {v:.3f}" for p, v in zip(shown, values, strict=True)])
    axes.set_xlim(begin, begin + (high - begin) / 0.26)
    axes.set_xticks([])
    axes.set_xlabel("blue was trained; the mean over the folds, smaller is better", size=9, color=GREY)
    axes.grid(visible=False)
    return figure


def _label(board: Leaderboard, place: int) -> str:
    one = board.scored[place].candidate
    who = one.source if one.kind == XGBOOST else one.kind
    return cut(f"{who}, {one.window_text}")
