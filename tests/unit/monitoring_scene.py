"""A small world for the monitoring's tests: an hourly sensor, a champion with its reference in MLflow, predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg2.extras
import pyarrow as pa
from mlflow import MlflowClient

from evergreen.alerting.compose import compose
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.reference import reference
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import ensure_dataset

WEEK = timedelta(days=7)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
PAST_WEEKS = 20
CUTOFF = BEGIN + PAST_WEEKS * WEEK
ROWS = 168
METRICS = {"rmse": 1.0, "mae": 0.8, "r2": 0.95}
QUERY = "SELECT ts, amount, pressure, level, kind, y FROM sensor"
_REFERENCES: dict[tuple[str, int], reference.Reference] = {}
Change = Callable[[pd.DataFrame], pd.DataFrame]

SENSOR = DatasetSpec.model_validate(
    {
        "name": "sensor",
        "key": ["ts"],
        "event_time": "ts",
        "columns": {
            "ts": {"type": "timestamp"},
            "amount": {"type": "float", "required": False},
            "pressure": {"type": "float", "required": False},
            "level": {"type": "float", "required": False},
            "kind": {"type": "category", "required": False},
            "y": {"type": "float", "required": False},
            "guess": {"type": "float"},
        },
    }
)


def model(task: str = "regression", **monitoring: object) -> ModelSpec:
    """The watched model; `monitoring` replaces settings."""
    quantile = dict(monitoring.get("performance") or {}).get("metric") == "pinball"
    settings = {"window": "7d", "min_rows": 50, "freshness": "36h", "sample_rows": 1000, **monitoring}
    return ModelSpec.model_validate(
        {
            "name": "watched",
            "task": task,
            "datasets": ["sensor"],
            "key": ["ts"],
            "event_time": "ts",
            "label": {"column": "y", "delay": "1h"},
            "features": {"numeric": ["amount", "pressure", "level"], "categorical": ["kind"]},
            "monitoring": settings,
            "gate": {"quantile": 0.9} if quantile else {},
            "query": QUERY,
        }
    )


def specs(spec: ModelSpec) -> Specs:
    """All specs: the sensor and the model."""
    return Specs({"sensor": SENSOR}, {spec.name: spec})


def rows(seed: int, start: datetime, hours: int) -> pd.DataFrame:
    """Hourly rows of an unchanging process; `guess` is what the champion predicts."""
    rng = np.random.default_rng([seed, int(start.timestamp()) // 3600])
    ts = [start + timedelta(hours=h) for h in range(hours)]
    daily = np.sin(np.arange(hours) * 2 * np.pi / 24)
    frame = pd.DataFrame({"ts": ts, "amount": 10 + 3 * daily + rng.normal(0, 1, hours)})
    frame["pressure"] = rng.normal(1000, 5, hours)
    frame["level"] = 4.0
    frame["kind"] = rng.choice(["a", "b", "c"], hours, p=[0.5, 0.3, 0.2])
    frame["guess"] = 2 * frame["amount"] + (frame["kind"] == "a")
    frame["y"] = frame["guess"] + rng.normal(0, 1, hours)
    return frame


def week(number: int, seed: int = 1, change: Change | None = None) -> pd.DataFrame:
    """The rows of a week; number 0 is the first one after the training's cut-off."""
    frame = rows(seed, CUTOFF + number * WEEK, ROWS)
    return change(frame) if change else frame


@cache
def learnt(seed: int = 1, weeks: int = PAST_WEEKS) -> pa.Table:
    """The rows that the champion learnt from, as the training gives them to the reference."""
    frame = pd.concat([rows(seed, BEGIN + i * WEEK, ROWS) for i in range(weeks)], ignore_index=True)
    return as_table(frame)


def usual_reference(spec: ModelSpec, seed: int) -> reference.Reference:
    """The reference of a champion that learnt `learnt(seed)`; building one takes most of a second, and many tests want the same."""
    key = (spec.model_dump_json(), seed)
    if key not in _REFERENCES:
        _REFERENCES[key] = reference.build(spec, learnt(seed), METRICS)
    return _REFERENCES[key]


def as_table(frame: pd.DataFrame) -> pa.Table:
    """Rows as `reference.build` takes them."""
    keys = [json.dumps([t.isoformat()]) for t in frame["ts"]]
    out = frame.rename(columns={"ts": "_time", "y": "_label", "guess": "_prediction"}).assign(_key=keys)
    return pa.Table.from_pandas(out, preserve_index=False)


