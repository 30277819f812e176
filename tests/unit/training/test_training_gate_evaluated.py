"""The gate on whole evaluations: predictions and labels in, a verdict out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from evergreen.ledger.reasons import GateReason
from evergreen.metrics import metric_values
from evergreen.training.gate.candidates import Evaluation, JudgedChampion, JudgedTraining
from evergreen.training.gate.evidence import JudgedFit, JudgedRows, gather, measure_cost
from evergreen.training.gate.gate import judge_challenger

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
JUDGED = Evaluation({}, 0, "keys", "print", "run", AS_OF)
HOUR = 3_600_000_000


def through(
    model, y, predictions, *, answers_drift=True, kinds=None, learnt_until=-1, times=None, learnt_labels=None
):
    """Evaluate and judge as a training does."""
    times = np.arange(len(y)) * HOUR if times is None else times
    columns = {"kind": pa.array(kinds if kinds is not None else ["dry", "wet"] * (len(y) // 2))}
    found = {
        who: replace(
            JUDGED,
            rows=len(y),
            metrics=metric_values.compute(model.task, y, p) if np.isfinite(p).all() else {},
        )
        for who, p in predictions.items()
    }
    evidence = gather(
        model, JudgedRows(times, y, predictions, columns), JudgedFit(learnt_until, learnt_labels)
    )
    json.dumps(evidence.to_dict(), allow_nan=False)
    return judge_challenger(
        model,
        found["challenger"],
        found["baseline"],
        JudgedChampion(found.get("champion"), AS_OF if "champion" in found else None),
        evidence,
        JudgedTraining("run", AS_OF, "print", answers_drift),
    )


def week(n=168, seed=0):
    """Hourly demand with a daily rhythm, and errors that last for hours."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.normal(size=n + 5), np.ones(6) / np.sqrt(6), "valid")
    return 60 + 40 * np.sin(np.arange(n) / 24 * 2 * np.pi), noise


@pytest.mark.parametrize("answers_drift", [True, False], ids=["drift", "nightly"])
def test_a_week_of_hours_promotes_a_challenger_that_is_far_better(rides, change, answers_drift):
    model = change(rides, gate={"margin": 0.02}, label={"min": 0.0})
    for seed in range(5):
        truth, noise = week(seed=seed)
        old = truth * 1.2 + 8 * week(seed=100 + seed)[1]
        predictions = {
            "challenger": truth + 3 * noise,
            "champion": old,
            "baseline": np.full(168, truth.mean()),
        }
        verdict = through(model, truth + 5 * noise, predictions, answers_drift=answers_drift)
        assert verdict.reason is GateReason.BETTER_THAN_CHAMPION, [
            c.sentence for c in verdict.checks if not c.passed
        ]


def test_a_week_of_hours_promotes_no_challenger_that_is_worse(rides):
    for seed in range(5):
        truth, noise = week(seed=seed)
        predictions = {"challenger": truth * 1.2, "champion": truth, "baseline": np.zeros(168)}
        assert through(rides, truth + 5 * noise, predictions).reason is GateReason.PERHAPS_WORSE_THAN_CHAMPION


def test_evidence_from_predictions(rides, wetness):
    truth, noise = week(1000)
    good = {"challenger": truth, "champion": truth + 5, "baseline": np.zeros(1000)}
    y = truth + noise
    assert through(rides, y, good).passed
    assert (
        through(rides, y, {**good, "challenger": np.where(truth > 90, np.nan, truth)}).reason
        is GateReason.PREDICTIONS_NOT_FINITE
    )
    assert through(rides, y, good, learnt_until=0).reason is GateReason.LEAKED_HOLDOUT
    assert (
        through(rides, y, {k: p for k, p in good.items() if k != "champion"}).reason
        is GateReason.FIRST_CHAMPION
    )
    kinds = np.array(["dry"] * 1000, dtype=object)
    kinds[::8] = "snow"
    broken = {**good, "challenger": np.where(kinds == "snow", truth + 12, truth)}
    assert through(rides, y, broken, kinds=kinds).reason is GateReason.SLICE_WORSE
    rng = np.random.default_rng(1)
    p = rng.random(2000)
    label = (rng.random(2000) < p).astype(float)
    dull = np.clip(p + 0.2 * rng.normal(size=2000), 0, 1)
    sharp = {"challenger": p, "champion": dull, "baseline": np.full(2000, 0.5)}
    assert through(wetness, label, sharp).passed
    assert through(wetness, label, {**sharp, "challenger": p**3}).reason is GateReason.CALIBRATION_WORSE


def of_kinds(**counts):
    """A thousand kinds, spread over time; None fills what is left."""
    kinds = np.array(
        [k for k, count in counts.items() for _ in range(count)] + [None] * (1000 - sum(counts.values()))
    )
    return np.random.default_rng(4).permutation(kinds)


