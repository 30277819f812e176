"""The section `training` of a model: windows, parameters, what is left to choice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from evergreen.spec.types import Span, Strict, format_duration


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


Window = Span | Literal["all"]


class Training(Strict):
    """How a challenger is made."""

    window: Window = Field("all", description="how much history before as-of is used")
    windows: tuple[Window, ...] | None = Field(
        None,
        min_length=1,
        description="in place of window: the validation folds choose one of these at each training; see docs/tuning.md",
    )
    holdout: Span = Field(timedelta(days=14), description="the newest mature part, kept for the judgement")
    min_rows: int = Field(500, ge=10, le=10**12, description="fewer rows in the training part stop the run")
    holdout_steps: int = Field(
        4,
        ge=1,
        le=24,
        description="a challenger that does not pass at once is judged again by a holdout that is predicted in so many steps, each by "
        "a fit that learnt what was known by then, as the model that would serve has; 1: it is not",
    )
    min_holdout_rows: int = Field(50, ge=5, le=10**12, description="fewer rows in the holdout stop the run")
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
    season: Span = Field(timedelta(days=7), description="lag of the seasonal baseline")
    seed: int = Field(7, ge=0, lt=2**31, description="seed of all that is random in a training")
    folds: int = Field(
        4, ge=1, le=20, description="validation folds before the holdout, for windows, tune and compare_with"
    )
    fold: Span | None = Field(None, description="length of a fold; default: holdout")
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


def windows_problems(training: Training) -> list[str]:
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
