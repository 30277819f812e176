"""Evaluates a training's challenger: split, choose, fit, then challenger, baseline and champion on the same holdout rows.

A champion that was fitted again on all its rows has learnt part of the holdout of the trainings that follow soon;
on those rows it would look better than it is. So the rows that the champion has not learnt are judged, where they
are enough; where they are not, the whole holdout is, which favours the champion: a challenger that wins nevertheless is
promoted, one that loses is rejected for want of new rows (`not_enough_fresh_rows`).

A challenger that loses a comparison is compared once more, by a holdout that is walked through (`walk_forward`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger.reasons import NO_BETTER
from evergreen.metrics import metric_values
from evergreen.microseconds import micros_of
from evergreen.registry.encoding import Encoding, survey
from evergreen.registry.models import predict
from evergreen.spec import ModelSpec
from evergreen.training.data.matrix import Matrix, write
from evergreen.training.data.rows import Rows
from evergreen.training.data.split import Split, read, split
from evergreen.training.fitting.fit import Fitted, fit, refit
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.gate import baseline, evidence, gate
from evergreen.training.gate.past_holdouts import Realised
from evergreen.training.gate.verdict import GateVerdict
from evergreen.training.gate.walk_forward import Refitting, Walked, at_once, walk
from evergreen.training.search.choose import Choice, ParamsOf, choose
from evergreen.warehouse.features.snapshot import Snapshot, fingerprint_of

Load = Callable[[ModelSpec, str], registry.LoadedModel]
Again = Callable[[registry.LoadedModel, Rows], Rows]
Fitting = Callable[[ModelSpec, Encoding, Labelled, np.ndarray, Machine], Fitted]


@dataclass(frozen=True)
class EvaluatedChallenger:
    """The challenger as the gate saw it.

    `split` and `matrix` hold the rows of the window that was chosen, `choice` says what else it was trained with. `matrix`
    is encoded by `encoding`; `machine` is where it was fitted. `prediction` are its predictions
    for the whole holdout, `holdout` its metrics there, `naive` the baseline's; `metrics` those of challenger (by the steps of `evidence`), baseline and
    champion on the judged rows; `evidence` what the gate weighed beside them; `rows` the number of rows of each part; `notes` what a person may want to know and no rule asks for.
    """

    split: Split
    encoding: Encoding
    matrix: Matrix
    machine: Machine
    choice: Choice
    fitted: Fitted
    prediction: np.ndarray
    holdout: dict[str, float]
    naive: dict[str, float]
    metrics: dict[str, dict[str, float]]
    rows: dict[str, int]
    notes: dict[str, Any]
    evidence: evidence.Evidence
    verdict: GateVerdict


def evaluate(
    model: ModelSpec,
    snapshot: Snapshot,
    as_of: datetime,
    run_id: str,
    champion: registry.Champion | None,
    machine: Machine,
    work: Path,
    answers_drift: bool,
    load: Load | None = None,
    fitting: Fitting = fit,
    refitting: Refitting = refit,
    studies: Path | None = None,
    params_of: ParamsOf | None = None,
    again: Again | None = None,
    realised: Realised | None = None,
) -> EvaluatedChallenger:
    """Choose window and parameters, fit a challenger on the training part of a snapshot, and ask the gate about it.

    Args:
        model: the spec.
        snapshot: its rows as of `as_of`.
        as_of: the training's as-of time.
        run_id: the training.
        champion: of now; None if there is none yet.
        machine: where the challenger is fitted.
        work: a folder for the encoded rows, which are read until the training ends.
        answers_drift: whether the training answers a drift, see `plan.answers_drift`.
        load: gives a version by its number, of this spec, and raises as `registry.load` does. Default: that, and the version's
            own spec in MLflow says whether it predicts the same label.
        fitting, refitting: fit as `fit.fit` and `fit.refit` do.
        again: reads holdout rows once more with the features of a version that the spec has left since.
        realised: what the newest promotions came to, see there.
        studies, params_of: what a search for parameters keeps and begins with, see `choose.choose`.

    Raises:
        TerminalError: rows, labels or parameters that cannot be used; a challenger whose predictions are not
            finite. A champion that cannot be loaded or cannot score the rows is no error: the gate says what that means.
        TransientError: MLflow, or the cluster that the spec asks for, does not answer.
    """
    whole = split(model, read(model, snapshot))
    learnt = survey(model, whole.training.batches(model.features.all))
    encoding = learnt.encoding
    matrix, (known, _, held) = write(
        encoding, (whole.training, whole.between, whole.holdout), work / "judged.f32"
    )
    choice = choose(
        model, whole, encoding, matrix, as_of, run_id, snapshot.fingerprint, champion, machine,
        studies, params_of,
    )  # fmt: skip
    parts, matrix = whole.since(choice.first), matrix.part(choice.first)
    training = len(parts.training)
    fitted = fitting(
        choice.model,
        encoding,
        Labelled(matrix.part(0, training), parts.training.labels),
        parts.training.times,
        machine,
    )
    predictions = {
        "challenger": matrix.part(len(matrix) - len(parts.holdout)).predict(fitted.booster),
        "baseline": baseline.predict(model, whole),
    }
    problems: dict[str, str] = {}
    recorded = champion.holdout if champion else {}
    if champion is not None:
        try:
            unlike = "" if load else _unlike(model, registry.trained_as(model, champion.run_id))
            if unlike:
                problems["champion"], recorded = unlike, {}
            else:
                version = (load or registry.load)(model, champion.version)
                predictions["champion"] = _predict(version, _seen(model, version, parts.holdout, again))
        except TerminalError as error:
            problems["champion"] = str(error)
    y, fresh = parts.holdout.labels, fresh_rows(parts, champion)
    judged = judged_rows(model, y, fresh)
    learnt_too = int((judged & ~fresh).sum())
    keys, held_rows = _digest(parts.holdout, judged), fingerprint_of(model, Path(snapshot.path))
    categories, cost = _categories(model, parts.holdout, judged), _cost(model, fitted, matrix)
    other_seed = _other_seed(choice.model, parts, matrix, encoding, machine, judged, fitting)
    own_seed = None

    def asked(
        walked: Walked,
    ) -> tuple[dict[str, dict[str, float]], evidence.Evidence, GateVerdict, dict[str, str]]:
        """The metrics of the judged rows, the evidence and the gate's verdict, by a challenger's predictions; and what is absent."""
        by = {**predictions, "challenger": walked.prediction}
        found: dict[str, dict[str, float]] = {}
        evaluations: dict[str, gate.Evaluation] = {}
        absent = dict(problems)
        for who in ("challenger", "baseline", *(("champion",) if champion else ())):
            found[who] = {}
            if who in by:
                try:
                    found[who] = metric_values.compute(model.task, y[judged], by[who][judged], model.cut)
                except TerminalError as error:
                    if who == "challenger":
                        raise
                    absent[who] = str(error)
            evaluations[who] = gate.Evaluation(
                found[who], int(judged.sum()), keys, held_rows, run_id, as_of, absent.get(who)
            )
        weighed = evidence.gather(
            model,
            parts.holdout.times[judged],
            y[judged],
            {who: p[judged] for who, p in by.items()},
            categories,
            learnt_until=walked.learnt_until,
            learnt_labels=parts.training.labels,
            cost=cost,
            other_seed=other_seed,
            own_seed=own_seed,
            champion_learnt=learnt_too,
            begin=walked.begin if walked.steps > 1 else None,
            steps=walked.steps,
        )
        verdict = gate.judge_challenger(
            model,
            evaluations["challenger"],
            evaluations["baseline"],
            evaluations.get("champion"),
            evidence=weighed,
            answers_drift=answers_drift,
            champion_as_of=champion.as_of if champion else None,
            run_id=run_id,
            as_of=as_of,
            fingerprint=snapshot.fingerprint,
            recorded=recorded,
            realised=realised,
        )
        return found, weighed, verdict, absent

    first = predictions["challenger"]
    found, weighed, verdict, absent = asked(at_once(parts, first))
    if verdict.reason in NO_BETTER and model.training.holdout_steps > 1:
        own_seed = found["challenger"] if other_seed else None
        # What one fit of before the holdout lost, those that learn on the way may win.
        found, weighed, verdict, absent = asked(
            walk(choice.model, parts, matrix, encoding, fitted, first, machine, refitting)
        )
    return EvaluatedChallenger(
        split=parts,
        encoding=encoding,
        matrix=matrix,
        machine=machine,
        choice=choice,
        fitted=fitted,
        prediction=first,
        holdout=metric_values.compute(model.task, y, first, model.cut),
        naive=metric_values.compute(model.task, y, predictions["baseline"], model.cut),
        metrics=found,
        rows={
            "all": len(parts.rows),
            "training": training,
            "purged": parts.purged,
            "holdout": len(parts.holdout),
            "judged": int(judged.sum()),
            "champion_learnt": learnt_too,
        },
        notes={
            "holdout_start": parts.boundary.isoformat(),
            "constant_features": list(learnt.constant),
            "infinite": known.infinite,
            "holdout_unseen": held.unseen,
            "holdout_infinite": held.infinite,
            "problems": absent,
            **({"device": machine.note} if machine.note else {}),
        },
        evidence=weighed,
        verdict=verdict,
    )


def _unlike(model: ModelSpec, trained: Mapping[str, Any]) -> str:
    """Why a version does not predict what the spec of now asks for; empty where it does."""
    for what, was, now in (
        ("task", trained.get("task"), model.task),
        ("label", (trained.get("label") or {}).get("column"), model.label.column),
    ):
        if was != now:
            return f"it was trained for the {what} {was}, the spec's {what} is {now} now"
    return ""


def _cost(model: ModelSpec, fitted: Fitted, matrix: Matrix) -> evidence.Cost | None:
    """What a prediction costs, where the spec limits it."""
    if model.gate.max_predict_ms is None and model.gate.max_size_mb is None:
        return None
    head = next(matrix.part(0, min(len(matrix), evidence.TIMED_ROWS)).batches())
    size = len(fitted.booster.save_raw("ubj"))
    return evidence.measure_cost(lambda rows: predict(fitted.booster, rows), head, size)


def _other_seed(
    model: ModelSpec,
    parts: Split,
    matrix: Matrix,
    encoding: Encoding,
    machine: Machine,
    judged: np.ndarray,
    fitting: Fitting,
) -> dict[str, float] | None:
    """Metrics of a whole fit with another seed, early stopping too, where the spec asks how much they move."""
    if model.gate.stability is None:
        return None
    other = model.model_copy(
        update={"training": model.training.model_copy(update={"seed": model.training.seed + 1})}
    )
    learnt = Labelled(matrix.part(0, len(parts.training)), parts.training.labels)
    booster = fitting(other, encoding, learnt, parts.training.times, machine).booster
    held = matrix.part(len(matrix) - len(parts.holdout)).predict(booster)
    return metric_values.compute(model.task, parts.holdout.labels[judged], held[judged], model.cut)


def fresh_rows(parts: Split, champion: registry.Champion | None) -> np.ndarray:
    """Which holdout rows the champion has not learnt (booleans)."""
    if champion is None:
        return np.ones(len(parts.holdout), dtype=bool)
    return parts.holdout.times >= micros_of(champion.trained_until)


def judged_rows(model: ModelSpec, labels: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Which holdout rows are judged (booleans): the fresh ones if they are enough, else all."""
    every = np.ones_like(fresh)
    if int(fresh.sum()) < model.training.min_holdout_rows:
        return every
    if model.task == "binary" and len(np.unique(labels[fresh])) < 2:
        return every
    return fresh


