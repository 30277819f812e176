"""The sections `scoring`, `serving`, `monitoring` and `watch` of a model: how a champion is used and watched."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from evergreen.spec.cron import Cron
from evergreen.spec.metrics import Metric
from evergreen.spec.types import Duration, Feature, Span, Strict


class Volume(Strict):
    """How many rows a window must have, as shares of the reference's usual number."""

    min: float = Field(
        0.5, ge=0, description="a window below this share of the usual rows is not judged; it is told"
    )
    max: float = Field(
        3.0, gt=0, description="a window above this share of the usual rows is not judged; it is told"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Volume:
        if self.min >= self.max:
            raise ValueError(
                f"min {self.min} is not below max {self.max}, so that no window could be judged; swap them"
            )
        return self


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
    limit: float | None = Field(
        None,
        description="the metric's worst value that is allowed, in its own unit, such as 25 for mae (at most) or 0.9 for roc_auc (at "
        "least), however much unchanged windows move; it holds beside the learnt limit, and the stricter of the two counts; null: the "
        "learnt one alone",
    )
    min_labels: float = Field(
        30,
        gt=0,
        description="so many rows with a label and a prediction let a window's error be judged once label.delay has passed; "
        "before that, four fifths of its rows must have both. Up to 1: a share of its rows, whenever",
    )
    beat_baseline: bool = Field(
        True,
        description="whether a window whose error is surely (95 %) worse than that of the naive baseline on the same rows is a "
        "violation, however wide the limit is",
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


# Windows after which a training is old. With `decay` the served error is within a fifth of what renewing the champion every window comes
# to on eight of eleven real streams; six to ten windows do about as well (`benchmarks/decisions_timing.py`).
AGING = 8


class Trigger(Strict):
    """What asks for a retraining: violations (m of the last n windows and the newest), decay, new rows, age, another spec."""

    m: int = Field(
        2,
        ge=1,
        le=1000,
        description="so many windows in violation, the newest among them, ask for a retraining",
    )
    n: int = Field(3, ge=1, le=1000, description="of so many newest windows that could be judged")
    cooldown: Duration = Field(timedelta(days=7), description="least time between two requests")
    budget: int = Field(2, ge=1, le=1000, description="most requests of the policy in any 7 days")
    again: Span | None = Field(
        timedelta(days=28),
        description="a drift that two trainings have answered and that is still there is asked for again so long after the "
        "last answer, or with half as many new labelled rows as that training knew (doubled with each further answer), "
        "whichever comes first; after a promotion with the rows only; null: never while it lasts",
    )
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
    decay: bool = Field(
        True,
        description="ask, without an alarm, when the served error of m of the last n windows and the newest is beyond "
        "performance.max_worse of the holdout's, be it within what chance does; once for each champion",
    )
    max_age: Span | Literal["auto"] | None = Field(
        "auto",
        description="ask when the newest training is older than this; auto: than eight of monitoring.window; null: do not",
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
    window: Span = Field(
        timedelta(days=1), description="length of the windows; they lie end to end from a Monday 00:00 UTC"
    )
    min_rows: int = Field(
        100, ge=1, le=10**12, description="a window with fewer rows is not judged; it is told"
    )
    sample_rows: int = Field(20000, ge=100, le=10**7, description="most rows a side that go into one report")
    freshness: Span = Field(
        timedelta(hours=36),
        description="oldest that the newest row may be; by default, the feed's usual silence at that hour of the week counts on top",
    )
    volume: Volume = Volume()
    drift: Drift = Drift()
    performance: Performance = Performance()
    trigger: Trigger = Trigger()

    @property
    def max_age(self) -> timedelta | None:
        """How old the newest training may be; None: as old as it likes."""
        age = self.trigger.max_age
        return AGING * self.window if age == "auto" else age


class Scoring(Strict):
    """How batch predictions are made."""

    schedule: Cron = Field(
        "30 * * * *", description="cron (UTC) that scores what no event has told of; null: events only"
    )
    chunk_rows: int = Field(
        100_000, ge=1, le=10**7, description="rows that are scored and written at a time; bounds the memory"
    )


class Canary(Strict):
    """A new champion answers for a share of the keys first."""

    model_config = ConfigDict(serialize_by_alias=True)

    share: float = Field(
        0.1, gt=0, lt=1, description="share of the keys that the new champion answers for at the beginning"
    )
    for_: Span = Field(
        timedelta(days=3),
        alias="for",
        description="after so long it answers for all, if a look of the watch has compared it by then and not found it worse",
    )


class RequestLog(Strict):
    """What is kept of the requests to the prediction service."""

    share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the requests of which the features are kept; predictions are kept of all",
    )
    keep: Span = Field(timedelta(days=30), description="how long requests are kept")


class Serving(Strict):
    """How the prediction service answers for a model: online, beside the batch predictions."""

    online: bool = Field(True, description="whether the prediction service answers for the model")
    features: Literal["query", "latest"] = Field(
        "query",
        description="where the features of a request by key come from: the feature query as of now, or the newest ones of each key, "
        "which the scoring keeps",
    )
    timeout_ms: int = Field(
        1000,
        ge=10,
        le=60_000,
        description="longest that a request by key may wait for its features, in milliseconds",
    )
    canary: Canary | None = Field(
        None,
        description="a new champion answers for a share of the keys first, and for more with each look of the watch; null: for all at once",
    )
    shadow: Span | None = Field(
        None,
        description="for so long after a promotion the champion before it answers, and the predictions of both are kept; null: not at all",
    )
    skew: float | None = Field(
        0.05,
        gt=0,
        le=1,
        description="smallest share of the online predictions of a day that people are told of, where they differ from what a batch predicts of "
        "the same rows; null: they are not compared",
    )
    sensitive: tuple[Feature, ...] = Field(
        (), description="features whose values are never written into the log of requests"
    )
    log: RequestLog = RequestLog()

    @model_validator(mode="after")
    def _consistent(self) -> Serving:
        if self.canary is not None and self.shadow is not None:
            raise ValueError(
                "canary and shadow: a new champion answers either for a share of the keys or for none; remove one of the two"
            )
        return self


class Watch(Strict):
    """How a new champion is compared with the previous one, which goes on predicting beside it, unserved."""

    period: Span | None = Field(
        timedelta(days=7),
        description="how long after a promotion the previous champion predicts the same rows in the shadow, at least for one "
        "monitoring.window; the comparison ends when their labels are mature; null: no shadow, no comparison",
    )
    margin: float = Field(
        0.02,
        ge=0,
        description="a new champion whose distance from perfect is surely larger by more than this share is rolled back; "
        "where the gate asks for not_worse keep it above gate.tolerance, or what the gate lets through comes back",
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="how sure that must be, over all looks of the period together"
    )
    min_rows: int = Field(
        100,
        ge=20,
        description="with fewer rows that both predicted and whose label is mature, nothing is decided",
    )
