"""A judged window in one line: what it came to, and its numbers against their limits."""

from __future__ import annotations

from evergreen.ledger import words
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows.judgement import HELD_BACK, ColumnResult, Judgement, Violation
from evergreen.progress import counted, moment

MOST_TOLD = 5


def line(found: Judgement) -> str:
    """A window in one line: its time (UTC), version and status, then what is beyond its limit, or nearest to it, and the error."""
    said = [counted(found.rows, "row")]
    drifts = [v for v in found.violations if not v.kind.value.endswith("performance")]
    said += [_against(v) for v in drifts[:MOST_TOLD]]
    if more := len(drifts) - MOST_TOLD:
        said += [f"{more} more beyond their limits"] if more > 0 else []
    if not drifts and (nearest := _nearest(found)):
        said.append(f"nearest to its limit {_against(nearest.violation)}")
    if error := error_text.error(found):
        said.append(error)
    window = f"{moment(found.window_start)} to {moment(found.window_end)}"
    return f"{window}, version {found.version}: {error_text.verdict(found)}: {'; '.join(said)}"


def _against(found: Violation) -> str:
    """A number against its limit, such as `temp: Wasserstein distance from reference 0.41, limit 0.12`."""
    if found.limit is None and found.value is None:
        return f"{words.column_name(found.column)}: {found.detail or words.statistic_name(found.kind.value, found.statistic)}"
    if found.kind in HELD_BACK:
        number = (
            f"{found.statistic.replace('_', ' ')} {words.num(found.value)}, limit {words.num(found.limit)}"
        )
        return f"{number} ({found.detail})"
    name = words.statistic_name(found.kind.value, found.statistic)
    return (
        f"{words.column_name(found.column)}: {name} {words.num(found.value)}, limit {words.num(found.limit)}"
    )


def _nearest(found: Judgement) -> ColumnResult | None:
    """The column that has come nearest to its limit."""
    known = [(c.value / c.limit, c) for c in found.columns if c.value is not None and c.limit > 0]
    return max(known, key=lambda pair: pair[0])[1] if known else None
