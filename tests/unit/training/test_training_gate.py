"""The gate: each rule is broken on purpose, and the reason code says which."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from evergreen.training.gate import Evaluation, GateReason, Verdict, judge, limit_of

AS_OF = datetime(2024, 3, 1, tzinfo=timezone.utc)
GOOD = Evaluation({"rmse": 1.0}, 100, "keys", "print", "run", AS_OF)
CHAMPION = replace(GOOD, metrics={"rmse": 2.0})
BASELINE = replace(GOOD, metrics={"rmse": 3.0})


def ask(
    model, challenger=GOOD, baseline=BASELINE, champion=CHAMPION, champion_as_of=AS_OF - timedelta(days=1)
):
    return judge(
        model, challenger, baseline, champion,
        champion_as_of=champion_as_of, run_id="run", as_of=AS_OF, fingerprint="print",
    )  # fmt: skip


def test_better_than_champion_and_baseline(rides):
    verdict = ask(rides)
    assert verdict.passed
    assert verdict.reason is GateReason.BETTER_THAN_CHAMPION
    assert all(c.passed for c in verdict.checks)
    assert Verdict.from_dict(verdict.to_dict()) == verdict


def test_without_a_champion_only_the_baseline_counts(rides):
    verdict = ask(rides, champion=None, champion_as_of=None)
    assert (verdict.passed, verdict.reason) == (True, GateReason.FIRST_CHAMPION)
    verdict = ask(rides, challenger=replace(GOOD, metrics={"rmse": 3.5}), champion=None, champion_as_of=None)
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
        pytest.param({"baseline": replace(BASELINE, metrics={"rmse": 0.9})}, "WORSE_THAN_BASELINE", id="baseline-better"),
        pytest.param({"baseline": replace(BASELINE, metrics={"rmse": 1.0})}, "WORSE_THAN_BASELINE", id="baseline-equal"),
        pytest.param({"champion": replace(CHAMPION, metrics={}, problem="gone")}, "CHAMPION_UNAVAILABLE", id="champion-gone"),
        pytest.param({"champion": None}, "CHAMPION_UNAVAILABLE", id="champion-not-evaluated"),
        pytest.param({"champion": replace(CHAMPION, metrics={"mae": 1.0})}, "CHAMPION_METRIC_MISSING", id="champion-metric"),
        pytest.param({"champion": replace(CHAMPION, metrics={"rmse": float("nan")})}, "CHAMPION_METRIC_MISSING", id="champion-nan"),
        pytest.param({"champion_as_of": AS_OF + timedelta(hours=1)}, "OLDER_THAN_CHAMPION", id="backfill"),
        pytest.param({"champion_as_of": None}, "OLDER_THAN_CHAMPION", id="champion-of-unknown-age"),
        pytest.param({"champion": replace(CHAMPION, metrics={"rmse": 1.0})}, "NOT_BETTER_THAN_CHAMPION", id="equal"),
        pytest.param({"champion": replace(CHAMPION, metrics={"rmse": 0.5})}, "NOT_BETTER_THAN_CHAMPION", id="worse"),
    ],
)  # fmt: skip
def test_each_rule_fails_closed(rides, broken, reason):
    verdict = ask(rides, **broken)
    assert not verdict.passed
    assert verdict.reason is GateReason[reason]
    assert any(not c.passed for c in verdict.checks)


def test_too_small_a_holdout(rides, change):
    few = {
        who: replace(e, rows=10)
        for who, e in (("challenger", GOOD), ("baseline", BASELINE), ("champion", CHAMPION))
    }
    assert ask(rides, **few).reason is GateReason.TOO_FEW_ROWS


def test_the_baseline_may_be_left_out(rides, change):
    model = change(rides, gate={"beat_baseline": False})
    assert ask(model, baseline=replace(BASELINE, metrics={})).passed


@pytest.mark.parametrize(
    ("metric", "champion", "just_enough", "not_enough"),
    [
        pytest.param("rmse", 2.0, 1.9, 1.9001, id="error"),
        pytest.param("r2", -0.5, -0.4249, -0.43, id="negative-r2"),
        pytest.param("r2", 0.0, 0.0501, 0.049, id="zero-r2"),
        pytest.param("r2", 0.98, 0.98101, 0.9809, id="nearly-perfect"),
        pytest.param("mae", 1e-9, 0.95e-9, 0.96e-9, id="nearly-zero"),
    ],
)
def test_the_margin_is_a_share_of_the_distance_from_perfect(
    rides, change, metric, champion, just_enough, not_enough
):
    model = change(rides, gate={"metric": metric, "margin": 0.05, "beat_baseline": False})
    for value, passed in ((just_enough, True), (not_enough, False)):
        verdict = ask(
            model, replace(GOOD, metrics={metric: value}), champion=replace(GOOD, metrics={metric: champion})
        )
        assert verdict.passed is passed, limit_of(metric, champion, 0.05)


def test_a_perfect_champion_cannot_be_beaten(rides):
    zero = replace(GOOD, metrics={"rmse": 0.0})
    assert ask(rides, challenger=zero, champion=zero).reason is GateReason.NOT_BETTER_THAN_CHAMPION


def test_larger_is_better_for_an_auc(wetness):
    def auc(value):
        return replace(GOOD, metrics={"roc_auc": value})

    assert ask(wetness, auc(0.8), auc(0.5), auc(0.7)).passed
    assert ask(wetness, auc(0.7), auc(0.5), auc(0.8)).reason is GateReason.NOT_BETTER_THAN_CHAMPION
    assert ask(wetness, auc(0.4), auc(0.5), auc(0.3)).reason is GateReason.WORSE_THAN_BASELINE
