"""`evergreen why`: the story of a version that is champion, was it, waits, or was rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from terminal_scene import CHECKS, DAY, DEMAND, HOSTILE, METRICS, NOW, TRAINED, Terminal, decide

from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import connect


def flat(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_a_champion_that_a_person_approved(decided: Terminal) -> None:
    told = flat(decided("why", "bike_demand").out)
    for said in (
        "bike_demand v2 is champion since 2026-01-06 00:00 UTC.", "3 of the last 4 windows have effects: temperature, humidity",
        "8,760 in all, 7,900 learnt from", "fitted again on all rows", "RMSE (decides) 55.81 61.4 99.2 smaller", "CHAMPION v1",
        "passed the improvement over the champion is 9.10 %, with 95 % confidence at least 4.20 %", "passed 840 rows are judged",
        "2 more checks of where the numbers come from: all passed", "new champion, a person approved it", "the gate it beat the champion",
        "answered by ada on 2026-01-06 09:12 UTC", "the sensor was moved, that is fine", "look 1 of 7: it is not surely worse", "look 7 of 7",
        "runs/manual__1", "v3: challenger rejected",
    ):  # fmt: skip
        assert said in told, said


def test_a_challenger_that_was_rejected(decided: Terminal) -> None:
    told = flat(decided("why", "bike_demand", "v3").out)
    assert told.startswith("bike_demand v3 was rejected: it is worse than the champion on the same rows.")
    assert "failed the improvement over the champion is -8.00 %" in told
    assert "What came after" not in told
    assert "RMSE 60.3 against 55.8" in told


def test_a_challenger_that_waits(decided: Terminal) -> None:
    told = flat(decided("why", "bike_rush", "8").out)
    assert told.startswith("bike_rush v8 passed the gate and waits for approval.")
    assert "Approve or refuse it on the page of promote__bike_rush" in told


def test_a_champion_that_came_and_went(decided: Terminal) -> None:
    told = flat(decided("why", "bike_demand", "1").out)
    assert "was champion from 2025-10-13 00:00 UTC to 2026-01-06 00:00 UTC" in told
    assert "because the first one" in told
    assert "v2 took its place" in told
    assert "the gate alone; the spec asks no person" in told


def test_a_rollback_and_a_return(decided: Terminal) -> None:
    with connect() as conn:
        for day, version, left in ((1, "1", "2"), (2, "2", "1")):
            evidence = {"message": f"number {day}", "previous_version": left}
            decide(conn, DEMAND, DecisionKind.ROLLED_BACK, "manual", version=version, as_of=NOW + day * DAY, evidence=evidence)  # fmt: skip
    told = flat(decided("why", "bike_demand", "2").out)
    assert told.index("rolled back to v1: started by hand: number 1") < told.index(
        "a rollback made it champion again: started by hand: number 2"
    )
    assert "is champion since 2026-03-04" in told


def test_the_json_has_these_keys(decided: Terminal) -> None:
    told = decided("why", "bike_demand", "--json").json
    assert sorted(told) == sorted((
        "model", "version", "state", "since", "until", "trigger", "why_trained", "asked_because", "requests", "training_run", "as_of", "rows",
        "trained_until", "refitted", "chosen", "fingerprint", "compared_with", "metrics", "checks", "gate", "verdict", "answered_by",
        "answered_at", "comment", "note", "after", "superseded_by", "airflow", "mlflow",
    ))  # fmt: skip
    assert (told["state"], told["answered_at"]) == ("champion", "2026-01-06T09:12:00Z")
    assert [m["metric"] for m in told["metrics"]] == ["rmse", "mae", "r2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bike_demnd"], "There is no model 'bike_demnd'; did you mean bike_demand"),
        (["bike_demand", "9"], "There is no version of bike_demand '9'; there are: 1, 2, 3"),
        (["bike_demand", HOSTILE], "There is no version of bike_demand"),
    ],
    ids=["model", "version", "hostile"],
)
def test_what_is_not_there_is_told_with_what_is(decided: Terminal, words: list[str], said: str) -> None:
    told = decided("why", *words)
    assert (told.status, told.out) == (1, "")
    assert said in flat(told.err)


def test_of_an_empty_ledger_the_next_step_is_told(terminal: Terminal, warehouse_url: str) -> None:
    told = terminal("why", "bike_demand")
    assert (told.status, told.out) == (1, "")
    assert "No challenger of bike_demand was judged yet" in told.err
    assert "run train__bike_demand" in told.err


def test_without_a_warehouse_it_is_said(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    for words in (["why", "bike_demand"], ["history", "bike_demand"], ["quarantine", "bike_hourly"]):
        told = terminal(*words)
        assert (told.status, told.out) == (1, "")
        assert "the warehouse does not answer" in told.err


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"metrics": "gone", "checks": 7, "rows": None, "metric": 3},
        {
            **TRAINED, "comment": HOSTILE, "answered_by": HOSTILE, "asked_because": HOSTILE, "training_run": HOSTILE,
            "message": HOSTILE, "checks": [{**CHECKS[0], "sentence": HOSTILE, "passed": False}], "metrics": {**METRICS, HOSTILE: {"rmse": 1.0}},
        },
    ],
    ids=["nothing recorded", "damaged by hand", "hostile"],
)  # fmt: skip
def test_whatever_a_row_holds_is_told(
    terminal: Terminal, warehouse_url: str, evidence: dict[str, Any]
) -> None:
    with connect() as conn:
        decide(conn, DEMAND, DecisionKind.PROMOTED, "approved", version="3")
        with conn.cursor() as cursor:  # a row that the library would not write
            cursor.execute(
                "INSERT INTO evergreen.decision (as_of, subject, kind, reason, version, evidence, answers, run_id, dedupe_key)"
                " VALUES (now(), %s, 'promoted', 'approved', '4', %s, '{}', 'x/1', 'odd')",
                (DEMAND, json.dumps(evidence)),
            )
    told = terminal("why", "bike_demand")
    assert told.status == 0
    assert told.out.startswith("bike_demand v4 is champion")
    assert terminal("history", "bike_demand").status == 0
