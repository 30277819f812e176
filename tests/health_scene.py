"""Two models and a dataset in the middle of their lives, as the loop would have written them: what pages and terminal show is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evergreen.alert_kinds import AlertKind
from evergreen.incidents import silences
from evergreen.incidents.threads import News, tell
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import (
    IGNORED,
    LABELS,
    ColumnResult,
    Judgement,
    MetricResult,
    Status,
    What,
    insert,
    with_reason,
)
from evergreen.spec import Specs, load_specs
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import Connection, connect, fetch

REPOSITORY = Path(__file__).resolve().parents[1]
INCLUDE = REPOSITORY / "include"
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
DEMAND, RUSH, HOURLY = "model/bike_demand", "model/bike_rush", "dataset/bike_hourly"
HEADER = "ts,holiday,workingday,weather,temperature,humidity,windspeed,price,demand\n"
MARKUP = "<script>alert(1)</script>"
"""Stands where people and files write: it must be seen as it is."""


def specs() -> Specs:
    """The specs that the project ships."""
    return load_specs(INCLUDE)


def decide(
    conn: Connection, subject: str, kind: DecisionKind, reason: str, weeks: float, **more: object
) -> Decision:
    """Append a decision as of so many weeks after BEGIN."""
    name = subject.partition("/")[2]
    run = more.pop("run_id", f"monitor__{name}/scheduled__{weeks:g}")
    key = f"scene:{subject}:{kind.value}:{weeks:g}:{more.get('version')}"
    return append(conn, Decision(BEGIN + weeks * WEEK, subject, kind, reason, str(run), key, **more))  # type: ignore[arg-type]


def judge(
    conn: Connection,
    number: int,
    version: str,
    value: float | None,
    columns: dict[str, float],
    more: Sequence[ColumnResult] = (),
) -> Judgement:
    """Judge the week of a number: `value` is its served error (None: labels are missing), `columns` are shares of their limits.

    `more` are results as the monitor keeps them, such as `only_shown`.
    """
    violated = value is not None and value > 60
    found = tuple(
        ColumnResult(name, What.DATA_DRIFT, "wasserstein", share * 0.2, 0.2, share > 1, f"mean {share:g}")
        for name, share in columns.items()
    ) + tuple(more)
    error = MetricResult(value, 60.0, 45.0, "judged" if value is not None else "not_yet", violated)
    start = BEGIN + number * WEEK
    return insert(
        conn,
        Judgement(
            "bike_demand", version, start, start + WEEK, 1, start + WEEK, Status.VIOLATION if violated or any(c.violated for c in found) else Status.OK,
            168, 168, 168, tuple(c.violation for c in found if c.violated), {"rmse": error}, found, scored=168,
        ),
    )  # fmt: skip


def only_shown(name: str, share: float | None, why: str) -> ColumnResult:
    """A result that never violates; a share of None could not be computed."""
    kind, value = (What.UNREADABLE, None) if share is None else (What.DATA_DRIFT, share * 0.2)
    return ColumnResult(name, kind, "wasserstein", value, 0.2, False, with_reason("mean 7", why))


def land(landing: Path) -> None:
    """A file that is published, and one that is held back for three of its rows."""
    folder = landing / "bike_hourly"
    folder.mkdir(parents=True)
    good = [
        f"2026-02-0{1 + h // 24} {h % 24:02d}:00:00,0,1,clear,{10 + h % 9},50,5,2.5,{100 + h}\n"
        for h in range(48)
    ]
    (folder / "1-good.csv").write_text(HEADER + "".join(good))
    bad = ["clear,15", "hail,15", "clear,500", "clear,15", f"{MARKUP},15"]
    (folder / "2-bad.csv").write_text(
        HEADER
        + "".join(f"2026-02-10 {hour:02d}:00:00,0,1,{values},50,5,2.5,7\n" for hour, values in enumerate(bad))
    )
    ingest(
        specs().datasets["bike_hourly"], BEGIN + 6 * WEEK, "ingest__bike_hourly/scheduled__6", folder=folder
    )


def write(landing: Path) -> None:
    """The story: v1 drifts, is retrained, v2 is promoted, drifts again and is asked for; bike_rush has a challenger that waits."""
    land(landing)
    with connect() as conn:
        decide(conn, DEMAND, DecisionKind.PROMOTED, "first_champion", 0, version="1", run_id="train__bike_demand/manual__0",
               evidence={"metric": "rmse", "holdout": {"rmse": 45.0}, "message": "rmse of the challenger 45"})  # fmt: skip
        judge(conn, 0, "1", 44.0, {"temperature": 0.3, "humidity": 0.5})
        judge(conn, 1, "1", 47.0, {"temperature": 0.9, "humidity": 0.4})
        judge(conn, 2, "1", 75.0, {"temperature": 3.1, "humidity": 0.6})
        decide(conn, DEMAND, DecisionKind.RETRAIN_SUPPRESSED, "too_few_violations", 3, version="1",
               evidence={"message": "1 of the last 3 windows in violation, 2 of 3 are needed"})  # fmt: skip
        judge(conn, 3, "1", 81.0, {"temperature": 3.4, "humidity": 0.6},
              [only_shown("weather", None, IGNORED), only_shown("_label", 1.4, LABELS)])  # fmt: skip
        asked = decide(conn, DEMAND, DecisionKind.RETRAIN_REQUESTED, "data_drift", 4, version="1",
                       evidence={"drifted": ["data_drift:temperature"], "rule": "2 of the last 3 windows"})  # fmt: skip
        tell(conn, News("drift:bike_demand:1:temperature", DEMAND, AlertKind.DRIFT, asked.id, {}, asked.as_of, frozenset({"data_drift"}),
                        frozenset({"data_drift:temperature"}), since=BEGIN + 2 * WEEK), None, timedelta(days=1))  # fmt: skip
        decide(
            conn, DEMAND, DecisionKind.PROMOTED, "better_than_champion", 4.01, version="2", answers=(asked.id,), run_id="train__bike_demand/asset__4",
            evidence={
                "metric": "rmse", "holdout": {"rmse": 48.0}, "compared_with": "1", "previous_version": "1", "message": f"it is better {MARKUP}",
                "metrics": {"challenger": {"rmse": 48.0}, "champion": {"rmse": 80.0}, "baseline": {"rmse": 90.0}}, "fingerprint": "f" * 64,
                "checks": [{"check": "beats_champion", "value": 0.4, "limit": -0.01, "passed": True, "sentence": "the improvement is 40 %"}],
            },
        )  # fmt: skip
        judge(conn, 4, "2", 46.0, {"temperature": 0.4, "humidity": 0.2})
        judge(conn, 5, "2", 72.0, {"temperature": 0.5, "humidity": 2.2})
        decide(
            conn,
            DEMAND,
            DecisionKind.RETRAIN_REQUESTED,
            "performance",
            6,
            version="2",
            evidence={"drifted": ["data_drift:humidity"]},
        )
        decide(
            conn,
            RUSH,
            DecisionKind.PROMOTED,
            "first_champion",
            0,
            version="1",
            run_id="train__bike_rush/manual__0",
        )
        waits = decide(
            conn, RUSH, DecisionKind.AWAITING_APPROVAL, "not_worse_than_champion", 5, version="2", run_id="train__bike_rush/scheduled__5",
            evidence={
                "version": "2", "champion_version": "1", "trigger": "schedule", "metric": "log_loss", "approval_timeout_s": 5 * 86400.0,
                "metrics": {"challenger": {"log_loss": 0.2}, "champion": {"log_loss": 0.3}, "baseline": {"log_loss": 0.6}}, "rows": {"judged": 168},
                "verdict": {"passed": True, "reason": "not_worse_than_champion", "checks": [
                    {"check": "not_surely_worse", "value": 0.1, "limit": -0.01, "passed": True, "sentence": "it is not surely worse"}]},
            },
        )  # fmt: skip
        decide(conn, RUSH, DecisionKind.APPROVAL_ASKED, "not_worse_than_champion", 5.01, version="2", run_id="promote__bike_rush/asset__5",
               evidence={"awaiting": waits.id})  # fmt: skip
        failed = decide(conn, RUSH, DecisionKind.RUN_FAILED, "score__bike_rush.score", 6, run_id="score__bike_rush/scheduled__6",
                        evidence={"dag_id": "score__bike_rush", "task_id": "score", "try_number": 3, "error": "MLflow does not answer"})  # fmt: skip
        tell(
            conn,
            News("failed:score__bike_rush.score", RUSH, AlertKind.RUN_FAILED, failed.id, {}, failed.as_of),
            None,
            timedelta(days=1),
        )


def silence(subject: str, why: str) -> None:
    """Silence a subject for three days from now."""
    with connect() as conn:
        silences.silence(conn, subject, "3d", why, "somebody", datetime.now(UTC), "silence/1")


def asked(
    conn: Connection,
    model: str,
    version: str,
    minute: datetime,
    requests: int = 60,
    *,
    took: tuple[float, float] = (1.0, 4.0),
    **more: int,
) -> None:
    """A minute of the prediction service: requests with p50 and p99 in ms; `more`: records (default: one a request), errors, refused, lost."""
    counts = {"records": requests, "errors": 0, "refused": 0, "lost": 0} | more
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.traffic (model, version, minute, instance, requests, records, errors, refused, lost, p50_ms, p99_ms)"
            " VALUES (%s, %s, %s, 'a', %s, %s, %s, %s, %s, %s, %s)",
            (model, version, minute, requests, *counts.values(), *took),
        )


def lives(conn: Connection, at: datetime, instance: str = "a") -> None:
    """A process of the prediction service that said at a time that it lives."""
    with conn.cursor() as cursor:
        cursor.execute("INSERT INTO evergreen.serving_process VALUES (%s, %s)", (instance, at))


def day_online(conn: Connection, now: datetime, *, errors: int = 700, lost: int = 12) -> None:
    """A day of bike_demand online up to a time: by day more than by night, v2 as a canary, 50 minutes ago errors and lost records."""
    minute = now.replace(second=0, microsecond=0)
    for back in range(1, 24 * 60):
        at = minute - timedelta(minutes=back)
        many = 400 - 25 * abs(12 - at.hour)
        asked(conn, "bike_demand", "1", at, many, took=(1.1, 3.8 + back % 7 / 10 + 20 * (back == 400)))
        asked(conn, "bike_demand", "2", at, many // 4, took=(1.2, 4.4 + back % 5 / 10))
    at = minute - timedelta(minutes=50)
    asked(conn, "bike_demand", "", at, errors + 200, records=0, errors=errors, refused=200, lost=lost)


def takes_over(conn: Connection) -> None:
    """Version 2 answers for a share of the keys online that has grown once."""
    made = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE subject = %s AND kind = 'promoted' AND version = '2'",
        (DEMAND,),
    )
    told = {
        "promotion": made[0]["id"],
        "version": "2",
        "former": "1",
        "for": "3d",
        "until": (BEGIN + 9 * WEEK).isoformat(),
    }
    for weeks, reason, share, message in (
        (4.02, "canary_started", 0.1, "version 2 answers for 10% of the keys online, version 1 for the rest"),
        (4.1, "canary_grown", 0.2, "look 1 of the watch did not find version 2 worse than version 1: it answers for 20% of the keys online"),
    ):  # fmt: skip
        decide(
            conn,
            DEMAND,
            DecisionKind.CANARY,
            reason,
            weeks,
            version="2",
            evidence={**told, "share": share, "message": message},
        )


def compared(conn: Connection) -> tuple[Decision, Decision]:
    """What was served was compared with batches, alike at first; then 30 of 120 records had another temperature, and an incident began."""
    alike = decide(
        conn, DEMAND, DecisionKind.SERVING_COMPARED, "alike", 5.0, version="2",
        evidence={"rows": 80, "differing": 0, "share": 0.0, "message": "80 online predictions are those that a batch makes"},
    )  # fmt: skip
    message = "30 of 120 online predictions (25%) differ from those that a batch makes: the requests have another temperature than the warehouse"
    found = decide(
        conn, DEMAND, DecisionKind.SERVING_COMPARED, "other_features", 6.0, version="2",
        evidence={"rows": 120, "differing": 30, "share": 0.25, "message": message},
    )  # fmt: skip
    news = News(
        "skew:bike_demand", DEMAND, AlertKind.SERVING_SKEW, found.id, {}, found.as_of, frozenset({"other_features"}),
        frozenset({"column:temperature"}), since=BEGIN + 5 * WEEK,
    )  # fmt: skip
    tell(conn, news, None, timedelta(days=3))
    return alike, found


def predicted(conn: Connection) -> None:
    """Predictions of bike_demand in its two newest windows: 30 online by v2 and 70 in batches, and 40 in batches by v1."""
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id) SELECT 'bike_demand', v, k::text,"
            " %s + interval '1 week' * w + interval '1 minute' * k, 1, now(), r FROM (VALUES ('2', 'online/a', 5, 0, 30), ('2', 'score/1', 5, 30, 100),"
            " ('1', 'score/1', 4, 100, 140), ('1', 'online/b', 6, 200, 300)) AS t (v, r, w, f, l), LATERAL generate_series(f, l - 1) AS k",
            (BEGIN,),
        )  # fmt: skip
