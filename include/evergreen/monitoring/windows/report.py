"""The HTML that Evidently draws of a window, with our limits, so that it says what the verdict says.

Two pages, kept with the champion's MLflow run: `drift.html` (each column against the reference) and, where the
labels are in, `performance.html` (the served predictions). At most 1.5 MB each, nearly all of it Evidently's own
scripts (`monitoring/page/pack.py`): of many columns the `MOST_DRAWN` that are the farthest beyond their limit, or nearest to it, are
drawn, in this order, and last those that are not judged. Drift, missing values and unknown categories are Evidently's tests. The
head says what it has no place for (`page_head.py`): the verdict, whose window it is, how many of its rows were measured, all that is in
violation, such as a stuck sensor, and every number of every column.

Drawing takes ten times as long as judging, so it is done for windows in violation, and for others when somebody asks (`draw.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import BinaryClassification, DataDefinition, Dataset, Regression, Report
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.metrics import (
    MAE,
    RMSE,
    CategoryCount,
    LogLoss,
    MissingValueCount,
    R2Score,
    RocAuc,
    ValueDrift,
)
from evidently.tests import gte, lt, lte

from evergreen.monitoring.page import pack
from evergreen.monitoring.page.widgets import arranged
from evergreen.monitoring.windows import page_head
from evergreen.monitoring.windows.judgement import ColumnResult, Judgement, MetricResult, What, worst_first
from evergreen.monitoring.windows.measure import frame, sampled
from evergreen.reference import drift_statistics
from evergreen.reference.reference import Reference
from evergreen.spec import LARGER_IS_BETTER, metric_name

DRIFT_FILE = "drift.html"
PERFORMANCE_FILE = "performance.html"
DRIFTS = (What.DATA_DRIFT, What.PREDICTION_DRIFT)
SHARES = (What.MISSING, What.NEW_CATEGORY)
UNKNOWN = "never seen"
MOST_DRAWN = 16
ROUNDING = 1e-12
# The metrics of served predictions that Evidently computes as they are judged.
DRAWN = ("rmse", "mae", "r2", "roc_auc", "log_loss")


def artifact_path(judgement: Judgement) -> str:
    """The folder of a judgement's pages in the champion's MLflow run."""
    return f"monitoring/{judgement.window_start.astimezone(UTC):%Y%m%dT%H%M}Z-r{judgement.revision}"


def write(
    judgement: Judgement,
    task: str,
    window: pd.DataFrame,
    reference: Reference,
    folder: Path,
    slack: float = 0.0,
) -> dict[str, float]:
    """Draw the pages of a judgement into a folder.

    Columns that could not be measured are left out; their finding is in the judgement. A column that Evidently cannot draw is
    left out with a line that says so; the verdict has measured it.

    Args:
        judgement: what was found.
        task: `regression` or `binary`.
        window: the rows that were measured.
        reference: the champion's.
        folder: an existing folder.
        slack: by how much drift values of the rows may differ from the judged ones (`kept.Kept.slack`).

    Returns:
        The drift value of each drawn column as Evidently's report has it: the same as in the judgement.
    """
    drawn = [c for c in _drawn(judgement.columns, reference) if c.column in window]
    names = list(dict.fromkeys(c.column for c in sorted(drawn, key=worst_first)))
    columns = [c for name in names[:MOST_DRAWN] for c in drawn if c.column == name]
    notes = []
    if slack:
        notes += [
            "Drawn from the kept sample, whose numbers are rounded to a thousandth of the reference's standard deviation and "
            "are no longer in the order of time."
        ]
    values = _drift_page(judgement, columns, window, reference, folder / DRIFT_FILE, slack, notes)
    if error_judged(judgement):
        write_performance(judgement, task, window, folder)
    return values


def error_judged(judgement: Judgement) -> bool:
    """Whether there is a served error to draw."""
    return any(m.state == "judged" for m in judgement.metrics.values())


def write_performance(judgement: Judgement, task: str, window: pd.DataFrame, folder: Path) -> None:
    """Draw the page of the served predictions alone; arguments are `write`'s."""
    try:
        drawn = pack.page(page_head.head(judgement), _performance_page(judgement, task, window))
    # The error is judged already; a page that cannot be drawn must not keep the window from being recorded.
    except Exception as error:
        why = f"Evidently could not draw this page: {_said(error)}"
        drawn = pack.page(page_head.head(judgement, notes=[why]), None)
    (folder / PERFORMANCE_FILE).write_text(drawn, encoding="utf-8")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _drawn(columns: Sequence[ColumnResult], reference: Reference) -> list[ColumnResult]:
    """The results that Evidently draws, of columns whose drift could be measured: drifts, then shares above zero."""
    readable = {c.column for c in columns if c.kind in DRIFTS and c.value is not None}
    shares = [c for c in columns if c.kind in SHARES and c.column in readable]
    drifts = [c for c in columns if c.kind in DRIFTS and c.column in readable]
    return [*drifts, *(c for c in shares if c.violated or (c.value or 0.0) + _usual(c, reference) > 0)]


