"""Policies by name, records as JSON, and what a person sees while it runs."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import (
    ColumnResult,
    Judgement,
    MetricResult,
    Status,
    Violation,
    What,
)
from evergreen.replay import output, records, result
from evergreen.replay.policies import PolicyKind as Wanted
from evergreen.replay.policies import moments, parse, parse_all, scheduled
from evergreen.replay.progress import ReplayProgress
from evergreen.replay.request import ReplayRequest
from evergreen.spec import ModelSpec, Specs

T = datetime(2024, 5, 6, tzinfo=UTC)
ENDS = [T + timedelta(days=3 * n) for n in range(1, 41)]


def test_policies_by_name(tmp_path):
    assert parse("never").kind is Wanted.NEVER
    assert (parse("every_window").kind, parse("every_window").every) == (Wanted.SCHEDULE, timedelta(0))
    assert parse("weekly").every == timedelta(days=7)
    assert parse("every:36h").every == timedelta(hours=36)
    assert parse("on_drift").kind is Wanted.DRIFT
    assert (parse("random:5:3").count, parse("random:5:3").seed) == (5, 3)
    spec = tmp_path / "eager one.yaml"
    spec.write_text("name: rides")
    found = parse(str(spec))
    assert (found.kind, found.spec, found.label) == (Wanted.DRIFT, spec, "eager one")
    assert "/" not in found.folder
    assert " " not in found.folder


@pytest.mark.parametrize(
    "name", ["", "sometimes", "random", "random:x:1", "every:soon", "gone.yaml", "drift"]
)
def test_what_is_no_policy_is_named(name):
    with pytest.raises(TerminalError, match=name or "''"):
        parse(name)


def test_two_policies_of_the_same_label_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "eager.yaml").write_text("name: rides")
    assert [p.name for p in parse_all(["never", "weekly", "never"])] == ["never", "weekly"]
    with pytest.raises(TerminalError, match="eager"):
        parse_all([str(tmp_path / "a" / "eager.yaml"), str(tmp_path / "b" / "eager.yaml")])


def test_a_schedule_counts_from_the_last_training():
    weekly = parse("weekly")
    assert not scheduled(weekly, ENDS, T + timedelta(days=6), T)
    assert scheduled(weekly, ENDS, T + timedelta(days=7), T)
    assert scheduled(parse("every_window"), ENDS, ENDS[0], T)
    assert not scheduled(parse("never"), ENDS, ENDS[-1], T)
    assert not scheduled(parse("on_drift"), ENDS, ENDS[-1], T)


def test_random_moments_are_window_ends_and_follow_from_the_seed():
    found = moments(parse("random:7:1"), ENDS)
    assert len(found) == 7
    assert found <= set(ENDS)
    assert found == moments(parse("random:7:1"), ENDS)
    assert found != moments(parse("random:7:2"), ENDS)
    assert moments(parse("random:99:1"), ENDS) == set(ENDS)
    assert len(moments(parse("even:7"), ENDS)) == 7
    assert sorted(moments(parse("even:3"), ENDS)) == [ENDS[10], ENDS[20], ENDS[30]]
    assert [t for t in ENDS if scheduled(parse("random:7:1"), ENDS, t, T)] == sorted(found)


@pytest.mark.parametrize("written", [{}, {"freshness": "36h"}], ids=["by-default", "set"])
def test_a_worker_reads_the_spec_as_it_was_written(tmp_path, written):
    """A default that is written out would be another setting: the feed's own rhythm counts only where freshness is not set."""
    model = ModelSpec.model_validate({
        "name": "rides", "task": "regression", "datasets": ["d"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "y", "delay": "1h"}, "features": {"numeric": ["x"]}, "query": "SELECT 1", "monitoring": {"window": "1d", **written},
    })  # fmt: skip
    slower = model.model_copy(update={"monitoring": model.monitoring.model_copy(update={"min_rows": 7})})
    spec = tmp_path / "slower.yaml"
    spec.touch()
    policies = ((parse("never"), model), (parse(str(spec)), slower))
    ReplayRequest(Specs({}, {"rides": model}), model, T, ENDS[-1], policies, tmp_path, {}).write()
    read = ReplayRequest.read(tmp_path)
    assert (read.model, [m for _, m in read.policies]) == (model, [model, slower])
    for one in (read.model, *(m for _, m in read.policies)):
        assert ("freshness" in one.monitoring.model_fields_set) == bool(written)


