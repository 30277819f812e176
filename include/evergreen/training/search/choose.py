"""Chooses how much history and which parameters a challenger is trained with, on folds before the gate's holdout.

First the window, with the spec's parameters; then, on that window, the parameters: the spec's, the champion's, and what
Optuna finds. What stands first in each list (the longest window, the spec's parameters) is kept unless another is better
by more than the noise of the folds: a choice that follows the noise changes every night and pays for nothing.

Whatever is chosen, the model that is trained is XGBoost's: other learners are scored to be looked at, because a served
version is stored in XGBoost's own format, and nothing here is a pickle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen import registry
from evergreen.errors import TerminalError
from evergreen.microseconds import micros_of, moment
from evergreen.registry.client import client, guarded
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec, format_duration
from evergreen.training.data.folds import first_row, folds
from evergreen.training.data.matrix import Matrix
from evergreen.training.data.split import Split
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.search.leaderboard import Leaderboard
from evergreen.training.search.validate import (
    XGBOOST,
    Candidate,
    Scored,
    Validation,
    with_params,
    without_predictions,
)

log = logging.getLogger(__name__)

ParamsOf = Callable[[ModelSpec, registry.Champion], dict[str, Any] | None]

CONFIDENCE = 0.8
"""How sure it must be, on the rows of all folds, that a candidate is better than one that stands before it.

