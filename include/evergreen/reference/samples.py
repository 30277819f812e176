"""The rows that a reference keeps of those that it is made from, and what is learnt of them: the error's movement, the rhythm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.microseconds import in_micros
from evergreen.reference import past_windows
from evergreen.reference.frame import Frame
from evergreen.reference.movement import Movement, Outside, learn
from evergreen.reference.profile import as_numbers
from evergreen.reference.rhythm import Rhythm, whole_windows
from evergreen.reference.rhythm import learn as learn_rhythm
from evergreen.spec import ModelSpec

MOST_HELD = 500_000


def wanted_columns(model: ModelSpec) -> list[str]:
    """The columns of a sample that always have to be there."""
    return ["_key", "_time", *model.features.all, "_label", "_prediction"]


def taken(model: ModelSpec, frame: Frame, chosen: npt.NDArray[np.intp], columns: Sequence[str]) -> pa.Table:
    """The rows of a sample, with the hashes and the predictions of models that had not learnt them, as far as known."""
    wanted = [columns[0], "_hash", *columns[1:], "_outside"]
    there = frame.names
    kept = frame.take(chosen, [n for n in wanted if n in there])
    if "_outside" in there:
        return kept
    known = pa.array(chosen >= held_from(model, frame.times))
    return kept.append_column("_outside", pc.if_else(known, kept["_prediction"].cast(pa.float64()), None))


def held_from(model: ModelSpec, times: npt.NDArray[np.int64]) -> int:
    """Where the holdout begins, as the training splits."""
    length = in_micros(model.training.holdout)
    return int(np.searchsorted(times, int(times[-1]) - length, "right"))


def movement_of(model: ModelSpec, frame: Frame, sample: pa.Table, usual_rows: float) -> Movement:
    """How the watched metric moves, learnt from rows with a label; `usual_rows` of them are in a window."""
    begin, most = held_from(model, frame.times), model.monitoring.sample_rows
    held = len(frame.times) - begin
    # A window of it has no more rows than a judged window's sample.
    kept = min(held, MOST_HELD, math.ceil(held * min(1.0, most / max(usual_rows, 1.0))))
    rows = begin + past_windows.sample_of(frame.hashes[begin:], kept)

    def values(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
        return as_numbers(column.slice(begin))[rows - begin]

    times = sample["_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return learn(
        model.performance_metric,
        Outside.of(frame.times[rows], values(frame.column("_label")), values(frame.column("_prediction"))),
        Outside.of(times, as_numbers(sample["_label"]), as_numbers(sample["_outside"])),
        window=model.monitoring.window.total_seconds() * 1e6,
        window_rows=min(usual_rows, most),
        seed=model.training.seed,
        cut=model.cut,
    )


def rhythm_of(sample: pa.Table, window: timedelta, scale: float) -> Rhythm:
    """When rows come, by a sample of which each row stands for so many."""
    times = np.sort(sample["_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())
    numbers, begins, ends = whole_windows(times, window, past_windows.EDGE_GAP)
    return learn_rhythm(times, window, numbers, ends - begins, max(scale, 1.0))
