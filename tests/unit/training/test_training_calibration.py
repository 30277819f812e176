"""Calibration: distorted probabilities are seen, equal ones are not blamed for chance."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.training.gate.calibration import calibration


def world(n, seed=1):
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-1.5 * rng.normal(size=n)))
    return np.arange(n), (rng.random(n) < p).astype(float), p


def ask(times, y, new, old):
    return calibration(times, y, new, old, confidence=0.95, seed=7)


@pytest.mark.parametrize("distort", [lambda p: p**2, lambda p: np.clip(p + 0.1, 0, 1), lambda p: 0.5 + (p - 0.5) / 3],
                         ids=["skewed", "shifted", "timid"])  # fmt: skip
def test_distorted_probabilities_are_worse(distort):
    times, y, p = world(5000)
    found = ask(times, y, distort(p), p)
    assert found.challenger > found.champion + 0.05
    assert found.worse_by > 0.02
    assert ask(times, y, p, distort(p)).worse_by < 0


@pytest.mark.parametrize("n", [100, 168, 1000, 5000])
def test_chance_is_not_worse(n):
    for seed in range(30):
        times, y, p = world(n, seed)
        rng = np.random.default_rng(seed)
        new, old = (np.clip(p + 0.03 * rng.normal(size=n), 0, 1) for _ in range(2))
        assert ask(times, y, new, old).worse_by <= 0.02


def test_a_constant_prediction_is_one_bin():
    times, y, _ = world(1000)
    found = ask(times, y, np.full(1000, y.mean()), np.full(1000, 0.9))
    assert found.challenger == pytest.approx(0, abs=1e-12)
    assert found.champion == pytest.approx(0.9 - y.mean())


def test_few_moments_cannot_tell():
    times, y, p = world(1000)
    assert ask(times // 300, y, p, p).worse_by is None