On the real bike rides and a simulated city (benchmarks/decisions_windows.py), with four folds, 0.8 served an error of at
most 1.011 of the best fixed window's for every set of windows that was tried. 0.55 follows the noise (1.03 in the city), 0.9
comes late after a change (1.03 on the rides, windows of all, 120 and 30 days). Weighing the newest folds more helped in the
city and hurt on the rides; staying with the window of the training before hurt in the city.
"""


@dataclass(frozen=True)
class Choice:
    """What a challenger is trained with.

    Attributes:
        model: the spec, with the parameters that were chosen.
        first: the first row of the snapshot that it learns from.
        window: that was chosen, as the spec writes it.
        board: all candidates; None where nothing was open to choice, or nothing could be validated.
        sentence: what came out; empty where nothing was open to choice.
    """

    model: ModelSpec
    first: int
    window: str
    board: Leaderboard | None = None
    sentence: str = ""

    def summary(self) -> dict[str, Any] | None:
        """What the ledger keeps of it; None where nothing was open to choice."""
        if not self.sentence:
            return None
        told: dict[str, Any] = {
            "sentence": self.sentence,
            "window": self.window,
            "params": self.model.training.params,
        }
        if self.board is None:
            return {**told, "candidates": 0, "folds": 0}
        chosen = self.board.scored[self.board.chosen]
        return {
            **told,
            "source": chosen.candidate.source,
            "candidates": len(self.board.scored),
            "folds": len(self.board.folds),
            "metric": self.board.metric,
            "validated": chosen.mean,
        }


@dataclass(frozen=True)
class Search:
    """What a search for parameters keeps and begins with.

    Attributes:
        run_id: the training, whose study a retry goes on with.
        fingerprint: of the snapshot.
        champion: of now; its parameters are among the candidates where the spec asks for tuning.
        studies: folder of the searches' journals, see `tune.study_path`.
        params_of: gives the parameters that a champion was fitted with, None where nobody knows; default
            `champions_params`.
    """

    run_id: str
    fingerprint: str
    champion: registry.Champion | None = None
    studies: Path | None = None
    params_of: ParamsOf | None = None


def choose(
    model: ModelSpec,
    parts: Split,
    encoding: Encoding,
    matrix: Matrix,
    as_of: datetime,
    machine: Machine,
    search: Search,
) -> Choice:
    """Choose window and parameters; the same rows, spec and champion give the same choice, but for `tune.minutes`.

    Args:
        model: the spec.
        parts: the snapshot with its longest window; only the training part is looked at.
        encoding: of the rows.
        matrix: all of them, encoded.
        as_of: the training's as-of time.
        machine: where fits run.
        search: what one keeps and begins with, where the spec asks for it.

    Raises:
        TransientError: MLflow, or the cluster that the spec asks for, does not answer.
    """
    spec = model.training
    base = Candidate(XGBOOST, "spec", spec.lengths[0], spec.params)
    if not spec.validates:
        return Choice(model, 0, base.window_text)
    count = len(parts.training)
    data, times = Labelled(matrix.part(0, count), parts.training.labels), parts.training.times
    found = tuple(folds(model, parts, as_of))
    if not found:
        told = f"there is too little history for a validation fold: trained with window {base.window_text} and the spec's parameters"
        log.warning("%s: %s", model.name, told)
        return Choice(model, 0, base.window_text, sentence=told + ".")
    validation = Validation(model, encoding, data, times, found, machine)
    length = format_duration(spec.fold_length)
    log.info(
        "%s: %d validation folds of %s, the newest of %d rows",
        model.name,
        len(found),
        length,
        found[0].end - found[0].begin,
    )

    now = micros_of(as_of)
    windows = _windows(validation, base, now)
    usable = [s for s in windows if not s.problem]
    if not usable:
        told = f"no window could be validated ({windows[0].problem}): trained with {base.window_text} and the spec's parameters."
        log.warning("%s: %s", model.name, told)
        board = Leaderboard(
            model.gate_metric, _named(validation), tuple(windows), (None,) * len(windows), 0, told
        )
        return Choice(model, 0, base.window_text, board, told)
    reference = usable[0]
    chosen = _preferred(validation, usable)
    sentences = [_on_windows(validation, usable, chosen)] if len(windows) > 1 else []
    scored = [without_predictions(s) for s in windows]
    if spec.tune.on:
        # Optuna is imported only where a spec asks for it.
        from evergreen.training.search import tune

        champion = search.champion
        theirs = (search.params_of or champions_params)(model, champion) if champion else None
        study = tune.study_path(model, search.run_id, search.fingerprint, search.studies)
        chosen, tried, sentence = _tuned(validation, reference, chosen, theirs, study)
        scored += tried
        sentences.append(sentence)
    for kind in spec.compare_with:
        other = validation.score(Candidate(kind, "compare_with", chosen.candidate.window, {}))
        scored.append(without_predictions(other))
        sentences.append(_on_other(validation, other, chosen))
    sentence = " ".join(sentences)
    log.info("%s: %s", model.name, sentence)
    board = Leaderboard(
        model.gate_metric, _named(validation), tuple(scored),
        tuple(None if s.problem else validation.relative(s.values, reference) for s in scored),
        [s.candidate for s in scored].index(chosen.candidate), sentence,
    )  # fmt: skip
    first = first_row(parts.rows.times, now, chosen.candidate.window)
    return Choice(
        with_params(model, chosen.candidate.params), first, chosen.candidate.window_text, board, sentence
    )


def _windows(validation: Validation, base: Candidate, now: int) -> list[Scored]:
    """Each window with the spec's parameters, longest first; those that hold the same rows are fitted once."""
    seen: dict[tuple[int, ...], Scored] = {}
    found = []
    for window in validation.model.training.lengths:
        candidate = Candidate(XGBOOST, "spec", window, base.params)
        first = first_row(validation.times, now, window)
        rows = tuple(first_row(validation.times, fold.as_of, window) for fold in validation.folds)
        if len(validation.data) - first < validation.model.training.min_rows:
            problem = f"{len(validation.data) - first} rows, training.min_rows is {validation.model.training.min_rows}"
            found.append(Scored(candidate, (), (), 0.0, problem))
        elif rows in seen:
            found.append(replace(seen[rows], candidate=candidate, seconds=0.0))
        else:
            seen[rows] = validation.score(candidate)
            log.info(
                "%s: window %s: %s",
                validation.model.name,
                candidate.window_text,
                _score_text(seen[rows]),
            )
            found.append(seen[rows])
    return found


def _preferred(validation: Validation, candidates: Sequence[Scored]) -> Scored:
    """The first one, or a later one that is surely better than what was preferred before it."""
    chosen = candidates[0]
    for other in candidates[1:]:
        low = validation.improvement(other, chosen, CONFIDENCE).low
        if low is not None and low > 0:
            chosen = other
    return chosen


