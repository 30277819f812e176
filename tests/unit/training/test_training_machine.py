"""Engines and devices: a cluster of two processes fits what one machine fits; no GPU is said, not hidden."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import xgboost as xgb

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.metrics import metric_values
from evergreen.registry.encoding import Encoding
from evergreen.registry.models import predict
from evergreen.training.fitting import cuda, machine
from evergreen.training.fitting.fit import fit
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine

ROWS = 6000
DASK = Machine("dask")


@pytest.fixture
def model(rides, change):
    """A regression whose early stopping has something to choose."""
    more = {"engine": "dask", "max_rounds": 60, "early_stopping_rounds": 5}
    return change(rides, training={**more, "params": {"max_depth": 4, "learning_rate": 0.3}})


@pytest.fixture
def learnable(in_file):
    """Rows to learn from, later ones to judge on, and their encoding."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(ROWS, 3)).astype(np.float32)
    values[:, 2] = rng.integers(0, 3, ROWS)
    y = 3 * values[:, 0] + np.sin(3 * values[:, 1]) + (values[:, 2] == 1) + rng.normal(size=ROWS) * 0.3
    values[::17, 0] = np.nan
    data = Labelled(in_file(values), y)
    cut = ROWS * 3 // 4
    return data.part(0, cut), values[cut:], y[cut:], Encoding(("hour", "x"), {"kind": ("dry", "snow", "wet")})


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two worker processes on this machine."""
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as running:
        yield running


def test_a_cluster_fits_what_one_machine_fits(model, learnable, cluster, monkeypatch):
    monkeypatch.setenv("EVERGREEN_DASK_SCHEDULER", cluster.scheduler_address)
    monkeypatch.setattr("evergreen.training.fitting.dask.PART_BYTES", 700 * 3 * 4)
    data, held, y, encoding = learnable
    times = np.arange(len(data))
    here, there = (fit(model, encoding, data, times, where) for where in (Machine(), DASK))
    assert type(there.booster) is xgb.Booster
    assert there.booster.feature_names == encoding.features
    assert there.booster.num_boosted_rounds() == there.rounds
    assert there.stopping_metric == here.stopping_metric == "rmse"
    found, expected = (
        metric_values.compute("regression", y, predict(f.booster, held)) for f in (there, here)
    )
    # Bins come from a sketch of each worker's rows, so trees differ a little: 3 % of the error is the tolerance.
    assert found["rmse"] == pytest.approx(expected["rmse"], rel=0.03)
    assert found["mae"] == pytest.approx(expected["mae"], rel=0.03)
    assert there.stopping_score == pytest.approx(here.stopping_score, rel=0.03)
    assert expected["rmse"] < 0.5 * np.std(y)


def test_a_parameter_that_xgboost_refuses_is_terminal_on_a_cluster_too(
    model, learnable, cluster, change, monkeypatch
):
    monkeypatch.setenv("EVERGREEN_DASK_SCHEDULER", cluster.scheduler_address)
    data, _, _, encoding = learnable
    for params in ({"max_depth": -3}, {"eval_metric": "accuracy"}):
        with pytest.raises(TerminalError, match="XGBoost refuses") as caught:
            fit(change(model, training={"params": params}), encoding, data, np.arange(len(data)), DASK)
        assert caught.value.reason is ErrorReason.BAD_SPEC


def test_without_an_address_it_says_what_to_set(model, learnable, monkeypatch):
    monkeypatch.delenv("EVERGREEN_DASK_SCHEDULER", raising=False)
    data, _, _, encoding = learnable
    with pytest.raises(TerminalError, match="EVERGREEN_DASK_SCHEDULER is not set") as caught:
        fit(model, encoding, data, np.arange(len(data)), DASK)
    assert caught.value.reason is ErrorReason.BAD_SPEC


@pytest.mark.parametrize("what", ["nobody listens", "no worker"])
def test_a_cluster_that_does_not_answer_is_transient(model, learnable, monkeypatch, what):
    import distributed

    monkeypatch.setattr("evergreen.training.fitting.dask.CONNECT_S", 2)
    data, _, _, encoding = learnable
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty:
        monkeypatch.setenv(
            "EVERGREEN_DASK_SCHEDULER",
            empty.scheduler_address if what == "no worker" else "tcp://127.0.0.1:9",
        )
        with pytest.raises(TransientError, match="Dask cluster at tcp://") as caught:
            fit(model, encoding, data, np.arange(len(data)), DASK)
    assert caught.value.reason is ErrorReason.UNREACHABLE


def test_dask_is_imported_only_where_a_spec_asks_for_it():
    code = "import sys, evergreen.training.fitting.fit; print([m for m in ('dask', 'distributed') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_cuda_without_a_usable_gpu_runs_on_the_cpu_and_says_so(rides, change, monkeypatch, caplog):
    monkeypatch.setattr(machine, "why_no_cuda", lambda: "no GPU is visible to XGBoost")
    with caplog.at_level(logging.WARNING):
        found = machine.choose(change(rides, training={"device": "cuda"}))
    assert found == Machine(
        "local", "cpu", "device: cuda asked for, none usable: no GPU is visible to XGBoost"
    )
    assert "the fit runs on the CPU" in caplog.text
    assert machine.choose(rides) == Machine()


def test_a_usable_gpu_is_used(rides, change, monkeypatch):
    monkeypatch.setattr(machine, "why_no_cuda", lambda: "")
    assert machine.choose(change(rides, training={"device": "cuda"})) == Machine("local", "cuda")


def test_the_reason_is_that_of_this_xgboost():
    reason = cuda.why_no_cuda()
    if not xgb.build_info()["USE_CUDA"]:
        assert "built without CUDA" in reason
    else:
        assert reason in ("", "no GPU is visible to XGBoost") or "trial fit failed" in reason


def test_the_workers_are_asked_for_their_gpus(rides, change, cluster, monkeypatch):
    monkeypatch.setenv("EVERGREEN_DASK_SCHEDULER", cluster.scheduler_address)
    found = machine.choose(change(rides, training={"engine": "dask", "device": "cuda"}))
    if found.device == "cpu":
        assert found.note.count("tcp://127.0.0.1") == 2


def test_a_worker_without_evergreen_can_answer_for_its_gpu():
    from distributed.protocol.pickle import dumps

    answer = (
        "import sys, pickle; sys.modules['evergreen'] = None; "
        "print('answer:', pickle.loads(sys.stdin.buffer.read())())"
    )
    sent = dumps(cuda.trial())
    done = subprocess.run([sys.executable, "-c", answer], input=sent, capture_output=True, check=False)
    assert done.stdout.decode().strip() == f"answer: {cuda.why_no_cuda()}".strip(), done.stderr.decode()
