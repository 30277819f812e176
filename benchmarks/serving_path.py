"""What the prediction service's own code costs a request: the app is called as a server would, without one, without sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.serving_champion import MODEL
from evergreen import settings
from evergreen.serving import kept
from evergreen.serving.app import Front
from evergreen.serving.booster import FastBooster
from evergreen.serving.by_key import FeaturesByKey
from evergreen.serving.service import Service


def inside(home: str, bodies: str, authorization: str, core: str, seconds: str) -> None:
    """Print seconds of CPU a request, of the handler as a whole and of the prediction in it.

    Args:
        home: a folder with a copy of what the companion keeps; the log is written there and fetched by nobody.
        bodies: a file with a request's body a line.
        authorization: the client's.
        core: to work on.
        seconds: of each of the two.
    """
    os.sched_setaffinity(0, {int(core)})
    os.environ[settings.HOME.name] = home
    texts = Path(bodies).read_bytes().splitlines()
    handler = uvloop.run(_handler(texts, authorization.encode(), float(seconds)))
    print(json.dumps({"handler_s": handler, "predict_s": _predict(texts, float(seconds))}))


async def _handler(texts: list[bytes], authorization: bytes, seconds: float) -> float:
    service = Service(FeaturesByKey())
    await service.start()
    front = Front(service)
    scope = {
        "type": "http", "method": "POST", "path": f"/models/{MODEL}/predict", "headers": [
            (b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"authorization", authorization),
        ],
    }  # fmt: skip
    status: list[int] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if "status" in message:
            status.append(message["status"])

    async def ask(text: bytes) -> None:
        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": text, "more_body": False}

        await front(scope, receive, send)

    for text in texts:
        await ask(text)
    if set(status) != {200}:
        raise RuntimeError(f"not every request is answered: {set(status)}")
    done, began, until = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < until:
        for text in texts[:200]:
            await ask(text)
        done += len(texts[:200])
        await asyncio.sleep(0)  # the log is written
    took = time.process_time() - began
    await service.stop()
    return took / done


def _predict(texts: list[bytes], seconds: float) -> float:
    """The prediction alone, of varied rows: less what writing a row into the array takes."""
    state = kept.read_state()
    assert state is not None
    model = state.models[MODEL]
    version = model.versions[model.champion]
    booster = FastBooster(kept.versions_folder() / version.folder / kept.MODEL_FILE, len(version.features), 1)
    rows = [_numbers(json.loads(text)["record"], version) for text in texts]
    both = _each(booster, rows, seconds, predict=True)
    return both - _each(booster, rows, seconds / 4, predict=False)


def _numbers(record: dict[str, Any], version: kept.Version) -> list[float]:
    nan = float("nan")
    numbers = [nan if record[name] is None else float(record[name]) for name in version.numeric]
    return numbers + [
        float(values.index(record[name])) if record[name] in values else nan
        for name, values in version.categorical.items()
    ]


def _each(booster: FastBooster, rows: list[list[float]], seconds: float, *, predict: bool) -> float:
    done, began, until = 0, time.process_time(), time.monotonic() + seconds
    target = booster.rows[:1].ravel()
    while time.monotonic() < until:
        for row in itertools.islice(rows, 200):
            target[:] = row
            if predict:
                booster.predict(1)
        done += min(200, len(rows))
    return (time.process_time() - began) / done
