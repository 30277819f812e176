"""What a person reads in the log of a training, while it is done and when it is over."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from evergreen.promotion.settlement import settle
from evergreen.training.record.headline import headline


@pytest.fixture
def lines(caplog):
    """The records of Evergreen so far as text; and nothing else has anything to say that a person must see."""
    caplog.set_level("INFO")

    def said() -> list[str]:
        loud = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert loud == [], [r.getMessage() for r in loud]
        return [r.getMessage() for r in caplog.records if r.name.startswith("evergreen")]

    return said


def starting(lines: list[str], *begins: str) -> list[str]:
    """Exactly one line for each beginning, in this order."""
    found = []
    for begin in begins:
        matching = [n for n, line in enumerate(lines) if line.startswith(begin)]
        assert len(matching) == 1, (begin, lines)
        found.append(matching[0])
    assert found == sorted(found), lines
    return [lines[n] for n in found]


def test_the_log_of_a_training_tells_rows_rounds_comparison_checks_and_verdict(
    world, mlflow_url, start, lines, capfd
):
    world.land(start, 60)
    model, specs = world.model, world.specs
    first = world.train(start + timedelta(days=40), "train__rides/1")
    decision = settle(specs, model, first, "train__rides/1")
    said = lines()
    taken, rows, fitted, compared, verdict, *_ = starting(
        said,
        "rides: snapshot as of ",
        "rides: 960 rows with ",
        f"rides: fitted {first.rounds} rounds",
        "rides: RMSE on ",
        "rides: the challenger ",
        "rides: fitted again on all 960 rows",
        "rides: registered as version 1",
        "rides: version 1 promoted: ",
    )
    assert "960 rows from " in taken
    assert f"fingerprint {first.fingerprint[:16]}" in taken
    assert f"{first.rows['training']:,} to learn from, {first.rows['holdout']:,} in the holdout" in rows
    assert f"fitted {first.rounds} rounds on {first.rows['training']:,} rows in " in fitted
    assert "challenger " in compared
    assert ", baseline " in compared
    assert "passed the gate: there was no champion yet" in verdict
    assert [s for s in said if s.startswith("rides: round 10: rmse ")], "rounds are told with their metric"
    gate = [s for s in said if s.startswith("rides: gate: ")]
    assert all(s.startswith("rides: gate: holds: ") for s in gate)
    assert gate[0].endswith("on the same rows (8 checks)")
    assert len(gate) == len(first.verdict.checks) - 8 + 1, "each other check is a line"
    rmse = first.metrics["challenger"]["rmse"]
    line = headline(first, decision)
    assert line.startswith(f"960 rows, {first.rounds} rounds, RMSE {rmse:.4g}, baseline ")
    assert line.endswith(": promoted version 1")
    assert not [s for s in said if "{" in s], "no dict"
    assert capfd.readouterr().err == "", "Airflow takes what is written to stderr for an error"


def test_a_challenger_that_fails_is_told_by_the_check_that_fails(world, mlflow_url, start, lines):
    world.land(start, 60)
    first = world.train(start + timedelta(days=40), "train__rides/1")
    settle(world.specs, world.model, first, "train__rides/1")
    lines()
    strict = world.with_model(gate={"on_drift": "better", "otherwise": "better", "margin": 0.9})
    second = strict.train(start + timedelta(days=55), "train__rides/2")
    said = lines()
    (failed,) = [s for s in said if s.startswith("rides: gate: FAILS ")]
    assert failed.startswith("rides: gate: FAILS beats champion: the improvement over the champion is ")
    assert failed.endswith("; it must be more than 90.00 %")
    assert [s for s in said if s.startswith("rides: improvement over the champion ")]
    assert any("champion (version 1) " in s for s in said)
    assert [s for s in said if s.startswith("rides: the challenger did not pass the gate: ")]
    assert said[-1] == "rides: registered as version 2"
    assert headline(second).endswith("did not pass the gate (it did not beat the champion on the same rows)")
