"""Optuna's search: it helps, it resumes after SIGKILL, it repeats itself, and it stays within its limits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec
from evergreen.training.data.folds import Fold
from evergreen.training.data.matrix import Matrix
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.search import choose, tune
from evergreen.training.search.validate import XGBOOST, Candidate, Validation, without_predictions

ROWS, HELD = 3000, 300


def validation_of(model: ModelSpec, folder: Path) -> Validation:
    """Rows whose label is a sum of many small effects: deep trees with a high learning rate learn the noise."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 6)).astype(np.float32)
    x.tofile(folder / "x.f32")
    y = x.sum(axis=1) + rng.normal(scale=2.0, size=ROWS)
    folds = tuple(
        Fold(ROWS - HELD * n, ROWS - HELD * n, ROWS - HELD * (n - 1), ROWS - HELD * (n - 1))
        for n in (1, 2, 3)
    )
    data = Labelled(Matrix(folder / "x.f32", 0, ROWS, 6, True), y.astype(np.float64))
    encoding = Encoding(tuple("abcdef"), {})
    return Validation(model, encoding, data, np.arange(ROWS), folds, Machine())


def search(model_json: str, folder: str, path: str) -> list:
    """What a training does: score the spec's parameters, then look for better ones."""
    model = ModelSpec.model_validate_json(model_json)
    validation = validation_of(model, Path(folder))
    base = validation.score(Candidate(XGBOOST, "spec", "all", model.training.params))
    return tune.search(validation, base, [base], Path(path))


@pytest.fixture
def model(rides, change, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return change(
        rides,
        features={"numeric": tuple("abcdef"), "categorical": ()},
        training={
            "tune": {"trials": 12}, "max_rounds": 60, "min_rows": 100,
            "params": {"max_depth": 10, "learning_rate": 0.4, "min_child_weight": 0.5},
        },
    )  # fmt: skip


def told(trials: list) -> list:
    return [(t.candidate.source, t.candidate.params, t.values, t.rounds, t.problem) for t in trials]


def test_trials_are_better_than_bad_parameters(model, tmp_path):
    validation = validation_of(model, tmp_path)
    base = validation.score(Candidate(XGBOOST, "spec", "all", model.training.params))
    chosen, tried, sentence = choose._tuned(validation, base, base, None, tmp_path / "run.jsonl")
    assert chosen.candidate.source.startswith("trial ")
    assert validation.relative(chosen.values, base) < 0.9
    assert chosen.candidate.params["max_depth"] < 10
    assert "of 12 trials" in sentence.lower()
    assert len(tried) == 12
    assert all(not t.predictions for t in tried)


def test_good_parameters_are_kept_when_no_trial_is_surely_better(model, change, tmp_path):
    validation = validation_of(model, tmp_path)
    base = validation.score(Candidate(XGBOOST, "spec", "all", model.training.params))
    best = choose._tuned(validation, base, base, None, tmp_path / "run.jsonl")[0].candidate.params
    model = change(model, training={"params": best, "tune": {"trials": 3}})
    validation = replace(validation, model=model)
    base = validation.score(Candidate(XGBOOST, "spec", "all", best))
    chosen, _, sentence = choose._tuned(validation, base, base, None, tmp_path / "other.jsonl")
    assert chosen is base
    assert "None of 3 trials" in sentence


def test_a_killed_search_goes_on_and_comes_to_the_same(model, tmp_path):
    whole = search(model.model_dump_json(), str(tmp_path), str(tmp_path / "whole.jsonl"))
    path = tmp_path / "killed.jsonl"
    script = (
        "import logging, runpy, sys; logging.basicConfig(level=logging.INFO, format='%(message)s');"
        "from evergreen import progress; progress.FIRST_S = progress.EVERY_S = 0;"  # tells of each trial
        f"runpy.run_path({__file__!r})['search'](*sys.argv[1:])"
    )
    arguments = [sys.executable, "-c", script, model.model_dump_json(), str(tmp_path), str(path)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if re.search(r"(trial|parameters:) 5 of 12", line):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    # The kill may also fall into the writing of a line.
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "half of a li')
    done = len(tune._finished(tune._opened(path, True)))
    assert 5 <= done < 12
    before = path.stat().st_size
    resumed = search(model.model_dump_json(), str(tmp_path), str(path))
    assert told(resumed) == told(whole)
    assert path.stat().st_size > before
    assert told(search(model.model_dump_json(), str(tmp_path), str(path))) == told(whole)


def test_a_search_goes_on_on_another_worker(model, change, tmp_path, bucket, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("EVERGREEN_PROGRESS", f"{bucket.url}/progress")
    short = change(model, training={"tune": {"trials": 3}})
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "first"))
    path = tune.study_path(model, "run", "rows")
    first = search(short.model_dump_json(), str(tmp_path), str(path))
    assert bucket.get(f"progress/studies/rides/{path.name}") == path.read_bytes()
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "second"))
    path = tune.study_path(model, "run", "rows")
    longer = change(model, training={"tune": {"trials": 4}})
    assert told(search(longer.model_dump_json(), str(tmp_path), str(path)))[:3] == told(first)
    assert "3 trials of an earlier try are taken over" in caplog.text
    content = path.read_text()
    # What is here is not written over by less.
    bucket.put(f"progress/studies/rides/{path.name}", "")
    assert len(search(longer.model_dump_json(), str(tmp_path), str(path))) == 4
    assert path.read_text().startswith(content)