@pytest.mark.parametrize(
    ("named", "kinds", "reason"),
    [
        pytest.param("kind", of_kinds(dry=500, wet=500), "BETTER_THAN_CHAMPION", id="each-value"),
        pytest.param("kind", of_kinds(dry=950, hail=50), "BETTER_THAN_CHAMPION", id="a-rare-value-does-not-block"),
        pytest.param("kind", of_kinds(dry=875, snow=125), "SLICE_WORSE", id="a-value-is-worse"),
        pytest.param("kind", of_kinds(), "SLICE_ABSENT", id="no-value"),
        pytest.param("kind", of_kinds(**{f"k{i}": 50 for i in range(20)}), "SLICE_TOO_SMALL", id="each-value-is-too-small"),
        pytest.param("kind=hail", of_kinds(dry=900, hail=100), "BETTER_THAN_CHAMPION", id="the-value-is-large-enough"),
        pytest.param("kind=hail", of_kinds(dry=901, hail=99), "SLICE_TOO_SMALL", id="the-value-is-too-small"),
        pytest.param("kind=hail", of_kinds(dry=1000), "SLICE_ABSENT", id="the-value-is-absent"),
        pytest.param("kind=snow", of_kinds(dry=875, snow=125), "SLICE_WORSE", id="the-value-is-worse"),
    ],
)  # fmt: skip
def test_named_slices(rides, change, named, kinds, reason):
    truth, noise = week(1000)
    model = change(rides, gate={"slices": (named,), "search_slices": False})
    good = {
        "challenger": truth + np.where(kinds == "snow", 12.0, 0.0),
        "champion": truth + 5,
        "baseline": np.zeros(1000),
    }
    verdict = through(model, truth + noise, good, kinds=kinds)
    assert verdict.reason is GateReason[reason]
    told = next(c.sentence for c in verdict.checks if c.check == f"slice_{named}")
    rare = "left out: 1 of its values, each with fewer than 100 rows, together 50"
    assert (rare in told) is ("hail" in kinds and named == "kind")
    if reason in ("SLICE_ABSENT", "SLICE_TOO_SMALL"):
        first = {who: p for who, p in good.items() if who != "champion"}
        found = through(model, truth + noise, first, kinds=kinds)
        assert found.reason is GateReason[reason], "the first champion needs the slice too"


def test_a_named_value_of_one_class_cannot_be_judged_by_an_area(wetness, change):
    model = change(wetness, features={"categorical": ("kind",)}, gate={"slices": ("kind",)})
    rng = np.random.default_rng(1)
    p, kinds = rng.random(2000), np.array(["dry", "wet"] * 1000)
    y = (rng.random(2000) < p) * (kinds == "wet")
    sharp = {"challenger": p, "champion": rng.random(2000), "baseline": np.full(2000, 0.5)}
    verdict = through(model, y.astype(float), sharp, kinds=kinds)
    assert "slice_kind=dry_rows" in [
        c.check for c in verdict.checks if c.code == GateReason.SLICE_TOO_SMALL.value and not c.passed
    ]


DAYS = np.repeat(np.arange(14), 500)
WEEKDAYS = np.array(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])[DAYS % 7]


@pytest.mark.parametrize("search", [False, True], ids=["named", "searched"])
@pytest.mark.parametrize(
    ("factor", "reason"), [(3.0, "SLICE_WORSE"), (1.02, "BETTER_THAN_CHAMPION")], ids=["broken", "healthy"]
)
def test_a_slice_of_two_moments_has_no_interval_and_is_judged(rides, change, factor, reason, search):
    model = change(rides, gate={"slices": () if search else ("kind",), "search_slices": search})
    rng = np.random.default_rng(3)
    monday, off = WEEKDAYS == "Mon", rng.normal(size=len(DAYS))
    truth = 50 + 10 * rng.normal(size=len(DAYS))
    predictions = {
        "challenger": truth + np.where(monday, factor, 1.0) * off,
        "champion": truth + np.where(monday, 1.0, 5.0) * off,
        "baseline": np.full(len(DAYS), 50.0),
    }
    verdict = through(model, truth, predictions, kinds=WEEKDAYS, times=DAYS * 24 * HOUR)
    assert verdict.reason is GateReason[reason]
    if reason == "SLICE_WORSE":
        (found,) = [c for c in verdict.checks if not c.passed]
        assert found.check == "slice_kind=Mon"
        assert found.value < -1.8
        told = "each of its rows counts as one" if search else "this number alone decides"
        assert told in found.sentence


def test_the_range_is_that_of_the_labels_that_were_learnt(rides):
    truth, noise = week(1000)
    good = {"challenger": truth, "champion": truth + 5, "baseline": np.zeros(1000)}
    assert through(rides, truth + noise, good, learnt_labels=truth).passed
    narrow = through(rides, truth + noise, good, learnt_labels=np.array([59.0, 61.0]))
    assert narrow.reason is GateReason.PREDICTIONS_OUT_OF_RANGE


def test_a_models_cost_is_of_a_thousand_rows():
    shapes = []
    cost = measure_cost(lambda rows: shapes.append(rows.shape), np.zeros((3, 4), dtype=np.float32), 123)
    assert set(shapes) == {(1000, 4)}
    assert cost.bytes == 123
    assert cost.predict_ms >= 0
