"""An invented life of the model bike_demand, in the words in which the other rooms write it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import pytest
from letters_scene import START, WEEK
from matplotlib.axes import Axes

from evergreen.alerting.pictures import timeline, trends, worst_columns
from evergreen.alerting.pictures.judged_windows import hollow
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import Connection, fetch


@pytest.fixture(autouse=True)
def _addresses(no_addresses: None) -> None:
    """Each test names those whom it writes to."""


@pytest.fixture
def judge(conn: Connection) -> Callable[..., int]:
    """Write the judgement of a week: the served error, and columns as (name, kind, statistic, value, limit)."""

    def write(
        week: int,
        *,
        version: str = "1",
        rmse: float | None = 40.0,
        limit: float = 55.0,
        columns: tuple[tuple[str, str, str, float | None, float], ...] = (),
        status: str | None = None,
        state: str | None = None,
    ) -> int:
        start = START + week * WEEK
        violations = [
            {"kind": k, "column": c, "statistic": s, "value": v, "limit": most, "detail": ""}
            for c, k, s, v, most in columns
            if v is None or v > most
        ]
        state = state or ("not_yet" if rmse is None else "judged")
        if rmse is not None and rmse > limit:
            kind = "estimated_performance" if state == "estimated" else "performance"
            violations.append(
                {"kind": kind, "column": "rmse", "statistic": "rmse", "value": rmse, "limit": limit}
            )
        identifier = fetch(
            conn,
            "INSERT INTO evergreen.window_judgement (model, version, window_start, window_end, revision, as_of,"
            " row_count, sampled_rows, labelled, status, violations, metrics, report, mlflow_run)"
            " VALUES ('bike_demand', %s, %s, %s, 1, %s, 168, 168, 168, %s, %s, %s, %s, 'run1') RETURNING id",
            (
                version, start, start + WEEK, start + WEEK, status or ("violation" if violations else "ok"),
                json.dumps(violations), json.dumps({"rmse": {"value": rmse, "limit": limit, "reference": 42.0, "state": state}}),
                f"monitoring/week{week}-r1/drift.html",
            ),
        )[0]["id"]  # fmt: skip
        with conn.cursor() as cursor:
            for name, kind, statistic, value, most in columns:
                cursor.execute(
                    "INSERT INTO evergreen.window_column (judgement_id, column_name, kind, statistic, value,"
                    " threshold, violated) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (identifier, name, kind, statistic, value, most, value is None or value > most),
                )
        return int(identifier)

    return write


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The values that the pictures draw as rings, one list for each set of axes."""
    drawn: list[list[float]] = []

    def record(axes: Axes, x: Sequence[float], y: Sequence[float], size: float) -> None:
        drawn.append(list(y))
        hollow(axes, x, y, size)

    for module in (timeline, trends, worst_columns):
        monkeypatch.setattr(module, "hollow", record)
    return drawn


@pytest.fixture
def life(judge: Callable[..., int], decide: Callable[..., Decision]) -> list[int]:
    """Twenty weeks: a quiet start, a drift with an alarm and a promotion, a rejection, a quarantine, a rollback."""
    noise = random.Random(7)
    decide(DecisionKind.PROMOTED, "first_champion", version="1")
    ids = []
    for week in range(20):
        drift = 10 <= week < 13
        columns = (
            ("temperature", "data_drift", "wasserstein", 0.05 + noise.random() / 50 + drift * 0.9, 0.12),
            ("price", "data_drift", "wasserstein", 0.02 + noise.random() / 50 + drift * 0.3, 0.1),
            ("windspeed", "unreadable", "wasserstein", None if week == 12 else 0.03, 0.1),
            ("weather", "data_drift", "jensenshannon", 0.06, 0.13),
        )
        rmse = None if week == 4 else 42 + noise.gauss(0, 2) + drift * 40
        version = "1" if week < 13 else "3"
        ids.append(judge(week, version=version, rmse=rmse, columns=columns))
        after = START + (week + 1) * WEEK
        if week == 2:
            decide(DecisionKind.BATCH_QUARANTINED, "bad_batch", as_of=after, subject="dataset/bike_hourly")
        if week in (5, 6, 7):
            decide(DecisionKind.REJECTED, "not_better_than_champion", as_of=after, version="2")
        if week == 11:
            decide(DecisionKind.RETRAIN_REQUESTED, "data_drift", as_of=after)
        if week == 12:
            evidence = {"metric": "rmse", "metrics": {"challenger": {"rmse": 43.25}}}
            decide(DecisionKind.PROMOTED, "better_than_champion", as_of=after, version="3", evidence=evidence)
    decide(DecisionKind.ROLLED_BACK, "manual", as_of=START + 19 * WEEK, version="1")
    return ids