def test_records_come_back_from_json_as_they_are():
    decision = Decision(
        T, "model/rides", DecisionKind.RETRAIN_REQUESTED, "data_drift", "replay", "key",
        RetrainEvidence(drifted=("data_drift:x",), since=T, holdout=math.nan), "3", (1, 2), 7, T,
    )  # fmt: skip
    once = records.decision_from(json.loads(json.dumps(records.decision_to(decision))))
    assert once == records.decision_from(records.decision_to(once))
    assert once.evidence == RetrainEvidence(drifted=("data_drift:x",), since=T, holdout=None)
    assert (once.kind, once.as_of, once.answers, once.id) == (decision.kind, T, (1, 2), 7)

    column = ColumnResult("x", What.DATA_DRIFT, "wasserstein", 0.4, 0.2, True, "mean 3")
    judged = Judgement(
        "rides", "3", T, T + timedelta(days=3), 2, T + timedelta(days=4), Status.VIOLATION, 72, 72, 70,
        (column.violation, Violation(What.UNREADABLE, "y", "drift", None, 0.0)),
        {"rmse": MetricResult(1.5, 2.0, 1.0, "judged")}, (column,), None, "run", 4,
    )  # fmt: skip
    assert records.judgement_from(json.loads(json.dumps(records.judgement_to(judged)))) == judged


def test_the_time_that_is_left_is_told_once_it_can_be_known(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("evergreen.replay.progress.time.monotonic", lambda: clock[0])
    said: list[str] = []
    progress = ReplayProgress("rides", {"never": 100}, {"never": 0}, said.append)
    for now, done in ((15.0, 1), (30.0, 2), (60.0, 12), (90.0, 20)):
        clock[0] = now
        progress.tell({"never": done})
    assert ["left" in line for line in said] == [False, False, True, True]
    assert "6 min 0 s left" in said[3]


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
    said: list[str] = []
    progress = ReplayProgress(
        "rides", {"never": 10, "on_drift": 30}, {"never": 4, "on_drift": 0}, said.append
    )
    progress.tell({"never": 10, "on_drift": 5})
    assert not progress.complete
    progress.end({"never": 10, "on_drift": 30})
    assert progress.complete
    assert said[0].endswith("goes on after 4 steps of an earlier run")
    assert "15 of 40 windows (38%)" in said[1]
    assert "left" not in said[1], "the first steps say nothing of the rest"
    assert "never 10/10, on_drift 5/30" in said[1]
    assert "40 of 40 windows (100%)" in said[2]
    ReplayProgress("rides", {"never": 1}, {"never": 0}).tell({"never": 1})
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    assert "\r" not in shown


def test_a_training_that_failed_says_why_in_table_and_page():
    def failed(number, reason, message):
        evidence = {"dag_id": "train__rides", "message": message}
        return Decision(
            T,
            "model/rides",
            DecisionKind.RUN_FAILED,
            reason,
            f"train__rides/{number}",
            f"f{number}",
            evidence,
        )

    rows = [
        failed(2, "too_few_rows", "the holdout has 3 rows"),
        failed(3, "one_class", "every label is 0"),
        failed(4, "too_few_rows", "the holdout has 5 rows"),
    ]
    told = result._why(rows)
    assert told == "2 x too few rows: the holdout has 5 rows; 1 x one class: every label is 0"
    point = result.Point(T, T + timedelta(days=3), 10, 1.0, "ok", "2", "failed", "too_few_rows")
    done = result.PolicyOutcome("weekly", 1.0, 1.0, 10, 3, 0, 0, 3, 0, 0, 0, 0, 0.1, told, (point,))
    quiet = result.PolicyOutcome("never", 1.0, 1.0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, "", ())
    assert output.table([quiet, done], "rmse").splitlines()[-1] == f"weekly: 3 failed: {told}"
    assert done.totals()["why_failed"] == told
    assert output._point(point)["why"] == "too_few_rows"
