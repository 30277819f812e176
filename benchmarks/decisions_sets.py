"""What the watch sees on real data that no limit was chosen on: eleven streams of six sets, and each shuffled.

    python -m benchmarks.decisions_sets [STREAM ...]

Champions are trained as of CHAMPIONS moments by the real training, each on what was known then, and serve what follows; nothing
is retrained. Windows are judged by `judge.measured` with all of their labels.

- *shuffled*: features and label are dealt to other times together, so that nothing changes: each window in violation, by a
  column or by the error, is a false alarm. The windows are those that follow each champion to the end of the data. Features that
  are made of the event time and rise with it are left out.
- *found*: a change of the labels is put into the windows that follow a champion, and must be found by the error within three
  windows. *Label noise*: numbers get normal noise, so that the rmse doubles; 30 % of classes are flipped. *More label noise*:
  three times the rmse, half of the classes; it is told and not counted. *Concept swap*: what was
  high is low: a window's labels are dealt anew in the opposite order; classes are exchanged. *Gradual*: the same for one row in
  eight of the first window, two in the second, until all; it must be found by the third window after that. A change that leaves
  the champion's error below BAD times what it was hurts little: it is told, and not asked for.
- *worse than the baseline, and ok*: windows as they are, in which a paired bootstrap of its own (quarters of days drawn with
  replacement) puts the served error above the naive baseline's with 97.5 % and whose status is ok.
- *labels that are not judged*: windows as they are, of at least 30 labels, whose error is `not_yet`.
- *limits beyond the baseline*: champions whose limit for windows of the usual size is worse than the naive baseline on the
  holdout, and of which the training says nothing.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb

from benchmarks.decisions_kept import DATA
from benchmarks.real import Real, landed
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.metrics import metric_values, resampled
from evergreen.monitoring.windows import judge, performance
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status
from evergreen.reference import calendar, error_limit
from evergreen.reference.calendar import Window
from evergreen.reference.reference import Reference
from evergreen.registry.encoding import Encoding, encode
from evergreen.registry.models import predict
from evergreen.replay.known import KnownRows, known
from evergreen.spec import LARGER_IS_BETTER, ModelSpec, Specs
from evergreen.training.fitting import machine
from evergreen.training.gate.candidates import JudgedTraining
from evergreen.training.gate.evaluate import evaluate
from evergreen.training.record.version import finalise, reference_of
from evergreen.warehouse.features import snapshot

CHAMPIONS, WITHIN, RAMP = 6, 3, 8
BAD = 1.5
# It is told and not counted: what the watch sees where it does not see the other.
MORE_NOISE = "more label noise"
# Features that move with the event time itself, whatever the rows are.
RISING = ("day_of_year",)
Change = Callable[[pd.DataFrame, int], pd.DataFrame]


@dataclass(frozen=True)
class Champion:
    """A version that was trained as of a moment, and what it is watched against."""

    model: ModelSpec
    as_of: datetime
    booster: xgb.Booster
    encoding: Encoding
    reference: Reference

    def predict(self, rows: pa.Table) -> np.ndarray:
        """Its predictions for feature rows."""
        return predict(self.booster, encode(self.encoding, rows).matrix)


@dataclass
class Counts:
    """What was seen on one stream, as it is or shuffled."""

    checks: int = 0
    alarms: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    worse_and_ok: int = 0
    not_judged: int = 0
    beyond: int = 0
    beyond_untold: int = 0
    champions: int = 0


def trained(specs: Specs, model: ModelSpec, as_of: datetime, place: Path) -> Champion:
    """Train a first champion as of a moment, whatever the gate says of it.

    Raises:
        TerminalError: too few rows, or rows that cannot be used.
    """
    taken = snapshot.take(specs, model, as_of, place)
    with tempfile.TemporaryDirectory(dir=place) as work:
        judged = evaluate(
            model,
            taken,
            JudgedTraining("benchmark", as_of, taken.fingerprint),
            None,
            machine.choose(model),
            Path(work),
        )
        final = finalise(model, judged)
        return Champion(
            model, as_of, final.booster, final.encoding, reference_of(model, taken, judged, final)
        )


def served(
    champion: Champion, there: KnownRows, end: datetime
) -> Iterator[tuple[pd.DataFrame, WindowFacts, Window]]:
    """The whole windows after a champion's training that have enough rows, with what it would have served, in order of time."""
    model = champion.model
    length = model.monitoring.window
    for window in calendar.complete(length, champion.as_of + length, end):
        rows = there.rows(window)
        if rows.num_rows < model.monitoring.min_rows:
            continue
        version = pd.DataFrame(
            {"prediction": champion.predict(rows), "version": "1"}, index=rows["_key"].to_pandas()
        )
        frame = there.frame(rows, version, rows.num_rows)
        labels = int(frame["_label"].notna().sum())
        yield frame, WindowFacts(len(frame), labels, len(frame), True), window


