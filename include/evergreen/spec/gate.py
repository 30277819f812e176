"""The section `gate` of a model: what a challenger must show."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from evergreen.spec.metrics import Metric
from evergreen.spec.types import Duration, Strict

Demand = Literal["unless_worse", "not_worse", "better"]


class Gate(Strict):
    """What a challenger must show before it becomes champion."""

    metric: Metric | None = Field(
        None,
        description="primary metric; default rmse or roc_auc. mape leaves out rows whose label is 0, wape is the sum of the absolute "
        "errors over that of the labels' sizes; both are shares (0.1 is 10 %). pinball needs gate.quantile",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="binary: accuracy and f1 predict class 1 from this probability on; default 0.5",
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="regression: the quantile of the label that is predicted, such as 0.9, for pinball; where pinball is gate.metric "
        "the default objective is reg:quantileerror with it",
    )
    beat_baseline: bool = Field(
        True,
        description="whether the naive baseline must be beaten too; where it beats the champion by more, a better challenger still passes",
    )
    on_drift: Demand = Field(
        "unless_worse",
        description="what is asked of a challenger that answers a drift; unless_worse: it is promoted unless it is surely worse than "
        "the champion, or worse by more than max_worse; not_worse: it must surely not be worse; better: it must surely be better",
    )
    otherwise: Demand = Field(
        "unless_worse",
        description="what is asked of every other challenger; with unless_worse a proof (better) is asked while the newest promotions "
        "together seem to have done harm on the rows that came after them",
    )
    max_worse: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="unless_worse: a challenger that is worse by more than this share on the judged rows stops, however few they are",
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="how sure each comparison with the champion must be"
    )
    margin: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="better: the lower bound of the improvement, a share of the champion's distance from perfect, must exceed this",
    )
    tolerance: float = Field(
        0.01, ge=0, lt=1, description="not_worse: the lower bound of the improvement may be so far below zero"
    )
    slices: tuple[str, ...] = Field(
        (),
        description="categorical features (each value of slice_min_rows rows or more; one must be there) or FEATURE=VALUE (must have as many rows) that must not be worse",
    )
    search_slices: bool = Field(
        True, description="whether the worst of all values of all categorical features is looked for too"
    )
    slice_max_worse: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="a slice that is surely worse than the champion by more than this share stops; with too few moments for an interval, a named one is judged by its improvement alone, a searched one as if each row were a moment",
    )
    slice_min_rows: int = Field(
        100,
        ge=20,
        description="smaller slices are not searched, and smaller values of a named feature are left out; a named FEATURE=VALUE that is smaller stops",
    )
    calibration_max_worse: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="binary: probabilities that are surely further off than the champion's by more than this stop",
    )
    range_slack: float = Field(
        0.1,
        ge=0,
        description="share of the labels' range by which predictions may leave label.min and label.max; where one is not set, they may leave the training's labels by these labels' whole span",
    )
    max_predict_ms: float | None = Field(
        None, gt=0, description="most milliseconds to predict 1,000 rows; null: not limited"
    )
    max_size_mb: float | None = Field(
        None, gt=0, description="largest model file, in 10^6 bytes; null: not limited"
    )
    stability: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="fit again with another seed, early stopping too; the metric's distance from perfect may differ by this share; "
        "another seed changes something where training.params draw rows or columns (subsample, colsample_*); null: do not",
    )
    approval: Literal["auto", "manual"] = Field(
        "auto",
        description="manual: a challenger that passed waits for a person, in the DAG promote__MODEL, before it is champion",
    )
    approval_timeout: Duration = Field(
        timedelta(days=3), description="manual: how long it waits; without an answer by then it is rejected"
    )
