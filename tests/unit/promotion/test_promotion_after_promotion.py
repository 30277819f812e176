"""The watch after a promotion: what it compares, when it looks, what it does, and what it never calls fine."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from mlflow import MlflowClient
from watched_scene import both, look, predicted, promote, rows

from evergreen import ledger, registry
from evergreen.errors import ErrorReason as Failure
from evergreen.errors import TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.metrics import paired_bootstrap
from evergreen.metrics.paired_bootstrap import Improvement
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.promotion import live_watch
from evergreen.promotion.after_promotion import LOOKS, WatchLook, compared, concluded
from evergreen.registry.models import LoadedModel
from evergreen.registry.under_watch import champion_under_watch
from evergreen.scoring.score import score
from evergreen.warehouse.connection import connect, fetch

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def told(world, start):
    """Rows up to day 45; by the ledger version 1 is champion as of day 30, version 2 as of day 31. No model is there."""
    world.land(start, 45)
    for version, day in (("1", 30), ("2", 31)):
        promote(version, start + day * DAY)
    return world


@pytest.fixture
def real(world, made_once, start):
    """The same with models that can be loaded."""

    def make():
        world.land(start, 45)
        world.promote(start + 30 * DAY, "dag/first")
        world.promote(start + 31 * DAY, "dag/second")

    made_once(make)
    return world


def watching(world):
    """The champion, and its watch."""
    with connect() as conn:
        changes = ledger.champions(conn, "rides")
        return registry.champion(conn, "rides", repair=False), champion_under_watch(world.model, changes)


def champion_now():
    with connect() as conn:
        return registry.champion(conn, "rides", repair=False).version


def test_a_better_champion_passes_at_the_end_and_only_there(told, start):
    both(start, 2.0, 2.5)
    day = start + 31 * DAY
    found = [look(told, day + n * 6 * HOUR) for n in range(40)]
    last = found[-1]
    assert (last.kind, last.reason, last.version) == (DecisionKind.WATCH_ENDED, "watch_passed", "2")
    assert last.as_of == day + 7 * DAY + 6 * HOUR, "the first run after the period and the label's delay"
    assert {d.reason for d in rows(DecisionKind.WATCHED)} == {"watch_continues"}
    assert len(rows()) == len({d.id for d in found if d}) <= LOOKS
    evidence = last.evidence.to_json()["watch"]
    assert (evidence["value"], evidence["previous_value"]) == (pytest.approx(2.0), pytest.approx(2.5))
    assert evidence["improvement"] == pytest.approx(0.2)
    assert champion_now() == "2"


def test_a_worse_champion_is_rolled_back_mailed_and_blocked(real, start):
    """With models, scoring and shadow as they are; the bad champion learnt next to nothing."""
    day = start + 33 * DAY
    bad = real.with_model(training={"max_rounds": 1, "params": {"learning_rate": 0.05, "max_depth": 1}})
    promotion = bad.promote(day, "dag/bad")
    for hours in (12, 60, 108, 132):
        score(real.specs, real.model, day + hours * HOUR, f"score/{hours}")
    as_of = day + 132 * HOUR
    request = Decision(
        as_of, "model/rides", DecisionKind.RETRAIN_REQUESTED, "performance", "m", "wish", version="3"
    )
    of_another = Decision(
        as_of, "model/rides", DecisionKind.RETRAIN_REQUESTED, "manual", "m", "other", version="2"
    )
    with connect() as conn:
        wish, other = (ledger.append(conn, d).id for d in (request, of_another))
    assert look(real, day + 12 * HOUR) is None, "too few rows"
    decision = look(real, as_of)
    assert (decision.kind, decision.reason, decision.version) == (
        DecisionKind.ROLLED_BACK,
        "worse_than_previous",
        "2",
    )
    assert (decision.answers, decision.as_of) == ((wish,), as_of)
    evidence = decision.evidence.to_json()
    assert evidence["blocked"] == {
        "version": "3", **{n: promotion.evidence.to_json()[n] for n in ("fingerprint", "training_hash", "spec_hash")},
    }  # fmt: skip
    assert evidence["previous_version"] == "3"
    assert evidence["probe_rows"] > 0
    assert evidence["watch"]["value"] > evidence["watch"]["previous_value"]
    assert evidence["watch"]["at_most"] < -0.02
    assert evidence["watch"]["rows"] == 205, "since day 30, as nobody had scored before; what arrived by then"
    assert registry.aliases("rides")["champion"] == "2"
    with connect() as conn:
        mails = fetch(conn, "SELECT decision_id FROM evergreen.mail WHERE kind = 'rolled_back'")
        assert [r.id for r in ledger.open_requests(conn, "rides")] == [other]
    assert [m["decision_id"] for m in mails] == [decision.id]

    assert look(real, as_of, "retry") == decision, "a run of the same time gets the same answer"
    assert look(real, as_of + HOUR) is None
    assert len(rows(DecisionKind.ROLLED_BACK)) == 1
    for hours in (60, 131):
        assert look(real, day + hours * HOUR) is None, "as of the past it decides nothing about now"
    assert score(real.specs, real.model, as_of + HOUR, "score/after").version == "2"
    assert apply(real.model, as_of, "monitor") is None


def test_the_alias_that_a_lost_mlflow_left_behind_is_moved_by_the_retry(real, start, monkeypatch):
    both(start, 9.0, 1.0)
    as_of = start + 38 * DAY

    def down(*_):
        raise ConnectionError("MLflow")

    with monkeypatch.context() as patch:
        patch.setattr("evergreen.registry.champions.move_alias", down)
        with pytest.raises(ConnectionError):
            look(real, as_of)
    assert registry.aliases("rides")["champion"] == "2"
    assert look(real, as_of).kind is DecisionKind.ROLLED_BACK
    assert registry.aliases("rides")["champion"] == "1"


def test_worse_within_the_margin_stays(real, start):
    both(start, 2.03, 2.0)
    as_of = start + 38 * DAY
    assert look(real, as_of).reason == "watch_continues"
    strict = real.with_model(watch={"margin": 0.01})
    assert look(strict, as_of + 2 * HOUR).kind is DecisionKind.ROLLED_BACK


def test_too_few_rows_are_nothing_yet_and_inconclusive_at_the_end(told, start):
    day = start + 31 * DAY
    both(start, 9.0, 1.0, days=2)
    for n in range(14):
        assert look(told.with_model(watch={"min_rows": 60}), day + n * 12 * HOUR) is None
    assert rows() == []
    end = day + 7 * DAY + HOUR
    few = told.with_model(watch={"min_rows": 60})
    assert look(few, end) is None, "labels mature until then"
    decision = look(few, end + timedelta(seconds=1))
    assert (decision.kind, decision.reason) == (DecisionKind.WATCH_ENDED, "watch_inconclusive")
    assert "48 rows" in decision.evidence.to_json()["message"]
    assert look(few, end + DAY, "later") == decision
    assert rows() == [decision]
    assert champion_now() == "2"


def test_a_shadow_that_stopped_midway_does_not_let_the_champion_pass(told, start):
    """The first days, when both were as good, are no evidence for the days that only the new one has predicted."""
    day = start + 31 * DAY
    predicted("2", 2.0, day, day + 14 * DAY)
    predicted("1", 2.5, day, day + 3 * DAY)
    end = day + 7 * DAY + 2 * HOUR
    decision = look(told.with_model(watch={"min_rows": 50}), end)
    assert (decision.kind, decision.reason) == (DecisionKind.WATCH_ENDED, "watch_inconclusive")
    assert decision.evidence.to_json()["watch"]["rows"] >= 72
    assert decision.evidence.to_json()["watch"]["coverage"] == pytest.approx(72 / 168, abs=0.01)
    assert "43% of the rows" in decision.evidence.to_json()["message"]


def test_a_shadow_of_more_than_half_of_the_rows_is_enough(told, start):
    day = start + 31 * DAY
    predicted("2", 2.0, day, day + 14 * DAY)
    predicted("1", 2.5, day, day + 4 * DAY)
    decision = look(told.with_model(watch={"min_rows": 50}), day + 7 * DAY + 2 * HOUR)
    assert decision.reason == "watch_passed"


@pytest.mark.parametrize(
    ("point", "high", "reason"),
    [
        pytest.param(-0.225, 0.0, "watch_inconclusive", id="seems worse, not surely"),
        pytest.param(-0.01, 0.3, "watch_passed", id="within the margin"),
        pytest.param(-0.225, -0.03, "worse_than_previous", id="surely worse"),
    ],
)
def test_what_only_seems_worse_has_not_passed(told, point, high, reason):
    champion, found = watching(told)
    seen = WatchLook(500, 1.2, 1.0, Improvement(point, -0.9, high, 0.0, 12, 100))
    assert concluded(told.model, found, champion, seen, 1.0, ended=True)[0].value == reason
    going_on = "worse_than_previous" if reason == "worse_than_previous" else "watch_continues"
    assert concluded(told.model, found, champion, seen, 1.0, ended=False)[0].value == going_on


def test_labels_that_are_not_mature_do_not_count(told, start):
    both(start, 2.0, 2.5)
    late = told.with_model(label={"delay": "5d"}, watch={"min_rows": 30})
    assert look(late, start + 37 * DAY) is None
    # From day 31 to day 33 at 00:00, included.
    assert look(late, start + 38 * DAY).evidence.to_json()["watch"]["rows"] == 49
    assert look(late, start + 43 * DAY).reason == "watch_continues"
    assert look(late, start + 43 * DAY + HOUR).reason == "watch_passed"


@pytest.mark.parametrize("version", ["first", "no-shadow"])
def test_nothing_to_compare_with_is_said_and_is_not_fine(told, start, version):
    if version == "first":
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute("ALTER TABLE evergreen.decision DISABLE TRIGGER decision_append_only")
            cursor.execute("DELETE FROM evergreen.decision WHERE version = '1'")
            cursor.execute("ALTER TABLE evergreen.decision ENABLE TRIGGER decision_append_only")
    predicted("2", 2.0, start + 31 * DAY, start + 40 * DAY)
    day = start + 31 * DAY
    assert look(told, day + 6 * DAY) is None
    decision = look(told, day + 8 * DAY)
    assert (decision.kind, decision.reason) == (DecisionKind.WATCH_ENDED, "cannot_compare")
    assert (
        "no champion before" if version == "first" else "predicted no row in the shadow"
    ) in decision.evidence.to_json()["message"]
    assert look(told, day + 9 * DAY) == decision


def test_rows_that_the_champion_learnt_do_not_count(told, start):
    predicted("2", 1.0, start + 20 * DAY, start + 32 * DAY)
    predicted("1", 9.0, start + 20 * DAY, start + 32 * DAY)
    assert look(told, start + 34 * DAY) is None
    assert (
        look(told.with_model(watch={"min_rows": 26}), start + 34 * DAY).evidence.to_json()["watch"]["rows"]
        == 26
    )


def test_one_look_for_each_part_of_the_period(told, start):
    both(start, 2.0, 2.0)
    day = start + 31 * DAY
    found = [look(told, day + n * HOUR, f"monitor/{n}") for n in range(24 * 9)]
    numbers = [d.evidence.to_json()["watch"]["look"] for d in rows()]
    assert sorted(numbers) == list(range(numbers[-1], LOOKS + 1))
    assert found[-1] == found[-2], "what was decided is not decided again"


def test_the_doubt_is_shared_by_all_looks(told, start):
    """What one look at 95 % would call surely worse is not, where seven looks together may err in 5 % of cases."""
    rng = np.random.default_rng(3)
    both(start, 2.0, 2.0)
    with connect() as conn, conn.cursor() as cursor:
        for table in ("prediction", "shadow_prediction"):
            for row in fetch(conn, f"SELECT key FROM evergreen.{table} ORDER BY key"):
                cursor.execute(
                    f"UPDATE evergreen.{table} SET prediction = prediction + %s WHERE key = %s",
                    (float(rng.normal(0, 1.0)), row["key"]),
                )
    found = look(told, start + 38 * DAY).evidence.to_json()["watch"]
    wide = found["at_most"] - found["improvement"]
    champion, under = watching(told)
    table = live_watch._paired(told.specs, told.model, champion, under, start + 38 * DAY)
    alone = paired_bootstrap.improvement(
        paired_bootstrap.Paired(
            "rmse", table["_time"].cast("int64").to_numpy(), *(table[n].to_numpy() for n in ("_label", "_new", "_old"))
        ),
        confidence=0.95, seed=told.model.training.seed,
    )  # fmt: skip
    assert wide > 1.2 * (alone.high - alone.point) > 0


def seen_as_of(told, champion, under, as_of):
    return compared(told.model, live_watch._paired(told.specs, told.model, champion, under, as_of))


def test_what_was_not_known_as_of_then_changes_nothing(told, start):
    both(start, 2.0, 2.5)
    as_of = start + 37 * DAY
    champion, under = watching(told)
    before = seen_as_of(told, champion, under, as_of)
    told.correct(start + 32 * DAY, as_of + DAY, demand=9999.0)
    told.land(start + 45 * DAY, 1, seed=9)
    predicted("2", 50.0, start + 28 * DAY, start + 31 * DAY, as_of=as_of + DAY)
    predicted("1", 1.0, start + 28 * DAY, start + 31 * DAY, as_of=as_of + DAY)
    promote("3", as_of + DAY)
    assert seen_as_of(told, champion, under, as_of) == before
    assert look(told, as_of).version == "2"
    assert look(told, as_of).as_of == as_of


def test_as_of_the_past_a_champion_that_was_replaced_since_is_not_rolled_back(told, start):
    both(start, 9.0, 1.0)
    promote("3", start + 40 * DAY)
    assert look(told, start + 38 * DAY) is None
    assert rows() == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [("lost", Failure.REGISTRY_MISMATCH), ("probe", Failure.PROBE_FAILED)],
)
def test_a_rollback_that_cannot_be_done_is_an_error_and_nothing_moves(
    real, start, monkeypatch, broken, reason
):
    both(start, 9.0, 1.0)
    if broken == "lost":
        MlflowClient().delete_model_version("rides", "1")
    else:
        whole = LoadedModel.predict
        monkeypatch.setattr(LoadedModel, "predict", lambda self, table: whole(self, table) * 1.001)
    with pytest.raises(TerminalError) as caught:
        look(real, start + 38 * DAY)
    assert caught.value.reason is reason
    assert champion_now() == "2"
    assert rows() == []


def test_a_champion_that_changed_while_it_was_compared_is_tried_again(real, start, monkeypatch):
    both(start, 9.0, 1.0)
    seen = live_watch.compared

    def meanwhile(*args):
        found = seen(*args)
        promote("3", start + 38 * DAY)
        return found

    monkeypatch.setattr(live_watch, "compared", meanwhile)
    with pytest.raises(TransientError, match="it is version 3 now"):
        look(real, start + 38 * DAY)
    assert champion_now() == "3"