def judged(champion: Champion, frame: pd.DataFrame, facts: WindowFacts, window: Window) -> Judgement:
    """What the watch says of a window."""
    blank = Judgement(
        champion.model.name, "1", window.start, window.end, 1, window.end, Status.OK, facts.rows, 0, facts.labelled,
        scored=facts.scored,
    )  # fmt: skip
    found, columns, worse = judge.measured(champion.model, champion.reference, blank, facts, frame)
    return judge.concluded(found, columns, worse, frame)


def changes(champion: Champion, seed: int) -> dict[str, Change]:
    """What is put into the labels of a window, by name; a change takes the window's number, 0 for the first."""
    rng = np.random.default_rng(seed)
    binary = champion.model.task == "binary"

    def noise(frame: pd.DataFrame, number: int, times: float = 2.0, flipped: float = 0.3) -> pd.DataFrame:
        y = frame["_label"].to_numpy()
        if binary:
            return frame.assign(_label=np.where(rng.random(len(y)) < flipped, 1 - y, y))
        error = math.sqrt(np.nanmean((y - frame["_prediction"].to_numpy()) ** 2))
        return frame.assign(_label=y + rng.normal(0, math.sqrt(times**2 - 1) * error, len(y)))

    def more_noise(frame: pd.DataFrame, number: int) -> pd.DataFrame:
        return noise(frame, number, 3.0, 0.5)

    def turned(frame: pd.DataFrame) -> np.ndarray:
        y: np.ndarray = frame["_label"].to_numpy()
        if binary:
            return np.asarray(1 - y)
        known = np.isfinite(y)
        order = np.argsort(np.argsort(y[known], kind="stable"))
        found = y.copy()
        found[known] = np.sort(y[known])[::-1][order]
        return found

    def swap(frame: pd.DataFrame, number: int) -> pd.DataFrame:
        return frame.assign(_label=turned(frame))

    def gradual(frame: pd.DataFrame, number: int) -> pd.DataFrame:
        hit = rng.random(len(frame)) < (number + 1) / RAMP
        return frame.assign(_label=np.where(hit, turned(frame), frame["_label"]))

    return {"label noise": noise, MORE_NOISE: more_noise, "concept swap": swap, "gradual swap": gradual}


def surely_worse(model: ModelSpec, frame: pd.DataFrame, mean: float, seed: int = 0) -> bool:
    """Whether the served error is above the baseline's in 97.5 % of resamples of the window's quarters of days."""
    rows = frame.dropna(subset=["_label", "_prediction"])
    metric, y = model.performance_metric, rows["_label"].to_numpy()
    p, said = rows["_prediction"].to_numpy(), rows["_baseline"].fillna(mean).to_numpy()
    quarters = rows["_time"].dt.floor("6h").to_numpy()
    moments = np.unique(quarters, return_inverse=True)[1]
    side = -1 if metric in LARGER_IS_BETTER else 1
    rng, more = np.random.default_rng(seed), 0
    order = np.argsort(moments, kind="stable")
    edges = np.searchsorted(moments[order], np.arange(moments.max() + 2))
    tries = 200
    for _ in range(tries):
        drawn = rng.integers(0, moments.max() + 1, moments.max() + 1)
        at = np.concatenate([order[edges[m] : edges[m + 1]] for m in drawn])
        mine, theirs = (
            metric_values.compute(model.task, y[at], q[at], model.cut).get(metric) for q in (p, said)
        )
        more += mine is not None and theirs is not None and side * (mine - theirs) > 0
    return more >= 0.975 * tries


