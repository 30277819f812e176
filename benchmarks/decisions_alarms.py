"""What became of every alarm on real data, where nothing was injected: cried for nothing, or answered?

    python -m benchmarks.decisions_alarms [bike|electricity ...]

The project's bike_demand from May 2011 to the end of 2012, and price_up of `benchmarks/specs` from September 1996 to December
1998, are replayed on drift, as their specs say and with windows of 28 days. An alarm is a window that was judged `violation`, however late the labels that showed it, unless the ledger says that
it is among fewer than `trigger.m` of the last `trigger.n`: of those nobody is told. It is answered if a retrain was asked for at that moment and
its challenger was promoted, and held back if the ledger has a row that says why not. What remains was for nothing: a
challenger that was rejected, or no row at all.

Beside it Evidently's `DataDriftPreset`, as it ships, compares the same windows with the first one of the data, which stays
the reference (it calls the data set drifted if half of the columns are).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from benchmarks.decisions_drift import preset
from benchmarks.real import BIKES, ELECTRICITY, Real, changed, landed
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind, Hold
from evergreen.monitoring.windows.judgement import Status
from evergreen.monitoring.windows.measure import frame
from evergreen.reference.calendar import Window, complete
from evergreen.replay import records
from evergreen.replay.known import known
from evergreen.replay.run import Replayed, replay
from evergreen.spec import ModelSpec, Specs, format_duration

DATA = {data.name: data for data in (BIKES, ELECTRICITY)}
LONG = "28d"
NOTHING = "nothing was decided"
FEW = f"held back: {Hold.TOO_FEW_VIOLATIONS.value}"


def measure(names: Sequence[str] = tuple(DATA)) -> list[Row]:
    """Replay each data set with windows of both lengths; a row says where one is not to be had."""
    rows: list[Row] = []
    for data in (DATA[name] for name in names):
        try:
            rows += _rows(data)
        except TerminalError as error:
            rows.append(
                Row(f"alarms of the {data.name} data", "not measured", "", None, "all", False, str(error))
            )
    return rows


def _rows(data: Real) -> list[Row]:
    rows = []
    with landed(data) as specs, tempfile.TemporaryDirectory(prefix="evergreen-replay-") as name:
        own = specs.models[data.model]
        for model in (own, changed(own, monitoring={"window": LONG})):
            replayed = replay(specs, model, data.replayed, data.end, ["on_drift"], home=Path(name))
            rows.append(_row(data, replayed, _flagged(data, specs, model)))
    return rows


def _row(data: Real, replayed: Replayed, flagged: tuple[int, int]) -> Row:
    fates = Counter(fate for _, fate in alarms(replayed))
    alone = fates.pop(FEW, 0)
    found = sum(fates.values())
    vain = {fate: n for fate, n in fates.items() if fate.startswith(("rejected", "nothing"))}
    window = format_duration(replayed.asked.model.monitoring.window)
    return Row(
        f"alarms in {len(replayed.asked.windows)} windows of {window} of the {data.name} data: answered by a retrain that won, or "
        "held back with a reason",
        f"{found - sum(vain.values())} of {found}",
        f"Evidently's default, first window as the reference: {flagged[0]} of {flagged[1]} flagged",
        None,
        "all",
        not vain,
        ("; ".join(f"{fate} {n}" for fate, n in fates.most_common()) or "no alarm, so nothing is shown")
        + f"; besides, {alone} windows in violation alone, which is no alarm",
    )


def alarms(replayed: Replayed) -> list[tuple[datetime, str]]:
    """The start of every window in violation, and what became of it."""
    ((policy, model),) = replayed.asked.policies
    steps = [content for content, _ in replayed.asked.policy_folder(policy, model).read()]
    decisions = [records.decision_from(d) for step in steps for d in step["decisions"]]
    found: dict[datetime, str] = {}
    for step in steps:
        now = {j.window_start: j.status for j in map(records.judgement_from, step["judgements"])}
        then = [d for d in decisions if d.as_of == datetime.fromisoformat(step["as_of"])]
        for start, status in now.items():
            if status is Status.VIOLATION and start not in found:
                found[start] = _fate(then, decisions)
    return sorted(found.items())


def _fate(then: Sequence[Decision], decisions: Sequence[Decision]) -> str:
    for decision in then:
        if decision.kind is DecisionKind.RETRAIN_SUPPRESSED:
            return f"held back: {decision.reason}"
        if decision.kind is DecisionKind.ROLLED_BACK:
            return "rolled back to the champion before"
        if decision.kind is DecisionKind.RETRAIN_REQUESTED:
            for outcome in decisions:
                if decision.id in outcome.answers and outcome.kind in (
                    DecisionKind.PROMOTED,
                    DecisionKind.REJECTED,
                ):
                    return f"{outcome.kind.value}: {outcome.reason}"
            return "nothing came of the request"
    return NOTHING


def _flagged(data: Real, specs: Specs, model: ModelSpec) -> tuple[int, int]:
    """How many windows of the replay Evidently calls drifted from the first window of the data, and of how many."""
    every = [w for w in complete(model.monitoring.window, data.begin, data.end) if w.start >= data.begin]
    reference = _features(data, specs, model, every[0])
    later = [window for window in every if window.start >= data.replayed]
    numeric, categorical = model.features.numeric, model.features.categorical
    shares = [
        preset(reference, _features(data, specs, model, window), numeric, categorical)[1] for window in later
    ]
    return sum(share >= 0.5 for share in shares), len(later)


def _features(data: Real, specs: Specs, model: ModelSpec, window: Window) -> pd.DataFrame:
    with known(specs, model, data.end) as there:
        return frame(there.rows(window))[list(model.features.all)]


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(sys.argv[1:] or tuple(DATA))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
