"""When to ask for a training: rules over the served errors of eleven real streams, chosen on six and shown on five.

    python -m benchmarks.decisions_timing [STREAM ...]

Each week (window of `monitoring`) a model is fitted on what was mature, as `decisions_kept` does it, and predicts all weeks after it. The
mean loss of each week's model in each later week then says what any rule would have served, had all that was trained been promoted, in
milliseconds a rule. The rules see what the monitor would have judged by then:

- *age*: a training when the newest is so many windows old;
- *decay*: a training when the error of m of the last n windows and the newest is worse than on the holdout by a share, and the
  cool-down of a week is over.

What is compared is as in `decisions_replay`: the error against that of a training each week (within 20 % at a fifth of its trainings), of
as many evenly spread and at as many random moments (the mean of SEEDS). The alarm's own limit is not in it: what it finds, decay finds
earlier. The rules of GRID are tried on CHOSEN; the one that is shipped stands in the table with the streams on which it was not chosen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

import numpy as np

from benchmarks.decisions_kept import DATA, fitted, load
from benchmarks.real import Real
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.metrics import resampled
from evergreen.spec.monitoring import AGING, Performance, Trigger

CHOSEN = ("bike", "electricity", "bank", "flights late", "tetouan 1", "appliances")
SEEDS = 40
NEAR, SHARE, WORSE, MOST = 1.2, 1 / 5, 1.02, 0.8
COOLDOWN = timedelta(days=7)
# So much of a window's labels must be in for its error to be judged at its end.
COMPLETE = 0.8


@dataclass(frozen=True)
class Rule:
    """A rule: `age` in windows (None: no age), and `share` worse in m of n windows (None: no decay)."""

    age: int | None
    share: float | None
    m: int = 2
    n: int = 3

    def __str__(self) -> str:
        age = "no age" if self.age is None else f"{self.age} windows"
        decay = "no decay" if self.share is None else f"{self.share:.0%} worse in {self.m} of {self.n}"
        return f"{age}, {decay}"


SHIPPED = Rule(AGING, Performance().max_worse, Trigger().m, Trigger().n)
GRID = [
    Rule(age, share, m, n)
    for age, share, (m, n) in product((None, 6, 7, 8, 9, 10, 12), (0.1, 0.2, 0.3, 0.4), ((1, 1), (2, 3)))
] + [Rule(age, None) for age in (5, 6, 7, 8, 10, 12)]


@dataclass(frozen=True)
class Losses:
    """A stream.

    Attributes:
        name: the stream's.
        mean: mean loss of the model of week i in week j (NaN where j < i).
        rows: of each week.
        holdout: mean loss of each week's judged fit on its holdout.
        squared: whether the metric is the root of a mean loss.
        late: how many windows later than its end a window's error is judged.
        cooldown: the cool-down in windows.
    """

    name: str
    mean: np.ndarray
    rows: np.ndarray
    holdout: np.ndarray
    squared: bool
    late: int
    cooldown: int

    def error(self, trained: Sequence[int] | set[int]) -> float:
        """The served error where the models of some weeks become champion."""
        champion, total = 0, 0.0
        for week, count in enumerate(self.rows):
            champion = week if week in trained else champion
            total += count * self.mean[champion, week] if count else 0.0
        return self.rooted(total / self.rows.sum())

    def rooted(self, loss: float) -> float:
        """A mean loss as the metric."""
        return float(float(loss) ** (0.5 if self.squared else 1.0))

    def moments(self, rule: Rule) -> list[int]:
        """In which weeks a rule trains."""
        champion, found, served = 0, list[int](), list[float]()
        for week in range(len(self.rows)):
            if (
                week
                and (not found or week - champion >= self.cooldown)
                and self._asks(rule, champion, week, served)
            ):
                champion = week
                found.append(week)
            served.append(self.rooted(self.mean[champion, week]))
        return found

    def _asks(self, rule: Rule, champion: int, week: int, served: Sequence[float]) -> bool:
        if rule.age is not None and week - champion >= rule.age:
            return True
        last = served[champion : max(champion, week - self.late)][-rule.n :]
        if rule.share is None or not last:
            return False
        limit = (1 + rule.share) * self.rooted(self.holdout[champion])
        return last[-1] > limit and sum(error > limit for error in last) >= rule.m


@dataclass(frozen=True)
class Found:
    """What a rule came to on a stream; ratios of errors."""

    share: float
    every: float
    even: float
    random: float

    @property
    def near(self) -> bool:
        """Whether it is within a fifth of training each week, at a fifth of the trainings."""
        return self.every <= NEAR and self.share <= SHARE

    @property
    def better(self) -> bool:
        """Whether it is better than as many at other moments."""
        return self.even < 1 and self.random < 1

    @property
    def worse(self) -> bool:
        """Whether it is clearly worse than as many at other moments."""
        return max(self.even, self.random) > WORSE


def losses(data: Real) -> Losses:
    """Fit a stream's models and measure each in each later week."""
    stream = fitted(load(data, shuffled=False), int(data.replayed.timestamp() * 1e6))
    model, weeks = stream.model, stream.weeks
    ends = [*(week.end for week in weeks), len(stream.times)]
    mean = np.full((len(weeks), len(weeks)), np.nan)
    holdout = np.empty(len(weeks))
    for i, week in enumerate(weeks):
        held = resampled.losses(
            model.gate_metric, stream.labels[week.held : week.end], week.judged, model.cut
        )
        holdout[i] = held.mean()
        for j in range(i, len(weeks)):
            begin, end = ends[j], ends[j + 1]
            if end > begin:
                p = week.served[begin - week.end : end - week.end]
                mean[i, j] = resampled.losses(
                    model.gate_metric, stream.labels[begin:end], p, model.cut
                ).mean()
    window = model.monitoring.window
    return Losses(
        data.name, mean, np.diff(ends), holdout, model.gate_metric == "rmse",
        0 if model.label.delay <= (1 - COMPLETE) * window else 1, -(-COOLDOWN // window),
    )  # fmt: skip


def found(stream: Losses, rule: Rule) -> Found:
    """What a rule comes to on a stream."""
    trained = stream.moments(rule)
    count, weeks = len(trained), len(stream.rows)
    error, every = stream.error(trained), stream.error(set(range(weeks)))
    if not count:
        return Found(0.0, error / every, 1.0, 1.0)
    even = stream.error({int(i) for i in np.linspace(0, weeks, count + 2)[1:-1]})
    drawn = (
        np.random.default_rng(seed).choice(np.arange(1, weeks), count, replace=False) for seed in range(SEEDS)
    )
    random = float(np.mean([stream.error(set(map(int, weeks_))) for weeks_ in drawn]))
    return Found(count / (weeks - 1), error / every, error / even, error / random)


def measure(names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """The shipped rule on each stream, and the best of the grid on either half."""
    rows, streams = [], []
    for name in names:
        try:
            streams.append(losses(DATA[name]))
            rows.append(_row(streams[-1]))
        except TerminalError as error:
            rows.append(Row(f"{name}: when to train", "not measured", "", None, "all", False, str(error)))
        print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    halves = {
        "chosen on": [s for s in streams if s.name in CHOSEN],
        "shown on": [s for s in streams if s.name not in CHOSEN],
    }
    if all(halves.values()):
        for rule in GRID:
            print(
                f"{rule}: " + "; ".join(f"{h} {_told(part, rule)}" for h, part in halves.items()),
                file=sys.stderr,
            )
        rows += [row for half, part in halves.items() for row in _together(half, part)]
    return rows


def _row(stream: Losses) -> Row:
    got = found(stream, SHIPPED)
    alone = found(stream, Rule(SHIPPED.age, None))
    half = "" if stream.name in CHOSEN else "not chosen on it; "
    return Row(
        f"{stream.name}: {SHIPPED}: error against a training each window; share of its trainings",
        f"{got.every:.2f}; {got.share:.2f}", "never " + f"{stream.error(()) / stream.error(set(range(len(stream.rows)))):.2f}",
        got.every, "≤ 1.2; ≤ 1/5", got.near,
        f"{half}against as many evenly spread {got.even:.2f}, at random moments {got.random:.2f}; age alone {alone.every:.2f}; {alone.share:.2f}",
    )  # fmt: skip


def _told(streams: Sequence[Losses], rule: Rule) -> str:
    each = [found(s, rule) for s in streams]
    return (
        f"near {sum(f.near for f in each)}, better {sum(f.better for f in each)}, worse {sum(f.worse for f in each)} of {len(each)}, "
        f"{np.mean([f.every for f in each]):.3f} at {np.mean([f.share for f in each]):.3f}"
    )


def _together(half: str, streams: Sequence[Losses]) -> list[Row]:
    each = [found(s, SHIPPED) for s in streams]
    count = len(each)
    near, better, worse = (sum(getattr(f, what) for f in each) for what in ("near", "better", "worse"))
    what = f"streams that the rule was {half}"
    return [
        Row(f"{what}: within 20 % of every window at a fifth of its trainings", f"{near} of {count}", "", None, "≥ 4 of 5", near >= MOST * count),
        Row(f"{what}: better than evenly spread and than random moments", f"{better} of {count}", "", None, "≥ 4 of 5", better >= MOST * count),
        Row(f"{what}: worse than either by more than 2 %", f"{worse} of {count}", "", None, "0", worse == 0),
    ]  # fmt: skip


if __name__ == "__main__":
    started = time.monotonic()
    result = measure(sys.argv[1:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
