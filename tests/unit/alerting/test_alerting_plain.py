"""Texts that say what was asked: of the gate, of an end of an interval, and equal words once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evergreen.alerting.content.letter import KnownIncident
from evergreen.alerting.letters import batches, challengers, drift
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.spec import ModelSpec, Specs
from evergreen.training.gate.verdict import GateVerdict
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.connection import Connection

T = datetime(2024, 5, 6, tzinfo=UTC)
SAID = "the improvement over the champion is -2.00 %, with 95 % confidence at least -5.34 %; it must be more than 0.00 %"


def spec(**gate) -> ModelSpec:
    return ModelSpec.model_validate({
        "name": "rides", "task": "regression", "datasets": ["d"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "y", "delay": "1h"}, "features": {"numeric": ["x"]}, "query": "SELECT 1", "gate": gate,
    })  # fmt: skip


def known(model, decision, evidence) -> KnownIncident:
    return KnownIncident(
        "i", "drift", "model/rides", Specs({}, {model.name: model}), T, decision, evidence, {}
    )


@pytest.mark.parametrize(
    ("gate", "reason", "asked"),
    [
        pytest.param({"on_drift": "better"}, "data_drift", "better, with 95% confidence,", id="better"),
        pytest.param({"on_drift": "not_worse", "tolerance": 0.01}, "performance", "not worse by more than 1.0%", id="not-worse"),
        pytest.param(
            {"on_drift": "unless_worse", "max_worse": 0.05}, "data_drift", "neither surely worse, with 95% confidence, nor worse by more than 5.0%",
            id="unless-worse",
        ),
        pytest.param({"on_drift": "unless_worse", "otherwise": "better"}, "staleness", "better, with 95% confidence,", id="no-drift"),
    ],
)  # fmt: skip
def test_the_drift_mail_says_what_the_gate_will_ask(gate, reason, asked):
    model = spec(**gate)
    decision = Decision(T, "model/rides", DecisionKind.RETRAIN_REQUESTED, reason, "monitor/1", "r", {}, id=7)
    (first, second, _) = drift._next_steps(known(model, decision, {}))
    assert first.startswith("A retraining is requested")
    assert "7" not in first, "what names the request stands at the end"
    assert asked in second
    assert "beats" not in second


@pytest.mark.parametrize(
    ("schedule", "there"), [("0 2 * * *", True), (None, False)], ids=["nightly", "no schedule"]
)
def test_a_nightly_training_is_promised_only_where_there_is_one(schedule, there):
    model = spec().model_copy(update={"schedule": schedule})
    asked = Decision(
        T, "model/rides", DecisionKind.RETRAIN_REQUESTED, "data_drift", "monitor/1", "r", {}, id=7
    )
    lost = Decision(T, "model/rides", DecisionKind.REJECTED, "worse_than_champion", "train/1", "s", {}, id=8)
    steps = (
        *drift._next_steps(known(model, asked, {})),
        *challengers._rejected_steps(known(model, lost, {}), "1"),
    )
    assert sum("nightly" in step for step in steps) == (2 if there else 0)


@pytest.mark.parametrize(
    ("check", "label", "asked"),
    [
        ("beats_champion", "better than the champion, at the least", "better"),
        ("not_worse_than_champion", "not worse than the champion, at the least", "not worse"),
        ("not_surely_worse", "not surely worse than the champion, at the most", "not worse"),
    ],
)
def test_a_bound_is_called_one(check, label, asked):
    checks = [{"check": check, "value": -0.0534, "limit": 0.0, "passed": False, "sentence": SAID}]
    decision = Decision(
        T,
        "model/rides",
        DecisionKind.REJECTED,
        "not_better_than_champion",
        "train/1",
        "s",
        {"checks": checks},
        id=8,
    )
    (table,) = challengers.check_table(known(spec(), decision, {"checks": checks}), only_failed=True)
    assert table.rows == ((label, "5.3 % worse", asked, "failed"),)
    assert table.note == (
        "Beside the champion it is 2 % worse, with 95 % confidence at the least 5.3 % worse; it must be better."
    )


@pytest.mark.parametrize(
    ("check", "sentence", "row"),
    [
        pytest.param(
            "slice_season=winter",
            "the improvement in season=winter (80 rows) is -9.00 %, surely below -5.34 %; -5.00 % is allowed",
            ("not worse in season=winter, at the most", "5.3 % worse", "at most 5 % worse", "failed"), id="bound-in-a-slice",
        ),
        pytest.param(
            "slice_season=winter",
            "the improvement in season=winter (80 rows) is -5.34 %; -5.00 % is allowed; no interval can be told",
            ("not worse in season=winter, as measured", "5.3 % worse", "at most 5 % worse", "failed"), id="point-in-a-slice",
        ),
        pytest.param(
            "calibration", "the challenger's calibration error is 0.090, the champion's 0.010; it is larger by at least -0.0534",
            ("probabilities as true as the champion's: their error, at the least", "0.0534 smaller", "at most 0.05 smaller", "failed"), id="calibration",
        ),
        pytest.param("challenger_roc_auc", "the challenger's ROC AUC is unknown", ("ROC AUC of the challenger", "-0.0534", "-0.05", "failed"), id="metric"),
        pytest.param("slice_season", "the judged rows have no rows of season", ("slices of season", "-0.0534", "at least -0.05", "failed"), id="no-comparison"),
    ],
)  # fmt: skip
def test_every_row_of_a_rejection_says_what_its_number_is(check, sentence, row):
    checks = [{"check": check, "value": -0.0534, "limit": -0.05, "passed": False, "sentence": sentence}]
    decision = Decision(
        T, "model/rides", DecisionKind.REJECTED, "slice_worse", "train/1", "s", {"checks": checks}, id=8
    )
    (table,) = challengers.check_table(known(spec(), decision, {"checks": checks}), only_failed=True)
    assert table.rows == (row,)


@pytest.mark.parametrize(
    ("metric", "begins"),
    [("roc_auc", "ROC AUC of the challenger 0.81"), ("log_loss", "Log loss of the challenger 0.81"), ("r2", "R² of the challenger 0.81")],
)  # fmt: skip
def test_a_sentence_that_begins_with_a_metric_has_its_name(metric, begins):
    values = {"challenger": {metric: 0.81}, "champion": {metric: 0.8}, "baseline": {metric: 0.5}}
    found = TrainingOutcome(
        "rides", "train/1", T, "schedule", (), False, "run", "2", GateVerdict(True, GateReason.BETTER_THAN_CHAMPION), metric, values, {},
        {"judged": 168}, 9, True, T, "f", "s", "1", 1,
    )  # fmt: skip
    evidence = {"message": found.sentence(), "metric": metric, "metrics": values}
    decision = Decision(
        T, "model/rides", DecisionKind.PROMOTED, "better_than_champion", "train/1", "s", evidence, id=8
    )
    assert challengers._told(known(spec(), decision, evidence), metric).startswith(begins)


def test_metrics_that_an_early_release_compared_are_no_bounds():
    checks = [{"check": "beats_champion", "value": 41.25, "limit": 94.08, "passed": True}]
    decision = Decision(
        T,
        "model/rides",
        DecisionKind.PROMOTED,
        "better_than_champion",
        "train/1",
        "s",
        {"checks": checks},
        id=8,
    )
    (table,) = challengers.check_table(known(spec(), decision, {"checks": checks}), only_failed=False)
    assert table.rows == (("better than the champion", "41.25", "94.08", "passed"),)
    assert table.note == ""


def test_files_that_failed_alike_are_told_once():
    failures = [
        {
            "expectation": "expect_column_values_to_be_between",
            "column": "humidity",
            "observed": "3 rows",
            "limit": "0 to 100",
        }
    ]
    files = [
        batches._File(f"in/{n}.csv", 168, 168, False, "expectations failed", (), failures) for n in range(12)
    ]
    name, held, why, _ = batches._row(files)
    assert name == "12 files: 0.csv, 1.csv, 2.csv, 3.csv, 4.csv, 5.csv, 6.csv, 7.csv, 8.csv, 9.csv and 2 more"
    assert held == "all 168 rows of each"
    assert why == files[0].why
    assert batches._row(files[:1]) == ("0.csv", "all 168 rows", files[0].why, "")


def test_the_letter_about_several_files_says_equal_words_once(conn: Connection):
    def file(number: int, column: str) -> KnownIncident:
        failure = {
            "expectation": "expect_column_values_to_be_between",
            "column": column,
            "observed": "3 rows",
            "limit": "0 to 100",
        }
        evidence = {"file": f"{number}.csv", "rows_read": 168, "rows_held": 168, "failures": [failure]}
        decision = Decision(
            T,
            "dataset/d",
            DecisionKind.BATCH_QUARANTINED,
            "bad_batch",
            "ingest/1",
            f"q{number}",
            evidence,
            id=number,
        )
        return KnownIncident("i", "batch_quarantined", "dataset/d", Specs({}, {}), T, decision, evidence, {})

    files = [*(file(number, "humidity") for number in range(1, 7)), file(7, "wind")]
    (table,) = batches.quarantined_files(conn, files).tables
    assert [row[0] for row in table.rows] == ["6 files: 1.csv, 2.csv, 3.csv, 4.csv, 5.csv, 6.csv", "7.csv"]