def _categories(model: ModelSpec, rows: Rows, chosen: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """The categorical features of the chosen rows."""
    names = list(model.features.categorical)
    if not names:
        return {}
    table = pa.Table.from_batches(list(rows.batches(names))).filter(pa.array(chosen))
    return {name: table[name] for name in names}


def _seen(model: ModelSpec, version: registry.LoadedModel, held: Rows, again: Again | None) -> Rows:
    """The holdout with the features that a version was trained on.

    Raises:
        TerminalError: the feature query does not give them any more, or other rows than the snapshot has (REGISTRY_MISMATCH).
    """
    wanted, have = version.seen_by(model), model.features
    there = {*wanted.features.numeric} <= {*have.numeric} and {*wanted.features.categorical} <= {
        *have.categorical
    }
    if there or again is None:
        return held
    rows = again(version, held)
    if not (np.array_equal(rows.hashes, held.hashes) and np.array_equal(rows.times, held.times)):
        raise TerminalError(
            f"{len(rows)} rows have the features that it was trained on, the holdout has {len(held)} others",
            ErrorReason.REGISTRY_MISMATCH,
        )
    return rows


def _predict(version: registry.LoadedModel, rows: Rows) -> np.ndarray:
    there = set(rows.names)
    found, at = np.empty(len(rows)), 0
    for batch in rows.batches([name for name in version.encoding.features if name in there]):
        found[at : at + batch.num_rows] = version.predict(pa.Table.from_batches([batch]))
        at += batch.num_rows
    return found


def _digest(rows: Rows, chosen: np.ndarray) -> str:
    """SHA-256 of the chosen rows' keys, a line each."""
    digest, at, between = hashlib.sha256(), 0, ""
    for batch in rows.batches(["_key"]):
        keys = batch.column(0).filter(pa.array(chosen[at : at + batch.num_rows])).to_pylist()
        if keys:
            digest.update((between + "\n".join(keys)).encode())
            between = "\n"
        at += batch.num_rows
    return digest.hexdigest()
