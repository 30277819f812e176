"""Evaluates a training's challenger: split, choose, fit, then challenger, baseline and champion on the same holdout rows.

A champion that was fitted again on all its rows has learnt part of the holdout of the trainings that follow soon;
on those rows it would look better than it is. So the rows that the champion has not learnt are judged, where they
are enough; where they are not, the whole holdout is, which favours the champion: a challenger that wins nevertheless is
promoted, one that loses is rejected for want of new rows (`not_enough_fresh_rows`).

A challenger that loses a comparison is compared once more, by a holdout that is walked through (`walk_forward`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from evergreen.training.fitting import rounds
from evergreen.training.fitting.fit import Fitted, Refitting, fit, refit
from evergreen.training.fitting.local import Boosted, Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.gate import baseline, evidence, log_lines
from evergreen.training.gate.candidates import Evaluation, JudgedChampion, JudgedTraining
from evergreen.training.gate.gate import judge_challenger
from evergreen.training.gate.verdict import GateVerdict
from evergreen.training.gate.walk_forward import Walked, at_once, walk
from evergreen.training.search.choose import Choice, ParamsOf, Search, choose
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
    champion on the judged rows, which `judged` says of the holdout (booleans); `compared` are the predictions for the whole holdout that these
    come from, of those that could be evaluated; `evidence` what the gate weighed beside them; `rows` the number of rows of each part; `notes` what a person may want to know and no rule asks for.
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
    judged: np.ndarray
    compared: Mapping[str, np.ndarray]
    rows: dict[str, int]
    notes: dict[str, Any]
    evidence: evidence.Evidence
    verdict: GateVerdict


@dataclass(frozen=True)
class Means:
    """By what a training does its work; a rehearsal and a replay bring their own.

    Attributes:
        load: gives a version by its number, of this spec, and raises as `registry.load` does. Default: that, and the version's
            own spec in MLflow says whether it predicts the same label.
        fitting, refitting: fit as `fit.fit` and `fit.refit` do.
        again: reads holdout rows once more with the features of a version that the spec has left since.
        studies, params_of: what a search for parameters keeps and begins with, see `choose.Search`.
    """

    load: Load | None = None
    fitting: Fitting = fit
    refitting: Refitting = refit
    again: Again | None = None
    studies: Path | None = None
    params_of: ParamsOf | None = None


def evaluate(
    model: ModelSpec,
    snapshot: Snapshot,
    training: JudgedTraining,
    champion: registry.Champion | None,
    machine: Machine,
    work: Path,
    means: Means | None = None,
) -> EvaluatedChallenger:
    """Choose window and parameters, fit a challenger on the training part of a snapshot, and ask the gate about it.

    Args:
        model: the spec.
        snapshot: its rows as of the training.
        training: which asks.
        champion: of now; None if there is none yet.
        machine: where the challenger is fitted.
        work: a folder for the encoded rows, which are read until the training ends.
        means: see there.

    Raises:
        TerminalError: rows, labels or parameters that cannot be used; a challenger whose predictions are not
            finite. A champion that cannot be loaded or cannot score the rows is no error: the gate says what that means.
        TransientError: MLflow, or the cluster that the spec asks for, does not answer.
    """
    means = means or Means()
    whole = split(model, read(model, snapshot))
    log_lines.rows(model, whole)
    learnt = survey(model, whole.training.batches(model.features.all))
    encoding = learnt.encoding
    matrix, (known, _, held) = write(
        encoding, (whole.training, whole.between, whole.holdout), work / "judged.f32"
    )
    search = Search(training.run_id, snapshot.fingerprint, champion, means.studies, means.params_of)
    choice = choose(model, whole, encoding, matrix, training.as_of, machine, search)
    parts, matrix = whole.since(choice.first), matrix.part(choice.first)
    learnt_rows = len(parts.training)
    began = time.monotonic()
    with rounds.told(model.name):
        fitted = means.fitting(
            choice.model,
            encoding,
            Labelled(matrix.part(0, learnt_rows), parts.training.labels),
            parts.training.times,
            machine,
        )
    log_lines.fitted(model, fitted, learnt_rows, time.monotonic() - began)
    predictions = {
        "challenger": matrix.part(len(matrix) - len(parts.holdout)).predict(fitted.booster),
        "baseline": baseline.predict(model, whole),
    }
    problems: dict[str, str] = {}
    recorded: Mapping[str, float] = {}
    if champion is not None:
        served, problem, recorded = _champions(model, champion, parts.holdout, means)
        if served is None:
            problems["champion"] = problem
        else:
            predictions["champion"] = served
    y, fresh = parts.holdout.labels, fresh_rows(parts, champion)
    judged = judged_rows(model, y, fresh)
    learnt_too = int((judged & ~fresh).sum())
    keys, held_rows = _digest(parts.holdout, judged), fingerprint_of(model, Path(snapshot.path))
    categories, cost = _categories(model, parts.holdout, judged), _cost(model, fitted, matrix)
    other_seed = _other_seed(choice.model, parts, matrix, encoding, machine, judged, means.fitting)
    own_seed = None

    def judged_by(
        walked: Walked,
    ) -> tuple[dict[str, dict[str, float]], evidence.Evidence, GateVerdict, dict[str, str]]:
        """The metrics of the judged rows, the evidence and the gate's verdict, by a challenger's predictions; and what is absent."""
        by = {**predictions, "challenger": walked.prediction}
        found: dict[str, dict[str, float]] = {}
        evaluations: dict[str, Evaluation] = {}
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
            evaluations[who] = Evaluation(
                found[who],
                int(judged.sum()),
                keys,
                held_rows,
                training.run_id,
                training.as_of,
                absent.get(who),
            )
        weighed = evidence.gather(
            model,
            evidence.JudgedRows(
                parts.holdout.times[judged],
                y[judged],
                {who: p[judged] for who, p in by.items()},
                categories,
            ),
            evidence.JudgedFit(
                learnt_until=walked.learnt_until,
                learnt_labels=parts.training.labels,
                cost=cost,
                other_seed=other_seed,
                own_seed=own_seed,
                champion_learnt=learnt_too,
                begin=walked.begin if walked.steps > 1 else None,
                steps=walked.steps,
            ),
        )
        verdict = judge_challenger(
            model,
            evaluations["challenger"],
            evaluations["baseline"],
            JudgedChampion(evaluations.get("champion"), champion.as_of if champion else None, recorded),
            weighed,
            training,
        )
        return found, weighed, verdict, absent

    first = predictions["challenger"]
    walked = at_once(parts, first)
    found, weighed, verdict, absent = judged_by(walked)
    if verdict.reason in NO_BETTER and model.training.holdout_steps > 1:
        own_seed = found["challenger"] if other_seed else None

        def fit_again(data: Labelled) -> Boosted:
            return means.refitting(choice.model, encoding, data, fitted.rounds, machine)

        # What one fit of before the holdout lost, those that learn on the way may win.
        walked = walk(choice.model, parts, matrix, fitted.booster, first, fit_again)
        found, weighed, verdict, absent = judged_by(walked)
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
        judged=judged,
        compared={**predictions, "challenger": walked.prediction},
        rows={
            "all": len(parts.rows),
            "training": learnt_rows,
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


def _champions(
    model: ModelSpec, champion: registry.Champion, holdout: Rows, means: Means
) -> tuple[np.ndarray | None, str, Mapping[str, float]]:
    """What the champion predicts of the holdout, or None and why it cannot; and its metrics on a holdout of its own.

    Those count only where it predicts what the spec of now asks for.
    """
    try:
        unlike = "" if means.load else _unlike(model, registry.trained_as(model, champion.run_id))
        if unlike:
            return None, unlike, {}
        version = (means.load or registry.load)(model, champion.version)
        return _predict(version, _holdout_for(model, version, holdout, means.again)), "", champion.holdout
    except TerminalError as error:
        return None, str(error), champion.holdout


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


def _holdout_for(model: ModelSpec, version: registry.LoadedModel, held: Rows, again: Again | None) -> Rows:
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
