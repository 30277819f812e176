"""Replays of a spec that searches for parameters."""

from __future__ import annotations

import json

import pytest
from replays import DAY

from evergreen.replay.request import ask
from evergreen.replay.run import replay
from evergreen.replay.worker import loop_of
from evergreen.training.search import tune
from evergreen.training.search.validate import Validation


@pytest.fixture
def tuned(small, monkeypatch):
    """A search at each training, from parameters that any trial beats; MLflow is named and does not answer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return small.with_model(
        training={
            "tune": {"trials": 2}, "folds": 2, "fold": "2d", "max_rounds": 5,
            "params": {"learning_rate": 0.02, "max_depth": 2},
        },
        gate={"beat_baseline": False},
    )  # fmt: skip


def test_policies_of_a_spec_that_tunes_share_no_search_and_need_no_mlflow(tuned, start, tmp_path):
    live = tmp_path / "home" / "studies"
    done = replay(
        tuned.specs, tuned.model, start + 21 * DAY, start + 25 * DAY, ["every:2d", "every:4d"], workers=2, say=print
    )  # fmt: skip
    assert [(o.retrains, o.failed) for o in done.outcomes] == [(2, 0), (1, 0)]
    assert not live.exists(), "a replay leaves the studies of the live trainings alone"
    assert not list(done.asked.folder.rglob("studies")), "working files are removed at the end"


def test_a_search_begins_with_the_parameters_of_the_policys_champion(tuned, start, monkeypatch):
    begun, search = [], tune.search

    def noted(validation, reference, starts, path):
        begun.append({s.candidate.source: s.candidate.params for s in starts})
        return search(validation, reference, starts, path)

    monkeypatch.setattr(tune, "search", noted)
    asked = ask(tuned.specs, tuned.model, start + 21 * DAY, start + 23 * DAY, ["every_window"])
    ((policy, model),) = asked.policies
    loop_of(asked, policy, model).step(0)
    loop = loop_of(asked, policy, model)
    loop.resume()
    loop.fit_ahead(asked.end)
    loop.step(1)
    theirs = loop.folder.params("1")
    assert theirs["learning_rate"] != 0.02, "a trial was better than the spec"
    assert [list(starts) for starts in begun] == [["spec"], ["spec", "champion"]]
    assert begun[1]["champion"].items() >= theirs.items()


def test_fit_seconds_count_the_fits_of_validation_and_tuning(tuned, start, monkeypatch):
    scored, score = [], Validation.score
    monkeypatch.setattr(Validation, "score", lambda *args: scored.append(found := score(*args)) or found)
    asked = ask(tuned.specs, tuned.model, start + 21 * DAY, start + 23 * DAY, ["never"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    step = loop.step(0)
    fits = sum(json.loads(path.read_text())["seconds"] for path in loop.fits.glob("*.json"))
    assert len(scored) == 3, "the spec's parameters and two trials"
    assert step.fit_seconds == pytest.approx(fits + sum(s.seconds for s in scored))
