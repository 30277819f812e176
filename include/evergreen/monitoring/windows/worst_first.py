"""Which columns of a window count, and the order in which they are told: the worst that counts first, what is only shown last."""

from __future__ import annotations

import math

from evergreen.monitoring.windows.judgement import ColumnResult

# Why a result is shown and not judged: the end of its detail.
LABELS, IGNORED = "labels are shown, their error is judged", "shown only: monitoring.drift.ignore"
_WHYS = (LABELS, IGNORED)
# What the detail of a row of `evergreen.window_column` is LIKE that is only shown.
ONLY_SHOWN = [pattern for why in _WHYS for pattern in (why, f"% ({why})")]


def with_reason(detail: str, why: str) -> str:
    """A detail that ends with why the result is only shown."""
    return f"{detail} ({why})" if detail else why


def not_judged(detail: str) -> str:
    """Why a result with this detail is shown only and never a violation; empty where it is judged."""
    return next((why for why in _WHYS if detail == why or detail.endswith(f" ({why})")), "")


def of_limit(value: float | None, limit: float) -> float:
    """How many times its limit a value is: 0 where it is below nothing, infinite where it could not be computed or its limit is 0."""
    if value is None:
        return math.inf
    above = max(0.0, value)
    return above / limit if limit else math.inf if above else 0.0


def worst_first(column: ColumnResult) -> tuple[bool, bool, bool, float, str]:
    """The key by which columns are ordered: violations, the farthest beyond its limit first of all; then those within; then those only
    shown, at the end what is only shown and could not be computed."""
    shown = bool(not_judged(column.detail))
    far = of_limit(column.value, column.limit)
    return shown, shown and column.value is None, not column.violated, -far, column.column
