"""Numbers as a reader of a mail decides by them: how much better, how far beyond a limit, at least or at most."""

from __future__ import annotations

from evergreen.ledger import words
from evergreen.spec import LARGER_IS_BETTER, metric_name, passable
from evergreen.spec.metrics import best

SMALLEST_CHANGE = 0.0005


def share(value: float) -> str:
    """A share as percent, never with more digits than it is known by: `12 %`, `0.4 %`."""
    percent = abs(value) * 100
    return f"{percent:,.0f} %" if percent >= 9.95 else f"{percent:.1f} %".replace(".0 ", " ")


def change(improvement: float) -> str:
    """An improvement as a share of the error before: `12 % better`, `25 % worse`, `as good`."""
    if abs(improvement) < SMALLEST_CHANGE:
        return "as good"
    return f"{share(improvement)} {'better' if improvement > 0 else 'worse'}"


def allowed(improvement: float, *, beaten: bool = False) -> str:
    """A bound of an improvement: `at most 1 % worse`, `not worse` for none; where it must be passed `more than 2 % better`, `better`."""
    if abs(improvement) < SMALLEST_CHANGE:
        return "better" if beaten else "not worse"
    least = "more than" if beaten else "at least"
    return f"{least if improvement > 0 else 'at most'} {change(improvement)}"


def improvement(metric: str, new: float | None, old: float | None) -> float | None:
    """By which share of its distance from perfect a metric became better; negative: worse; None where that says nothing."""
    if new is None or old is None:
        return None
    before = abs(best(metric) - old)
    return 1.0 - abs(best(metric) - new) / before if before > 0 else None


def compared(metric: str, new: float | None, old: float | None, than: str) -> str:
    """A value beside another: `12 % better than version 3`; of a metric that grows its value, `version 3 had 0.89`.

    A share of what is missing to 1 would be read as a share of the metric.
    """
    if metric in LARGER_IS_BETTER:
        return "" if old is None else f"{than} had {words.num(old)}"
    gained = improvement(metric, new, old)
    if gained is None:
        return ""
    told = change(gained)
    return f"as good as {than}" if told == "as good" else f"{told} than {than}"


def means_something(metric: str, limit: float | None) -> bool:
    """Whether a limit tells a reader anything: a value can pass it, and it asks for more than guessing the mean would reach."""
    return limit is not None and passable(metric, limit) and not (metric == "r2" and limit < 0)


def limit(metric: str, value: float | None) -> str:
    """A limit in the direction of its metric, `at most 55` or `at least 0.62`; empty for one that means nothing."""
    if value is None or not means_something(metric, value):
        return ""
    return f"at {'least' if metric in LARGER_IS_BETTER else 'most'} {words.num(value)}"


def beyond(metric: str, value: float | None, bound: float | None) -> str:
    """A value that left its limit: `RMSE 71 above its limit 55`, `ROC AUC 0.58 below its limit 0.62`."""
    name = metric_name(metric)
    if value is None:
        return f"{name} could not be computed"
    if bound is None or not means_something(metric, bound):
        worse = ", worse than always guessing the mean" if metric == "r2" and value < 0 else ""
        return f"{name} {words.num(value)}{worse}"
    side = "below" if metric in LARGER_IS_BETTER else "above"
    return f"{name} {words.num(value)} {side} its limit {words.num(bound)}"


def times(value: float | None, bound: float | None) -> str:
    """How many times a positive limit a value is: `3.1 ×`; empty where that says nothing."""
    if value is None or bound is None or bound <= 0 or value < 0:
        return ""
    found = value / bound
    return f"{found:.1f} ×" if found < 100 else f"{found:,.0f} ×"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number of things: `1 file`, `1,200 files`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
