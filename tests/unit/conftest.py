"""What tests of several rooms share: a small world of hourly rides with a model on it, the scene of the monitoring, an MLflow of their own."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2.extras
import pyarrow as pa
import pytest
from kept_worlds import MLFLOW, KeptWorlds
from psycopg2 import sql

from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import snapshot
from evergreen.warehouse.migrate import ensure_dataset

if TYPE_CHECKING:
    from monitoring_scene import Scene

REPOSITORY = Path(__file__).resolve().parents[2]
START = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = ("dry", "wet", "snow")


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty database: made once, because its migrations take seconds."""
    import sqlalchemy
    from mlflow import MlflowClient

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
    def _without_waiting_for_the_disk(connection: Any, _: Any) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous = OFF")

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def scene(
    warehouse_url: str, tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scene]:
    """Make a scene of the monitoring; keyword arguments are monitoring settings."""
    from monitoring_scene import Scene, model  # brings MLflow, which takes seconds

    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return lambda **monitoring: Scene(model(**monitoring), tmp_path)


@pytest.fixture(scope="session")
def specs() -> Specs:
    """The specs of this repository."""
    return load_specs(REPOSITORY / "include")


@pytest.fixture
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is written to and no MLflow is asked, whatever the environment of the tests names."""
    for name in ("MLFLOW_TRACKING_URI", "EVERGREEN_MAIL_TO", "EVERGREEN_MAIL_FROM", "EVERGREEN_AIRFLOW_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def decide(conn: Connection) -> Callable[..., Decision]:
    """Append a decision to the ledger; each call is a new one."""
    count = itertools.count()

    def append_one(
        kind: DecisionKind,
        reason: str = "manual",
        *,
        as_of: datetime = datetime(2026, 1, 5, tzinfo=UTC),
        version: str | None = None,
        subject: str = "model/bike_demand",
        evidence: dict[str, Any] | None = None,
        answers: tuple[int, ...] = (),
        run_id: str = "train__bike_demand/scheduled__2026-01-05T02:00:00+00:00",
    ) -> Decision:
        key = f"test:{next(count)}"
        return append(
            conn, Decision(as_of, subject, kind, reason, run_id, key, evidence or {}, version, answers)
        )

    return append_one


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of small fits wait for each other longer than they work where other tests run beside them."""
    monkeypatch.setenv("EVERGREEN_THREADS", "1")


