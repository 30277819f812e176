"""The overview says of each model and dataset how it is, what for a person is needed, and shows those first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evergreen.health import attention
from evergreen.health.overview import mlflow_answers, overview
from evergreen.health.subjects import (
    Attention,
    Disk,
    NewestWindow,
    OpenIncident,
    OpenRequests,
    ServedError,
    WaitingChallenger,
    Why,
)
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import experiment_of
from evergreen.monitoring.windows.judgement import IGNORED, LABELS
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect
from health_scene import BEGIN, RUSH, WEEK, decide, judge, only_shown, silence

UNREADABLE = [
    "http://[bad",
    "http://mlflow:port",
    "http://ml flow",
    "http://",
    "ftp://mlflow",
    "htp://mlflow",
]


def test_who_needs_a_person_comes_first_with_what_for(story: Specs, conn: Connection) -> None:
    found = overview(conn, story)
    assert [(m.name, m.attention) for m in found.models] == [
        ("bike_rush", Attention.ACT),
        ("bike_demand", Attention.ANSWERED),
    ]
    rush, demand = found.models
    assert any(one.text.startswith("a task fails since 2026-02-16") for one in rush.why)
    assert any("v2 waits for approval" in one.text for one in rush.why)
    assert any(
        "a retraining is asked for: the served predictions became worse than their limit" in one.text
        for one in demand.why
    )
    assert (found.datasets[0].name, found.datasets[0].attention, found.datasets[0].why) == (
        "bike_hourly",
        Attention.ACT,
        (Why("1 file quarantined", "dataset/bike_hourly#held"),),
    )


def test_a_row_has_the_numbers_of_its_champion(story: Specs, conn: Connection) -> None:
    demand = next(m for m in overview(conn, story).models if m.name == "bike_demand")
    assert (demand.champion, demand.since) == ("2", BEGIN + 4.01 * WEEK)
    error = demand.error
    assert error is not None
    assert (error.metric, error.value, error.limit, error.promised, error.violated) == (
        "rmse",
        72.0,
        60.0,
        45.0,
        True,
    )
    worst = demand.worst
    assert worst is not None
    assert (
        worst.column,
        round(worst.value / worst.limit, 3),
        worst.violated,
        worst.drifting,
        worst.columns,
    ) == ("humidity", 2.2, True, 1, 2)
    assert [w.value for w in demand.trend] == [44.0, 47.0, 75.0, 81.0, 46.0, 72.0], (
        "also the windows of the champion before"
    )
    assert demand.training is not None
    assert (demand.training.kind, demand.training.version) == ("promoted", "2")
    assert demand.requests == OpenRequests(1, demand.requests.oldest, ("performance",))  # type: ignore[union-attr]
    assert [i.words for i in demand.incidents] == ["drift"]
    assert demand.told == ("team@example.org",)
    assert demand.newest_rows is not None
    hourly = overview(conn, story).datasets[0]
    assert (
        hourly.last_file,
        hourly.last_state,
        hourly.batches,
        hourly.published_rows,
        hourly.held_batches,
    ) == ("2-bad.csv", "quarantined", 2, 48, 1)
    assert hourly.models == ("bike_demand", "bike_rush")


def test_a_column_that_is_only_shown_is_never_the_worst(story: Specs) -> None:
    """The labels and the columns of `monitoring.drift.ignore`, within their limits, on them and beyond."""
    counts = {"temperature": 0.5, "humidity": 0.4}
    shown = [
        only_shown("_label", 0.9, LABELS),
        only_shown("price", 1.0, IGNORED),
        only_shown("windspeed", 9.0, IGNORED),
    ]
    with connect() as conn:
        judge(conn, 6, "2", 50.0, counts, [*shown, only_shown("weather", None, IGNORED)])
        worst = next(m for m in overview(conn, story).models if m.name == "bike_demand").worst
        assert worst is not None
        assert (worst.column, worst.drifting, worst.columns) == ("temperature", 0, 2)
        judge(conn, 7, "2", 50.0, {}, shown)
        assert next(m for m in overview(conn, story).models if m.name == "bike_demand").worst is None


def test_an_answer_ends_the_request_and_the_wait(story: Specs) -> None:
    with connect() as conn:
        before = {m.name: m for m in overview(conn, story).models}
        waits = before["bike_rush"].waiting
        assert waits is not None
        decide(conn, RUSH, DecisionKind.REJECTED, "worse_than_champion", 6.1, version="3")
        still = next(m for m in overview(conn, story).models if m.name == "bike_rush")
        assert still.waiting == waits, "another challenger that is rejected answers nothing"
        decide(conn, RUSH, DecisionKind.REJECTED, "refused", 6.2, version="2", answers=(waits.decision,))
        assert next(m for m in overview(conn, story).models if m.name == "bike_rush").waiting is None


def test_a_silence_says_that_a_person_knows(story: Specs) -> None:
    silence(RUSH, "the station moves")
    with connect() as conn:
        rush = next(m for m in overview(conn, story).models if m.name == "bike_rush")
    assert rush.attention is Attention.SILENCED
    assert "the station moves" in rush.why[0].text
    assert rush.silence is not None


def test_a_model_without_a_spec_is_shown_from_the_ledger_alone(story: Specs, conn: Connection) -> None:
    found = overview(conn, Specs(), models=["bike_demand", "unheard_of"], datasets=["bike_hourly"])
    demand, unknown = found.models
    assert (demand.champion, demand.owner, demand.error.value if demand.error else None) == ("2", "", 72.0)
    assert (unknown.champion, unknown.attention, unknown.why) == (
        None,
        Attention.NOT_YET,
        (Why("there is no champion yet"),),
    )


def test_the_number_of_statements_does_not_grow_with_the_models(
    story: Specs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes 200 models as quick as two; `benchmarks` has the milliseconds."""
    few, many = 0, 0
    with connect() as one:
        few = counted(
            one, lambda c: overview(c, story, models=["bike_demand"], datasets=["bike_hourly"], mlflow=False)
        )
        names = ["bike_demand", "bike_rush", *(f"m{n}" for n in range(200))]
        many = counted(
            one,
            lambda c: overview(
                c, story, models=names, datasets=["bike_hourly", *(f"d{n}" for n in range(50))], mlflow=False
            ),
        )
    assert few == many
    assert few <= 19