def test_pruning_gives_up_what_is_hopeless_and_only_if_wanted(model, change, tmp_path):
    pruned = search(model.model_dump_json(), str(tmp_path), str(tmp_path / "a.jsonl"))
    given_up = [t for t in pruned if t.problem]
    assert given_up
    assert all(len(t.values) < 3 and "given up" in t.problem for t in given_up)
    model = change(model, training={"tune": {"trials": 12, "pruning": False}})
    assert not [
        t for t in search(model.model_dump_json(), str(tmp_path), str(tmp_path / "b.jsonl")) if t.problem
    ]


def test_minutes_end_a_search_also_over_several_tries(model, change, tmp_path):
    model = change(model, training={"tune": {"trials": None, "minutes": 1e-9}})
    path = str(tmp_path / "a.jsonl")
    assert len(search(model.model_dump_json(), str(tmp_path), path)) == 1
    assert len(search(model.model_dump_json(), str(tmp_path), path)) == 1


def test_a_study_belongs_to_one_run_with_its_rows_and_spec(model, change, tmp_path):
    path = tune.study_path(model, "run", "rows")
    assert path == tune.study_path(model, "run", "rows")
    others = {
        tune.study_path(model, "another", "rows"),
        tune.study_path(model, "run", "other rows"),
        tune.study_path(change(model, training={"seed": 8}), "run", "rows"),
    }
    assert len(others | {path}) == 4
    for number in range(tune.KEPT_STUDIES + 5):
        tune.study_path(model, f"run {number}", "rows").write_text("{}\n")
    path = tune.study_path(model, "newest", "rows")
    path.write_text("{}\n")
    assert len(list(path.parent.glob("*.jsonl"))) == tune.KEPT_STUDIES


@pytest.mark.parametrize(
    ("params", "fixed"),
    [
        ({}, set()),
        ({"eta": 0.1, "lambda": 2.0}, set()),
        ({"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 31}, {"max_depth"}),
        ({"learning_rate": 0.001, "reg_lambda": 0}, {"learning_rate", "reg_lambda"}),
    ],
    ids=["nothing-set", "other-names", "no-depth", "outside"],
)
def test_what_the_spec_sets_outside_of_the_space_stays_as_it_is(params, fixed):
    assert set(tune.SPACE) - set(tune.searched(params)) == fixed
    assert all(tune._merged(params, {})[n] == params[n] for n in fixed)


def test_the_champions_parameters_are_a_starting_point(model, tmp_path):
    validation = validation_of(model, tmp_path)
    base = validation.score(Candidate(XGBOOST, "spec", "all", model.training.params))
    theirs = {"max_depth": 3, "eta": 0.05, "subsample": 7.0, "objective": "reg:squarederror", "seed": 3.0}
    _, tried, _ = choose._tuned(validation, base, base, theirs, tmp_path / "run.jsonl")
    champion = tried[0].candidate
    assert champion.source == "champion"
    assert (champion.params["max_depth"], champion.params["learning_rate"]) == (3, 0.05)
    assert champion.params["subsample"] == 1.0  # beyond the space's edge
    assert "seed" not in champion.params
    study = tune._opened(tmp_path / "run.jsonl", True)
    assert [t.user_attrs.get("start") for t in study.trials][:2] == ["spec", "champion"]
    assert study.trials[1].params["max_depth"] == 3


def test_a_trial_that_cannot_be_scored_is_kept_with_its_problem(model, tmp_path, monkeypatch):
    validation = validation_of(model, tmp_path)
    base = validation.score(Candidate(XGBOOST, "spec", "all", model.training.params))
    whole = Validation.score

    def broken(self, candidate, watch=None):
        if candidate.source == "trial 2":
            return replace(without_predictions(base), candidate=candidate, values=(), problem="broken")
        return whole(self, candidate, watch)

    monkeypatch.setattr(Validation, "score", broken)
    trials = tune.search(validation, base, [base], tmp_path / "a.jsonl")
    assert len(trials) == 12
    assert trials[1].problem == "broken"
    assert json.loads(json.dumps(trials[1].values)) == []
