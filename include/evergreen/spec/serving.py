"""The section `serving` of a model: how the prediction service answers with its champion."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from evergreen.spec.types import Feature, Span, Strict


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
