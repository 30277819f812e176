"""`models/NAME.yaml`: what is trained, how it is judged, how it is watched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from evergreen.spec.types import SQL_NOISE, Cron, Duration, Name, Strict, format_duration, unknown

Metric = Literal["rmse", "mae", "r2", "roc_auc", "pr_auc", "log_loss", "brier"]
METRICS: dict[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier"),
}
LARGER_IS_BETTER = frozenset({"r2", "roc_auc", "pr_auc"})


class Label(Strict):
    """What is predicted, and when it is known."""

    column: str = Field(
        description="number in the feature query that is predicted (binary: 0 or 1), null if not known"
    )
    delay: Duration = Field(timedelta(0), description="how long after event time a label is mature")
    min: float | None = Field(None, description="smallest valid label; a smaller one stops the training")
    max: float | None = Field(None, description="largest valid label; a larger one stops the training")


class Features(Strict):
    """Columns of the feature query that the model sees."""

    numeric: tuple[str, ...] = Field((), description="columns that are numbers to the model")
    categorical: tuple[str, ...] = Field(
        (), description="columns that are categories; one that the training did not see counts as missing"
    )

    @property
    def all(self) -> tuple[str, ...]:
        """Every feature, numeric first: the column order of the model."""
        return self.numeric + self.categorical


class Tune(Strict):
    """How long Optuna looks for parameters; it does not where neither trials nor minutes are given."""

    trials: int | None = Field(
        None, ge=1, le=10_000, description="at most so many sets of parameters are tried"
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="no trial is begun after so many minutes of trying, all tries of a run together",
    )
    pruning: bool = Field(
        True, description="give up a trial after a fold that is worse than that of half of the others"
    )

    @property
    def on(self) -> bool:
        """Whether there is anything to do."""
        return self.trials is not None or self.minutes is not None


Window = Duration | Literal["all"]


class Training(Strict):
    """How a challenger is made."""

    window: Window = Field("all", description="how much history before as-of is used")
    windows: tuple[Window, ...] | None = Field(
        None,
        min_length=1,
        description="in place of window: the validation folds choose one of these at each training; see docs/tuning.md",
    )
    holdout: Duration = Field(
        timedelta(days=14), description="the newest mature part, kept for the judgement"
    )
    min_rows: int = Field(500, ge=10, description="fewer rows in the training part stop the run")
    min_holdout_rows: int = Field(50, ge=5, description="fewer rows in the holdout stop the run")
    params: dict[str, Any] = Field(default_factory=dict, description="XGBoost parameters")
    max_rounds: int = Field(500, ge=1, le=20000, description="most boosting rounds; early stopping chooses")
    early_stopping_rounds: int | None = Field(
        30,
        ge=1,
        description="so many rounds without a better score on the newest 15 % of the training part stop; null: always "
        "max_rounds, which saves a fit",
    )
    refit: bool = Field(True, description="fit again on the whole window once the gate has passed")
    baseline: Literal["seasonal", "last_value", "class_prior"] | None = Field(
        None,
        description="naive prediction to compare with; default: seasonal (regression), class_prior (binary)",
    )
    season: Duration = Field(timedelta(days=7), description="lag of the seasonal baseline")
    seed: int = Field(7, description="seed of all that is random in a training")
    folds: int = Field(
        4, ge=1, le=20, description="validation folds before the holdout, for windows, tune and compare_with"
    )
    fold: Duration | None = Field(None, description="length of a fold; default: holdout")
    tune: Tune = Tune()
    compare_with: tuple[Literal["linear", "hist_gradient_boosting"], ...] = Field(
        (),
        description="learners of scikit-learn that stand on the leaderboard beside XGBoost; they are never registered",
    )
    engine: Literal["local", "dask"] = Field(
        "local",
        description="where fits run: in the training's own process, or on the workers of EVERGREEN_DASK_SCHEDULER",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="cuda: fit on a GPU where XGBoost can use one; where it cannot, on the CPU, and the run says so",
    )

    @property
    def lengths(self) -> tuple[timedelta | Literal["all"], ...]:
        """The windows that are open to choice, longest first; one if nothing is."""
        found = self.windows or (self.window,)
        return tuple(sorted(found, key=lambda w: timedelta.max if w == "all" else w, reverse=True))

    @property
    def fold_length(self) -> timedelta:
        """How long a validation fold is."""
        return self.fold or self.holdout

    @property
    def validates(self) -> bool:
        """Whether anything is chosen, or compared, on validation folds."""
        return len(self.lengths) > 1 or self.tune.on or bool(self.compare_with)


class Gate(Strict):
    """What a challenger must show before it becomes champion."""

    metric: Metric | None = Field(None, description="primary metric; default rmse or roc_auc")
    beat_baseline: bool = Field(True, description="whether the naive baseline must be beaten too")
    on_drift: Literal["not_worse", "better"] = Field(
        "not_worse",
        description="what a challenger that answers a drift, or a person's request, must surely be",
    )
    otherwise: Literal["not_worse", "better"] = Field(
        "better", description="what every other challenger must surely be"
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
        description="categorical features (each of their values) or FEATURE=VALUE that must be there and not be worse",
    )
    search_slices: bool = Field(
        True, description="whether the worst of all values of all categorical features is looked for too"
    )
    slice_max_worse: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="a slice that is surely worse than the champion by more than this share stops",
    )
    slice_min_rows: int = Field(
        100, ge=20, description="smaller slices are not searched; a named one that is smaller stops"
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
        description="share of the labels' range by which predictions may leave label.min and label.max",
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
        description="fit again with another seed; the metric's distance from perfect may differ by this share; null: do not",
    )
    approval: Literal["auto", "manual"] = Field(
        "auto",
        description="manual: a challenger that passed waits for a person, in the DAG promote__MODEL, before it is champion",
    )
    approval_timeout: Duration = Field(
        timedelta(days=3), description="manual: how long it waits; without an answer by then it is rejected"
    )


class Volume(Strict):
    """How many rows a window must have, as shares of the reference's usual number."""

    min: float = Field(
        0.5, ge=0, description="a window below this share of the usual rows is not judged; it is told"
    )
    max: float = Field(
        3.0, gt=0, description="a window above this share of the usual rows is not judged; it is told"
    )


