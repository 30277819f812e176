"""Optuna looks for parameters on the validation folds: warm-started, pruned, and resumed where a killed try ended.

The study is a journal file of its own for a training's run, rows and spec. A retry of the run reads it and goes on;
anything else begins afresh. The sampler is seeded anew for each trial, with the training's seed and the number of trials
that are finished: so a search that was cut off and resumed comes to what an uninterrupted one comes to (a limit in
minutes depends on the machine, of course).

The space is what matters most for histogram trees of tables (Probst, Boulesteix, Bischl 2019, Journal of Machine Learning
Research 20, "Tunability"): depth, learning rate, least weight of a leaf, shares of rows and columns, L2. The number of
rounds is not in it: early stopping finds that. Other parameters of the spec stay as they are, and so does one of these
whose value in the spec lies outside of what is searched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from evergreen import quiet, settings
from evergreen.progress import Progress, span
from evergreen.spec import ModelSpec
from evergreen.training.search.validate import XGBOOST, Candidate, Scored, Validation, without_predictions
from evergreen.warehouse.storage import progress_store

log = logging.getLogger(__name__)

SPACE: dict[str, BaseDistribution] = {
    "max_depth": IntDistribution(2, 10),
    "learning_rate": FloatDistribution(0.02, 0.4, log=True),
    "min_child_weight": FloatDistribution(0.5, 64.0, log=True),
    "subsample": FloatDistribution(0.5, 1.0),
    "colsample_bytree": FloatDistribution(0.4, 1.0),
    "reg_lambda": FloatDistribution(0.1, 100.0, log=True),
}
DEFAULTS = {
    "max_depth": 6, "learning_rate": 0.3, "min_child_weight": 1.0, "subsample": 1.0, "colsample_bytree": 1.0, "reg_lambda": 1.0,
}  # fmt: skip
ALIASES = {"eta": "learning_rate", "lambda": "reg_lambda"}
# Trials before the sampler trusts what it has seen, and before the pruner does.
RANDOM_TRIALS, UNPRUNED_TRIALS = 8, 4
KEPT_STUDIES = 20


def searched(params: dict[str, Any]) -> dict[str, BaseDistribution]:
    """The part of the space that is searched from these parameters."""
    names = canonical(params)
    return {n: d for n, d in SPACE.items() if _inside(d, names.get(n, DEFAULTS[n]))}


def canonical(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with one name each: XGBoost knows some under two."""
    return {ALIASES.get(name, name): value for name, value in params.items()}


def near(params: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """The spec's parameters with those of another model where the space has them, moved to its edge if beyond it."""
    found = canonical(start)
    moved = {}
    for name, space in searched(params).items():
        value = found.get(name, DEFAULTS[name])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = _bounds(space)
            moved[name] = type(low)(min(max(value, low), high))
    return {**canonical(params), **moved}


def search(validation: Validation, reference: Scored, starts: Sequence[Scored], path: Path) -> list[Scored]:
    """Try parameters until the spec's trials or minutes are used up.

    Args:
        validation: scores them.
        reference: what errors are relative to.
        starts: candidates that are scored already, with the window that all trials have; the first one gives the
            parameters that are not searched.
        path: the study's file, see `study_path`.

    Returns:
        Every finished trial, in order, without its predictions; also those of an earlier try of the same run.

    Raises:
        TransientError: the cluster that the spec asks for does not answer; what is finished is kept. Or the bucket of
            EVERGREEN_PROGRESS does not.
        TerminalError: the bucket of EVERGREEN_PROGRESS is missing or may not be used.
    """
    spec = validation.model.training
    base = starts[0].candidate
    space = searched(base.params)
    progress_store.fetch(path)
    study = _opened(path, spec.tune.pruning)
    _begin(study, starts, space, validation, reference)
    found = [_scored(n, t, base) for n, t in enumerate(_finished(study), 1)]
    if found:
        log.info(f"{len(found)} trials of an earlier try are taken over from {path.name}")
    told = _Told(validation, reference, len(found))
    while space and _more(spec.tune.trials, spec.tune.minutes, found):
        study.sampler = optuna.samplers.TPESampler(
            seed=_seed(spec.seed, len(found)), n_startup_trials=RANDOM_TRIALS
        )
        trial = study.ask(space)
        candidate = Candidate(
            XGBOOST, f"trial {len(found) + 1}", base.window, _merged(base.params, trial.params)
        )

        def hopeless(done: int, values: tuple[float, ...], trial: optuna.Trial = trial) -> bool:
            trial.report(validation.relative(values, reference), done)
            return trial.should_prune()

        scored = validation.score(candidate, hopeless)
        trial.set_user_attr(
            "scored", json.dumps([scored.values, scored.rounds, scored.seconds, scored.problem])
        )
        if scored.problem:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, validation.relative(scored.values, reference))
        progress_store.send(path)
        found = _with_best_predictions(found, scored, validation, reference)
        best = min((validation.relative(s.values, reference) for s in found if not s.problem), default=None)
        told.trial(scored, found, best)
    return found