def shuffled_table(data: Real) -> pd.DataFrame:
    """The rows with everything but key and event time dealt to other rows, together."""
    table = data.table()
    order = np.random.default_rng(0).permutation(len(table))
    moved = [n for n in table.columns if n not in ("id", "ts")]
    return table.assign(**{n: table[n].iloc[order].array for n in moved})


def look(data: Real, *, shuffled: bool) -> Counts:
    """Train champions on a stream, and count what the watch sees of the windows that follow."""
    counts = Counts()
    given = replace(data, table=lambda: shuffled_table(data)) if shuffled else data
    with landed(given) as specs, tempfile.TemporaryDirectory(prefix="evergreen-sets-") as name:
        model, place = specs.models[data.model], Path(name)
        if shuffled:
            numeric, categorical = model.features.numeric, model.features.categorical
            model = model.seeing((n for n in numeric if n not in RISING), categorical)
        length = model.monitoring.window
        last = data.end - (RAMP + WITHIN + 2) * length
        moments = [
            calendar.window_of(data.replayed + (last - data.replayed) * n / (CHAMPIONS - 1), length).start
            for n in range(CHAMPIONS)
        ]
        everything = data.end + model.label.delay + timedelta(days=2)
        with known(specs, model, everything) as there:
            for number, as_of in enumerate(dict.fromkeys(moments)):
                try:
                    champion = trained(specs, model, as_of, place)
                except TerminalError as error:
                    print(f"{data.name}, as of {as_of:%Y-%m-%d}: {error}", file=sys.stderr, flush=True)
                    continue
                counts.champions += 1
                _beyond(counts, champion)
                follow = list(served(champion, there, data.end))
                if shuffled:
                    _false_alarms(counts, champion, follow)
                else:
                    _as_it_is(counts, champion, follow[: RAMP + WITHIN])
                    _injected(counts, champion, follow, number)
    return counts


def _beyond(counts: Counts, champion: Champion) -> None:
    model, reference = champion.model, champion.reference
    metric = model.performance_metric
    rows = max(min(int(reference.usual_rows), model.monitoring.sample_rows), 1)
    limit, naive = error_limit.limit_at(model, reference, rows), reference.baseline_metrics[metric]
    side = -1 if metric in LARGER_IS_BETTER else 1
    if side * (limit - naive) > 0:
        counts.beyond += 1
        counts.beyond_untold += "naive baseline" not in error_limit.about_usual_windows(model, reference)


def _false_alarms(
    counts: Counts, champion: Champion, follow: Sequence[tuple[pd.DataFrame, WindowFacts, Window]]
) -> None:
    for frame, facts, window in follow:
        found = judged(champion, frame, facts, window)
        counts.checks += 1
        if found.status is Status.VIOLATION:
            counts.alarms["checks"] += 1
            for violation in found.violations:
                counts.alarms[f"{violation.kind.value} {violation.column}"] += 1


def _as_it_is(
    counts: Counts, champion: Champion, follow: Sequence[tuple[pd.DataFrame, WindowFacts, Window]]
) -> None:
    metric = champion.model.performance_metric
    mean = float(np.nanmean(champion.reference.sample["_label"].to_pandas()))
    for frame, facts, window in follow:
        found = judged(champion, frame, facts, window)
        counts.checks += 1
        counts.alarms["checks"] += found.status is Status.VIOLATION
        counts.not_judged += facts.labelled >= 30 and found.metrics[metric].state == "not_yet"
        if found.status is Status.OK and facts.labelled >= 30:
            counts.worse_and_ok += surely_worse(champion.model, frame, mean)


