"""`models/NAME.yaml`: what is trained, how it is judged, how it is watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from evergreen.spec import sql_text, zones
from evergreen.spec.alerts import Entry
from evergreen.spec.cron import Cron
from evergreen.spec.gate import Gate
from evergreen.spec.metrics import LARGER_IS_BETTER, METRICS, THRESHOLD, best, passable, worse
from evergreen.spec.monitoring import Monitoring, Scoring, Serving, Watch
from evergreen.spec.training import Training, windows_problems
from evergreen.spec.types import Duration, Feature, Line, Name, Prose, Strict, format_duration, unknown

# A query of PostgreSQL returns at most 1,664 columns, and the key, the time and the label are some of them.
MOST_FEATURES = 1600
QUANTILE = "reg:quantileerror"


class Label(Strict):
    """What is predicted, and when it is known."""

    column: Feature = Field(
        description="number in the feature query that is predicted (binary: 0 or 1), null if not known"
    )
    delay: Duration = Field(timedelta(0), description="how long after event time a label is mature")
    min: float | None = Field(None, description="smallest valid label; a smaller one stops the training")
    max: float | None = Field(None, description="largest valid label; a larger one stops the training")

    @model_validator(mode="after")
    def _consistent(self) -> Label:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}; swap them")
        return self


class Features(Strict):
    """Columns of the feature query that the model sees."""

    numeric: tuple[Feature, ...] = Field(
        (), max_length=MOST_FEATURES, description="columns that are numbers to the model"
    )
    categorical: tuple[Feature, ...] = Field(
        (),
        max_length=MOST_FEATURES,
        description="columns that are categories; one that the training did not see counts as missing",
    )

    @property
    def all(self) -> tuple[str, ...]:
        """Every feature, numeric first: the column order of the model."""
        return self.numeric + self.categorical


class ModelSpec(Strict):
    """A model: features, label, windows, gate, monitoring, alerts."""

    name: Name = Field(description="the file's name without its ending; the registered model, the DAGs")
    description: Prose = Field(
        "", description="what is predicted for whom; stands on the DAGs' pages and in MLflow"
    )
    owner: Line = Field("ml-team", description="who answers for it; shown in Airflow and in e-mails")
    task: Literal["regression", "binary"] = Field(
        description="predict a number, or the probability of class 1"
    )
    datasets: tuple[Name, ...] = Field(
        min_length=1, description="datasets that the feature query reads; new data in one wakes the scoring"
    )
    key: tuple[Feature, ...] = Field(
        min_length=1,
        max_length=50,
        description="columns of the feature query that name a row and its prediction",
    )
    event_time: Feature = Field(
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
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    alerts: tuple[Entry, ...] = Field(
        (),
        description="who is told: an e-mail address, channel:NAME, or {to, on, severity} with the kinds and the least severity;"
        " default: EVERGREEN_MAIL_TO",
    )
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
    def cut(self) -> float | None:
        """What some metrics ask for besides labels and predictions.

        The threshold from which on a probability is class 1; for a regression the quantile, None where none is predicted.
        """
        return (self.gate.threshold or THRESHOLD) if self.task == "binary" else self.gate.quantile

    @property
    def fitted_for(self) -> dict[str, Any]:
        """Parameters of XGBoost that follow from the gate's metric, where `training.params` does not say them; mostly none.

        A quantile is fitted as one. The mean absolute error, which stops the rounds for wape and mape, is wape but for a constant, and
        near mape, of which XGBoost's own is infinite where a label is 0. Accuracy and f1 jump; log loss, the default, does not.
        """
        params, metric = self.training.params, self.gate_metric
        if params.get("objective", QUANTILE if metric == "pinball" else None) == QUANTILE:
            known = self.gate.quantile is not None and "quantile_alpha" not in params
            return {"objective": QUANTILE, **({"quantile_alpha": self.gate.quantile} if known else {})}
        if "objective" in params:
            return {"objective": params["objective"]}
        return {"eval_metric": "mae"} if metric in ("wape", "mape") and "eval_metric" not in params else {}

    @property
    def baseline(self) -> str:
        """The naive prediction that challengers must beat, see `gate.beat_baseline`."""
        return self.training.baseline or ("seasonal" if self.task == "regression" else "class_prior")

    def seeing(self, numeric: Iterable[str], categorical: Iterable[str]) -> ModelSpec:
        """This spec with other features: those of a version that was trained before the spec was changed."""
        features = Features(numeric=tuple(numeric), categorical=tuple(categorical))
        return self.model_copy(update={"features": features})

    def _limit_problems(self) -> list[str]:
        """What is wrong with an absolute limit of the served error."""
        limit, metric = self.monitoring.performance.limit, self.performance_metric
        if limit is None or metric not in METRICS[self.task]:
            return []
        side = "least" if metric in LARGER_IS_BETTER else "most"
        where = f"monitoring.performance.limit: {metric} may be at {side} {limit:g}"
        if not passable(metric, limit):
            return [f"{where}, and no value is worse, so it never alarms; write one that can be passed"]
        if not worse(metric, limit, best(metric)):
            return [
                f"{where}, and a perfect prediction has {best(metric):g}, so it always alarms; write one that can be met"
            ]
        return []

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        problems = [
            *self._names(),
            *windows_problems(self.training),
            *self._metrics(),
            *self._limit_problems(),
            *self._people_and_slices(),
            *self._takeover(),
            *self._query(),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _names(self) -> Iterator[str]:
        """What is wrong with the features, the datasets and the key."""
        features = self.features.all
        if not features:
            yield "features: there are none; name at least one under numeric or categorical"
        for what, names in (("features", sorted(features)), ("datasets", self.datasets)):
            yield from (
                f"{what}: {n} is named twice; remove one" for n, times in Counter(names).items() if times > 1
            )
        if len(features) > MOST_FEATURES:
            yield f"features: {len(features):,} are more than {MOST_FEATURES:,}, the most that a query returns"
        if self.label.column in features:
            yield f"features: {self.label.column} is the label; a model that sees its label learns nothing else. Remove it"
        if self.event_time in features:
            yield f"features: {self.event_time} is the event time; derive features from it in the SQL (hour, weekday)"
        if self.label.column in self.key:
            yield f"key: {self.label.column} is the label; a key must be known before it"

    def _metrics(self) -> Iterator[str]:
        """What does not fit the task."""
        for where, metric in (
            ("gate.metric", self.gate.metric),
            ("monitoring.performance.metric", self.monitoring.performance.metric),
        ):
            if metric is not None and metric not in METRICS[self.task]:
                yield f"{where}: {metric} is not a metric of {self.task}; use one of {', '.join(METRICS[self.task])}"
            if metric == "pinball" and self.task == "regression" and self.gate.quantile is None:
                yield (
                    f"{where}: pinball is the loss of a quantile, and gate.quantile says none; write gate.quantile: 0.9, or whichever "
                    "is predicted"
                )
        cut = "threshold" if self.task == "regression" else "quantile"
        if getattr(self.gate, cut) is not None:
            yield f"gate.{cut}: a {self.task} model has none; remove it"
        baseline, binary = self.training.baseline, self.task == "binary"
        if baseline is not None and (baseline == "class_prior") != binary:
            yield (
                f"training.baseline: {baseline} does not fit {self.task}; "
                f"use {'class_prior' if binary else 'seasonal or last_value'}"
            )

    def _people_and_slices(self) -> Iterator[str]:
        """What is wrong with the time that people have, and with the features that gate and monitor name."""
        if self.gate.approval_timeout <= timedelta(0):
            yield "gate.approval_timeout: nobody can answer in no time; write one like 3d"
        categorical = dict.fromkeys(self.features.categorical)
        for name in (n.partition("=")[0] for n in self.gate.slices):
            if name not in categorical:
                yield unknown("gate.slices", name, categorical)
        known = dict.fromkeys([*self.features.all, self.label.column])
        for name in self.monitoring.drift.ignore:
            if name not in known:
                yield unknown("monitoring.drift.ignore", name, known)
        for name in self.serving.sensitive:
            if name not in self.features.all:
                yield unknown("serving.sensitive", name, self.features.all)
        if self.serving.features == "latest" and self.key == (self.event_time,):
            yield (
                f"serving.features: latest keeps the newest row of each entity, and the key is {self.event_time} alone, the event time, "
                "so there is none; write query, or add to the key what the rows are of"
            )

    def _takeover(self) -> Iterator[str]:
        """What is wrong with how a new champion takes over online: the watch says when, and so must last as long."""
        for where, lasts in (
            ("serving.canary", self.serving.canary.for_ if self.serving.canary else None),
            ("serving.shadow", self.serving.shadow),
        ):
            if lasts is None:
                continue
            if self.watch.period is None:
                yield f"{where}: watch.period is null, and without the watch nothing says how good a new champion is; give it one such as 7d"
            elif lasts > (longest := max(self.watch.period, self.monitoring.window)):
                yield (
                    f"{where}: {format_duration(lasts)} is longer than the watch after a promotion ({format_duration(longest)}); make it "
                    "shorter, or watch.period longer"
                )

    def _query(self) -> Iterator[str]:
        """What is wrong with the text of the feature query."""
        if not sql_text.blank(self.query).strip(" ;\t\r\n\f"):
            yield f"query: models/{self.name}.sql is missing or empty; write the feature query there"
        if sql_text.several(self.query):
            yield f"query: models/{self.name}.sql has more than one statement; keep one SELECT"
        for sign in map(zones.sign_problem, sql_text.zones(self.query)):
            if sign:
                yield f"query: models/{self.name}.sql: the time zone {sign}"
