"""Evaluates a training's challenger: split, fit, then challenger, baseline and champion on the same holdout rows.

A champion that was fitted again on all its rows has learnt part of the holdout of the trainings that follow soon;
on those rows it would look better than it is. So the rows that the champion has not learnt are judged, where they
are enough; where they are not, the whole holdout is, which favours the champion and changes nothing lightly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen import registry
from evergreen.errors import TerminalError
from evergreen.registry.models import predict
from evergreen.spec import ModelSpec
from evergreen.training import baseline, gate, metrics
from evergreen.training.encode import Encoding, encode, learn
from evergreen.training.fit import Fitted, fit
from evergreen.training.split import Split, in_micros, labels, micros, moment, read, split
from evergreen.warehouse.snapshot import Snapshot


@dataclass(frozen=True)
class Judged:
    """The challenger as the gate saw it.

    `prediction` are its predictions for the whole holdout, `holdout` its metrics there; `metrics` those of
    challenger, baseline and champion on the judged rows; `rows` the number of rows of each part; `notes` what a
    person may want to know and no rule asks for.
    """

    split: Split
    encoding: Encoding
    fitted: Fitted
    prediction: np.ndarray
    holdout: dict[str, float]
    metrics: dict[str, dict[str, float]]
    rows: dict[str, int]
    notes: dict[str, Any]
    verdict: gate.Verdict


def evaluate(
    model: ModelSpec, snapshot: Snapshot, as_of: datetime, run_id: str, champion: registry.Champion | None
) -> Judged:
    """Fit a challenger on the training part of a snapshot and ask the gate about it.

    Args:
        model: the spec.
        snapshot: its rows as of `as_of`.
        as_of: the training's as-of time.
        run_id: the training.
        champion: of now; None if there is none yet.

    Raises:
        TerminalError: rows, labels or parameters that cannot be used; a challenger whose predictions are not
            finite. A champion that cannot be loaded or cannot score the rows is no error: the gate fails closed.
        TransientError: MLflow does not answer.
    """
    parts = split(model, read(model, snapshot))
    encoding = learn(model, parts.training)
    known = encode(encoding, parts.training)
    fitted = fit(model, encoding, known.matrix, labels(parts.training), micros(parts.training))
    held = encode(encoding, parts.holdout)
    predictions = {
        "challenger": predict(fitted.booster, held.matrix),
        "baseline": baseline.predict(model, parts),
    }
    problems: dict[str, str] = {}
    if champion is not None:
        try:
            predictions["champion"] = registry.load(model, champion.version).predict(parts.holdout)
        except TerminalError as error:
            problems["champion"] = str(error)
    y, judged = labels(parts.holdout), judged_rows(model, parts, champion)
    keys = hashlib.sha256(
        "\n".join(parts.holdout.filter(pa.array(judged))["_key"].to_pylist()).encode()
    ).hexdigest()
    found: dict[str, dict[str, float]] = {}
    evaluations: dict[str, gate.Evaluation] = {}
    for who in ("challenger", "baseline", *(("champion",) if champion else ())):
        found[who] = {}
        if who in predictions:
            try:
                found[who] = metrics.compute(model.task, y[judged], predictions[who][judged])
            except TerminalError as error:
                if who == "challenger":
                    raise
                problems[who] = str(error)
        evaluations[who] = gate.Evaluation(
            found[who], int(judged.sum()), keys, snapshot.fingerprint, run_id, as_of, problems.get(who)
        )
    verdict = gate.judge(
        model,
        evaluations["challenger"],
        evaluations["baseline"],
        evaluations.get("champion"),
        champion_as_of=champion.as_of if champion else None,
        run_id=run_id,
        as_of=as_of,
        fingerprint=snapshot.fingerprint,
    )
    return Judged(
        split=parts,
        encoding=encoding,
        fitted=fitted,
        prediction=predictions["challenger"],
        holdout=metrics.compute(model.task, y, predictions["challenger"]),
        metrics=found,
        rows={
            "all": parts.rows.num_rows,
            "training": parts.training.num_rows,
            "purged": parts.purged,
            "holdout": parts.holdout.num_rows,
            "judged": int(judged.sum()),
        },
        notes={
            "holdout_start": parts.boundary.isoformat(),
            "constant_features": list(parts.constant),
            "infinite": known.infinite,
            "holdout_unseen": held.unseen,
            "holdout_infinite": held.infinite,
            "problems": problems,
        },
        verdict=verdict,
    )


def judged_rows(model: ModelSpec, parts: Split, champion: registry.Champion | None) -> np.ndarray:
    """Which holdout rows are judged (booleans): those that the champion has not learnt, if they are enough."""
    every = np.ones(parts.holdout.num_rows, dtype=bool)
    if champion is None:
        return every
    fresh = micros(parts.holdout) >= in_micros(champion.trained_until - moment(0))
    if int(fresh.sum()) < model.training.min_holdout_rows:
        return every
    if model.task == "binary" and len(np.unique(labels(parts.holdout)[fresh])) < 2:
        return every
    return fresh