@dataclass
class Scene:
    """The world with its champion; the methods change it as the feed, the scoring and a training would."""

    spec: ModelSpec
    tmp: Path
    run_id: str = ""

    @property
    def specs(self) -> Specs:
        """All specs."""
        return specs(self.spec)

    def champion(
        self,
        version: str = "1",
        *,
        as_of: datetime = CUTOFF,
        seed: int = 1,
        learned: pa.Table | None = None,
        effective_from: datetime | None = None,
    ) -> str:
        """Register a version with its reference and promote it; returns its MLflow run."""
        made = reference.build(self.spec, learned, METRICS) if learned else usual_reference(self.spec, seed)
        made.write(self.tmp / f"reference-{version}")
        client = MlflowClient()
        found = client.get_experiment_by_name("watched")
        experiment = (
            found.experiment_id
            if found
            else client.create_experiment("watched", f"file://{self.tmp}/artifacts")
        )
        self.run_id = client.create_run(experiment).info.run_id
        client.log_artifacts(self.run_id, str(self.tmp / f"reference-{version}"), "reference")
        if not client.search_registered_models(f"name = '{self.spec.name}'"):
            client.create_registered_model(self.spec.name)
        client.create_model_version(self.spec.name, f"runs:/{self.run_id}/model", self.run_id)
        with connect() as conn:
            append(
                conn,
                Decision(
                    as_of, "model/watched", DecisionKind.PROMOTED, "first_champion", "train/1", f"promote:{version}",
                    {
                        "mlflow_run": self.run_id,
                        **({"effective_from": effective_from.isoformat()} if effective_from else {}),
                    },
                    version,
                ),
            )  # fmt: skip
        shutil.rmtree(self.tmp / f"reference-{version}")
        return self.run_id

    def land(self, frame: pd.DataFrame, *, arrived: datetime | None = None, labels: bool = True) -> None:
        """Publish rows; each arrives an hour after its event time, or all at `arrived`."""
        frame = frame if labels else frame.assign(y=np.nan)
        with connect() as conn:
            ensure_dataset(conn, SENSOR)
            columns = [c for c in SENSOR.columns]
            values = [
                (*(None if pd.isna(v) else v for v in row), arrived or row[0] + timedelta(hours=1), 1)
                for row in frame[columns].astype(object).itertuples(index=False)
            ]
            with conn.cursor() as cursor:
                psycopg2.extras.execute_values(
                    cursor,
                    "INSERT INTO data.sensor (ts, amount, pressure, level, kind, y, guess, _arrived_at, _batch) VALUES %s",
                    values,
                )

    def labels(self, frame: pd.DataFrame, at: datetime) -> None:
        """The labels of rows that are there arrive, as a correction does: the old versions go to the history."""
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                "INSERT INTO data.sensor__history SELECT *, %s FROM data.sensor WHERE ts = ANY(%s)",
                (at, list(frame["ts"].dt.to_pydatetime())),
            )
            psycopg2.extras.execute_values(
                cursor,
                "UPDATE data.sensor AS s SET y = v.y, _arrived_at = v.at FROM (VALUES %s) AS v (ts, y, at) WHERE s.ts = v.ts",
                [(t.to_pydatetime(), float(y), at) for t, y in zip(frame["ts"], frame["y"], strict=True)],
            )

    def score(
        self, start: datetime, end: datetime, *, version: str = "1", as_of: datetime | None = None
    ) -> None:
        """Serve the guesses of a range of event time."""
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
                " SELECT 'watched', %s, json_build_array(ts)::text, ts, guess, %s, 'score/1' FROM data.sensor"
                " WHERE ts >= %s AND ts < %s ON CONFLICT DO NOTHING",
                (version, as_of or end, start, end),
            )

    def live(
        self, weeks: int, *, first: int = 0, seed: int = 1, change: Change | None = None, labels: bool = True
    ) -> None:
        """Whole weeks land and are scored."""
        for number in range(first, first + weeks):
            self.land(week(number, seed, change), labels=labels)
        self.score(CUTOFF + first * WEEK, CUTOFF + (first + weeks) * WEEK)

    def judgements(self) -> list[dict[str, object]]:
        """Every judgement in the warehouse, oldest window first."""
        with connect() as conn:
            return fetch(conn, "SELECT * FROM evergreen.window_judgement ORDER BY window_start, revision")


def at(weeks: float, **more: float) -> datetime:
    """A time after the cut-off, a little after the window's end by default."""
    return CUTOFF + weeks * WEEK + timedelta(**(more or {"hours": 2}))


def violated(judged: Judgement) -> set[str]:
    """What a judgement found, as kind:column."""
    return {f"{v.kind.value}:{v.column}" for v in judged.violations}


def count(conn: Connection, table: str) -> int:
    """Rows of a table of the schema evergreen."""
    return int(fetch(conn, f"SELECT count(*) AS n FROM evergreen.{table}")[0]["n"])


def mails(world) -> list[tuple[dict, str]]:
    """The mails that are owed, oldest first, each as its row and its text."""
    with connect() as conn:
        owed = fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id")
        return [(row, compose(conn, world.specs, row).get_body(("plain",)).get_content()) for row in owed]
