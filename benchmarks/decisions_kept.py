"""What the gate keeps of the benefit of retraining: eleven real streams, asked each week, and each stream shuffled.

    python -m benchmarks.decisions_kept [STREAM ...]

Each stream is replayed without a warehouse in between, so that hundreds of trainings take minutes: its rows come out of the
feature query once, and each week (window of `monitoring`) the model is fitted as its spec says, with ROUNDS rounds on at most
MOST_ROWS rows of its window. The judged fit and the steps of the holdout are those of `training.walk`, the fit that serves has
learnt everything that was mature. The gate is asked by `paired_bootstrap.improvement`, as `gate.improvement` asks:

- *always*: what was trained is promoted, unseen.
- *unless_worse*: the default. At once, and where that loses, with the holdout walked through; a proof is asked while the newest
  promotions together seem to have done harm on the weeks after them.
- *better*: the default of earlier releases, without the walk.

The error is that of the predictions that were served until the next week, over all rows with a label. On a shuffled stream
nothing changes over time, so that retraining can only cost.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import xgboost as xgb

from benchmarks.real import STREAMS, Real, changed, landed
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.metrics import paired_bootstrap, resampled
from evergreen.metrics.paired_bootstrap import Paired
from evergreen.microseconds import in_micros
from evergreen.registry.encoding import Encoding, survey
from evergreen.spec import ModelSpec
from evergreen.training.data.matrix import write
from evergreen.training.data.split import read
from evergreen.training.fitting.fit import parameters
from evergreen.training.gate.past_holdouts import MOST, summed
from evergreen.warehouse.features import snapshot

ROUNDS, MOST_ROWS, LEAST_ROWS = 150, 30_000, 50
KEPT, HARM = 1.03, 1.02
DATA = {data.name: data for data in STREAMS}
Ask = Callable[[int, int, list[tuple[int, int]]], bool]


@dataclass
class Stream:
    """Encoded rows in time order, and what was fitted each week: by the number of the week, predictions of rows from a position on."""

    model: ModelSpec
    encoding: Encoding
    times: np.ndarray
    labels: np.ndarray
    x: np.ndarray

    def __post_init__(self) -> None:
        self.weeks: list[Week] = []
        self._seen: dict[tuple[int, int, bool], paired_bootstrap.Improvement | None] = {}
        self._watched: dict[tuple[int, int], tuple[float, float] | None] = {}

    def fit(self, begin: int, end: int) -> xgb.Booster:
        """A booster of the rows from one position to another."""
        rows = np.arange(begin, end)
        if len(rows) > MOST_ROWS:
            rows = np.sort(np.random.default_rng(len(rows)).choice(rows, MOST_ROWS, replace=False))
        data = xgb.QuantileDMatrix(
            self.x[rows], self.labels[rows], feature_types=self.encoding.types, feature_names=self.encoding.boosted,
            enable_categorical=True, max_bin=128, nthread=1,
        )  # fmt: skip
        return xgb.train({**parameters(self.model), "max_bin": 128, "nthread": 1}, data, ROUNDS)

    def predict(self, booster: xgb.Booster, begin: int, end: int) -> np.ndarray:
        """Its predictions for the rows from one position to another."""
        booster.feature_names = None
        return np.asarray(booster.inplace_predict(self.x[begin:end]), dtype=np.float64)

    def improvement(self, week: int, champion: int, walked: bool) -> paired_bootstrap.Improvement | None:
        """How much better a week's challenger is than an earlier week's model, on rows that this one has not learnt."""
        key = (week, champion, walked)
        if key not in self._seen:
            now, then = self.weeks[week], self.weeks[champion]
            begin = max(now.held, then.end)
            y = self.labels[begin : now.end]
            if now.end - begin < LEAST_ROWS or (self.model.task == "binary" and len(np.unique(y)) < 2):
                self._seen[key] = None
            else:
                mine = (now.walked if walked else now.judged)[begin - now.held :]
                theirs = then.served[begin - then.end : now.end - then.end]
                self._seen[key] = paired_bootstrap.improvement(
                    Paired(
                        self.model.gate_metric, self.times[begin : now.end], y, mine, theirs, self.model.cut
                    ),
                    confidence=self.model.gate.confidence,
                    seed=0,
                )
        return self._seen[key]

    def watched(self, new: int, old: int) -> tuple[float, float] | None:
        """What the watch after a promotion saw in its first week: see `past_holdouts.summed`; None where it cannot be told."""
        if (new, old) not in self._watched:
            begin, last = self.weeks[new].end, len(self.times)
            end = self.weeks[new + 1].end if new + 1 < len(self.weeks) else last
            y = self.labels[begin:end]
            self._watched[new, old] = None
            if len(y) >= self.model.watch.min_rows and (
                self.model.task != "binary" or len(np.unique(y)) == 2
            ):
                mine, theirs = (
                    self.weeks[n].served[begin - self.weeks[n].end : end - self.weeks[n].end]
                    for n in (new, old)
                )
                found = paired_bootstrap.improvement(
                    Paired(self.model.gate_metric, self.times[begin:end], y, mine, theirs, self.model.cut),
                    confidence=0.95,
                    seed=0,
                )
                if found.spread is not None and found.point is not None and found.point < 1:
                    self._watched[new, old] = math.log1p(-found.point), found.spread / (1 - found.point)
        return self._watched[new, old]

    def served(self, ask: Ask) -> tuple[float, int]:
        """The served error where a week's challenger becomes champion if `ask` says so, and how many did.

        `ask` is given the week, the champion's and the promotions before, as weeks of the new and the old champion, newest first.
        """
        champion, promotions, lost = 0, list[tuple[int, int]](), []
        for number, week in enumerate(self.weeks):
            if number and ask(number, champion, promotions):
                promotions = [(number, champion), *promotions]
                champion = number
            end = self.weeks[number + 1].end if number + 1 < len(self.weeks) else len(self.times)
            ours = self.weeks[champion]
            p = ours.served[week.end - ours.end : end - ours.end]
            lost.append(
                resampled.losses(self.model.gate_metric, self.labels[week.end : end], p, self.model.cut)
            )
        mean = float(np.concatenate(lost).mean())
        return mean**0.5 if self.model.gate_metric == "rmse" else mean, len(promotions)


@dataclass(frozen=True)
class Week:
    """One week's fits: where its holdout begins and ends, the holdout by the judged fit and by the steps, and what follows."""

    held: int
    end: int
    judged: np.ndarray
    walked: np.ndarray
    served: np.ndarray