def _tuned(
    validation: Validation,
    reference: Scored,
    base: Scored,
    theirs: dict[str, Any] | None,
    study: Path,
) -> tuple[Scored, list[Scored], str]:
    """The preferred parameters, every candidate beside the spec's own, and a sentence.

    `theirs` are the champion's parameters, None where nobody knows them; `study` is the search's journal.
    """
    from evergreen.training.search import tune

    model, window = validation.model, base.candidate.window
    starts = [base]
    if theirs is not None:
        params = tune.near(model.training.params, theirs)
        if params != tune.near(model.training.params, model.training.params):
            starts.append(validation.score(Candidate(XGBOOST, "champion", window, params)))
    trials = tune.search(validation, reference, starts, study)
    usable = [t for t in trials if not t.problem]
    candidates = [s for s in starts if not s.problem]
    if usable:
        best = min(usable, key=lambda t: validation.relative(t.values, reference))
        candidates.append(best if best.predictions else validation.score(best.candidate))
    chosen = _preferred(validation, candidates)
    tried = [without_predictions(s) for s in (*starts[1:], *trials)]
    if chosen is base:
        told = f"None of {len(trials)} trials is surely better than the spec's parameters."
    else:
        source = chosen.candidate.source
        told = (
            f"Of {len(trials)} trials and their starting points, the parameters of {'the ' * (source == 'champion')}{source} are "
            f"better than the spec's by {_gain(validation, chosen, base)}."
        )
    return chosen, tried, told


def champions_params(model: ModelSpec, champion: registry.Champion) -> dict[str, Any] | None:
    """The parameters in the champion's MLflow run; None if there is no such run.

    Raises:
        TransientError: MLflow does not answer.
    """
    try:
        with guarded(f"read the parameters of version {champion.version} of {model.name}"):
            kept = client().get_run(champion.run_id).data.params
    except TerminalError as error:
        log.warning("%s: the search begins without the champion's parameters: %s", model.name, error)
        return None
    found = {}
    for name, text in kept.items():
        if name.startswith("xgb."):
            with suppress(ValueError):
                found[name.removeprefix("xgb.")] = float(text)
    return {n: int(v) if n == "max_depth" else v for n, v in found.items()}


def _on_windows(validation: Validation, usable: Sequence[Scored], chosen: Scored) -> str:
    names = ", ".join(s.candidate.window_text for s in usable)
    if chosen is usable[0]:
        return f"Window {chosen.candidate.window_text} of {names}: no shorter one is surely better."
    return (
        f"Window {chosen.candidate.window_text} of {names}: its error is {_gain(validation, chosen, usable[0])} smaller than that of "
        f"{usable[0].candidate.window_text}."
    )


def _on_other(validation: Validation, other: Scored, chosen: Scored) -> str:
    if other.problem:
        return f"{other.candidate.kind} could not be compared: {other.problem}."
    low = validation.improvement(other, chosen, CONFIDENCE).low
    if low is not None and low > 0:
        return (
            f"{other.candidate.kind} is better than XGBoost by {_gain(validation, other, chosen)} on the validation folds: look at the features "
            "and at training.params."
        )
    return (
        f"{other.candidate.kind} has {validation.relative(other.values, chosen):.2f} times XGBoost's error."
    )


def _gain(validation: Validation, one: Scored, other: Scored) -> str:
    """By how much the error on all rows of the folds is smaller: the number that decided."""
    return f"{100 * (validation.improvement(one, other, CONFIDENCE).point or 0.0):.1f} %"


def _named(validation: Validation) -> tuple[str, ...]:
    """The folds by the time of their first row."""
    starts = [moment(int(validation.times[fold.begin])) for fold in validation.folds]
    return tuple(f"from {start:%Y-%m-%d %H:%M}" for start in starts)


def _score_text(scored: Scored) -> str:
    if scored.problem:
        return scored.problem
    return f"{', '.join(f'{v:.5g}' for v in scored.values)} (newest fold first), {scored.seconds:.1f} s"