class Drift(Strict):
    """When a column counts as drifted (effect sizes against learnt limits, not p-values).

    A column's limit is learnt with the champion from its own past, for a rate of false alarms that all columns of a
    check share; it is never below the smallest effect that is given here.
    """

    false_alarms: float = Field(
        0.01,
        gt=0,
        le=0.2,
        description="probability that a check of an unchanged window alarms in any column; that of its served error, once "
        "labels are in, is a check of its own with the same rate",
    )
    numeric: float = Field(
        0.1, gt=0, description="smallest Wasserstein distance, in standard deviations, that counts"
    )
    categorical: float = Field(0.05, gt=0, description="smallest Jensen-Shannon distance that counts")
    missing: float = Field(
        0.02, gt=0, description="smallest rise of missing values or share of unknown categories that counts"
    )
    ignore: tuple[str, ...] = Field((), description="columns that are measured and shown, and never violate")


class Performance(Strict):
    """When the served error counts as worse."""

    metric: Metric | None = Field(None, description="metric of the served predictions; default: the gate's")
    max_worse: float = Field(
        0.3,
        gt=0,
        description="smallest share of the holdout's value by which a worse metric counts; the limit is wider where "
        "unchanged windows move more, see monitoring.drift.false_alarms",
    )
    min_labels: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of rows whose label must be in; below it the error is 'not yet' judged",
    )
    estimate: bool = Field(
        False,
        description="whether the metric of a window without enough labels is estimated, and mailed where it is beyond "
        "the limit; the value of the labels replaces it",
    )
    estimate_requests: bool = Field(
        False, description="whether estimates beyond the limit may ask for a retraining, too"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Performance:
        if self.estimate_requests and not self.estimate:
            raise ValueError("estimate_requests: there are no estimates; set estimate: true as well")
        return self


class Trigger(Strict):
    """What asks for a retraining: violations (m of the last n windows and the newest), new rows, age, another spec."""

    m: int = Field(
        2, ge=1, description="so many windows in violation, the newest among them, ask for a retraining"
    )
    n: int = Field(3, ge=1, description="of so many newest windows that could be judged")
    cooldown: Duration = Field(timedelta(days=7), description="least time between two requests")
    budget: int = Field(2, ge=1, description="most requests of the policy in any 7 days")
    min_new_rows: float = Field(
        0.0,
        ge=0,
        description="a drift or an old model asks only when so many labelled rows, as a share of those that the champion's "
        "training knew, have come since; at least one in any case",
    )
    new_rows: float | None = Field(
        None,
        gt=0,
        description="ask when so many labelled rows (the same share) have come since the newest training; null: do not",
    )
    max_age: Duration | None = Field(
        None, description="ask when the newest training is older than this; null: do not"
    )
    on_change: bool | None = Field(
        None,
        description="ask once when features, label, query, columns or training of the spec changed since the champion was "
        "made; null: only where schedule is null, as otherwise the next run takes the change up",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Trigger:
        if self.m > self.n:
            raise ValueError(
                f"m {self.m} is larger than n {self.n}; {self.m} of {self.n} windows cannot be reached"
            )
        return self


class Monitoring(Strict):
    """How the champion is watched."""

    schedule: Cron = Field(
        "0 * * * *",
        description="when the watch runs (cron, UTC), besides after each scoring; null: only then",
    )
    window: Duration = Field(
        timedelta(days=1), description="length of the windows; they lie end to end from a Monday 00:00 UTC"
    )
    min_rows: int = Field(100, ge=1, description="a window with fewer rows is not judged; it is told")
    sample_rows: int = Field(20000, ge=100, description="most rows a side that go into one report")
    freshness: Duration = Field(timedelta(hours=36), description="oldest that the newest row may be")
    volume: Volume = Volume()
    drift: Drift = Drift()
    performance: Performance = Performance()
    trigger: Trigger = Trigger()


class Scoring(Strict):
    """How batch predictions are made."""

    schedule: Cron = Field(
        "30 * * * *", description="cron (UTC) that scores what no event has told of; null: events only"
    )
    chunk_rows: int = Field(
        100_000, ge=1, description="rows that are scored and written at a time; bounds the memory"
    )


class Watch(Strict):
    """How a new champion is compared with the previous one, which goes on predicting beside it, unserved."""

    period: Duration | None = Field(
        timedelta(days=7),
        description="how long after a promotion the previous champion predicts the same rows in the shadow; the comparison "
        "ends when their labels are mature; null: no shadow, no comparison",
    )
    margin: float = Field(
        0.02,
        ge=0,
        description="a new champion whose distance from perfect is surely larger by more than this share is rolled back; "
        "keep it above gate.tolerance, or what the gate lets through on a drift comes back",
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="how sure that must be, over all looks of the period together"
    )
    min_rows: int = Field(
        100,
        ge=20,
        description="with fewer rows that both predicted and whose label is mature, nothing is decided",
    )


class ModelSpec(Strict):
    """A model: features, label, windows, gate, monitoring, alerts."""

    name: Name = Field(description="the file's name without its ending; the registered model, the DAGs")
    description: str = Field(
        "", description="what is predicted for whom; stands on the DAGs' pages and in MLflow"
    )
    owner: str = Field("ml-team", description="who answers for it; shown in Airflow and in e-mails")
    task: Literal["regression", "binary"] = Field(
        description="predict a number, or the probability of class 1"
    )
    datasets: tuple[Name, ...] = Field(
        min_length=1, description="datasets that the feature query reads; new data in one wakes the scoring"
    )
    key: tuple[str, ...] = Field(
        min_length=1, description="columns of the feature query that name a row and its prediction"
    )
    event_time: str = Field(
        description="timestamp or date column of the feature query: when the row happened"
    )
    label: Label
    features: Features
    schedule: Cron = Field(
        "0 2 * * *", description="when a challenger is trained (cron, UTC); null: only on drift and by hand"
    )
    training: Training = Training()
    gate: Gate = Gate()
    scoring: Scoring = Scoring()
    watch: Watch = Watch()
    monitoring: Monitoring = Monitoring()
    alerts: tuple[str, ...] = Field((), description="recipients; default: EVERGREEN_MAIL_TO")
    query: str = Field("", description="the feature query: filled from models/NAME.sql, not written here")

    @property
    def gate_metric(self) -> str:
        """The primary metric of the gate."""
        return self.gate.metric or METRICS[self.task][0]

    @property
    def performance_metric(self) -> str:
        """The metric of the served predictions that is watched."""
        return self.monitoring.performance.metric or self.gate_metric

    @property
    def baseline(self) -> str:
        """The naive prediction that every challenger must beat."""
        return self.training.baseline or ("seasonal" if self.task == "regression" else "class_prior")

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        problems: list[str] = []
        features = self.features.all
        if not features:
            problems.append("features: there are none; name at least one under numeric or categorical")
        problems += [
            f"features: {n} is named twice; remove one"
            for n in sorted({f for f in features if features.count(f) > 1})
        ]
        if self.label.column in features:
            problems.append(
                f"features: {self.label.column} is the label; a model that sees its label learns nothing else. Remove it"
            )
        if self.event_time in features:
            problems.append(
                f"features: {self.event_time} is the event time; derive features from it in the SQL (hour, weekday)"
            )
        if self.label.column in self.key:
            problems.append(f"key: {self.label.column} is the label; a key must be known before it")
        problems += _windows(self.training)
        for where, metric in (
            ("gate.metric", self.gate.metric),
            ("monitoring.performance.metric", self.monitoring.performance.metric),
        ):
            if metric is not None and metric not in METRICS[self.task]:
                problems.append(
                    f"{where}: {metric} is not a metric of {self.task}; use one of {', '.join(METRICS[self.task])}"
                )
        if (self.training.baseline == "class_prior") != (
            self.task == "binary"
        ) and self.training.baseline is not None:
            problems.append(
                f"training.baseline: {self.training.baseline} does not fit {self.task}; "
                f"use {'class_prior' if self.task == 'binary' else 'seasonal or last_value'}"
            )
        if self.gate.approval_timeout <= timedelta(0):
            problems.append("gate.approval_timeout: nobody can answer in no time; write one like 3d")
        categorical = self.features.categorical
        problems += [
            unknown("gate.slices", n.partition("=")[0], categorical)
            for n in self.gate.slices
            if n.partition("=")[0] not in categorical
        ]
        known = {*features, self.label.column}
        problems += [
            unknown("monitoring.drift.ignore", n, known)
            for n in self.monitoring.drift.ignore
            if n not in known
        ]
        if not self.query.strip():
            problems.append(
                f"query: models/{self.name}.sql is missing or empty; write the feature query there"
            )
        if ";" in SQL_NOISE.sub("", self.query).rstrip().rstrip(";"):
            problems.append(f"query: models/{self.name}.sql has more than one statement; keep one SELECT")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _windows(training: Training) -> list[str]:
    """What is wrong with the windows, the holdout and the folds."""
    problems, holdout, fold = [], training.holdout, training.fold_length
    for window in training.lengths:
        if window != "all" and holdout >= window:
            problems.append(
                f"training.holdout: {format_duration(holdout)} leaves nothing of the window of "
                f"{format_duration(window)} to train on; make it shorter"
            )
        elif window != "all" and training.validates and fold >= window:
            problems.append(
                f"training.fold: {format_duration(fold)} leaves nothing of the window of {format_duration(window)} to train "
                "on; make it shorter"
            )
    longest = training.lengths[0]
    needed = holdout + training.folds * fold
    if longest != "all" and training.validates and holdout < longest and fold < longest <= needed:
        problems.append(
            f"training.folds: a holdout of {format_duration(holdout)} and {training.folds} folds of {format_duration(fold)} "
            f"leave nothing of the longest window, {format_duration(longest)}, to train on; take fewer or shorter folds"
        )
    if training.windows is not None:
        if len(set(training.windows)) < len(training.windows):
            problems.append("training.windows: a window stands there twice; remove one")
        if training.window != "all" and training.window not in training.windows:
            problems.append(
                f"training.window: {format_duration(training.window)} is not among training.windows, which stand in its "
                "place; add it there, or remove it"
            )
    return problems
