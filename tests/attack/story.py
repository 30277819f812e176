"""The loop in small, step by step: what a kill interrupts. Each step is a function of its place alone and may run again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from evergreen.spec import DatasetSpec, ModelSpec, Specs

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
METERS = DatasetSpec.model_validate({
    "name": "meters", "key": ["ts"], "event_time": "ts", "quarantine": "rows", "arrival": {"delay": "1h"},
    "columns": {
        "ts": {"type": "timestamp"}, "x": {"type": "float", "min": -1000, "max": 1000},
        "kind": {"type": "category", "values": ["dry", "wet"]}, "y": {"type": "float", "required": False},
    },
})  # fmt: skip
LOAD = ModelSpec.model_validate({
    "name": "load", "task": "regression", "datasets": ["meters"], "key": ["ts"], "event_time": "ts",
    "label": {"column": "y", "delay": "1h"},
    "features": {"numeric": ["hour", "x"], "categorical": ["kind"]},
    "training": {"holdout": "5d", "min_rows": 200, "min_holdout_rows": 24, "max_rounds": 8, "early_stopping_rounds": 4,
                 "params": {"learning_rate": 0.5, "max_depth": 3}},
    "monitoring": {"window": "7d", "min_rows": 50, "sample_rows": 200, "trigger": {"m": 1, "n": 1}},
    "query": "SELECT ts, extract(hour FROM ts)::int AS hour, x, kind, y FROM meters",
})  # fmt: skip
SPECS = Specs({"meters": METERS}, {"load": LOAD})


@dataclass(frozen=True)
class Place:
    """Where a story takes place: a folder of its own; the warehouse and MLflow are in the environment."""

    folder: Path

    @property
    def landing(self) -> Path:
        """Where files land."""
        return self.folder / "landing"

    @property
    def snapshots(self) -> Path:
        """Where snapshots lie."""
        return self.folder / "snapshots"

    def write(self, name: str, first: int, days: int, *, shift: float = 0.0, bad: int = 0) -> None:
        """Land hourly rows from a day on; from `shift` on nothing is as it was; `bad` rows break a rule."""
        rng = np.random.default_rng(first)
        self.landing.mkdir(exist_ok=True)
        with (self.landing / name).open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["ts", "x", "kind", "y"])
            for n in range(days * 24):
                ts, x = BEGIN + first * DAY + timedelta(hours=n), float(rng.normal()) + shift
                y = 50 + 20 * np.sin(ts.hour / 24 * 2 * np.pi) + (3 + shift) * x + float(rng.normal())
                x = 5000.0 if n < bad else x
                rows.writerow([ts.isoformat(), f"{x:.4f}", ("dry", "wet")[n % 2], f"{y:.4f}"])

    def keep(self, name: str, content: object) -> None:
        """Hand something on to a later step, as XCom does; it appears whole or not at all."""
        path = self.folder / f"{name}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, default=str))
        new.replace(path)

    def kept(self, name: str) -> dict:  # type: ignore[type-arg]
        """What an earlier step handed on."""
        return dict(json.loads((self.folder / f"{name}.json").read_text()))


def _ingest(place: Place, as_of: datetime, run: str) -> None:
    from evergreen.validation.ingest import ingest

    ingest(METERS, as_of, run, folder=place.landing)


def _snapshot(place: Place, as_of: datetime, name: str) -> None:
    from dataclasses import asdict

    from evergreen.warehouse.features import snapshot

    place.keep(name, asdict(snapshot.take(SPECS, LOAD, as_of, place.snapshots)))


def _train(place: Place, as_of: datetime, run: str, snapshot: str, trigger: str = "manual") -> None:
    from evergreen import ledger
    from evergreen.training.train import train
    from evergreen.warehouse.connection import connect
    from evergreen.warehouse.features.snapshot import Snapshot

    with connect() as conn:
        requests = tuple(d.id for d in ledger.unclaimed_requests(conn, "load") if d.id)
    outcome = train(
        SPECS, LOAD, Snapshot(**place.kept(snapshot)), as_of, run, trigger=trigger, requests=requests
    )
    place.keep(run, outcome.to_dict())


def _settle(place: Place, run: str) -> None:
    from evergreen.promotion.settlement import settle

    settle(SPECS, LOAD, place.kept(run), run)


def _score(as_of: datetime, run: str) -> None:
    from evergreen.scoring.score import score

    score(SPECS, LOAD, as_of, run)


def _monitor(as_of: datetime, run: str) -> None:
    from evergreen.monitoring.monitor import monitor

    monitor(SPECS, LOAD, as_of, run)


def _roll_back(as_of: datetime, run: str) -> None:
    from evergreen.promotion.rollback import rollback

    rollback(SPECS, LOAD, as_of, run, reason="complaints")


def _deliver(place: Place) -> None:
    from evergreen.alerting.delivery import deliver

    sent = place.folder / "sent"
    sent.mkdir(exist_ok=True)

    def send(message) -> None:  # type: ignore[no-untyped-def]
        # One file a Message-ID: a mail that is sent again with the same one replaces itself, as a mail program does.
        name = message["Message-ID"].strip("<>").replace("/", "_")
        (sent / name).write_text(str(message["Subject"]))

    deliver(SPECS, send)


def _digest(as_of: datetime) -> None:
    from evergreen.alerting.weekly import owe_digests

    owe_digests(SPECS, as_of)


def _land_first(place: Place) -> None:
    place.write("a.csv", 0, 42)
    place.write("b.csv", 42, 3, bad=2)


def _land_second(place: Place) -> None:
    place.write("c.csv", 45, 27, shift=4.0)
    (place.landing / "d.csv").write_text("ts,x,kind,y\n2024-03-01T00:00:00,x,dry\n")


# A name, what lands before the step (nobody kills that), and the step.
Step = tuple[str, Callable[[Place], None] | None, Callable[[Place], None]]


def steps() -> list[Step]:
    """The story, in order."""
    at = {n: BEGIN + n * DAY for n in range(120)}
    return [
        ("ingest", _land_first, lambda p: _ingest(p, at[45], "ingest__meters/1")),
        ("snapshot", None, lambda p: _snapshot(p, at[42], "snapshot-1")),
        ("train", None, lambda p: _train(p, at[42], "train__load-1", "snapshot-1")),
        ("settle", None, lambda p: _settle(p, "train__load-1")),
        ("score", None, lambda p: _score(at[45], "score__load/1")),
        ("ingest with a bad file", _land_second, lambda p: _ingest(p, at[72], "ingest__meters/2")),
        ("score again", None, lambda p: _score(at[72], "score__load/2")),
        ("monitor", None, lambda p: _monitor(at[72], "monitor__load/1")),
        ("second snapshot", None, lambda p: _snapshot(p, at[72], "snapshot-2")),
        ("train on drift", None, lambda p: _train(p, at[72], "train__load-2", "snapshot-2", "data_drift")),
        ("settle on drift", None, lambda p: _settle(p, "train__load-2")),
        ("roll back", None, lambda p: _roll_back(at[73], "rollback__load/1")),
        ("digest", None, lambda p: _digest(at[77])),
        ("deliver", None, lambda p: _deliver(p)),
    ]
