"""A year of two models and a dataset, as the loop would have written it, and the commands as a person types them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evergreen import cli
from evergreen.alert_kinds import AlertKind
from evergreen.incidents import silences
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import (
    ColumnResult,
    Judgement,
    MetricResult,
    Status,
    Violation,
    What,
    insert,
)
from evergreen.spec import load_dataset
from evergreen.terminal.text import width
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import Connection, connect

REPOSITORY = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 3, 2, tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
DEMAND, RUSH = "model/bike_demand", "model/bike_rush"
HEADER = "ts,holiday,workingday,weather,temperature,humidity,windspeed,price,demand\n"
HOSTILE = "a\x1b[2J\u202e漢字\u0301 <b>{{x}}</b> %s;\x07"
"""A text that moves the cursor, turns the direction of writing, is wide, and looks like HTML and SQL."""
_count = itertools.count()


@dataclass(frozen=True)
class Told:
    """What a command printed: exit status, standard output and error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class Terminal:
    """Types commands, and holds every line of what they print against the width of a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Told:
        self._capsys.readouterr()
        status = cli.main(list(words))
        shown = self._capsys.readouterr()
        if "--json" not in words:
            lines = [*shown.out.splitlines(), *shown.err.splitlines()]
            assert [line for line in lines if width(line) > 80] == []
            assert "\x1b" not in shown.out + shown.err, "colours, or what somebody wrote to move the cursor"
            assert [line for line in lines if line != line.rstrip()] == []
        return Told(status, shown.out, shown.err)


def decide(conn: Connection, subject: str, kind: DecisionKind, reason: str, **more: Any) -> Decision:
    """Append a decision."""
    run = more.pop("run_id", f"train__{subject.partition('/')[2]}/scheduled__2026-03-02T02:00:00+00:00")
    return append(
        conn, Decision(more.pop("as_of", NOW), subject, kind, reason, run, f"test:{next(_count)}", **more)
    )


def check(name: str, passed: bool, sentence: str) -> dict[str, Any]:
    """A check of the gate."""
    return {
        "check": name,
        "value": 1.0,
        "limit": 2.0,
        "passed": passed,
        "code": "worse_than_champion",
        "sentence": sentence,
    }


CHECKS = [
    check("challenger_run", True, "the challenger was evaluated by r, this training is r"),
    check("challenger_as_of", True, "the challenger was evaluated as of t, this training is as of t"),
    check("holdout_rows", True, "840 rows are judged, at least 200 are needed"),
    check("beats_baseline", True, "RMSE of the challenger is 55.8, of the baseline 99.2"),
    check("not_surely_worse", True, "the improvement over the champion is 9.10 %, with 95 % confidence at least 4.20 %; below zero it is surely worse"),
    check("slice_weather=heavy_rain", True, "the improvement in weather=heavy_rain (61 rows, the worst of 8) is -1.20 %; 5.00 % is allowed"),
]  # fmt: skip
METRICS = {
    "challenger": {"rmse": 55.81, "mae": 38.2, "r2": 0.91},
    "champion": {"rmse": 61.4, "mae": 41.0, "r2": 0.89},
    "baseline": {"rmse": 99.2, "mae": 70.1, "r2": 0.62},
}
TRAINED = {
    "metric": "rmse", "metrics": METRICS, "rows": {"all": 8760, "training": 7900, "purged": 20, "holdout": 840, "judged": 840, "champion_learnt": 0},
    "trigger": "data_drift", "mlflow_run": "r1", "digest": "", "trained_until": "2026-02-20T00:00:00+00:00", "refitted": True,
    "fingerprint": "0123456789abcdef0123456789abcdef", "spec_hash": "s", "training_hash": "t",
}  # fmt: skip


def write_life(conn: Connection) -> None:
    """bike_demand: a champion, a drift, a challenger that a person approved, its watch, a rejection, a drift that goes on; bike_rush: one that waits."""
    decide(
        conn, DEMAND, DecisionKind.PROMOTED, "first_champion", version="1", as_of=NOW - 20 * WEEK,
        evidence={**TRAINED, "trigger": "manual", "asked_because": "the first one", "metrics": {"challenger": {"rmse": 61.0}, "baseline": {"rmse": 99.0}}},
    )  # fmt: skip
    asked = decide(
        conn, DEMAND, DecisionKind.RETRAIN_REQUESTED, "data_drift", as_of=NOW - 8 * WEEK,
        evidence={"message": "data drift: 3 of the last 4 windows have effects: temperature, humidity", "drifted": ["data_drift:temperature"]},
    )  # fmt: skip
    waits = decide(
        conn, DEMAND, DecisionKind.AWAITING_APPROVAL, "better_than_champion", version="2", as_of=NOW - 8 * WEEK + DAY,
        evidence={
            **TRAINED, "model": "bike_demand", "run_id": "train__bike_demand/manual__1", "version": "2", "champion_version": "1", "requests": [asked.id],
            "verdict": {"passed": True, "reason": "better_than_champion", "checks": CHECKS}, "approval_timeout_s": 259200.0,
        },
    )  # fmt: skip
    promoted = decide(
        conn, DEMAND, DecisionKind.PROMOTED, "approved", version="2", as_of=NOW - 8 * WEEK + DAY, answers=(asked.id, waits.id),
        evidence={
            **TRAINED, "previous_version": "1", "compared_with": "1", "gate": "better_than_champion", "awaiting": waits.id, "answered_by": "ada",
            "answered_at": "2026-01-06T09:12:00+00:00", "comment": "the sensor was moved, that is fine", "training_run": "train__bike_demand/manual__1",
        },
    )  # fmt: skip
    for look in (1, 2):
        seen = {
            "metric": "rmse",
            "version": "2",
            "value": 50.0,
            "previous": "1",
            "previous_value": 60.0,
            "rows": 300,
            "look": look,
            "looks": 7,
        }
        decide(
            conn, DEMAND, DecisionKind.WATCHED, "watch_continues", version="2", as_of=NOW - 7 * WEEK + look * DAY,
            run_id="monitor__bike_demand/1",
            evidence={"message": "RMSE of version 2 is 50, of version 1 60, on 300 rows since 2026-01-06 00:00 UTC: the improvement is 16.7%, at most 30.1%", "watch": seen},
        )  # fmt: skip
    decide(
        conn, DEMAND, DecisionKind.WATCH_ENDED, "watch_passed", version="2", as_of=NOW - 4 * WEEK,
        evidence={"message": "", "watch": {"look": 7, "looks": 7, "version": "2", "promotion": promoted.id}},
    )  # fmt: skip
    again = decide(
        conn, DEMAND, DecisionKind.RETRAIN_REQUESTED, "performance", as_of=NOW - DAY,
        evidence={"message": "performance: RMSE 70.5 is above its limit 55"},
    )  # fmt: skip
    decide(
        conn, DEMAND, DecisionKind.REJECTED, "worse_than_champion", version="3", as_of=NOW,
        evidence={
            **TRAINED, "previous_version": "2", "compared_with": "2", "trigger": "schedule", "training_run": "train__bike_demand/scheduled__3",
            "checks": [*CHECKS[:4], check("not_surely_worse", False, "the improvement over the champion is -8.00 %, with 95 % confidence at most -2.10 %; below zero it is surely worse")],
            "message": "worse than champion: RMSE 60.3 against 55.8",
        },
    )  # fmt: skip
    raise_incident(
        conn, f"drift:{again.id}", DEMAND, AlertKind.DRIFT, again.id, {"classes": ["performance"], "details": []}
    )  # fmt: skip
    decide(conn, RUSH, DecisionKind.PROMOTED, "first_champion", version="7", as_of=NOW - 9 * WEEK, evidence={**TRAINED, "trigger": "manual"})  # fmt: skip
    decide(
        conn, RUSH, DecisionKind.AWAITING_APPROVAL, "champion_cannot_be_evaluated", version="8", as_of=NOW - DAY,
        evidence={
            **TRAINED, "model": "bike_rush", "run_id": "train__bike_rush/manual__2", "version": "8", "champion_version": "7", "trigger": "staleness",
            "verdict": {"passed": True, "reason": "champion_cannot_be_evaluated", "checks": CHECKS[:4]}, "approval_timeout_s": 259200.0,
        },
    )  # fmt: skip
    silences.silence(conn, RUSH, "3d", "the road is closed", "ada", datetime.now(UTC), "make silence")
    write_windows(conn)


def write_windows(conn: Connection) -> None:
    """The newest windows of bike_demand's champion: a quiet one, and one that drifts."""
    for week, value, status in ((1, 41.0, Status.OK), (2, 70.5, Status.VIOLATION)):
        bad = status is Status.VIOLATION
        start = NOW + (week - 3) * WEEK
        insert(
            conn,
            Judgement(
                "bike_demand", "2", start, start + WEEK, 1, start + WEEK, status, 168, 168, 168,
                violations=(Violation(What.DATA_DRIFT, "temperature", "wasserstein", 0.9, 0.12, ""),) if bad else (),
                metrics={"rmse": MetricResult(value, 55.0, 42.0, "judged", violated=bad)},
                columns=(
                    ColumnResult("temperature", What.DATA_DRIFT, "wasserstein", 0.9 if bad else 0.05, 0.12, bad),
                    ColumnResult("price", What.DATA_DRIFT, "wasserstein", 0.05, 0.1, False),
                ),
            ),
        )  # fmt: skip


def land(folder: Path, name: str, rows: list[str]) -> None:
    """Ingest a file of bike_hourly."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(HEADER + "".join(f"{row}\n" for row in rows))
    dataset = load_dataset(REPOSITORY / "include", "bike_hourly").datasets["bike_hourly"]
    later = datetime.now(UTC) + timedelta(hours=1)
    ingest(dataset, NOW, f"ingest__bike_hourly/{name}", folder=folder, now=later)


def row(hour: int, *, temperature: object = 12.5, weather: str = "clear", demand: object = 120) -> str:
    """A row of bike_hourly."""
    return f"2026-02-01T{hour:02}:00:00Z,false,true,{weather},{temperature},55.0,12.0,2.0,{demand}"


def write_files(landing: Path) -> None:
    """A good file, and one of which two rows fail."""
    folder = landing / "bike_hourly"
    land(folder, "2026-02-01.csv", [row(h) for h in range(12)])
    land(
        folder, "2026-02-02.csv", [row(12), row(13, temperature=700), row(14, weather="漢字の天気"), row(15)]
    )


def world(landing: Path) -> None:
    """All of it."""
    write_files(landing)
    with connect() as conn:
        write_life(conn)
