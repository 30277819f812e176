"""The scene of tests of the prediction service: versions that were really fitted, kept as the companion keeps them, and the app that answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import xgboost as xgb

from evergreen.registry.encoding import Encoding, encode
from evergreen.serving import kept
from evergreen.serving.app import Front
from evergreen.serving.clients import sha256
from evergreen.serving.kept import Client, Model, State, Version
from evergreen.serving.service import Service

NUMERIC, CATEGORIES = ("hour", "x"), {"kind": ("dry", "snow", "wet")}
ENCODING = Encoding(NUMERIC, CATEGORIES)
KEY = secrets.token_urlsafe(16)
EXAMPLE = {"hour": 8.0, "x": 0.5, "kind": "dry"}


def fitted(seed: int, rounds: int = 20) -> xgb.Booster:
    """A booster on rows of which nothing is known but that hour, x and kind matter."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.integers(0, 24, 500), rng.normal(size=500), rng.integers(0, 3, 500)]).astype(
        np.float32
    )
    label = rows[:, 0] * seed + 3 * rows[:, 1] + rows[:, 2] + rng.normal(size=500)
    data = xgb.DMatrix(rows, label, feature_types=["float", "float", "c"], enable_categorical=True)
    return xgb.train({"max_depth": 4, "nthread": 1, "seed": seed}, data, rounds)


def keep_version(number: str, booster: xgb.Booster, **changes: Any) -> Version:
    """Keep a version on the disk as the companion does."""
    version = Version(**{
        "version": number, "run_id": f"run{number}", "folder": f"rides-{number}-run{number}", "numeric": NUMERIC,
        "categorical": CATEGORIES, "lows": {"hour": 0.0, "x": -3.0}, "highs": {"hour": 23.0, "x": 3.0}, "example": EXAMPLE,
        "metrics": {"rmse": 1.5}, **changes,
    })  # fmt: skip
    folder = kept.versions_folder() / version.folder
    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(folder / kept.MODEL_FILE)
    rows = np.array([[8, 0.5, 0], [9, np.nan, 1], [23, -1, np.nan]], np.float32)
    predictions = np.asarray(booster.inplace_predict(rows, validate_features=False), np.float64)
    np.savez(folder / kept.PROBE_FILE, rows=rows, predictions=predictions)
    kept.write(folder / kept.VERSION_FILE, version)
    return version


@dataclass
class Scene:
    """What is kept, and the service that reads it."""

    boosters: dict[str, xgb.Booster] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    clients: tuple[Client, ...] = (Client("tester", sha256(KEY.encode()), ("*",), 1e6),)
    rows: dict[str, Any] = field(default_factory=dict)
    """What is found by key: by the key's `ts`."""

    def add(self, number: str, **changes: Any) -> Version:
        """Fit and keep a version."""
        self.boosters[number] = fitted(int(number))
        self.versions[number] = keep_version(number, self.boosters[number], **changes)
        return self.versions[number]

    def model(self, champion: str = "1", **changes: Any) -> Model:
        """The model with a champion."""
        wanted = {champion, changes.get("former") or champion}
        return Model(**{
            "name": "rides", "task": "regression", "description": "Rides in an hour.", "metric": "rmse", "champion": champion,
            "former": None, "share": 1.0, "promoted_at": "2026-01-01T00:00:00+00:00", "key": {"ts": "timestamp with time zone"},
            "event_time": "ts", "by_key": "query", "timeout_ms": 200, "sensitive": (), "logged": 1.0,
            "versions": {number: self.versions[number] for number in wanted}, **changes,
        })  # fmt: skip

    def keep(self, *models: Model) -> None:
        """Write the state."""
        kept.write(kept.state_file(), State({m.name: m for m in models}, self.clients))

    def predicted(self, number: str, record: Mapping[str, Any]) -> float:
        """What a version says of a record, on the way that batch predictions take."""
        types = {**dict.fromkeys(NUMERIC, pa.float64()), "kind": pa.string()}
        table = pa.table({n: pa.array([record[n]], type_) for n, type_ in types.items()})
        matrix = encode(ENCODING, table).matrix
        return float(self.boosters[number].inplace_predict(matrix, validate_features=False)[0])


class Running:
    """The app, asked as over HTTP."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(Front(service)), base_url="http://service"
        )
        self.key = KEY

    async def ask(
        self, body: Any, what: str = "predict", model: str = "rides", **more: Any
    ) -> httpx.Response:
        """Send a request for predictions."""
        content = {"content": body} if isinstance(body, (str, bytes)) else {"json": body}
        return await self.client.post(f"/models/{model}/{what}", headers=self.headers(), **content, **more)

    async def get(self, path: str) -> httpx.Response:
        """Ask for what is no prediction."""
        return await self.client.get(path, headers=self.headers())

    def headers(self) -> dict[str, str]:
        """With the client's key."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


class NoFeatures:
    """No request of these tests is by key."""

    async def find(self, served: Any, keys: Any) -> Any:
        """Not asked."""
        raise AssertionError("this test asks nothing by key")
