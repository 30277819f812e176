"""The figures of a training: what shows how it was made and how good it is, as a data scientist looks for it.

They cost a bounded part of a training: rows are sampled, margins are given, and each picture has at most `MOST_BYTES`. They are
looked at and decide nothing, so one that cannot be drawn is told in the log and left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from evergreen.drawing import png
from evergreen.spec import ModelSpec
from evergreen.training.figures import of_the_fit, of_the_judged_rows
from evergreen.training.figures.judged_sample import JudgedSample, judged_sample
from evergreen.training.figures.slice_errors import SliceError, features_shown, slice_errors
from evergreen.training.gate.evaluate import EvaluatedChallenger

log = logging.getLogger(__name__)

FOLDER = "figures"
MOST_BYTES = 100_000
EFFORT = 3
TITLES = {
    "predicted_against_actual": "Predicted against actual",
    "ranking": "ROC, precision and recall, calibration",
    "residuals_over_time": "Residuals over time",
    "error_by_slice": "Error by slice",
    "importance": "Importance",
    "learning_curve": "Learning curve",
    "leaderboard": "Candidates",
}


@dataclass(frozen=True)
class Figures:
    """What was drawn of a training.

    Attributes:
        pictures: PNG by name, in the order of `TITLES`.
        sample: the judged rows that they show.
        slices: the deciding metric by parts of these.
        seconds: what it took.
    """

    pictures: Mapping[str, bytes]
    sample: JudgedSample
    slices: Sequence[SliceError]
    seconds: float


def figures(model: ModelSpec, judged: EvaluatedChallenger, shares: Mapping[str, float]) -> Figures:
    """Draw what can be drawn of a training; the same training gives the same pictures.

    Args:
        model: the spec.
        judged: the training's evaluation.
        shares: of the gain of all splits by feature, of the model that is registered.
    """
    began = time.perf_counter()
    sample = judged_sample(judged, features_shown(model, shares))
    slices = slice_errors(model, sample)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "predicted_against_actual": lambda: of_the_judged_rows.predicted_against_actual(model, sample),
        "ranking": lambda: of_the_judged_rows.ranking(model, sample),
        "residuals_over_time": lambda: of_the_judged_rows.residuals_over_time(model, sample),
        "error_by_slice": lambda: of_the_judged_rows.error_by_slice(model, sample, slices),
        "importance": lambda: of_the_fit.importance(shares),
        "learning_curve": lambda: of_the_fit.learning_curve(judged.fitted),
        "leaderboard": lambda: of_the_fit.leaderboard(judged.choice.board),
    }
    pictures = {name: drawn(model.name, name, drawings[name]) for name in TITLES}
    seconds = time.perf_counter() - began
    found = {name: picture for name, picture in pictures.items() if picture}
    log.info("%s: %d figures drawn in %.2f s", model.name, len(found), seconds)
    return Figures(found, sample, slices, seconds)


def drawn(model_name: str, name: str, draw: Callable[[], Figure | None]) -> bytes | None:
    """A figure as PNG of at most `MOST_BYTES`; None where there is nothing to show, or it cannot be drawn."""
    try:
        figure = draw()
        if figure is None:
            return None
        picture = png(figure, effort=EFFORT)
        while len(picture) > MOST_BYTES:
            figure.set_dpi(figure.get_dpi() * 0.8)
            picture = png(figure)
    except Exception as error:  # a picture decides nothing, whatever is wrong with it
        log.warning(
            "%s: the figure %s cannot be drawn: %s: %s", model_name, name, type(error).__name__, error
        )
        return None
    return picture
