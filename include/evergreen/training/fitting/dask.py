"""Fits on a Dask cluster: the same rows and parameters, spread over the workers that a scheduler has.

The rows are encoded here and sent to the workers in parts of bounded size, one after the other, so workers need no
disk in common and no more than XGBoost, NumPy and Dask; this process never holds more than one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask.array
import distributed
import numpy as np
import xgboost as xgb
import xgboost.dask as xgb_dask
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError

from evergreen import settings
from evergreen.errors import TransientError
from evergreen.registry.encoding import Encoding
from evergreen.training.fitting import local
from evergreen.training.fitting.cuda import trial
from evergreen.training.fitting.local import Boosted, Labelled

PART_BYTES = 32 << 20
CONNECT_S = 30
REHEARSAL_ROWS = 50


def boost(
    params: dict[str, Any],
    encoding: Encoding,
    data: Labelled,
    rounds: int,
    watched: Labelled | None = None,
    patience: int | None = None,
) -> Boosted:
    """Fit a booster, see `local.boost`.

    Raises:
        XGBoostError, ValueError, TypeError: XGBoost refuses the parameters.
        TerminalError: no scheduler is named (BAD_SPEC).
        TransientError: the scheduler does not answer, has no worker, or a worker was lost.
    """
    # What is wrong with the parameters shows on a few rows here; what fails after that is the cluster's.
    few = data.part(0, min(REHEARSAL_ROWS, len(data)))
    local.boost({**params, "device": "cpu"}, encoding, few, 1, few, 1)
    with _connected() as client:
        more = {
            "feature_names": encoding.boosted,
            "feature_types": encoding.types,
            "enable_categorical": True,
            "max_bin": params.get("max_bin", 256),
        }
        theirs = {name: value for name, value in params.items() if name != "nthread"}
        learnt = xgb_dask.DaskQuantileDMatrix(client, **_sent(client, data), **more)
        if watched is None:
            found = xgb_dask.train(client, theirs, learnt, rounds, verbose_eval=False)
            return Boosted(found["booster"])
        newest = xgb_dask.DaskQuantileDMatrix(client, **_sent(client, watched), **more, ref=learnt)
        found = xgb_dask.train(
            client, theirs, learnt, rounds, evals=[(newest, "newest")], early_stopping_rounds=patience,
            verbose_eval=False,
        )  # fmt: skip
        scores = {name: list(map(float, values)) for name, values in found["history"]["newest"].items()}
        return Boosted(found["booster"], scores)


def why_no_cuda() -> str:
    """Why the workers cannot fit on GPUs; empty if all of them can.

    Raises:
        TerminalError, TransientError: as `boost`.
    """
    with _connected() as client:
        answers: dict[str, Any] = client.run(trial(), on_error="return")
    reasons = {worker: str(answer) for worker, answer in answers.items() if answer}
    return "; ".join(f"{worker}: {reason}" for worker, reason in sorted(reasons.items()))[:500]


@contextmanager
def _connected() -> Iterator[distributed.Client]:
    address = settings.DASK_SCHEDULER.read()
    try:
        with distributed.Client(address, timeout=CONNECT_S) as client:
            client.wait_for_workers(1, timeout=CONNECT_S)
            try:
                yield client
            except xgb.core.XGBoostError as error:
                raise _lost(address, error) from error
    except (OSError, TimeoutError, KilledWorker, NoValidWorkerError, FutureCancelledError) as error:
        raise _lost(address, error) from error


def _lost(address: str, error: Exception) -> TransientError:
    told = " ".join(str(error).split("Stack trace")[0].split())
    return TransientError(
        f"the fit on the Dask cluster at {address} broke off: {type(error).__name__}: {told[:300]}; try again. "
        f"If it stays, look at the scheduler and its workers, and at {settings.DASK_SCHEDULER.name}"
    )


def _sent(client: distributed.Client, data: Labelled) -> dict[str, Any]:
    """The rows as Dask arrays whose parts lie on the workers, in turn; each worker has one at least."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    width = 4 * data.matrix.columns
    size = max(1, min(PART_BYTES // width, -(-len(data) // len(workers))))
    rows, labels = [], []
    for number, at in enumerate(range(0, len(data), size)):
        part = data.part(at, min(at + size, len(data)))
        home = [workers[number % len(workers)]]
        # Equal parts would otherwise share a name, and a worker.
        x, y = client.scatter([next(part.matrix.batches()), part.y], workers=home, hash=False)
        rows.append(dask.array.from_delayed(x, (len(part), data.matrix.columns), np.float32))
        labels.append(dask.array.from_delayed(y, (len(part),), np.float64))
    return {"data": dask.array.concatenate(rows), "label": dask.array.concatenate(labels)}