@pytest.fixture
def mlflow_url(empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow of its own for a test, in files, and EVERGREEN_HOME beside it."""
    from mlflow import MlflowClient

    path = tmp_path / MLFLOW
    shutil.copy(empty_mlflow, path)
    url = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    for name in ("rides", "wetness"):
        MlflowClient(url).create_experiment(name, artifact_location=(tmp_path / "artifacts" / name).as_uri())
    return url


@dataclass
class World:
    """The dataset, the model and short ways to make time pass."""

    specs: Specs
    model: ModelSpec
    folder: Path

    def with_model(self, model: ModelSpec | None = None, **changes: Any) -> World:
        """The same world with another model, or with one that differs, see `changed`."""
        model = changed(model or self.model, **changes)
        return replace(self, model=model, specs=Specs(self.specs.datasets, {model.name: model}))

    def land(
        self, first: datetime, days: float, *, seed: int = 1, slope: float = 3.0, arrived: datetime | None = None,
        edit: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        """Publish hourly rows; demand follows hour, x and kind; each arrives an hour after its event."""
        rng = np.random.default_rng(seed)
        rows = []
        for hour in range(round(days * 24)):
            ts = first + timedelta(hours=hour)
            x, kind = float(rng.normal()), KINDS[int(rng.integers(2))]
            demand = 50 + 20 * np.sin(ts.hour / 24 * 2 * np.pi) + slope * x + (8 if kind == "dry" else 0)
            row = {"ts": ts, "kind": kind, "x": x, "demand": float(demand + rng.normal()), "gone": None}
            if edit:
                edit(row)
            rows.append((*row.values(), arrived or ts + timedelta(hours=1)))
        with connect() as conn, conn.cursor() as cursor:
            ensure_dataset(conn, self.specs.datasets["rides_hourly"])
            psycopg2.extras.execute_values(
                cursor,
                "INSERT INTO data.rides_hourly (ts, kind, x, demand, gone, _arrived_at, _batch) VALUES %s",
                rows,
                template="(%s, %s, %s, %s, %s, %s, 1)",
                page_size=1000,
            )

    def correct(self, ts: datetime, at: datetime, **values: Any) -> None:
        """Publish a correction of one row that arrives at a time."""
        names = [*self.specs.datasets["rides_hourly"].columns, "_arrived_at", "_batch"]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        new = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(n), sql.Literal(v)) for n, v in values.items()
        )
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                sql.SQL(
                    "INSERT INTO data.rides_hourly__history ({c}, _superseded_at)"
                    " SELECT {c}, %s FROM data.rides_hourly WHERE ts = %s"
                ).format(c=columns),
                (at, ts),
            )
            cursor.execute(
                sql.SQL("UPDATE data.rides_hourly SET {}, _arrived_at = %s WHERE ts = %s").format(new),
                (at, ts),
            )

    def snapshot(self, as_of: datetime) -> snapshot.Snapshot:
        """Take the model's snapshot."""
        return snapshot.take(self.specs, self.model, as_of, self.folder)

    def train(self, as_of: datetime, run_id: str, **more: Any) -> Any:
        """Train as of a time."""
        from evergreen.training.train import train

        return train(
            self.specs, self.model, self.snapshot(as_of), as_of, run_id, **{"trigger": "manual", **more}
        )

    def promote(self, as_of: datetime, run_id: str) -> Any:
        """Train as of a time and promote, whatever the gate says; returns the decision."""
        from evergreen.ledger.reasons import GateReason
        from evergreen.training.gate.verdict import GateVerdict

        outcome = self.train(as_of, run_id)
        return self.settle(replace(outcome, verdict=GateVerdict(True, GateReason.FIRST_CHAMPION)))

    def settle(self, outcome: Any, run_id: str = "settle") -> Any:
        """Settle an outcome."""
        from evergreen.promotion.settlement import settle

        return settle(self.specs, self.model, outcome, run_id)


@pytest.fixture
def start() -> datetime:
    """Event time of the first row."""
    return START


@pytest.fixture
def rides() -> ModelSpec:
    """A regression on hourly rides."""
    return ModelSpec.model_validate({
        "name": "rides", "task": "regression", "datasets": ["rides_hourly"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "demand", "delay": "1h"},
        "features": {"numeric": ["hour", "x"], "categorical": ["kind"]},
        # The strict demands, so that a challenger of the same world loses.
        "gate": {"on_drift": "not_worse", "otherwise": "better"},
        "training": {"holdout": "5d", "min_rows": 200, "min_holdout_rows": 24, "max_rounds": 15, "early_stopping_rounds": 5,
                     "params": {"learning_rate": 0.3, "max_depth": 3}},
        "query": "SELECT ts, extract(hour FROM ts)::int AS hour, x, kind, gone, demand FROM rides_hourly",
    })  # fmt: skip


@pytest.fixture
def wetness(rides: ModelSpec) -> ModelSpec:
    """A binary model on the same rows."""
    return changed(
        rides, name="wetness", task="binary", label={"column": "wet"}, features={"categorical": ()},
        query="SELECT ts, extract(hour FROM ts)::int AS hour, x, (x + sin(extract(epoch FROM ts)) > 0)::int AS wet"
              " FROM rides_hourly",
    )  # fmt: skip


@pytest.fixture
def world(warehouse_url: str, tmp_path: Path, rides: ModelSpec) -> World:
    """A world in which nothing has landed and nothing is trained."""
    dataset = DatasetSpec.model_validate({
        "name": "rides_hourly", "key": ["ts"], "event_time": "ts",
        "columns": {
            "ts": {"type": "timestamp"}, "kind": {"type": "category"}, "x": {"type": "float", "required": False},
            "demand": {"type": "float", "required": False}, "gone": {"type": "float", "required": False},
        },
    })  # fmt: skip
    return World(Specs({dataset.name: dataset}, {rides.name: rides}), rides, tmp_path / "snapshots")


@pytest.fixture(scope="session")
def kept_worlds(administrator: Connection, tmp_path_factory: pytest.TempPathFactory) -> KeptWorlds:
    """The worlds that were made once."""
    return KeptWorlds(administrator, tmp_path_factory.mktemp("worlds"))


@pytest.fixture
def made_once(
    kept_worlds: KeptWorlds, warehouse_url: str, mlflow_url: str, tmp_path: Path
) -> Callable[[Callable[[], object]], None]:
    """Run what makes a world in the first test that asks, and copy what it made for each further one; see `KeptWorlds.made`."""
    return lambda make: kept_worlds.made(make, warehouse_url.rpartition("/")[2], tmp_path)


@pytest.fixture
def change() -> Callable[..., ModelSpec]:
    """A model that differs from another: sections are merged, other fields replaced."""
    return changed


@pytest.fixture
def rows() -> Callable[..., pa.Table]:
    """Feature rows without a warehouse: one an hour from START, with columns by name or the rides' own."""
    return feature_rows


def changed(model: ModelSpec, **changes: Any) -> ModelSpec:
    """See `change`."""
    content = model.model_dump()
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return ModelSpec.model_validate(content)


def feature_rows(count: int, *, step: timedelta = timedelta(hours=1), **columns: Any) -> pa.Table:
    """See `rows`."""
    rng = np.random.default_rng(5)
    times = [START + i * step for i in range(count)]
    content: dict[str, Any] = {
        "_key": [json.dumps([t.isoformat()]) for t in times],
        "_time": pa.array(times, pa.timestamp("us", "UTC")),
        "hour": [float(t.hour) for t in times],
        "x": rng.normal(size=count),
        "kind": pa.array([KINDS[i % 2] for i in range(count)], pa.string()),
        "_label": [float(i % 24) for i in range(count)],
    }
    return pa.table({**content, **columns})
