"""Whether the loop still comes to the same answers: metrics, decisions, verdicts and predictions of a whole story.

The simulated story and 100,000 of the benchmarks' rows go through the loop's own steps; what they came to is compared
with `answers.json`. Numbers may differ in the ninth digit. The first record was of 88694cf, before the loop was made
faster; at ed6871a, after it, all 129 answers were the same. Gate, limits and policy have decided otherwise since, so they
were recorded anew at 6b89fd3; at 222dc42, after the next speed-up, all 129 were the same. At b123c2d 3 differed, all of them
windows under m of n, which the ledger now tells of. At befc1e8 76 differed and they were recorded anew: the gate promotes unless the challenger
is worse, limits of the error are wider where they were learnt on few rows, and windows have more metrics (accuracy, MAPE, WAPE). A change
that is meant to decide otherwise records them anew.

    python -m benchmarks.answers            compare
    python -m benchmarks.answers --record   write answers.json anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.place import Place, place
from evergreen import ledger, settings
from evergreen.feeds import catalogue
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.promotion.settlement import settle
from evergreen.scoring.score import score
from evergreen.spec import Specs, load_specs
from evergreen.training.train import train
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features import snapshot

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDED = Path(__file__).with_name("answers.json")
SAME = 1e-9


def main() -> int:
    """Compare with what was recorded, or record; 0 if all answers are the same."""
    with place() as here:
        found = json.loads(json.dumps([*_story(here), *_rows(here)]))
    if "--record" in sys.argv:
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{len(found)} answers are recorded in {RECORDED.name}")
        return 0
    wanted = json.loads(RECORDED.read_text())
    different = [(w, f) for w, f in zip(wanted, found, strict=False) if not _same(w, f)]
    for was, now in different:
        print(f"was {json.dumps(was)}\nis  {json.dumps(now)}")
    same = len(wanted) == len(found) and not different
    print(f"{len(found)} answers, {len(wanted)} were recorded, {len(different)} differ")
    return 0 if same else 1


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(_same(was[k], now[k]) for k in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(_same, was, now))
    if isinstance(was, float) and isinstance(now, (float, int)):
        return abs(was - now) <= SAME * max(1.0, abs(was))
    return bool(was == now)


def _story(here: Place) -> Iterator[dict[str, Any]]:
    specs = load_specs(REPOSITORY / "include")
    story = catalogue.get("simulated")
    history = [d for d in story.deliveries if d.kind == "history"]
    for delivery in story.deliveries:
        delivery.write(here.landing / "bike_hourly")
        for outcome in ingest(specs.datasets["bike_hourly"], delivery.as_of, delivery.name):
            yield {
                "file": outcome.file,
                "state": outcome.state,
                "rows": [outcome.rows_new, outcome.rows_changed, outcome.rows_held],
            }
        if delivery is history[-1]:
            for model in specs.models:
                yield _train(specs, model, delivery.as_of, f"first {delivery.name}")
        elif delivery.kind != "history":
            for model in specs.models:
                yield from _watch(specs, model, delivery.as_of, delivery.name)
                with connect() as conn:
                    asked = bool(ledger.open_requests(conn, model))
                if asked:
                    yield _train(specs, model, delivery.as_of, f"asked {delivery.name}")
                    yield from _watch(specs, model, delivery.as_of, f"again {delivery.name}")
    yield from _predictions()


def _rows(here: Place) -> Iterator[dict[str, Any]]:
    data.write_specs(here.specs, defaults=True)
    specs = load_specs(here.specs)
    folder = here.landing / data.DATASET
    folder.mkdir(parents=True)
    data.write_csv(folder / "rows.csv", 100_000)
    ingest(specs.datasets[data.DATASET], data.END, "rows")
    yield _train(specs, data.MODEL, data.NEWEST, "older")
    yield from _watch(specs, data.MODEL, data.END, "newest")
    yield _train(specs, data.MODEL, data.END, "all")
    yield from _predictions()


def _train(specs: Specs, model: str, as_of: datetime, run_id: str) -> dict[str, Any]:
    spec = specs.models[model]
    taken = snapshot.take(specs, spec, as_of, settings.SNAPSHOTS.path())
    with connect() as conn:
        requests = tuple(r.id for r in ledger.open_requests(conn, model) if r.id is not None)
    outcome = train(specs, spec, taken, as_of, run_id, trigger="schedule", requests=requests)
    decision = settle(specs, spec, outcome.to_dict(), run_id)
    return {
        "train": f"{model} {as_of.isoformat()}",
        "rows": outcome.rows,
        "rounds": outcome.rounds,
        "metrics": outcome.metrics,
        "decision": [decision.kind.value, decision.reason, decision.version],
    }


def _watch(specs: Specs, model: str, as_of: datetime, run_id: str) -> Iterator[dict[str, Any]]:
    spec = specs.models[model]
    scored = score(specs, spec, as_of, run_id)
    yield {"score": f"{model} {as_of.isoformat()}", "rows": scored.rows, "version": scored.version}
    for found in judge_windows(specs, spec, as_of):
        yield {
            "window": f"{model} {found.window_start.isoformat()} r{found.revision}",
            "status": found.status.value,
            "rows": [found.rows, found.sampled_rows, found.labelled],
            "violations": sorted([v.kind.value, v.column] for v in found.violations),
            "metrics": {name: m.value for name, m in sorted(found.metrics.items())},
        }
    decision = apply(spec, as_of, run_id)
    yield {"policy": [decision.kind.value, decision.reason] if decision else None}


def _predictions() -> Iterator[dict[str, Any]]:
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT model, version, count(*) AS rows, sum(prediction) AS sum, sum(prediction ^ 2) AS squares"
            " FROM evergreen.prediction GROUP BY 1, 2 ORDER BY 1, 2",
        )
    yield from ({"predictions": list(row.values())} for row in rows)


if __name__ == "__main__":
    sys.exit(main())
