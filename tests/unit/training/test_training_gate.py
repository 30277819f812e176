"""The gate: each rule is broken on purpose, and the reason code says which."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evergreen.ledger import check_words
from evergreen.ledger.reasons import CONCLUSIVE, GateReason
from evergreen.metrics.paired_bootstrap import Improvement
from evergreen.training.gate import checks
from evergreen.training.gate.calibration import CalibrationErrors
from evergreen.training.gate.candidates import Evaluation, JudgedChampion, JudgedTraining
from evergreen.training.gate.evidence import Cost, Evidence
from evergreen.training.gate.gate import judge_challenger
from evergreen.training.gate.past_holdouts import Realised
from evergreen.training.gate.slices import Slice, Slices
from evergreen.training.gate.verdict import Check, GateVerdict

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
GOOD = Evaluation({"rmse": 1.0}, 100, "keys", "print", "run", AS_OF)
CHAMPION = replace(GOOD, metrics={"rmse": 2.0})
BASELINE = replace(GOOD, metrics={"rmse": 3.0})
BETTER = Improvement(0.5, 0.4, 0.6, 0.05, 12, 100)
EVIDENCE = Evidence(
    learnt_until=AS_OF - timedelta(days=8),
    holdout_start=AS_OF - timedelta(days=7),
    not_finite=0,
    predictions=(0.0, 9.0),
    labels=(0.0, 8.0),
    learnt_labels=(0.0, 10.0),
    over_baseline=2 / 3,
    over_champion=BETTER,
    slices=Slices({}, None, 0),
)


def ask(
    model, challenger=GOOD, baseline=BASELINE, champion=CHAMPION, champion_as_of=AS_OF - timedelta(days=1),
    answers_drift=False, recorded=None, realised=None, **evidence,
):  # fmt: skip
    return judge_challenger(
        model, challenger, baseline, JudgedChampion(champion, champion_as_of, recorded or {}), replace(EVIDENCE, **evidence),
        JudgedTraining("run", AS_OF, "print", answers_drift, realised),
    )  # fmt: skip


def bounds(low, high=0.9):
    return {"over_champion": Improvement(0.5, low, high, 0.05, 12, 100)}


def below(baseline, champion):
    """A challenger of rmse 1 that the baseline beats, and a champion beside it."""
    point = 1 - 1 / champion
    return {
        "baseline": replace(BASELINE, metrics={"rmse": baseline}), "over_baseline": 1 - 1 / baseline,
        "champion": replace(CHAMPION, metrics={"rmse": champion}),
        "over_champion": Improvement(point, point - 0.1, point + 0.1, 0.05, 12, 100),
    }  # fmt: skip


@pytest.mark.parametrize("answers_drift", [False, True], ids=["nightly", "on-drift"])
def test_a_champion_that_the_baseline_beats_by_more_is_no_reason_to_stay(rides, answers_drift):
    verdict = ask(rides, answers_drift=answers_drift, **below(0.8, 2.0))
    assert (verdict.passed, verdict.reason) == (True, GateReason.BETTER_THAN_CHAMPION)
    (told,) = (c for c in verdict.checks if c.check == "baseline_beats_both")
    assert told.sentence == (
        "RMSE of the challenger is 1, of the baseline 0.8, of the champion 2: the naive baseline beats both, and the challenger is "
        "the better one"
    )
    first = ask(rides, **below(0.8, 2.0) | {"champion": None, "champion_as_of": None, "over_champion": None})
    assert first.reason is GateReason.WORSE_THAN_BASELINE, "a first champion must beat it"


def test_better_than_champion_and_baseline(rides):
    verdict = ask(rides)
    assert verdict.passed
    assert verdict.reason is GateReason.BETTER_THAN_CHAMPION
    assert all(c.passed for c in verdict.checks)
    assert GateVerdict.from_dict(verdict.to_dict()) == verdict


def test_without_a_champion_only_the_baseline_counts(rides):
    verdict = ask(rides, champion=None, champion_as_of=None)
    assert (verdict.passed, verdict.reason) == (True, GateReason.FIRST_CHAMPION)
    worse = replace(GOOD, metrics={"rmse": 3.6})
    verdict = ask(rides, challenger=worse, champion=None, champion_as_of=None, over_baseline=-0.2)
    assert (verdict.passed, verdict.reason) == (False, GateReason.WORSE_THAN_BASELINE)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param({"challenger": replace(GOOD, run_id="last week")}, "STALE_EVALUATION", id="other-run"),
        pytest.param({"challenger": replace(GOOD, as_of=AS_OF - timedelta(days=7))}, "STALE_EVALUATION", id="old-challenger"),
        pytest.param({"champion": replace(CHAMPION, as_of=AS_OF - timedelta(days=7))}, "STALE_EVALUATION", id="old-champion"),
        pytest.param({"baseline": replace(BASELINE, run_id="other")}, "STALE_EVALUATION", id="old-baseline"),
        pytest.param({"challenger": replace(GOOD, fingerprint="x")}, "SNAPSHOT_MISMATCH", id="challenger-snapshot"),
        pytest.param({"champion": replace(CHAMPION, fingerprint="x")}, "SNAPSHOT_MISMATCH", id="champion-snapshot"),
        pytest.param({"champion": replace(CHAMPION, rows=99)}, "DIFFERENT_ROWS", id="champion-row-count"),
        pytest.param({"champion": replace(CHAMPION, keys="others")}, "DIFFERENT_ROWS", id="champion-other-rows"),
        pytest.param({"baseline": replace(BASELINE, rows=101)}, "DIFFERENT_ROWS", id="baseline-row-count"),
        pytest.param({"challenger": replace(GOOD, metrics={})}, "CHALLENGER_METRIC_MISSING", id="no-metric"),
        pytest.param({"challenger": replace(GOOD, metrics={"rmse": float("nan")})}, "CHALLENGER_METRIC_MISSING", id="nan"),
        pytest.param({"challenger": replace(GOOD, metrics={"rmse": float("-inf")})}, "CHALLENGER_METRIC_MISSING", id="inf"),
        pytest.param({"baseline": replace(BASELINE, metrics={})}, "BASELINE_METRIC_MISSING", id="no-baseline"),
        pytest.param(below(0.8, 0.7), "WORSE_THAN_BASELINE", id="baseline-better-champion-best"),
        pytest.param(below(0.8, 1.0), "WORSE_THAN_BASELINE", id="baseline-better-champion-as-bad"),
        pytest.param(below(1.0, 0.9), "WORSE_THAN_BASELINE", id="baseline-equal"),
        pytest.param({"champion": None}, "CHAMPION_UNAVAILABLE", id="champion-not-evaluated"),
        pytest.param({"champion": replace(CHAMPION, metrics={"mae": 1.0})}, "CHAMPION_METRIC_MISSING", id="champion-metric"),
        pytest.param({"champion": replace(CHAMPION, metrics={"rmse": float("nan")})}, "CHAMPION_METRIC_MISSING", id="champion-nan"),
        pytest.param({"champion_as_of": AS_OF + timedelta(hours=1)}, "OLDER_THAN_CHAMPION", id="backfill"),
        pytest.param({"champion_as_of": None}, "OLDER_THAN_CHAMPION", id="champion-of-unknown-age"),
        pytest.param({"learnt_until": EVIDENCE.holdout_start}, "LEAKED_HOLDOUT", id="learnt-the-first-judged-row"),
        pytest.param({"learnt_until": AS_OF}, "LEAKED_HOLDOUT", id="learnt-all-judged-rows"),
        pytest.param({"not_finite": 1}, "PREDICTIONS_NOT_FINITE", id="one-nan-prediction"),
        pytest.param({"not_finite": 100, "predictions": None}, "PREDICTIONS_NOT_FINITE", id="no-prediction"),
        pytest.param({"challenger": replace(GOOD, metrics={"rmse": 0.9})}, "METRIC_MISMATCH", id="another-days-challenger-metric"),
        pytest.param({"champion": replace(CHAMPION, metrics={"rmse": 9.0})}, "METRIC_MISMATCH", id="another-days-champion-metric"),
        pytest.param({"over_baseline": None}, "METRIC_MISMATCH", id="baseline-without-predictions"),
        pytest.param({"over_champion": None}, "METRIC_MISMATCH", id="champion-without-predictions"),
        pytest.param({"over_champion": Improvement(0.5, None, None, None, 3, 100)}, "NOT_COMPARABLE", id="too-few-moments"),
        pytest.param({"over_champion": replace(BETTER, low=float("nan"))}, "NOT_COMPARABLE", id="bound-is-nan"),
        pytest.param(bounds(0.0), "NOT_BETTER_THAN_CHAMPION", id="bound-at-the-margin"),
        pytest.param(bounds(-0.1), "NOT_BETTER_THAN_CHAMPION", id="better-by-luck"),
        pytest.param({"answers_drift": True, **bounds(-0.011)}, "PERHAPS_WORSE_THAN_CHAMPION", id="after-drift-perhaps-worse"),
        pytest.param({"slices": Slices({}, Slice("kind=dry", 200, -0.3, -0.1, True), 5)}, "SLICE_WORSE", id="worst-slice"),
    ],
)  # fmt: skip
def test_each_rule_fails_closed(rides, broken, reason):
    verdict = ask(rides, **broken)
    assert not verdict.passed
    assert verdict.reason is GateReason[reason]
    failed = next(c for c in verdict.checks if not c.passed)
    assert failed.code == verdict.reason.value
    assert failed.sentence
    assert GateVerdict.from_dict(json.loads(json.dumps(verdict.to_dict(), allow_nan=False))) == verdict


@pytest.mark.parametrize("answers_drift", [False, True], ids=["nightly", "on-drift"])
@pytest.mark.parametrize(
    ("point", "low", "high", "passed"),
    [
        pytest.param(0.2, 0.1, 0.3, True, id="surely better"),
        pytest.param(0.39, -0.07, 0.8, True, id="much better on few rows"),
        pytest.param(-0.02, -0.2, 0.1, True, id="nobody can tell"),
        pytest.param(-0.1, -0.4, 0.1, True, id="as much worse as is allowed"),
        pytest.param(-0.11, -0.4, 0.1, False, id="much worse on few rows"),
        pytest.param(-0.004, -0.007, -0.001, False, id="surely worse, by little"),
        pytest.param(-0.004, -0.007, float("nan"), False, id="an upper bound that is no number"),
    ],
)
def test_a_challenger_is_promoted_unless_it_is_worse(rides, change, answers_drift, point, low, high, passed):
    model = change(rides, gate={"on_drift": "unless_worse", "otherwise": "unless_worse"})
    ratio = {
        "challenger": replace(GOOD, metrics={"rmse": 2.0 * (1 - point)}),
        "over_baseline": 1 - 2.0 * (1 - point) / 3.0,
    }
    over = Improvement(point, low, high, 0.05, 7, 166)
    verdict = ask(model, answers_drift=answers_drift, over_champion=over, **ratio)
    assert verdict.passed is passed
    if not passed:
        assert verdict.reason is GateReason.WORSE_THAN_CHAMPION
        assert verdict.reason in CONCLUSIVE


@pytest.mark.parametrize(
    ("realised", "answers_drift", "passed"),
    [
        pytest.param(Realised(4, -0.06, -0.09, -0.03), False, False, id="they did harm"),
        pytest.param(Realised(4, -0.06, -0.13, 0.01), False, True, id="nobody can tell"),
        pytest.param(Realised(4, 0.06, 0.03, 0.09), False, True, id="they helped"),
        pytest.param(None, False, True, id="too few are known"),
        pytest.param(Realised(4, -0.06, -0.09, -0.03), True, True, id="a drift is answered"),
    ],
)
def test_after_promotions_that_did_harm_a_proof_is_asked(rides, change, realised, answers_drift, passed):
    model = change(rides, gate={"on_drift": "unless_worse", "otherwise": "unless_worse"})
    verdict = ask(model, realised=realised, answers_drift=answers_drift, **bounds(-0.1))
    assert verdict.passed is passed
    told = [c for c in verdict.checks if c.check == "realised_gain"]
    assert len(told) == (realised is not None and not answers_drift)
    if not passed:
        assert verdict.reason is GateReason.NOT_BETTER_THAN_CHAMPION
        assert "the newest 4 promotions together made RMSE 6" in told[0].sentence
        assert told[0].sentence.endswith("so this one must surely be better")
        assert ask(model, realised=realised, **bounds(0.1)).passed, "one that is surely better passes"


def test_nothing_is_promoted_where_nothing_can_be_compared(rides, change):
    model = change(rides, gate={"otherwise": "unless_worse"})
    verdict = ask(model, over_champion=Improvement(0.5, None, None, None, 3, 100))
    assert verdict.reason is GateReason.NOT_COMPARABLE


def test_too_small_a_holdout(rides, change):
    few = {
        who: replace(e, rows=10)
        for who, e in (("challenger", GOOD), ("baseline", BASELINE), ("champion", CHAMPION))
    }
    assert ask(rides, **few).reason is GateReason.TOO_FEW_ROWS


def test_the_baseline_may_be_left_out(rides, change):
    model = change(rides, gate={"beat_baseline": False})
    assert ask(model, baseline=replace(BASELINE, metrics={})).passed


GONE = {"champion": replace(CHAMPION, metrics={}, problem="version 1 is gone"), "over_champion": None}


def test_a_champion_that_cannot_be_evaluated_is_told_with_its_recorded_holdout(rides):
    verdict = ask(rides, **GONE, recorded={"rmse": GOOD.metrics["rmse"] / 2})
    assert (verdict.passed, verdict.reason) == (True, GateReason.CHAMPION_CANNOT_BE_EVALUATED)
    told = {c.check: c for c in verdict.checks}
    assert "version 1 is gone" in told["champion_cannot_be_evaluated"].sentence
    recorded = told["champion_recorded_rmse"]
    assert (recorded.value, recorded.limit) == (GOOD.metrics["rmse"], GOOD.metrics["rmse"] / 2)
    assert "100.00 % worse" in recorded.sentence
    assert not [c for c in verdict.checks if "beats_champion" in c.check]


@pytest.mark.parametrize("recorded", [None, {}, {"mae": 1.0}, {"rmse": float("nan")}, {"rmse": 0.0}])
def test_a_champion_of_which_nothing_usable_is_recorded(rides, recorded):
    verdict = ask(rides, **GONE, recorded=recorded)
    assert verdict.reason is GateReason.CHAMPION_CANNOT_BE_EVALUATED
    json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param({"baseline": replace(BASELINE, metrics={"rmse": 0.8}), "over_baseline": -0.25}, "WORSE_THAN_BASELINE", id="baseline-better"),
        pytest.param({"baseline": replace(BASELINE, metrics={})}, "BASELINE_METRIC_MISSING", id="no-baseline"),
        pytest.param({"champion_as_of": AS_OF + timedelta(hours=1)}, "OLDER_THAN_CHAMPION", id="backfill"),
        pytest.param({"champion_as_of": None}, "OLDER_THAN_CHAMPION", id="champion-of-unknown-age"),
        pytest.param({"not_finite": 1}, "PREDICTIONS_NOT_FINITE", id="one-nan-prediction"),
    ],
)  # fmt: skip
def test_without_the_champion_every_other_rule_holds(rides, change, broken, reason):
    model = change(rides, gate={"beat_baseline": False})
    verdict = ask(model, **{**GONE, **broken})
    assert (verdict.passed, verdict.reason) == (False, GateReason[reason])


@pytest.mark.parametrize(
    ("gate", "answers_drift", "low", "reason"),
    [
        pytest.param({}, True, 0.02, "BETTER_THAN_CHAMPION", id="drift-better"),
        pytest.param({}, True, -0.01, "NOT_WORSE_THAN_CHAMPION", id="drift-within-tolerance"),
        pytest.param({"tolerance": 0.0}, True, -0.005, "PERHAPS_WORSE_THAN_CHAMPION", id="no-tolerance"),
        pytest.param(
            {"on_drift": "better"}, True, -0.005, "NOT_BETTER_THAN_CHAMPION", id="drift-asks-for-better"
        ),
        pytest.param(
            {"otherwise": "not_worse"}, False, -0.005, "NOT_WORSE_THAN_CHAMPION", id="always-not-worse"
        ),
        pytest.param({"margin": 0.05}, False, 0.05, "NOT_BETTER_THAN_CHAMPION", id="at-the-margin"),
        pytest.param({"margin": 0.05}, False, 0.051, "BETTER_THAN_CHAMPION", id="beyond-the-margin"),
    ],
)
def test_what_is_asked_of_the_bound(rides, change, gate, answers_drift, low, reason):
    verdict = ask(change(rides, gate=gate), answers_drift=answers_drift, **bounds(low))
    assert verdict.reason is GateReason[reason]
    assert verdict.passed is (reason in ("BETTER_THAN_CHAMPION", "NOT_WORSE_THAN_CHAMPION"))


@pytest.mark.parametrize("evidence", [None, Slices({}, None, 0)], ids=["no-slices", "another-name"])
def test_named_slices_that_were_never_looked_for_are_absent(rides, change, evidence):
    verdict = ask(change(rides, gate={"slices": ("kind",)}), slices=evidence)
    assert verdict.reason is GateReason.SLICE_ABSENT


@pytest.mark.parametrize(
    ("label", "predictions", "learnt", "passed"),
    [
        pytest.param({}, (-1e9, 9.0), (0.0, 10.0), False, id="absurdly-small"),
        pytest.param({}, (0.0, 1e9), (0.0, 10.0), False, id="absurdly-large"),
        pytest.param({}, (-10.0, 20.0), (0.0, 10.0), True, id="the-labels-span-beyond-them"),
        pytest.param({}, (-10.1, 9.0), (0.0, 10.0), False, id="below-their-span"),
        pytest.param({}, (0.0, 20.1), (0.0, 10.0), False, id="above-their-span"),
        pytest.param({}, (990.0, 1010.0), (1000.0, 1001.0), False, id="far-from-zero"),
        pytest.param({}, (6.9999, 7.0001), (7.0, 7.0), True, id="constant"),
        pytest.param({}, (-14.0, -0.1), (-7.0, -7.0), True, id="constant-below-zero"),
        pytest.param({}, (0.0, 1e9), (7.0, 7.0), False, id="constant-and-absurd"),
        pytest.param({}, (-1e-7, 1e-7), (0.0, 0.0), True, id="all-zero"),
        pytest.param({"min": 0.0}, (-1e-7, 1e-7), (0.0, 0.0), True, id="all-at-the-limit"),
        pytest.param({}, (999.9999, 1000.0001), (1000.0, 1000.0 + 1e-9), True, id="constant-but-for-rounding"),
        pytest.param({"min": 0.0}, (-1.0, 20.0), (0.0, 10.0), True, id="within-slack"),
        pytest.param({"min": 0.0}, (-1.01, 9.0), (0.0, 10.0), False, id="too-small"),
        pytest.param({"min": 0.0}, (0.0, 1e9), (0.0, 10.0), False, id="absurd-on-the-side-that-is-not-set"),
        pytest.param({"max": 20.0}, (-1e9, 9.0), (0.0, 10.0), False, id="absurd-on-the-other"),
        pytest.param({"min": 0.0, "max": 20.0}, (0.0, 22.0), (0.0, 10.0), True, id="slack-of-the-range"),
        pytest.param({"min": 0.0, "max": 20.0}, (0.0, 22.1), (0.0, 10.0), False, id="too-large"),
    ],
)  # fmt: skip
def test_predictions_lie_in_the_labels_range(rides, change, label, predictions, learnt, passed):
    verdict = ask(change(rides, label=label), predictions=predictions, learnt_labels=learnt)
    assert verdict.passed is passed
    if not passed:
        assert verdict.reason is GateReason.PREDICTIONS_OUT_OF_RANGE


def test_the_limits_of_predictions_and_where_they_come_from_are_told(rides, change, wetness):
    def limits(model, **evidence):
        checks = {c.check: c for c in ask(model, **evidence).checks}
        return [checks[f"{side}_prediction"] for side in ("smallest", "largest")]

    low, high = limits(change(rides, label={"min": 0.0}))
    assert (low.limit, high.limit) == (-1.0, 20.0)
    assert "label.min is 0, gate.range_slack is 10.00 % of the labels' range, 10" in low.sentence
    assert "the largest label of the training is 10" in high.sentence
    assert "label.max sets another limit" in high.sentence
    assert [(c.limit, c.sentence[-13:]) for c in limits(wetness)] == [
        (0.0, "a probability"),
        (1.0, "a probability"),
    ]


@pytest.mark.parametrize(
    ("gate", "evidence", "reason"),
    [
        pytest.param({"max_predict_ms": 5.0}, {"cost": Cost(5.1, 10)}, "TOO_SLOW", id="slow"),
        pytest.param({"max_predict_ms": 5.0}, {}, "TOO_SLOW", id="not-timed"),
        pytest.param({"max_size_mb": 1.0}, {"cost": Cost(1.0, 1_000_001)}, "TOO_LARGE", id="large"),
        pytest.param({"max_size_mb": 1.0}, {}, "TOO_LARGE", id="not-weighed"),
        pytest.param({"stability": 0.02}, {"other_seed": {"rmse": 1.03}}, "UNSTABLE", id="another-seed-differs"),
        pytest.param({"stability": 0.02}, {"other_seed": {"mae": 1.0}}, "UNSTABLE", id="another-metric"),
        pytest.param({"stability": 0.02}, {}, "UNSTABLE", id="not-fitted-again"),
        pytest.param({"max_predict_ms": 5.0, "max_size_mb": 1.0, "stability": 0.02},
                     {"cost": Cost(5.0, 1_000_000), "other_seed": {"rmse": 1.02}}, "BETTER_THAN_CHAMPION", id="at-the-limits"),
    ],
)  # fmt: skip
def test_limits_that_a_spec_may_set(rides, change, gate, evidence, reason):
    assert ask(change(rides, gate=gate), **evidence).reason is GateReason[reason]
    assert ask(rides, **evidence).passed, "without a limit nothing is asked"


def auc(value):
    return replace(GOOD, metrics={"roc_auc": value})


WELL = {"predictions": (0.0, 1.0), "calibration": CalibrationErrors(0.02, 0.03, -0.02)}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param({}, "BETTER_THAN_CHAMPION", id="good"),
        pytest.param({"predictions": (-0.01, 1.0)}, "PREDICTIONS_OUT_OF_RANGE", id="no-probability"),
        pytest.param({"predictions": (0.0, 1.01)}, "PREDICTIONS_OUT_OF_RANGE", id="more-than-one"),
        pytest.param({"calibration": CalibrationErrors(0.2, 0.03, 0.021)}, "CALIBRATION_WORSE", id="calibration-worse"),
        pytest.param({"calibration": CalibrationErrors(0.2, 0.03, None)}, "CALIBRATION_WORSE", id="calibration-not-told"),
        pytest.param({"calibration": None}, "CALIBRATION_WORSE", id="calibration-not-measured"),
        pytest.param(
            {"over_baseline": -0.25, "baseline": auc(0.84), "champion": auc(0.85), "over_champion": replace(BETTER, point=1 - 0.2 / 0.15)},
            "WORSE_THAN_BASELINE", id="baseline-better",
        ),
        pytest.param({"over_baseline": -0.25, "baseline": auc(0.84)}, "BETTER_THAN_CHAMPION", id="baseline-better-than-both"),
    ],
)  # fmt: skip
def test_a_binary_model(wetness, more, reason):
    asked = {
        "champion": auc(0.7),
        "baseline": auc(0.5),
        "over_baseline": 0.6,
        "over_champion": replace(BETTER, point=1 / 3),
        **WELL,
        **more,
    }
    assert ask(wetness, auc(0.8), **asked).reason is GateReason[reason]


def test_a_perfect_champion_cannot_be_beaten(rides):
    zero = replace(GOOD, metrics={"rmse": 0.0})
    equal = Improvement(0.0, 0.0, 0.0, 0.0, 12, 100)
    verdict = ask(rides, challenger=zero, champion=zero, over_champion=equal, over_baseline=1.0)
    assert verdict.reason is GateReason.NOT_BETTER_THAN_CHAMPION


LEARNT = {"champion_learnt": 90}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(bounds(-0.1), "NOT_ENOUGH_FRESH_ROWS", id="not-better"),
        pytest.param({"answers_drift": True, **bounds(-0.1)}, "NOT_ENOUGH_FRESH_ROWS", id="after-drift-perhaps-worse"),
        pytest.param({"slices": Slices({}, Slice("kind=dry", 200, -0.3, -0.1, True), 5)}, "NOT_ENOUGH_FRESH_ROWS", id="slice-worse"),
        pytest.param({}, "BETTER_THAN_CHAMPION", id="a-win-is-a-win-all-the-more"),
        pytest.param({"answers_drift": True, **bounds(-0.005)}, "NOT_WORSE_THAN_CHAMPION", id="not-worse"),
        pytest.param(below(0.8, 0.7), "WORSE_THAN_BASELINE", id="the-baseline-learnt-nothing"),
        pytest.param({"champion": replace(CHAMPION, metrics={}, problem="gone")}, "CHAMPION_CANNOT_BE_EVALUATED", id="champion-gone"),
    ],
)  # fmt: skip
def test_a_champion_that_had_learnt_judged_rows_holds_nobody_back_for_good(rides, broken, reason):
    verdict = ask(rides, **LEARNT, **broken)
    assert verdict.reason is GateReason[reason]
    told = next(c for c in verdict.checks if c.check == "fresh_rows")
    assert (told.value, told.limit, told.passed) == ("90 of 100", 0, reason != "NOT_ENOUGH_FRESH_ROWS")
    assert "the champion had learnt 90 of the 100 judged rows" in told.sentence
    if told.passed:
        return
    lost = next(c for c in ask(rides, **broken).checks if not c.passed)
    assert [c for c in verdict.checks if not c.passed] == [told, lost], "what it was held back by is told too"
    assert verdict.reason not in CONCLUSIVE, "the drift may be asked for again"
    assert lost.code in CONCLUSIVE


def test_a_champion_that_had_learnt_nothing_of_them_is_compared_with(rides):
    assert not [c for c in ask(rides).checks if c.check == "fresh_rows"]


def test_calibration_against_learnt_rows_holds_nobody_back_for_good(wetness):
    asked = {
        "champion": auc(0.7),
        "baseline": auc(0.5),
        "over_baseline": 0.6,
        "over_champion": replace(BETTER, point=1 / 3),
        **WELL,
        **LEARNT,
    }
    asked["calibration"] = CalibrationErrors(0.2, 0.03, 0.021)
    verdict = ask(wetness, auc(0.8), **asked)
    assert verdict.reason is GateReason.NOT_ENOUGH_FRESH_ROWS
    assert "of both classes" in next(c for c in verdict.checks if not c.passed).sentence


def test_searched_slices_that_cannot_be_told_are_counted(wetness, change):
    model = change(wetness, features={"categorical": ("kind",)})
    slices = Slices({}, None, 3, untold=3)
    asked = {
        **WELL,
        "over_baseline": 0.6,
        "over_champion": replace(BETTER, point=1 / 3),
        "baseline": auc(0.5),
    }
    verdict = ask(model, auc(0.8), champion=auc(0.7), slices=slices, **asked)
    assert verdict.passed
    assert "3 of 3 could not be told" in next(
        c.sentence for c in verdict.checks if c.check == "slices_searched"
    )
    worst = replace(slices, worst=Slice("kind=dry", 200, 0.1, None, False), untold=2)
    verdict = ask(model, auc(0.8), champion=auc(0.7), slices=worst, **asked)
    assert "the worst of 3; 2 of 3 could not be told" in verdict.checks[-1].sentence


def test_every_reason_is_met_by_a_test():
    text = "".join(
        p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_training_gate*.py")
    )
    assert [r.name for r in GateReason if r.name not in text] == []


def test_every_check_of_the_gate_has_words(rides):
    """What a check is called when the gate runs, `check` itself looks at; here are those that stand in the source as they are."""
    folder = Path(checks.__file__).parent
    calls = [
        node
        for file in ("checks.py", "gate.py")
        for node in ast.walk(ast.parse((folder / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "check"
    ]
    names = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert len(names) > 10
    assert [name for name in names if check_words.named(name) is None] == []
    with pytest.raises(LookupError, match="the check new_rule has no words"):
        checks.Checks(rides).check("new_rule", 1, 2, True, GateReason.TOO_SLOW, "it is so")


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("champion_run", "run that evaluated the champion"),
        ("baseline_rmse", "RMSE of the baseline"),
        ("champion_recorded_mae", "MAE of the champion on the holdout of its own training"),
        ("slice_kind", "slices of kind"),
        ("slice_kind=dry_rows", "rows in kind=dry"),
        ("nobody_run", None),
        ("champion_of_a_later_release", None),
    ],
)
def test_checks_of_a_party_or_a_slice_say_whose_they_are(check, told):
    assert check_words.named(check) == told


def test_checks_of_earlier_decisions_can_still_be_read():
    old = {"check": "beats_champion", "value": 1.0, "limit": 2.0, "passed": True}
    verdict = GateVerdict.from_dict({"passed": True, "reason": "first_champion", "checks": [old]})
    assert verdict.checks == (Check("beats_champion", 1.0, 2.0, True),)