def _usual(column: ColumnResult, reference: Reference) -> float:
    """What a share is measured from: missing values count as their rise, unknown categories as they are."""
    return reference.columns[column.column].missing if column.kind is What.MISSING else 0.0


def _drift_page(
    judgement: Judgement,
    columns: list[ColumnResult],
    window: pd.DataFrame,
    reference: Reference,
    file: Path,
    slack: float,
    notes: list[str],
) -> dict[str, float]:
    found: tuple[Any, Mapping[str, float]] | None = None
    refused: dict[str, str] = {}
    if columns:
        try:
            found = _run(columns, window, reference, judgement.as_of, slack)
        # Evidently refuses the whole page because of some column: that one is named, the others are drawn.
        except Exception:
            refused = _refused(columns, window, reference)
            columns = [c for c in columns if c.column not in refused]
            found = _run(columns, window, reference, judgement.as_of, slack) if columns else None
    notes = [*notes, *(f"Evidently could not draw {name}: {why}" for name, why in refused.items())]
    names = {c.column for c in columns}
    if found is None:
        nothing = "No column of this window could be drawn; see the table of its numbers."
        head = page_head.head(judgement, reference, notes=[*notes, nothing])
        file.write_text(pack.page(head, None), encoding="utf-8")
        return {}
    snapshot, units = found
    if slack:
        _without_time(snapshot._widgets)
    told = zip(snapshot.report.metrics, columns, strict=True)
    sections = {m.get_fingerprint(): page_head.section(c, units.get(c.column, 1.0)) for m, c in told}
    snapshot._widgets[:] = arranged(snapshot._widgets, sections)
    head = page_head.head(judgement, reference, names, notes)
    file.write_text(pack.page(head, snapshot.get_html_str(as_iframe=False)), encoding="utf-8")
    results = snapshot.dict()["metrics"]
    return {r["config"]["column"]: float(r["value"]) for r in results if not isinstance(r["value"], dict)}


def _refused(columns: Sequence[ColumnResult], window: pd.DataFrame, reference: Reference) -> dict[str, str]:
    """The columns that Evidently cannot draw, each tried alone, with what it says."""
    found = {}
    for name in dict.fromkeys(c.column for c in columns):
        try:
            _run([c for c in columns if c.column == name], window, reference)
        # Whatever a page's code raises on a strange column, the other columns are drawn.
        except Exception as error:
            found[name] = _said(error)
    return found


def _without_time(widgets: Sequence[Any]) -> None:
    """Take away the figures over the order of rows, where the rows are in no order of time."""
    for widget in widgets:
        if getattr(widget, "tabs", None):
            widget.tabs = [tab for tab in widget.tabs if tab.title != "DATA DRIFT"]


