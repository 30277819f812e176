"""The story of a model from the ledger: champions, time line, pictures, addresses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from matplotlib.image import imread

from evergreen import links
from evergreen.alerting.content.history import tenures, timeline_rows, timeline_text, windows
from evergreen.alerting.content.week import model_week
from evergreen.alerting.pictures.timeline import timeline_png
from evergreen.alerting.pictures.worst_columns import worst_columns_png, worst_panels
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)


def size(png: bytes) -> tuple[int, int]:
    picture = imread(io.BytesIO(png), format="png")
    return picture.shape[1], picture.shape[0]


def test_reigns_end_where_the_next_begins(conn: Connection, life: list[int]) -> None:
    assert [(r.version, r.start, r.end) for r in tenures(conn, "bike_demand")] == [
        ("1", START, START + 13 * WEEK),
        ("3", START + 13 * WEEK, START + 19 * WEEK),
        ("1", START + 19 * WEEK, None),
    ]


def test_a_version_that_waited_reigns_from_when_it_was_in_force(
    conn: Connection, specs: Specs, decide: Callable[..., Decision]
) -> None:
    since = START + timedelta(days=3)
    decide(DecisionKind.PROMOTED, "first_champion", version="1", as_of=START - WEEK)
    waited = decide(
        DecisionKind.PROMOTED,
        "better_than_champion",
        version="2",
        evidence={"effective_from": since.isoformat()},
    )
    decide(DecisionKind.REJECTED, "not_better_than_champion", version="3", as_of=START + timedelta(days=1))
    assert [(r.version, r.start, r.end) for r in tenures(conn, "bike_demand")] == [
        ("1", START - WEEK, since),
        ("2", since, None),
    ]
    rows = [(r.version, r.as_of) for r in timeline_rows(conn, "bike_demand", [])]
    assert rows[1:] == [("3", START + timedelta(days=1)), ("2", since)]
    assert model_week(conn, specs.models["bike_demand"], since + WEEK).since == since
    assert waited.as_of == START


def test_the_time_line_tells_each_thing_once_in_order(conn: Connection, life: list[int]) -> None:
    rows = timeline_rows(conn, "bike_demand", ["bike_hourly"])
    assert [(r.what, r.version) for r in rows] == [
        ("promoted", "1"),
        ("batch quarantined (bike_hourly)", ""),
        ("rejected", "2"),
        ("retrain requested", ""),
        ("promoted", "3"),
        ("rolled back", "1"),
    ]
    assert "(3 times, last 2026-03-02)" in rows[2].why
    assert rows == sorted(rows, key=lambda r: r.as_of)


def test_a_rejection_after_another_decision_is_told_again(
    conn: Connection, decide: Callable[..., Decision]
) -> None:
    for week, kind in enumerate(
        (DecisionKind.REJECTED, DecisionKind.REJECTED, DecisionKind.RETRAIN_REQUESTED, DecisionKind.REJECTED)
    ):
        decide(kind, "not_better_than_champion", as_of=START + week * WEEK, version=str(week))
    told = [r.what for r in timeline_rows(conn, "bike_demand", [])]
    assert told == ["rejected", "retrain requested", "rejected"]


def test_reasons_come_with_what_drifted_failed_or_was_said(
    conn: Connection, decide: Callable[..., Decision]
) -> None:
    failures = [{"column": "humidity", "observed": "168 rows outside", "limit": "0 to 100"}, {}]
    decide(
        DecisionKind.RETRAIN_REQUESTED,
        "data_drift",
        evidence={"drifted": ["data_drift:temperature", "missing:price"]},
    )
    decide(
        DecisionKind.BATCH_QUARANTINED,
        "bad_batch",
        subject="dataset/bike_hourly",
        evidence={"failures": failures},
    )
    decide(
        DecisionKind.PROMOTED, "first_champion", evidence={"message": "first champion: rmse 41"}, version="1"
    )
    assert [r.why for r in timeline_rows(conn, "bike_demand", ["bike_hourly"])] == [
        "the input data drifted: temperature, price",
        "expectations failed: humidity: 168 rows outside, expected 0 to 100, and 1 more",
        "there was no champion yet: rmse 41",
    ]


def test_the_text_table_keeps_its_width(conn: Connection, life: list[int]) -> None:
    text = timeline_text(timeline_rows(conn, "bike_demand", ["bike_hourly"]), width=80)
    lines = text.splitlines()
    assert lines[0].split() == ["as", "of", "what", "version", "why"]
    assert max(map(len, lines)) <= 80
    assert timeline_text([]).count("\n") == 1


def test_a_window_counts_by_its_newest_judgement(conn: Connection, judge: Callable[..., int]) -> None:
    judge(0, version="1", rmse=None)
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.window_judgement (model, version, window_start, window_end, revision, as_of,"
            " row_count, sampled_rows, labelled, status, metrics) SELECT model, version, window_start, window_end, 2,"
            " as_of + interval '1 day', 168, 168, 168, 'ok', '{\"rmse\": {\"value\": 44.5, \"limit\": 55}}'"
            " FROM evergreen.window_judgement"
        )
    assert [w.value for w in windows(conn, "bike_demand", "rmse")] == [44.5]
    assert [w.value for w in windows(conn, "bike_demand", "rmse", until=START + WEEK)] == [None]


def test_the_time_line_is_drawn_at_its_size(conn: Connection, specs: Specs, life: list[int]) -> None:
    assert size(timeline_png(conn, specs.models["bike_demand"])) == (1400, 700)


def test_a_model_without_a_past_is_drawn(conn: Connection, specs: Specs) -> None:
    assert size(timeline_png(conn, specs.models["bike_rush"], title="$\\frac{")) == (1400, 700)


def test_decisions_without_judgements_are_drawn(
    conn: Connection, specs: Specs, decide: Callable[..., Decision]
) -> None:
    decide(DecisionKind.PROMOTED, "first_champion", version="$\\frac{")
    assert size(timeline_png(conn, specs.models["bike_demand"])) == (1400, 700)


def test_the_worst_columns_are_the_violated_ones_worst_first(conn: Connection, life: list[int]) -> None:
    panels = worst_panels(conn, life[12:13], metric="rmse")
    assert [p.title.partition(":")[0] for p in panels] == [
        "served predictions", "temperature", "price", "windspeed",
    ]  # fmt: skip
    temperature = panels[1]
    assert temperature.violated == (False,) * 10 + (True,) * 3
    assert temperature.limits[-1] == pytest.approx(0.12)
    assert panels[3].values[-1] is None
    png = worst_columns_png(conn, life[12:13], metric="rmse")
    assert png is not None
    assert size(png) == (1300, 1482)


def test_estimates_are_drawn_as_such(
    conn: Connection, specs: Specs, judge: Callable[..., int], rings: list[list[float]]
) -> None:
    for week, rmse in enumerate((42.0, 62.0)):
        judged = judge(week, rmse=rmse, state="estimated")
    assert [p.estimated for p in worst_panels(conn, [judged], metric="rmse")] == [(0, 1)]

    def draw() -> tuple[bytes | None, bytes]:
        return worst_columns_png(conn, [judged], metric="rmse"), timeline_png(
            conn, specs.models["bike_demand"]
        )

    guessed = draw()
    assert rings == [[42.0, 62.0]] * 2, "in either picture"
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.window_judgement SET metrics = jsonb_set(metrics, '{rmse,state}', '\"judged\"')"
        )
    assert [p.estimated for p in worst_panels(conn, [judged], metric="rmse")] == [()]
    assert all(one != other for one, other in zip(guessed, draw(), strict=True))


def test_nothing_in_violation_is_no_picture(conn: Connection, life: list[int]) -> None:
    assert worst_columns_png(conn, life[2:3], metric="rmse") is None
    assert worst_columns_png(conn, [], metric="rmse") is None


def test_a_metric_of_which_more_is_better_is_beyond_its_limit_below_it(
    conn: Connection, judge: Callable[..., int]
) -> None:
    judged = judge(0, rmse=0.4, limit=0.7)
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.window_judgement SET status = 'violation', metrics = %s, violations = %s",
            (json.dumps({"roc_auc": {"value": 0.4, "limit": 0.7}}), json.dumps([{"kind": "performance"}])),
        )
    assert [p.violated for p in worst_panels(conn, [judged], metric="roc_auc")] == [(True,)]


def test_two_tasks_draw_at_once(warehouse_url: str, conn: Connection, specs: Specs, life: list[int]) -> None:
    conn.commit()

    def draw(_: int) -> bytes:
        with connect() as own:
            return timeline_png(own, specs.models["bike_demand"])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw, range(2))
    assert first == second


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            lambda: links.airflow_run_url("train__bike/manual__2026-01-05T02:00:00+00:00"),
            "http://127.0.0.1:8080/dags/train__bike/runs/manual__2026-01-05T02%3A00%3A00%2B00%3A00",
        ),
        (lambda: links.airflow_run_url("no run"), None),
        (lambda: links.airflow_run_url(None), None),
        (lambda: links.airflow_dag_url("rollback__bike"), "http://127.0.0.1:8080/dags/rollback__bike"),
        (lambda: links.mlflow_version_url("bike", "3"), "http://127.0.0.1:5000/#/models/bike/versions/3"),
        (lambda: links.mlflow_version_url("bike", None), None),
        (lambda: links.mlflow_report_url("r1", "a/b c.html"), "http://127.0.0.1:5000/#/runs/r1"),
        (
            lambda: links.mlflow_report_url("r1", "a/b c.html", "7"),
            "http://127.0.0.1:5000/#/experiments/7/runs/r1/artifacts/a/b%20c.html",
        ),
        (lambda: links.mlflow_report_url(None, "a"), None),
        (lambda: links.experiment_of("r1"), None),
    ],
    ids=[
        "run", "no run", "no run id", "dag", "version", "no version", "report of an unknown experiment", "report",
        "no report", "no MLflow",
    ],
)  # fmt: skip
def test_addresses(
    monkeypatch: pytest.MonkeyPatch, found: Callable[[], str | None], expected: str | None
) -> None:
    monkeypatch.delenv("EVERGREEN_MLFLOW_URL", raising=False)
    assert found() == expected


def test_an_mlflow_that_does_not_answer_costs_a_link_and_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert links.experiment_of("r1") is None
