"""The HTML that Evidently draws of a window, with our limits, so that it says what the verdict says.

Two pages, kept with the champion's MLflow run: `drift.html` (each column against the reference) and, where the
labels are in, `performance.html` (the served predictions). About 4 MB each, nearly all of it Evidently's own
scripts. Drift, missing values and unknown categories are Evidently's tests. The lines above its page say what it has no
place for: whose window it is, how many of its rows were measured, and all that is in violation, such as a stuck sensor.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import BinaryClassification, DataDefinition, Dataset, Regression, Report
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

from evergreen.alerting import words
from evergreen.monitoring import wording
from evergreen.monitoring.judgement import ColumnResult, Judgement, MetricResult, What
from evergreen.monitoring.measure import frame
from evergreen.monitoring.reference import Reference

DRIFT_FILE = "drift.html"
PERFORMANCE_FILE = "performance.html"
DRIFTS = (What.DATA_DRIFT, What.PREDICTION_DRIFT)
SHARES = (What.MISSING, What.NEW_CATEGORY)
UNKNOWN = "never seen"
MOST_TOLD = 20
ROUNDING = 1e-12


def artifact_path(judgement: Judgement) -> str:
    """The folder of a judgement's pages in the champion's MLflow run."""
    return f"monitoring/{judgement.window_start.astimezone(timezone.utc):%Y%m%dT%H%M}Z-r{judgement.revision}"


def write(
    judgement: Judgement, task: str, window: pd.DataFrame, reference: Reference, folder: Path
) -> dict[str, float]:
    """Draw the pages of a judgement into a folder.

    Columns that could not be read are left out; their finding is in the judgement.

    Args:
        judgement: what was found.
        task: `regression` or `binary`.
        window: the rows that were measured.
        reference: the champion's.
        folder: an existing folder.

    Returns:
        The drift value of each column as Evidently's report has it: the same as in the judgement.

    Raises:
        Exception: whatever Evidently raises; `refused` finds the column to blame.
    """
    values = _drift_page(
        judgement, _drawn(judgement.columns, reference), window, reference, folder / DRIFT_FILE
    )
    _say(folder / DRIFT_FILE, [_title(judgement), _sampled(judgement, reference), *_told(judgement)])
    if error_judged(judgement):
        write_performance(judgement, task, window, folder)
    return values


def error_judged(judgement: Judgement) -> bool:
    """Whether there is a served error to draw."""
    return any(m.state == "judged" for m in judgement.metrics.values())


def write_performance(judgement: Judgement, task: str, window: pd.DataFrame, folder: Path) -> None:
    """Draw the page of the served predictions alone; arguments are `write`'s."""
    file = folder / PERFORMANCE_FILE
    try:
        _performance_page(judgement, task, window, file)
    # The error is judged already; a page that cannot be drawn must not keep the window from being recorded.
    except Exception as error:
        reason = html.escape(f"{type(error).__name__}: {error}"[:500])
        file.write_text(f"<p>Evidently could not draw this page: {reason}</p>", encoding="utf-8")
    _say(file, [_title(judgement), *_told(judgement)])


