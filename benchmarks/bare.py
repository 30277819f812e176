"""The loop's steps without Airflow: a warm process that runs the same functions one after another when told to.

It is the baseline for what Airflow itself costs. A step is a JSON line on standard input; the answer is one on
standard output: the seconds that it took, and what it came to.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from typing import Any


class Worker:
    """One such process; `start` sends a step, `answer` waits for its end."""

    def __init__(self) -> None:
        """Start the process and wait until everything is imported."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.answer()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start(self, step: str, name: str, as_of: datetime, run_id: str) -> None:
        """Send a step: ingest (a dataset), train, score or watch (a model)."""
        assert self._process.stdin
        self._process.stdin.write(
            json.dumps({"step": step, "name": name, "as_of": as_of.isoformat(), "run_id": run_id}) + "\n"
        )
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the step.

        Raises:
            RuntimeError: it failed.
        """
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer
        raise RuntimeError("the worker ended")

    def run(self, step: str, name: str, as_of: datetime, run_id: str) -> dict[str, Any]:
        """Send a step and wait for its end."""
        self.start(step, name, as_of, run_id)
        return self.answer()

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def _main() -> None:
    import traceback

    from evergreen import ledger, settings
    from evergreen.monitoring.monitor import monitor
    from evergreen.promotion.settlement import settle
    from evergreen.scoring.score import score
    from evergreen.spec import load_specs
    from evergreen.training.train import train
    from evergreen.validation.ingest import ingest
    from evergreen.warehouse.connection import connect
    from evergreen.warehouse.features import snapshot

    def run(step: str, name: str, as_of: datetime, run_id: str) -> Any:
        specs = load_specs(settings.SPECS.path())
        if step == "ingest":
            return [o.to_dict() for o in ingest(specs.datasets[name], as_of, run_id)]
        model = specs.models[name]
        if step == "train":
            taken = snapshot.take(specs, model, as_of, settings.SNAPSHOTS.path())
            with connect() as conn:
                requests = tuple(r.id for r in ledger.open_requests(conn, name) if r.id is not None)
            outcome = train(specs, model, taken, as_of, run_id, trigger="schedule", requests=requests)
            decision = settle(specs, model, outcome.to_dict(), run_id)
            return {"decision": decision.kind.value, "reason": decision.reason, "metrics": outcome.metrics}
        if step == "score":
            return score(specs, model, as_of, run_id).to_dict()
        watched = monitor(specs, model, as_of, run_id)
        if watched and watched.problems:
            raise RuntimeError("; ".join(watched.problems))
        return [{"status": j.status.value, "rows": j.rows} for j in (watched.judged if watched else ())]

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.monotonic()
        try:
            result = run(
                asked["step"], asked["name"], datetime.fromisoformat(asked["as_of"]), asked["run_id"]
            )
            answer = {"seconds": time.monotonic() - started, "result": result}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    _main()
