"""What is known of a window's error, in words; "not yet" and "estimated" are never put as "fine"."""

from __future__ import annotations

from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status
from evergreen.spec import LARGER_IS_BETTER, metric_name, passable

WITHOUT_VALUE = {"not_yet": "not yet", "another_version": "another version's"}


def error(judgement: Judgement) -> str:
    """The watched metric of a window in a sentence; empty where the window was not judged at all."""
    return next(
        (sentence(name, found) for name, found in judgement.metrics.items() if found.state != "shown"), ""
    )


def sentence(metric: str, found: MetricResult) -> str:
    """One metric: its value with the interval, how many rows it rests on, its limit."""
    name = metric_name(metric)
    if found.state in WITHOUT_VALUE or found.value is None:
        return f"{name}: {WITHOUT_VALUE.get(found.state, 'could not be computed')} ({found.detail})"
    between = ""
    if found.low is not None and found.high is not None:
        between = f" ({found.low:.4g} to {found.high:.4g}, {found.confidence or 0:.0%} confidence)"
    share = (
        "" if found.coverage is None else f", {found.coverage:.0%} of the window's have label and prediction"
    )
    rows = "" if found.rows is None else f" on {found.rows} rows"
    side = (
        ""
        if found.limit is None
        else f"; at {'least' if metric in LARGER_IS_BETTER else 'most'} {found.limit:.4g}"
    )
    if found.limit_set and side:
        side += " (set in the spec)"
    if found.baseline is not None and found.limit == found.baseline:
        side += ", as the naive baseline got on the same rows"
    if found.limit is not None and not passable(metric, found.limit):
        side = ""  # an earlier release kept limits that no value can pass
    kind = "estimated without labels, " if found.state == "estimated" else ""
    return f"{name}: {kind}{found.value:.4g}{between}{rows}{share}{side}{_hardly(metric, found)}"


def _hardly(metric: str, found: MetricResult) -> str:
    if found.note:
        return f" ({found.note})"
    if found.limit is not None and not passable(metric, found.limit):
        return "; no value can pass its limit: it cannot alarm on so few rows"
    return ""


def verdict(judgement: Judgement) -> str:
    """The outcome of a window in a few words, for a log or a task's return value, such as `ok, error not yet`."""
    said = judgement.status.value
    states = {found.state for found in judgement.metrics.values()}
    said += "".join(f", error {told}" for state, told in WITHOUT_VALUE.items() if state in states)
    if "estimated" in states:
        said += ", error estimated"
    if judgement.revision > 1:
        said += f", revision {judgement.revision}"
    if judgement.before is not None and judgement.before is not judgement.status:
        said += f", was {judgement.before.value}"
    return said


def flipped(judgement: Judgement) -> bool:
    """Whether a window that was judged before came out otherwise now, between `ok` and `violation`."""
    return {judgement.before, judgement.status} == {Status.OK, Status.VIOLATION}