def _injected(
    counts: Counts,
    champion: Champion,
    follow: Sequence[tuple[pd.DataFrame, WindowFacts, Window]],
    seed: int,
) -> None:
    for name, change in changes(champion, seed).items():
        last = RAMP + WITHIN if name.startswith("gradual") else WITHIN
        if len(follow) < last:
            continue
        changed = [
            (change(frame, number), facts, window)
            for number, (frame, facts, window) in enumerate(follow[:last])
        ]
        full = slice(last - WITHIN, last)
        if _away(champion, changed[full]) < BAD * _away(champion, follow[full]):
            counts.harmless[name] += 1
            continue
        counts.tried[name] += 1
        counts.found[name] += any(
            performance.judge_error(champion.model, frame, champion.reference, facts)[1]
            for frame, facts, _ in changed
        )


def _away(champion: Champion, follow: Sequence[tuple[pd.DataFrame, WindowFacts, Window]]) -> float:
    """The distance from perfect in some windows together."""
    model = champion.model
    rows = pd.concat([frame for frame, _, _ in follow]).dropna(subset=["_label", "_prediction"])
    y, p = rows["_label"].to_numpy(), rows["_prediction"].to_numpy()
    return resampled.distance(
        model.performance_metric, metric_values.compute(model.task, y, p, model.cut)[model.performance_metric]
    )


def measure(names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """The rows of each stream; a row says where a data set is not to be had."""
    rows: list[Row] = []
    for name in names:
        began = time.monotonic()
        try:
            still, real = look(DATA[name], shuffled=True), look(DATA[name], shuffled=False)
        except TerminalError as error:
            rows.append(
                Row(f"{name}: what the watch sees", "not measured", "", None, "all", False, str(error))
            )
            continue
        rows += _rows(name, still, real, time.monotonic() - began)
        print(markdown(rows[-4:]), file=sys.stderr, flush=True)
    return rows


def _rows(name: str, still: Counts, real: Counts, seconds: float) -> list[Row]:
    false, checks = still.alarms["checks"], max(still.checks, 1)
    by = ", ".join(f"{n} {what}" for what, n in still.alarms.most_common() if what != "checks")
    found, tried = (sum(n for what, n in of.items() if what != MORE_NOISE) for of in (real.found, real.tried))
    each = ", ".join(f"{what} {real.found[what]} of {n}" for what, n in real.tried.items())
    told = real.beyond + still.beyond
    if harmless := sum(real.harmless.values()):
        each += f"; {harmless} more left the error below {BAD} times what it was"
    return [
        Row(f"{name}, shuffled: false alarms", f"{false} of {checks} checks", "", None, "≤ 1 %", false <= 0.01 * checks,
            f"{still.champions} champions; {by or 'none'}"),
        Row(f"{name}: changes of the labels found", f"{found / max(tried, 1):.0%} of {tried}", "", None, "≥ 90 %", found >= 0.9 * tried,
            f"{real.champions} champions; {each}; {seconds:.0f} s"),
        Row(f"{name}: windows surely worse than the baseline and ok; with 30 labels and not judged",
            f"{real.worse_and_ok}; {real.not_judged} of {real.checks}", "", None, "0; 0",
            real.worse_and_ok == 0 and real.not_judged == 0, f"{real.alarms['checks']} in violation"),
        Row(f"{name}: champions whose limit is beyond the baseline, untold", f"{real.beyond_untold + still.beyond_untold}", "", None,
            "0", real.beyond_untold + still.beyond_untold == 0, f"{told} of {real.champions + still.champions} are beyond, and told"),
    ]  # fmt: skip


if __name__ == "__main__":
    started = time.monotonic()
    result = measure(sys.argv[1:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