class _Told:
    """Tells of a search: its first trial, each that is the best so far, and between them now and then how far it is."""

    def __init__(self, validation: Validation, reference: Scored, before: int) -> None:
        """`before`: so many trials are of an earlier try."""
        self._validation, self._reference, self._before = validation, reference, before
        self._best: float | None = None
        self._name, most = validation.model.name, validation.model.training.tune.trials
        self._total = None if most is None else most - before
        self._progress = Progress(log, f"{self._name}: search for parameters", self._total, "trial")

    def trial(self, scored: Scored, found: Sequence[Scored], best: float | None) -> None:
        """One more trial; `found` are all, `best` is the smallest error so far as a share of the reference's."""
        done = len(found) - self._before
        better = best is not None and (self._best is None or best < self._best)
        self._best = best
        if not better and done > 1:
            said = "" if best is None else f"; the best so far has {best:.4f} of the reference error"
            self._progress.tell(done, said)
            return
        error = self._validation.relative(scored.values, self._reference) if scored.values else None
        log.info(
            "%s: trial %d%s: %s in %s%s",
            self._name, len(found), f" of {self._total + self._before}" if self._total is not None else "",
            scored.problem or f"{error:.4f} of the reference error, the best so far", span(scored.seconds),
            self._progress.left(done),
        )  # fmt: skip


def _with_best_predictions(
    found: list[Scored], newest: Scored, validation: Validation, reference: Scored
) -> list[Scored]:
    """All trials, the best one with its predictions."""
    whole = [s for s in (*found, newest) if not s.problem]
    best = min(whole, key=lambda s: validation.relative(s.values, reference), default=None)
    return [s if s is best else without_predictions(s) for s in (*found, newest)]


def study_path(model: ModelSpec, run_id: str, fingerprint: str, folder: Path | None = None) -> Path:
    """Where the study of a run is kept; older studies in the folder beyond `KEPT_STUDIES` are removed.

    One process at a time searches for a run: who opens a study takes a trial that is not finished for one that was killed.

    Args:
        model: the spec.
        run_id: the training.
        fingerprint: of its snapshot.
        folder: of the studies; default `EVERGREEN_HOME/studies/MODEL`.
    """
    key = "\n".join((model.model_dump_json(), run_id, fingerprint))
    folder = folder or settings.HOME.path() / "studies" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"
    others = sorted((p for p in folder.glob("*.jsonl") if p != path), key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - KEPT_STUDIES + 1)]:
        old.unlink(missing_ok=True)
        old.with_suffix(".lock").unlink(missing_ok=True)
    return path


class _Lock(JournalFileOpenLock):
    """Ends with the process, however that ends: Optuna's own would make the next try wait for half a minute."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def acquire(self) -> bool:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


def _opened(path: Path, pruning: bool) -> optuna.Study:
    quiet.hand_over("optuna")
    if path.exists():
        # A kill in the middle of a line would make the next line unreadable too.
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.write_bytes(content[: content.rfind(b"\n") + 1])
    storage = JournalStorage(JournalFileBackend(str(path), _Lock(path.with_suffix(".lock"))))
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS)
        if pruning
        else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(
        storage=storage, study_name="tune", direction="minimize", pruner=pruner, load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _begin(
    study: optuna.Study,
    starts: Sequence[Scored],
    space: dict[str, BaseDistribution],
    validation: Validation,
    reference: Scored,
) -> None:
    """Put what is scored already into the study, so that the sampler and the pruner know it."""
    there = {t.user_attrs.get("start") for t in study.get_trials(deepcopy=False)}
    for start in starts:
        params = {n: v for n, v in {**DEFAULTS, **canonical(start.candidate.params)}.items() if n in space}
        if start.problem or start.candidate.source in there:
            continue
        steps = {
            done: validation.relative(start.values[:done], reference) for done in range(1, len(start.values))
        }
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions=space,
                value=validation.relative(start.values, reference),
                intermediate_values=steps,
                user_attrs={"start": start.candidate.source},
            )
        )


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return [
        t
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if "scored" in t.user_attrs
    ]


def _scored(number: int, trial: FrozenTrial, base: Candidate) -> Scored:
    values, rounds, seconds, problem = json.loads(trial.user_attrs["scored"])
    candidate = Candidate(XGBOOST, f"trial {number}", base.window, _merged(base.params, trial.params))
    return Scored(candidate, tuple(values), tuple(rounds), seconds, problem)


def _merged(params: dict[str, Any], tried: dict[str, Any]) -> dict[str, Any]:
    return {**canonical(params), **tried}


def _more(trials: int | None, minutes: float | None, found: list[Scored]) -> bool:
    if trials is not None and len(found) >= trials:
        return False
    return minutes is None or sum(s.seconds for s in found) < 60 * minutes


def _seed(seed: int, finished: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{finished}".encode()).digest()[:4], "big")


def _inside(space: BaseDistribution, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    low, high = _bounds(space)
    return bool(low <= value <= high)


def _bounds(space: BaseDistribution) -> tuple[Any, Any]:
    if not isinstance(space, (IntDistribution, FloatDistribution)):
        raise TypeError(f"{space} has no bounds")
    return space.low, space.high