def _run(
    columns: Sequence[ColumnResult],
    window: pd.DataFrame,
    reference: Reference,
    as_of: datetime | None = None,
    slack: float = 0.0,
) -> tuple[Any, Mapping[str, float]]:
    """Evidently's snapshot, its metrics in the order of `columns`, and the columns drawn in another unit (`_units`)."""
    names = [c.column for c in columns if c.kind in DRIFTS]
    numeric = [n for n in names if reference.columns[n].numeric]
    now, before = sampled(window)[names].reset_index(drop=True), frame(reference.sample.select(names))
    if "_label" in names:
        # Those that there are, in the first rows of the others: Evidently leaves missing values out.
        now["_label"] = window["_label"].dropna().reset_index(drop=True).reindex(now.index)
        before["_label"] = frame(reference.labelled.select(["_label"]))["_label"].reindex(before.index)
    metrics: list[Any] = []
    for column in columns:
        name = column.column
        if column.kind in DRIFTS:
            # The test that comes with `include_tests` is the limit; a column that is only shown gets none.
            metrics.append(
                ValueDrift(
                    column=name,
                    method=column.statistic,
                    threshold=column.limit + (-slack if column.violated else slack),
                    tests=None if _counts(column) else [],
                )
            )
        elif column.kind is What.MISSING:
            metrics.append(
                MissingValueCount(column=name, tests=[], share_tests=_share_test(column, reference))
            )
        else:
            # OutListValueCount has another share (missing values are no rows to it), and prints every known category.
            unknown = now[name].notna() & ~now[name].isin(reference.columns[name].categories or ())
            name = f"{name}, known or not"
            now = now.assign(**{name: np.where(unknown, UNKNOWN, "known")})
            before = before.assign(**{name: "known"})
            metrics.append(
                CategoryCount(
                    column=name, category=UNKNOWN, tests=[], share_tests=_share_test(column, reference)
                )
            )
    units = _units(now, before, numeric)
    now, before = (side.assign(**{n: side[n] / by for n, by in units.items()}) for side in (now, before))
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[n for n in now.columns if n not in numeric]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics, include_tests=True).run(
            Dataset.from_pandas(now, data_definition=definition),
            Dataset.from_pandas(before, data_definition=definition),
            timestamp=as_of,
        )
    return snapshot, units


def _units(now: pd.DataFrame, before: pd.DataFrame, numeric: Sequence[str]) -> dict[str, float]:
    """The numeric columns that are drawn in another unit, with what their values are divided by (`drift_statistics.unit`)."""
    sides = {n: [side[n].dropna().to_numpy(dtype=float) for side in (before, now)] for n in numeric}
    found = {n: drift_statistics.unit(*both) for n, both in sides.items() if all(map(len, both))}
    return {n: by for n, by in found.items() if by != 1.0}


def _counts(column: ColumnResult) -> bool:
    return column.violated or column.value is None or column.value < column.limit


def _share_test(column: ColumnResult, reference: Reference) -> list[Any]:
    if not _counts(column):
        return []
    # A rise and a share round differently; a value on its limit must not come out otherwise here.
    slack = -ROUNDING if column.violated else ROUNDING
    return [lt(_usual(column, reference) + column.limit + slack)]


def _performance_page(judgement: Judgement, task: str, window: pd.DataFrame) -> str:
    # Without the reference: its predictions are of rows that the champion learnt from, and look too good.
    rows = window[["_label", "_prediction"]].dropna()
    limits = judgement.metrics
    if task == "binary":
        rows = rows.astype({"_label": int})
        definition = DataDefinition(
            numerical_columns=["_prediction"],
            categorical_columns=["_label"],
            classification=[
                BinaryClassification(target="_label", prediction_probas="_prediction", pos_label=1)
            ],
        )
        metrics: list[Any] = [LogLoss(tests=_test(limits.get("log_loss")))]
        if rows["_label"].nunique() == 2:
            metrics.insert(0, RocAuc(tests=_test(limits.get("roc_auc"), larger_is_better=True)))
    else:
        definition = DataDefinition(
            numerical_columns=["_prediction", "_label"],
            regression=[Regression(target="_label", prediction="_prediction")],
        )
        metrics = [
            RMSE(tests=_test(limits.get("rmse"))),
            MAE(mean_tests=_test(limits.get("mae"))),
            R2Score(tests=_test(limits.get("r2"), larger_is_better=True)),
        ]
    metrics += [
        AsJudged(
            metric=metric_name(name),
            value=found.value,
            tests=_test(found, larger_is_better=name in LARGER_IS_BETTER),
        )
        for name, found in limits.items()
        if name not in DRAWN and found.value is not None
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics).run(
            Dataset.from_pandas(rows, data_definition=definition), None, timestamp=judgement.as_of
        )
    snapshot._widgets[:] = arranged(snapshot._widgets, {})
    return str(snapshot.get_html_str(as_iframe=False))


class AsJudged(SingleValueMetric):
    """A metric that Evidently does not have, or computes otherwise (its MAPE counts labels of 0): the judged value."""

    metric: str
    value: float


class _AsJudged(SingleValueCalculation[AsJudged]):
    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> SingleValue:
        return self.result(self.metric.value)

    def display_name(self) -> str:
        return str(self.metric.metric)


def _test(metric: MetricResult | None, *, larger_is_better: bool = False) -> list[Any]:
    if metric is None or metric.limit is None:
        return []
    return [gte(metric.limit) if larger_is_better else lte(metric.limit)]
