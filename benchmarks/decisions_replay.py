"""When to train: the watch against a calendar and against random moments with as many retrains, on eleven real streams.

    python -m benchmarks.decisions_replay [STREAM ...]

Each stream is replayed by its spec as it is, on shipped defaults for all that its data does not ask otherwise, under: never, every
window, on drift, and, with as many trainings as on drift had, evenly spread and at random moments (the mean of SEEDS, because random
alarms are known to raise accuracy on such streams: arXiv 1301.3524). The error is the served one over all rows, with every label.

- on drift against both: better on most streams, worse by more than 2 % on none.
- against every window: within 20 %, at a fifth of its retrains.
- harm: where never retraining is best, no policy serves an error that is more than 2 % above it.
- large gains: of the challengers that answered a drift and were at least 30 % better at their point, those that were turned away.

The first champion is trained where the replay begins; where the gate refuses it (there may be no naive baseline to beat yet), the
replay begins up to BEGINNINGS windows later.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real import STREAMS, Real, landed
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.metrics import resampled
from evergreen.replay import records
from evergreen.replay.policies import Policy
from evergreen.replay.result import PolicyOutcome
from evergreen.replay.run import Replayed, replay
from evergreen.spec import ModelSpec, Specs

SEEDS, BEGINNINGS = 8, 8
WORSE, NEAR, SHARE, LARGE = 1.02, 1.2, 1 / 5, 0.3
# Of eleven streams; four of five.
MOST = 0.8
DATA = {data.name: data for data in STREAMS}


@dataclass(frozen=True)
class Stream:
    """What the policies came to on one stream; `away` are distances from perfect, `large` (turned away, all)."""

    name: str
    metric: str
    away: dict[str, float]
    retrains: dict[str, int]
    random: tuple[float, ...]
    large: tuple[int, int]
    seconds: float

    def over(self, what: str) -> float:
        """The error on drift, as a share of another's."""
        other = float(np.mean(self.random)) if what == "random" else self.away[what]
        return self.away["on_drift"] / other