def fitted(stream: Stream, first: int) -> Stream:
    """Fit every week from a moment on (microseconds since 1970)."""
    model, times = stream.model, stream.times
    length, holdout, delay = (
        in_micros(t) for t in (model.monitoring.window, model.training.holdout, model.label.delay)
    )
    window = None if model.training.window == "all" else in_micros(model.training.window)

    def at(moment: int) -> int:
        return int(np.searchsorted(times, moment, "left"))

    for now in range(first, int(times[-1]) - length, length):
        begin, end = 0 if window is None else at(now - window), at(now - delay)
        held = int(np.searchsorted(times, int(times[end - 1]) - holdout, "right"))
        if end - held < LEAST_ROWS or at(int(times[held]) - delay) - begin < model.training.min_rows:
            continue
        count = model.training.holdout_steps
        edges = [
            held,
            *sorted({at(int(times[held]) + n * holdout // count) for n in range(1, count)} - {held, end}),
            end,
        ]
        parts, judged = [], None
        for a, b in pairwise(edges):
            booster = stream.fit(begin, at(int(times[a]) - delay))
            judged = stream.predict(booster, held, end) if judged is None else judged
            parts.append(stream.predict(booster, a, b))
        final = stream.fit(begin, end)
        assert judged is not None
        stream.weeks.append(
            Week(held, end, judged, np.concatenate(parts), stream.predict(final, end, len(times)))
        )
    return stream


def load(data: Real, *, shuffled: bool) -> Stream:
    """A stream's rows as its feature query gives them; shuffled: features and label dealt to other times."""
    with landed(data) as specs, tempfile.TemporaryDirectory(prefix="evergreen-kept-") as name:
        model = changed(specs.models[data.model], training={"window": "all"})
        rows = read(model, snapshot.take(specs, model, data.end + timedelta(days=2), Path(name)))
        encoding = survey(model, rows.batches(model.features.all)).encoding
        matrix, _ = write(encoding, [rows], Path(name) / "rows.f32")
        x = np.concatenate(list(matrix.batches()))
        order = np.random.default_rng(0).permutation(len(x)) if shuffled else np.arange(len(x))
        return Stream(specs.models[data.model], encoding, rows.times, rows.labels[order], x[order])


def measure(names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """Both tables; a row says where a data set is not to be had."""
    rows: list[Row] = []
    for name in names:
        for shuffled in (False, True):
            try:
                rows.append(_row(DATA[name], shuffled))
            except TerminalError as error:
                rows.append(
                    Row(f"{name}: what the gate keeps", "not measured", "", None, "all", False, str(error))
                )
            print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


def _row(data: Real, shuffled: bool) -> Row:
    began = time.monotonic()
    stream = fitted(load(data, shuffled=shuffled), int(data.replayed.timestamp() * 1e6))
    gate = stream.model.gate

    def unless_worse(week: int, champion: int, promotions: list[tuple[int, int]]) -> bool:
        watches = (stream.watched(*promotion) for promotion in promotions)
        came_to = summed([found for found in watches if found is not None][:MOST])
        if came_to is not None and came_to.harmful:
            return surely_better(week, champion, (False, True))
        asked = (stream.improvement(week, champion, walked) for walked in (False, True))
        return any(
            f.high >= 0 and f.point >= -gate.max_worse
            for f in asked
            if f is not None and f.high is not None and f.point is not None
        )

    def surely_better(week: int, champion: int, ways: Sequence[bool]) -> bool:
        asked = (stream.improvement(week, champion, walked) for walked in ways)
        return any(f is not None and f.low is not None and f.low > 0 for f in asked)

    def better(week: int, champion: int, _: list[tuple[int, int]]) -> bool:
        return surely_better(week, champion, (False,))

    never, _ = stream.served(lambda *_: False)
    always, count = stream.served(lambda *_: True)
    ours, promoted = stream.served(unless_worse)
    strict, few = stream.served(better)
    baseline, limit = (min(never, always), HARM) if shuffled else (always, KEPT)
    what = (
        "shuffled, against the better of never and always"
        if shuffled
        else "against promoting all that is trained"
    )
    return Row(
        f"{data.name}: served {stream.model.gate_metric} by unless_worse, {what}",
        f"{ours:.4g}",
        f"{baseline:.4g}",
        ours / baseline,
        f"≤ {limit}",
        ours <= limit * baseline,
        f"{count + 1} trainings, {promoted} promoted; never {never:.4g}, always {always:.4g}, by better {strict:.4g} with {few}; "
        f"{time.monotonic() - began:.0f} s",
    )


if __name__ == "__main__":
    started = time.monotonic()
    result = measure(sys.argv[1:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
