"""The least that answers with a model over HTTP: what the prediction service is held against.

A FastAPI app on the same server with the same settings. It reads JSON, writes the numbers in the model's order into an array that it
uses again and again, predicts on one thread, and answers with JSON. It validates nothing, logs nothing, counts nothing and never
swaps its model. It reads and writes JSON with the fastest library that is here, and leaves out FastAPI's own validation of bodies.

    python -m benchmarks.serving_bare FOLDER PORT

FOLDER holds `model.ubj` and `version.json` as the prediction service keeps them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import uvicorn
import xgboost as xgb
from fastapi import FastAPI, Request, Response

from evergreen.serving import kept
from evergreen.serving.command import KEEP_ALIVE_S


def app(folder: Path) -> FastAPI:
    """The app for the version in a folder."""
    told = json.loads((folder / kept.VERSION_FILE).read_text())
    numeric = tuple(told["numeric"])
    codes = [(n, {c: float(i) for i, c in enumerate(values)}) for n, values in told["categorical"].items()]
    booster = xgb.Booster()
    booster.load_model(folder / kept.MODEL_FILE)
    booster.set_param({"nthread": 1, "device": "cpu"})
    row = np.empty((1, len(numeric) + len(codes)), np.float32)
    read, written, nan = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode, float("nan")
    found = FastAPI(openapi_url=None)

    @found.post("/predict")
    async def predict(request: Request) -> Response:
        record = read(await request.body())
        values = [nan if (value := record[name]) is None else value for name in numeric]
        values += [by_text.get(record[name], nan) for name, by_text in codes]
        row[0] = values
        prediction = float(booster.inplace_predict(row, validate_features=False)[0])
        return Response(written({"prediction": prediction}), media_type="application/json")

    @found.get("/alive")
    async def alive() -> dict[str, bool]:
        return {"alive": True}

    return found


def main(folder: str, port: str) -> None:
    """Answer until it is ended."""
    uvicorn.run(
        app(Path(folder)), host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", ws="none", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S, backlog=2048,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