def measure(names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """A row for each stream and comparison, and one for all streams; the policies' tables go to stderr."""
    rows, streams = [], []
    for name in names:
        try:
            streams.append(_replayed(DATA[name]))
            rows += _rows(streams[-1])
        except TerminalError as error:
            rows.append(Row(f"{name}: replay", "not measured", "", None, "all", False, str(error)))
            continue
        print(markdown(rows[-4:]), file=sys.stderr, flush=True)
    return rows + _together(streams) if len(names) > 1 else rows


def _replayed(data: Real) -> Stream:
    began = time.monotonic()
    with landed(data) as specs, tempfile.TemporaryDirectory(prefix="evergreen-replay-") as name:
        model = specs.models[data.model]
        first = _first(specs, model, data, Path(name))
        outcomes = {o.policy: o for o in first.outcomes}
        large = _large(first)
        count = outcomes["on_drift"].retrains
        random = []
        if count:
            seeds = [f"random:{count}:{seed}" for seed in range(1, SEEDS + 1)]
            second = replay(
                specs, model, first.asked.begin, data.end, [f"even:{count}", *seeds], home=Path(name)
            )
            print(second.table, file=sys.stderr, flush=True)
            outcomes |= {o.policy: o for o in second.outcomes}
            outcomes["even"] = outcomes[f"even:{count}"]
            random = [_away(model, outcomes[seed]) for seed in seeds]
        else:
            outcomes["even"] = outcomes["never"]
            random = [_away(model, outcomes["never"])]
    away = {
        policy: _away(model, outcomes[policy]) for policy in ("never", "every_window", "on_drift", "even")
    }
    retrains = {policy: outcomes[policy].retrains for policy in away}
    return Stream(
        data.name, model.performance_metric, away, retrains, tuple(random), large, time.monotonic() - began
    )


def _first(specs: Specs, model: ModelSpec, data: Real, home: Path) -> Replayed:
    for number in range(BEGINNINGS):
        begin = data.replayed + number * model.monitoring.window
        try:
            # Its fits are of every window, so those at other moments are among them.
            return replay(
                specs,
                model,
                begin,
                data.end,
                ["never", "every_window", "on_drift"],
                home=home,
                keep_fits=True,
            )
        except TerminalError as error:
            said = error
            print(f"{data.name}, from {begin:%Y-%m-%d}: {error}", file=sys.stderr, flush=True)
    raise said


def _away(model: ModelSpec, outcome: PolicyOutcome) -> float:
    return resampled.distance(model.performance_metric, float(outcome.error or np.nan))


def _large(replayed: Replayed) -> tuple[int, int]:
    """Of the challengers on drift that were much better at their point: how many were turned away, and how many there were."""
    policy, model = next(found for found in replayed.asked.policies if found[0].folder.startswith("on_drift"))
    found = [d for d in _decisions(replayed, policy, model) if _point(model, d) >= LARGE]
    return sum(d.kind is DecisionKind.REJECTED for d in found), len(found)


def _decisions(replayed: Replayed, policy: Policy, model: ModelSpec) -> Iterator[Decision]:
    for content, _ in replayed.asked.policy_folder(policy, model).read():
        for told in content["decisions"]:
            decision = records.decision_from(told)
            if decision.kind in (DecisionKind.PROMOTED, DecisionKind.REJECTED) and decision.answers:
                yield decision


def _point(model: ModelSpec, decision: Decision) -> float:
    """By what share the champion's distance from perfect was smaller with the challenger on the judged rows; 0 without one."""
    metrics = SettledEvidence.of(decision).metrics
    told = (metrics.get(who, {}).get(model.performance_metric) for who in ("champion", "challenger"))
    values = [np.nan if value is None else value for value in told]
    if not np.isfinite(values).all():
        return 0.0
    champion, challenger = (resampled.distance(model.performance_metric, value) for value in values)
    return 1.0 - challenger / champion if champion else 0.0


def _rows(found: Stream) -> list[Row]:
    k, every = found.retrains["on_drift"], found.retrains["every_window"]
    spread = f"{np.mean(found.random):.4g} ± {np.std(found.random):.2g} ({len(found.random)} seeds)"
    mine, never = found.away["on_drift"], found.away["never"]
    least = min(found.away.values())
    harm = max(found.away.values()) / never
    told = f"never {never:.4g}, every window {found.away['every_window']:.4g} with {every}; {found.seconds:.0f} s"
    what = f"{found.name}: served {found.metric} on drift"
    return [
        _row(f"{what}, against as many evenly spread", mine, f"{found.away['even']:.4g}", found.over("even"), WORSE, f"{k} retrains; {told}"),
        _row(f"{what}, against as many random moments", mine, spread, found.over("random"), WORSE),
        Row(
            f"{what}, against every window's; share of its retrains", f"{mine:.4g}; {k}", f"{found.away['every_window']:.4g}; {every}",
            found.over("every_window"), "≤ 1.2; ≤ 1/5", found.over("every_window") <= NEAR and k <= SHARE * every,
        ),
        Row(
            f"{found.name}: harm where never is best; challengers on drift that were 30 % better, turned away",
            f"{harm:.3g}" if never <= least else "never is not best", "", None, "≤ 1.02; 0",
            (never > least or harm <= WORSE) and not found.large[0], f"{found.large[0]} of {found.large[1]} turned away",
        ),
    ]  # fmt: skip


def _row(what: str, mine: float, other: str, ratio: float, limit: float, told: str = "") -> Row:
    return Row(what, f"{mine:.4g}", other, ratio, f"≤ {limit}", ratio <= limit, told)


def _together(streams: Sequence[Stream]) -> list[Row]:
    """Over all streams: on how many on drift was better than both, and near to every window."""
    asked = [s for s in streams if s.retrains["on_drift"]]
    better = [s.name for s in asked if s.over("even") < 1 and s.over("random") < 1]
    near = [
        s.name
        for s in streams
        if s.over("every_window") <= NEAR and s.retrains["on_drift"] <= SHARE * s.retrains["every_window"]
    ]
    return [
        Row(
            "streams on which on drift is better than evenly spread and than random moments",
            f"{len(better)} of {len(asked)}", "", None, "≥ 4 of 5", len(better) >= MOST * len(asked), ", ".join(better),
        ),
        Row(
            "streams on which on drift is within 20 % of every window at a fifth of its retrains",
            f"{len(near)} of {len(streams)}", "", None, "≥ 4 of 5", len(near) >= MOST * len(streams), ", ".join(near),
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    started = time.monotonic()
    result = measure(sys.argv[1:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