def counted(conn: Connection, ask: Callable[[Any], object]) -> int:
    """How many statements a question takes."""

    class Counting:
        statements = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(conn, name)

        def cursor(self, *args: Any, **more: Any) -> Any:
            Counting.statements += 1
            return conn.cursor(*args, **more)

    ask(Counting())
    return Counting.statements


def test_a_window_that_could_not_be_judged_is_never_healthy() -> None:
    window = NewestWindow(BEGIN, BEGIN + WEEK, "stale", 0, "no row arrived")
    level, why = attention.judged(attention.of_model("m", "1", None, window, None, None, ()), None)
    assert (level, why) == (
        Attention.LOOK, (Why("the newest window could not be judged: no row arrived", "model/m/window/20260105T000000Z"),),
    )  # fmt: skip

    good = NewestWindow(BEGIN, BEGIN + WEEK, "ok", 168, "")
    assert attention.judged(attention.of_model("m", "1", None, good, None, None, ()), None) == (
        Attention.FINE,
        (),
    )


def test_a_monitor_that_judges_nothing_any_more_is_never_healthy(warehouse_url: str, story: Specs) -> None:
    """Data that stops coming is judged as stale; where no window is judged at all, the monitor itself is silent."""
    said = "nothing was judged since "
    for silent_days, shown in ((14, False), (16, True)):  # windows are a week
        with connect() as conn:
            with conn.cursor() as cursor:
                cursor.execute(
                    "UPDATE evergreen.window_judgement SET judged_at = clock_timestamp() - make_interval(days => %s)",
                    (silent_days,),
                )
            demand = next(m for m in overview(conn, story).models if m.name == "bike_demand")
        assert any(why.text.startswith(said) for why in demand.why) == shown
        assert (demand.attention is Attention.ACT) == shown