def _title(judgement: Judgement) -> str:
    return (
        f"{judgement.model} version {judgement.version}, {judgement.window}, as of "
        f"{judgement.as_of.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    )


def _sampled(judgement: Judgement, reference: Reference) -> str:
    return (
        f"Measured on {judgement.sampled_rows:,} of the {judgement.rows:,} rows of the window, against "
        f"{reference.sample.num_rows:,} of the {reference.rows:,} rows that the champion learnt."
    )


def _told(judgement: Judgement) -> list[str]:
    return [*_violations(judgement), *filter(None, [wording.error(judgement)])]


def _violations(judgement: Judgement) -> list[str]:
    """What is in violation, a line each; Evidently has no test for some of it."""
    found = [
        f"{words.column_name(c.column)}: {words.statistic_name(c.kind.value, c.statistic)}"
        + ("" if c.value is None else f" {c.value:.4g}, limit {c.limit:.4g}")
        + (f"; {c.detail}" if c.detail else "")
        for c in judgement.columns
        if c.violated
    ]
    found += [
        f"served predictions: {words.metric_name(name)}{'' if m.state == 'judged' else f', {m.state}'}"
        for name, m in judgement.metrics.items()
        if m.violated
    ]
    if not found:
        return []
    more = [f"{len(found) - MOST_TOLD} more, see the judgement"] if len(found) > MOST_TOLD else []
    return ["In violation:", *found[:MOST_TOLD], *more]


def _say(file: Path, notes: Sequence[str]) -> None:
    """Put lines above Evidently's page: it has no place for an interval, nor for what is not known yet."""
    page = file.read_text(encoding="utf-8")
    told = "<br>".join(map(html.escape, notes))
    line = f'<p style="font: 16px sans-serif; margin: 1em">{told}</p>'
    at = page.find("<body")
    at = page.find(">", at) + 1 if at >= 0 else 0
    file.write_text(page[:at] + line + page[at:], encoding="utf-8")


def _drawn(columns: Sequence[ColumnResult], reference: Reference) -> list[ColumnResult]:
    """The results that Evidently draws, of columns whose drift could be measured: drifts, then shares above zero."""
    readable = {c.column for c in columns if c.kind in DRIFTS and c.value is not None}
    shares = [c for c in columns if c.kind in SHARES and c.column in readable]
    drifts = [c for c in columns if c.kind in DRIFTS and c.column in readable]
    return [*drifts, *(c for c in shares if c.violated or (c.value or 0.0) + _usual(c, reference) > 0)]


def _usual(column: ColumnResult, reference: Reference) -> float:
    """What a share is measured from: missing values count as their rise, unknown categories as they are."""
    return reference.columns[column.column].missing if column.kind is What.MISSING else 0.0


def refused(columns: Sequence[ColumnResult], window: pd.DataFrame, reference: Reference) -> dict[str, str]:
    """The columns that Evidently cannot draw, each tried alone, with what it says."""
    found = {}
    drawn = _drawn(columns, reference)
    for column in drawn:
        if column.kind not in DRIFTS:
            continue
        try:
            _run([c for c in drawn if c.column == column.column], window, reference)
        # Whatever a page's code raises on a strange column, it is the column's finding.
        except Exception as error:
            found[column.column] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return found


def _drift_page(
    judgement: Judgement, columns: list[ColumnResult], window: pd.DataFrame, reference: Reference, file: Path
) -> dict[str, float]:
    if not columns:
        file.write_text(
            "<p>No column of this window could be measured; see the judgement.</p>", encoding="utf-8"
        )
        return {}
    snapshot = _run(columns, window, reference, judgement.as_of)
    snapshot.save_html(str(file))
    results = snapshot.dict()["metrics"]
    return {r["config"]["column"]: float(r["value"]) for r in results if not isinstance(r["value"], dict)}


def _run(
    columns: Sequence[ColumnResult],
    window: pd.DataFrame,
    reference: Reference,
    as_of: datetime | None = None,
) -> Any:
    names = [c.column for c in columns if c.kind in DRIFTS]
    numeric = [n for n in names if reference.columns[n].numeric]
    now, before = window[names], frame(reference.sample.select(names))
    metrics: list[Any] = []
    for column in columns:
        name = column.column
        if column.kind in DRIFTS:
            # The test that comes with `include_tests` is the limit; a column that is only shown gets none.
            metrics.append(
                ValueDrift(
                    column=name,
                    method=column.statistic,
                    threshold=column.limit,
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
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[n for n in now.columns if n not in numeric]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Report(metrics, include_tests=True).run(
            Dataset.from_pandas(now, data_definition=definition),
            Dataset.from_pandas(before, data_definition=definition),
            timestamp=as_of,
        )


def _counts(column: ColumnResult) -> bool:
    return column.violated or column.value is None or column.value < column.limit


def _share_test(column: ColumnResult, reference: Reference) -> list[Any]:
    if not _counts(column):
        return []
    # A rise and a share round differently; a value on its limit must not come out otherwise here.
    slack = -ROUNDING if column.violated else ROUNDING
    return [lt(_usual(column, reference) + column.limit + slack)]


def _performance_page(judgement: Judgement, task: str, window: pd.DataFrame, file: Path) -> None:
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
            ],  # type: ignore[arg-type]
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics).run(
            Dataset.from_pandas(rows, data_definition=definition), None, timestamp=judgement.as_of
        )
    snapshot.save_html(str(file))


def _test(metric: MetricResult | None, *, larger_is_better: bool = False) -> list[Any]:
    if metric is None or metric.limit is None:
        return []
    return [gte(metric.limit) if larger_is_better else lte(metric.limit)]
