"""Versions on their way from MLflow: what failed is told until it has come, and what hangs blocks no more than it must."""

from __future__ import annotations

import threading
import time

import pytest

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.serving import fetch
from evergreen.serving.fetch import Fetches, NotYetError


@pytest.fixture
def answers(monkeypatch):
    """What MLflow says of a version, by its number: an exception, an event to wait for, or nothing special."""
    found = {}

    def load(model, number):
        if isinstance(said := found.get(number), threading.Event):
            said.wait(30)
        if isinstance(said := found.get(number), Exception):
            raise said
        return number

    monkeypatch.setattr(fetch.registry, "load", load)
    monkeypatch.setattr(fetch, "probe", lambda loaded: None)
    monkeypatch.setattr(fetch, "_keep", lambda model, loaded, metrics: (loaded, metrics))
    yield found
    for said in found.values():
        if isinstance(said, threading.Event):
            said.set()


def get(fetches, model, number, wait_s=5.0):
    return fetches.get(model, number, lambda: {"rmse": 1.0}, wait_s)


def test_a_version_comes_and_is_fetched_once(answers, rides):
    assert get(Fetches(), rides, "1") == ("1", {"rmse": 1.0})


def test_an_mlflow_that_fails_again_and_again_is_away_in_between_too(answers, rides):
    fetches = Fetches()
    answers["1"] = TransientError("MLflow does not answer")
    with pytest.raises(TransientError, match="does not answer"):
        get(fetches, rides, "1")
    fetches.forget()
    answers["1"] = hangs = threading.Event()
    for _ in range(2):
        with pytest.raises(NotYetError, match="not come yet \\(MLflow does not answer\\)") as caught:
            get(fetches, rides, "1", 0.0)
        assert caught.value.late
        fetches.forget()
    hangs.set()
    assert get(fetches, rides, "1")[0] == "1"
    answers["1"] = threading.Event()
    with pytest.raises(NotYetError) as caught:
        get(fetches, rides, "1", 0.0)
    assert not caught.value.late, "it has come, so what failed before is over"


def test_what_failed_after_the_look_is_told_at_the_next_one(answers, rides):
    fetches = Fetches()
    answers["1"] = hangs = threading.Event()
    with pytest.raises(NotYetError):
        get(fetches, rides, "1", 0.0)
    answers["1"] = TerminalError("it was changed", ErrorReason.PROBE_FAILED)
    hangs.set()
    fetches._fetches[rides.name, "1"].coming.exception(5)
    fetches.forget()
    with pytest.raises(TerminalError, match="it was changed"):
        get(fetches, rides, "1", 0.0)


def test_what_hangs_and_is_wanted_no_more_is_named_by_what_waits_for_it(answers, rides, monkeypatch):
    fetches = Fetches()
    answers |= {"1": threading.Event(), "2": threading.Event()}
    for number in ("1", "2"):
        with pytest.raises(NotYetError):
            get(fetches, rides, number, 0.0)
    fetches.forget()
    for late in (False, True):
        with pytest.raises(NotYetError, match="version 3 of rides waits until others were fetched") as caught:
            get(fetches, rides, "3", 0.0)
        assert caught.value.late is late
        monkeypatch.setattr(fetch, "SLOW_S", 0.0)
        time.sleep(0.01)
    answers["1"].set()
    fetches._fetches[rides.name, "1"].coming.result(5)
    assert get(fetches, rides, "3")[0] == "3"
