"""The trigger policy against a fixed schedule and random moments with as many retrains, on the real bike data.

    python -m benchmarks.decisions_replay [SEEDS]

The project's bike_demand, with windows of three days (201 of them), is replayed from May 2011 to the end of 2012 under:
never, every window, on drift as its spec says, and on drift as EAGER says. Each of the two is compared with as many trainings
evenly spread and as many at random moments (the mean of several seeds, because random alarms are known to raise accuracy on
such streams: arXiv 1301.3524). The error is the served rmse over all rows, with every label. So that nothing but the moments
differs, all policies ask the gate for the same: what it asks of an answer to a drift.

EAGER is the default limit of the error with a trigger that needs one window only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import yaml

from benchmarks.bikes import END, changed, landed
from benchmarks.table import Row, markdown
from evergreen.replay.result import Outcome
from evergreen.replay.run import Replayed, replay
from evergreen.spec import ModelSpec, Specs

FROM = datetime(2011, 5, 9, tzinfo=timezone.utc)
SEEDS = 4
LIMIT, SHARE = 0.97, 1 / 3
EAGER = {"performance": {"max_worse": 0.3}, "trigger": {"m": 1, "n": 2, "cooldown": "7d"}}


def spec(model: ModelSpec) -> ModelSpec:
    """The benchmark's model: the project's own with shorter windows and one gate for all policies."""
    return changed(
        model,
        monitoring={"window": "3d", "min_rows": 40},
        gate={"otherwise": model.gate.on_drift},
    )


def measure(seeds: int = SEEDS) -> list[Row]:
    """Replay and compare; the table of all policies goes to stderr."""
    with landed() as specs, tempfile.TemporaryDirectory(prefix="evergreen-replay-") as name:
        model = spec(specs.models["bike_demand"])
        content = model.model_dump(mode="json", exclude={"query"})
        for section, values in EAGER.items():
            content["monitoring"][section] |= values
        eager_file = Path(name) / "eager.yaml"
        eager_file.write_text(yaml.safe_dump(content))
        first = _replay(specs, model, ["never", "every_window", "on_drift", str(eager_file)], Path(name))
        never, every, own, eager = first.outcomes
        counts = sorted({own.retrains, eager.retrains})
        others = [f"even:{n}" for n in counts]
        others += [f"random:{n}:{seed}" for n in counts for seed in range(1, seeds + 1)]
        second = _replay(specs, model, others, Path(name))
    print(f"{first.table}\n\n{second.table}", file=sys.stderr, flush=True)
    by_name = {o.policy: o for o in second.outcomes}
    rows = []
    for what, drift in (("on drift as EAGER says", eager), ("on drift as the demo's spec says", own)):
        count = drift.retrains
        even = float(by_name[f"even:{count}"].error or np.nan)
        random = [float(by_name[f"random:{count}:{s}"].error or np.nan) for s in range(1, seeds + 1)]
        told = f"{np.mean(random):.2f} ± {np.std(random):.2f} ({seeds} seeds)"
        rows += [
            _row(f"served rmse {what}, against a schedule of as many retrains", drift, even, f"{even:.2f}"),
            _row("the same against random moments", drift, float(np.mean(random)), told),
            Row(
                f"retrains {what}, against every window", str(count), str(every.retrains), count / every.retrains, "≤ 1/3",
                count <= SHARE * every.retrains, f"rmse: never {never.error:.2f}, every window {every.error:.2f}",
            ),
        ]  # fmt: skip
    return rows


def _row(what: str, drift: Outcome, baseline: float, told: str) -> Row:
    ratio = float(drift.error or np.inf) / baseline
    return Row(what, f"{drift.error:.2f}", told, ratio, f"≤ {LIMIT}", ratio <= LIMIT)


def _replay(specs: Specs, model: ModelSpec, names: list[str], home: Path) -> Replayed:
    return replay(specs, model, FROM, END, names, home=home)


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(*(int(a) for a in sys.argv[1:2]))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