@pytest.mark.parametrize(
    ("incident", "request_open", "expected"),
    [
        (OpenIncident("d", "drift", "drift", BEGIN, False, False, 7), False, Attention.LOOK),
        (OpenIncident("d", "drift", "drift", BEGIN, False, False, 7), True, Attention.ANSWERED),
        (OpenIncident("d", "drift", "drift", BEGIN, False, True, 7), True, Attention.ACT),
        (OpenIncident("f", "run_failed", "a task fails", BEGIN, True, False, 7), True, Attention.ACT),
    ],
    ids=[
        "a drift",
        "a drift that a retraining answers",
        "a drift that retraining did not help",
        "a failed task beside a request",
    ],
)
def test_what_an_open_incident_asks_of_a_person(
    incident: OpenIncident, request_open: bool, expected: Attention
) -> None:
    window = NewestWindow(BEGIN, BEGIN + WEEK, "violation", 168, "")
    requests = OpenRequests(1, BEGIN, ("data_drift",)) if request_open else None
    assert (
        attention.judged(attention.of_model("m", "1", None, window, requests, None, (incident,)), None)[0]
        is expected
    )


def test_an_error_beyond_its_limit_is_looked_at_unless_a_retraining_is_asked_for() -> None:
    error = ServedError("rmse", 72.0, 60.0, 45.0, True, BEGIN, BEGIN + WEEK)
    window = NewestWindow(BEGIN, BEGIN + WEEK, "violation", 168, "")
    assert attention.judged(attention.of_model("m", "1", error, window, None, None, ()), None) == (
        Attention.LOOK, (Why("served RMSE 72 is above its limit 60", "model/m/window/20260105T000000Z"),),
    )  # fmt: skip
    waiting = WaitingChallenger("2", BEGIN, 1)
    assert (
        attention.judged(attention.of_model("m", "1", error, window, None, waiting, ()), None)[0]
        is Attention.ACT
    )


def test_a_full_disk_and_a_silent_mlflow_need_a_person(
    story: Specs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overview(conn, story).stack.attention is Attention.FINE
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    stack = overview(conn, story).stack
    assert (stack.attention, stack.mlflow, stack.why) == (
        Attention.ACT,
        False,
        (Why("MLflow does not answer"),),
    )
    assert Disk("/", 1, 100).scarce
    assert not Disk("/", 50 * 10**9, 10**12).scarce, "50 GB are enough for a while, however large the disk is"


@pytest.mark.parametrize("address", UNREADABLE)
def test_an_mlflow_address_that_cannot_be_read_is_none_that_answers(
    story: Specs, conn: Connection, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    stack = overview(conn, story).stack
    assert (stack.attention, stack.mlflow, stack.why) == (
        Attention.ACT,
        False,
        (Why("MLflow does not answer"),),
    )
    assert experiment_of("a run") is None, "a mail goes out without that link"


@pytest.mark.parametrize(
    "address", ["sqlite:///mlflow.db", "postgresql+psycopg2://u@h/db", "mlruns", "databricks"]
)
def test_where_mlflow_has_no_server_it_is_not_asked(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert mlflow_answers() is None


def test_labels_that_are_not_in_leave_the_error_of_the_window_before(story: Specs) -> None:
    with connect() as conn:
        judge(conn, 6, "2", None, {"temperature": 0.1})
        demand = next(m for m in overview(conn, story).models if m.name == "bike_demand")
    assert demand.error is not None
    assert (demand.error.value, demand.error.window_end) == (72.0, BEGIN + 6 * WEEK)
    assert demand.window is not None
    assert demand.window.end == BEGIN + 7 * WEEK
    assert demand.trend[-1].value is None
    assert demand.newest_rows is not None
