"""A champion that a forecast without a model beats, while no challenger is promoted: ledger, mail and digest say so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evergreen.spec import metric_name
from evergreen.training.record.outcome import worse_than_naive

METRICS = {"challenger": {"rmse": 6.0}, "champion": {"rmse": 5.2}, "baseline": {"rmse": 4.1}}


@pytest.mark.parametrize(
    ("metric", "champion", "baseline", "worse"),
    [
        pytest.param("rmse", 5.2, 4.1, True, id="larger-error"),
        pytest.param("rmse", 4.0, 4.1, False, id="smaller-error"),
        pytest.param("rmse", 4.1, 4.1, False, id="the-same"),
        pytest.param("roc_auc", 0.49, 0.5, True, id="smaller-area"),
        pytest.param("roc_auc", 0.7, 0.5, False, id="larger-area"),
        pytest.param("rmse", None, 4.1, False, id="champion-unknown"),
    ],
)
def test_which_champion_is_worse_than_a_forecast_without_a_model(metric, champion, baseline, worse):
    found = worse_than_naive(
        metric,
        {"champion": {} if champion is None else {metric: champion}, "baseline": {metric: baseline}},
        "3",
    )
    assert bool(found) is worse
    if worse:
        assert (
            f"version 3, which stays champion, is worse than the naive baseline now: {metric_name(metric)} {champion:.4g}"
            in found
        )
        assert f"the baseline's is {baseline:.4g} on the same rows" in found


def test_the_ledger_the_mail_and_the_digest_say_it(world, mlflow_url, start):
    """The champion of a real training, whose labels turn around: it and its challengers lose to the last value."""
    from dataclasses import replace
    from datetime import timedelta

    from evergreen.alerting.compose import compose
    from evergreen.alerting.content.letter import KnownIncident
    from evergreen.alerting.letters.digest import digest
    from evergreen.ledger.reasons import DecisionKind, GateReason
    from evergreen.training.gate.verdict import Check, GateVerdict
    from evergreen.warehouse.connection import connect, fetch

    world.land(start, 45)
    world.promote(start + timedelta(days=30), "dag/first")
    outcome = world.train(start + timedelta(days=40), "dag/second")
    lost = Check(
        "beats_baseline", 6.0, 4.1, False, GateReason.WORSE_THAN_BASELINE.value, "rmse of the challenger is 6"
    )
    decision = world.settle(
        replace(outcome, metrics=METRICS, verdict=GateVerdict(False, GateReason.WORSE_THAN_BASELINE, (lost,)))
    )
    told = f"version {outcome.champion_version}, which stays champion, is worse than the naive baseline now: RMSE 5.2"
    assert decision.kind is DecisionKind.REJECTED
    assert told in decision.evidence.to_json()["message"]
    assert decision.evidence.to_json()["champion_below_baseline"].startswith(told)
    with connect() as conn:
        (row,) = fetch(conn, "SELECT * FROM evergreen.mail WHERE decision_id = %s", (decision.id,))
        text = compose(conn, world.specs, row).get_body(("plain",)).get_content()
        known = KnownIncident(
            incident="d", kind="digest", subject="digest", specs=world.specs,
            created_at=datetime.now(UTC), decision=None, evidence={},
            context={"as_of": (start + timedelta(days=41)).isoformat(), "models": ["rides"], "datasets": []}, told=set(),
        )  # fmt: skip
        letter = digest(conn, known)
    plain = " ".join(text.split())
    assert told in plain
    assert "A forecast without a model beats the champion on these rows" in plain
    assert "1 champion worse than the naive baseline" in letter.headline
    assert told in letter.lead[0]
    assert letter.tone == "bad"
    assert any("does harm" in step for step in letter.steps)


def test_a_challenger_that_is_promoted_below_the_baseline_is_told(world, mlflow_url, start):
    from dataclasses import replace
    from datetime import timedelta

    from evergreen.alerting.compose import compose
    from evergreen.alerting.content.week import model_week
    from evergreen.ledger.reasons import DecisionKind, GateReason
    from evergreen.training.gate.verdict import Check, GateVerdict
    from evergreen.warehouse.connection import connect, fetch

    world.land(start, 45)
    world.promote(start + timedelta(days=30), "dag/first")
    outcome = world.train(start + timedelta(days=40), "dag/second")
    told = "rmse of the challenger is 5, of the baseline 4.1, of the champion 6: the naive baseline beats both, and the challenger is the better one"
    both = Check("baseline_beats_both", 5.0, 6.0, True, GateReason.WORSE_THAN_BASELINE.value, told)
    decision = world.settle(
        replace(outcome, metrics=METRICS, verdict=GateVerdict(True, GateReason.BETTER_THAN_CHAMPION, (both,)))
    )
    assert decision.kind is DecisionKind.PROMOTED
    assert decision.evidence.to_json()["champion_below_baseline"] == told
    with connect() as conn:
        (row,) = fetch(conn, "SELECT * FROM evergreen.mail WHERE decision_id = %s", (decision.id,))
        plain = " ".join(compose(conn, world.specs, row).get_body(("plain",)).get_content().split())
        week = model_week(conn, world.specs.models["rides"], start + timedelta(days=41))
    assert "the naive baseline beats both" in plain
    assert "A forecast without a model beats the new champion" in plain
    assert week.below_baseline == told


def test_a_watch_that_can_hardly_alarm_is_told_by_the_ledger_and_the_mail_of_the_promotion(
    world, mlflow_url, start, monkeypatch
):
    from datetime import timedelta

    from evergreen.alerting.compose import compose
    from evergreen.reference import error_limit
    from evergreen.warehouse.connection import connect, fetch

    told = "this limit cannot alarm before the served error is worse than that. With monitoring.window: 4d the limit would be 7"
    monkeypatch.setattr(error_limit, "about_usual_windows", lambda *_: told)
    world.land(start, 31)
    decision = world.promote(start + timedelta(days=30), "dag/first")
    assert decision.evidence.to_json()["error_limit"] == told
    with connect() as conn:
        (row,) = fetch(conn, "SELECT * FROM evergreen.mail WHERE decision_id = %s", (decision.id,))
        plain = " ".join(compose(conn, world.specs, row).get_body(("plain",)).get_content().split())
    assert f"Watch on its error: {told}" in plain
