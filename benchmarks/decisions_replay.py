"""The trigger policy against a fixed schedule and random moments with as many retrains, on real data.

    python -m benchmarks.decisions_replay [SEEDS [bike|electricity ...]]

A model with windows of three days is replayed: the project's bike_demand from May 2011 to the end of 2012 (201 windows), and
price_up of `benchmarks/specs` from September 1996 to December 1998 (273), under: never, every window, on drift as its spec says,
and on drift as EAGER says. Each of the last two is compared with as many trainings evenly spread and as many at random moments
(the mean of several seeds, because random alarms are known to raise accuracy on such streams: arXiv 1301.3524). The error is
the served one (rmse; log loss) over all rows, with every label. So that nothing but the moments differs, all policies ask the
gate for the same: what it asks of an answer to a drift.

EAGER is the default limit of the error with a trigger that needs one window only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmarks.real import BIKES, ELECTRICITY, Real, changed, landed
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.replay.result import Outcome
from evergreen.replay.run import Replayed, replay
from evergreen.spec import ModelSpec

SEEDS = 4
LIMIT, SHARE = 0.97, 1 / 3
DATA = {data.name: data for data in (BIKES, ELECTRICITY)}
EAGER = {"performance": {"max_worse": 0.3}, "trigger": {"m": 1, "n": 2, "cooldown": "7d"}}


def spec(model: ModelSpec) -> ModelSpec:
    """The benchmark's model: one gate for all policies, shorter windows."""
    return changed(
        model,
        monitoring={"window": "3d", "min_rows": 40},
        gate={"otherwise": model.gate.on_drift},
    )


def measure(seeds: int = SEEDS, names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """Replay and compare; the tables of all policies go to stderr, and a row says where a data set is not to be had."""
    rows: list[Row] = []
    for name in names:
        try:
            rows += _rows(DATA[name], seeds)
        except TerminalError as error:
            rows.append(Row(f"{name}: replay", "not measured", "", None, f"≤ {LIMIT}", False, str(error)))
    return rows


def _rows(data: Real, seeds: int) -> list[Row]:
    with landed(data) as specs, tempfile.TemporaryDirectory(prefix="evergreen-replay-") as name:
        model = spec(specs.models[data.model])
        content = model.model_dump(mode="json", exclude={"query"})
        for section, values in EAGER.items():
            content["monitoring"][section] |= values
        eager_file = Path(name) / "eager.yaml"
        eager_file.write_text(yaml.safe_dump(content))

        def replayed(policies: list[str]) -> Replayed:
            return replay(specs, model, data.replayed, data.end, policies, home=Path(name))

        first = replayed(["never", "every_window", "on_drift", str(eager_file)])
        never, every, own, eager = first.outcomes
        counts = sorted({own.retrains, eager.retrains})
        others = [f"even:{n}" for n in counts]
        others += [f"random:{n}:{seed}" for n in counts for seed in range(1, seeds + 1)]
        second = replayed(others)
    print(f"{first.table}\n\n{second.table}", file=sys.stderr, flush=True)
    by_name = {o.policy: o for o in second.outcomes}
    metric = model.performance_metric
    rows = []
    for who, drift in (("EAGER", eager), ("its spec", own)):
        count = drift.retrains
        what = f"on drift as {who} says"
        even = float(by_name[f"even:{count}"].error or np.nan)
        random = [float(by_name[f"random:{count}:{s}"].error or np.nan) for s in range(1, seeds + 1)]
        told = f"{np.mean(random):.4g} ± {np.std(random):.2g} ({seeds} seeds)"
        rows += [
            _row(f"{data.name}: served {metric} {what}, against a schedule of as many retrains", drift, even, f"{even:.4g}"),
            _row(f"{data.name}: {what}, against random moments", drift, float(np.mean(random)), told),
            Row(
                f"{data.name}: retrains {what}, against every window", str(count), str(every.retrains),
                count / every.retrains, "≤ 1/3", count <= SHARE * every.retrains,
                f"{metric}: never {never.error:.4g}, every window {every.error:.4g}",
            ),
        ]  # fmt: skip
    return rows


def _row(what: str, drift: Outcome, baseline: float, told: str) -> Row:
    ratio = float(drift.error or np.inf) / baseline
    return Row(what, f"{drift.error:.4g}", told, ratio, f"≤ {LIMIT}", ratio <= LIMIT)


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(int(sys.argv[1]) if sys.argv[1:] else SEEDS, sys.argv[2:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
