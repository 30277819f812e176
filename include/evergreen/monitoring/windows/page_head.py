"""What the page of a window says in words, and in which order its columns come: worst first, what is not judged last."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from evergreen.ledger import words
from evergreen.monitoring.page.head import Head, Number, Row
from evergreen.monitoring.page.widgets import Section
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows.judgement import (
    ColumnResult,
    Judgement,
    MetricResult,
    What,
    not_judged,
    of_limit,
    worst_first,
)
from evergreen.reference.reference import Reference
from evergreen.spec import LARGER_IS_BETTER, metric_name

MOST_TOLD = 20
LONGEST_DETAIL = 200
MOST_NUMBERS = 3


def head(
    judgement: Judgement,
    reference: Reference | None = None,
    drawn: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Head:
    """What stands above the figures.

    Args:
        judgement: what was found.
        reference: the champion's; None on the page of the served predictions, which has no columns.
        drawn: the columns that are among the figures.
        notes: what else is to be said.
    """
    columns = sorted(judgement.columns, key=worst_first) if reference else []
    beyond, verdict = _verdict(judgement)
    told = [] if reference is None else [_measured(judgement, reference), *_order_told(columns, drawn)]
    return Head(
        model=judgement.model,
        version=judgement.version,
        window=str(judgement.window),
        as_of=words.when(judgement.as_of),
        status=judgement.status.value,
        verdict=verdict,
        beyond=beyond,
        numbers=_numbers(judgement),
        findings=(*_violations(judgement), *_error(judgement)),
        notes=(*told, *notes),
        rows=tuple(_row(c, c.column in drawn) for c in columns),
    )


def section(column: ColumnResult, unit: float) -> Section:
    """The heading of a column's figure; `unit` is what Evidently's values were divided by."""
    what = {What.MISSING: ": missing values", What.NEW_CATEGORY: ": unknown categories"}.get(column.kind, "")
    text = f"{_measure(column)} {words.num(column.value)}, limit {words.num(column.limit)}"
    return Section(f"{words.column_name(column.column)}{what}", f"{text}: {_state(column)}", unit)


def _measure(column: ColumnResult) -> str:
    return words.statistic_name(column.kind.value, column.statistic)


def _state(column: ColumnResult) -> str:
    if why := not_judged(column.detail):
        return f"not judged ({why})"
    if column.violated:
        return "in violation" if column.value is not None else "in violation, could not be computed"
    return "within its limit"


def _times(column: ColumnResult) -> str:
    share = of_limit(column.value, column.limit)
    return f"{share:,.2f} ×" if math.isfinite(share) else ""


def _row(column: ColumnResult, drawn: bool) -> Row:
    detail = column.detail
    return Row(
        words.column_name(column.column), _measure(column), "none" if column.value is None else words.num(column.value),
        words.num(column.limit), _times(column), _state(column), column.violated, drawn,
        detail if len(detail) <= LONGEST_DETAIL else f"{detail[:LONGEST_DETAIL]}…",
    )  # fmt: skip


def _verdict(judgement: Judgement) -> tuple[bool, str]:
    """Whether something is in violation, and the outcome in a sentence."""
    judged = {c.column for c in judgement.columns if not not_judged(c.detail)}
    bad = {c.column for c in judgement.columns if c.violated}
    watched = next(((n, m) for n, m in judgement.metrics.items() if m.state != "shown"), None)
    beyond = bool(bad) or any(m.violated for m in judgement.metrics.values())
    of = f"{len(judged)} judged column{'s' * (len(judged) != 1)}"
    if bad:
        said = [f"{len(bad)} of {of} {'is' if len(bad) == 1 else 'are'} in violation"]
    else:
        said = [f"none of {of} is in violation"] if judged else []
    if watched:
        said.append(f"{metric_name(watched[0])} of the served predictions {_error_state(watched[1])}")
    sentence = "; ".join(said) or "nothing could be judged"
    return beyond, f"{sentence[0].upper()}{sentence[1:]}"


def _error_state(found: MetricResult) -> str:
    if found.state in error_text.WITHOUT_VALUE:
        return f"is {error_text.WITHOUT_VALUE[found.state]}{' known' * (found.state == 'not_yet')}"
    if found.state == "estimated":
        return f"is estimated {'beyond' if found.violated else 'within'} its limit"
    if found.value is None:
        return "could not be computed"
    return "is beyond its limit" if found.violated else "is within its limit"


def _numbers(judgement: Judgement) -> tuple[Number, ...]:
    """The served error, the column that is worst, the drift of the predictions; other columns where one of these is not known."""
    found = [
        Number(
            f"{metric_name(name)} of the served predictions{', estimated without labels' * (metric.state == 'estimated')}",
            words.num(float(metric.value)),
            "" if metric.limit is None else f"at {'least' if name in LARGER_IS_BETTER else 'most'} {words.num(metric.limit)}",
            metric.violated,
            "" if metric.low is None or metric.high is None
            else f"{words.num(metric.low)} to {words.num(metric.high)}, {metric.confidence or 0:.0%} confidence",
        )
        for name, metric in judgement.metrics.items()
        if metric.state in ("judged", "estimated") and metric.value is not None
    ][:1]  # fmt: skip
    measured = sorted(
        (c for c in judgement.columns if c.value is not None and not not_judged(c.detail)), key=worst_first
    )
    predictions = [c for c in measured if c.kind is What.PREDICTION_DRIFT]
    for column in list(dict.fromkeys([*measured[:1], *predictions, *measured]))[: MOST_NUMBERS - len(found)]:
        found.append(
            Number(
                f"{words.column_name(column.column)}: {_measure(column)}",
                words.num(column.value),
                f"limit {words.num(column.limit)}",
                column.violated,
                f"{_times(column)} its limit" if _times(column) else "",
            )
        )
    return tuple(found)


def _measured(judgement: Judgement, reference: Reference) -> str:
    return (
        f"Measured on {judgement.sampled_rows:,} of the {judgement.rows:,} rows of the window, against "
        f"{reference.sample.num_rows:,} of the {reference.rows:,} rows of the time that the champion learnt from."
    )


def _order_told(columns: Sequence[ColumnResult], drawn: Collection[str]) -> list[str]:
    """In which order the figures come, what is not judged, and how many columns have their numbers only."""
    names = list(dict.fromkeys(c.column for c in columns))
    if not drawn:
        return []
    last = [n for n in names if n in drawn and all(not_judged(c.detail) for c in columns if c.column == n)]
    order = "Drawn in the order of value and limit, the farthest beyond first"
    if last:
        order += f"; last, because not judged: {', '.join(map(words.column_name, last))}"
    left = len(names) - len(set(drawn))
    return [
        f"{order}.",
        *([f"Not drawn: {left} more columns; their numbers are in the table."] if left else []),
    ]


def _error(judgement: Judgement) -> list[str]:
    """What is known of the served error, where it was judged at all."""
    told = error_text.error(judgement)
    beyond = any(m.violated for m in judgement.metrics.values())
    return [f"{'In violation: served predictions, ' * beyond}{told}"] if told else []


def _violations(judgement: Judgement) -> list[str]:
    """The columns in violation, a line each number; Evidently has no test for some of it."""
    found = [
        f"In violation: {words.column_name(c.column)}: {_measure(c)}"
        + ("" if c.value is None else f" {c.value:.4g}, limit {c.limit:.4g}")
        + (f"; {c.detail}" if c.detail else "")
        for c in sorted(judgement.columns, key=worst_first)
        if c.violated
    ]
    more = [f"{len(found) - MOST_TOLD} more in violation, see the table"] if len(found) > MOST_TOLD else []
    return [*found[:MOST_TOLD], *more]
