"""A scrape as a dictionary, and a ledger of two models as the loop would have written it."""

from __future__ import annotations

import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from evergreen.incidents import silences, unfinished_tasks
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import (
    IGNORED,
    ColumnResult,
    Judgement,
    MetricResult,
    Status,
    Violation,
    What,
    insert,
)
from evergreen.spec import load_dataset
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import Connection, connect

REPOSITORY = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = timedelta(days=7)
HEADER = "ts,holiday,workingday,weather,temperature,humidity,windspeed,price,demand\n"

Scraped = dict[str, dict[tuple[str, ...], float]]
"""Values by metric and by the values of its labels, in the order of the labels' names."""


def parsed(text: str) -> Scraped:
    """The samples of a page in the text format."""
    found: Scraped = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(v for _, v in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


def fetched(url: str) -> str:
    """A page, whatever proxy is set for the machine."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
        return answer.read().decode()


def decide(conn: Connection, subject: str, kind: DecisionKind, reason: str, **more: object) -> Decision:
    """Append a decision."""
    decide.count += 1  # type: ignore[attr-defined]
    key = f"test:{decide.count}"  # type: ignore[attr-defined]
    return append(conn, Decision(more.pop("as_of", NOW), subject, kind, reason, "train__x/1", key, **more))  # type: ignore[arg-type]


decide.count = 0  # type: ignore[attr-defined]


def window(model: str, version: str, weeks: int, status: Status, **more: object) -> Judgement:
    """A judged week that ends so many weeks after NOW."""
    start = NOW + (weeks - 1) * WEEK
    return Judgement(
        model,
        version,
        start,
        start + WEEK,
        more.pop("revision", 1),
        start + WEEK,
        status,
        168,
        168,
        168,
        **more,
    )  # type: ignore[arg-type]


def land(landing: Path) -> None:
    """A file that is published and one that is held back."""
    folder = landing / "bike_hourly"
    folder.mkdir(parents=True)
    rows = [f"2026-03-02 {h:02d}:00:00,0,1,clear,{10 + h},50,5,2.5,{100 + h}\n" for h in range(24)]
    (folder / "1-good.csv").write_text(HEADER + "".join(rows))
    (folder / "2-bad.csv").write_text(HEADER + "2026-03-03 00:00:00,0,1,hail,500,50,5,2.5,7\n")
    dataset = load_dataset(REPOSITORY / "include", "bike_hourly").datasets["bike_hourly"]
    ingest(dataset, NOW + timedelta(days=2), "ingest__bike_hourly/1", folder=folder)


def write_ledger() -> None:
    """Two models, one of them in trouble; mails, of which one is silenced; tasks that run."""
    with connect() as conn:
        demand, rush = "model/bike_demand", "model/bike_rush"
        decide(conn, demand, DecisionKind.PROMOTED, "first_champion", version="1", as_of=NOW - 9 * WEEK)
        answered = decide(conn, demand, DecisionKind.RETRAIN_REQUESTED, "data_drift")
        decide(
            conn,
            demand,
            DecisionKind.PROMOTED,
            "not_worse_than_champion",
            version="2",
            as_of=NOW - WEEK,
            answers=(answered.id,),
        )
        decide(conn, demand, DecisionKind.ROLLED_BACK, "manual", version="1")
        decide(conn, demand, DecisionKind.RETRAIN_REQUESTED, "performance")
        decide(conn, demand, DecisionKind.RETRAIN_REQUESTED, "decay")
        decide(conn, rush, DecisionKind.PROMOTED, "first_champion", version="7")
        decide(conn, rush, DecisionKind.REJECTED, "worse_than_champion", version="8")
        insert(conn, window("bike_demand", "2", 9, Status.OK))  # of a version that is champion no more
        insert(
            conn,
            window(
                "bike_demand", "1", 1, Status.OK, metrics={"rmse": MetricResult(40.0, 55.0, 42.0, "judged")}
            ),
        )
        bad = MetricResult(70.5, 55.0, 42.0, "judged", violated=True)
        shown = MetricResult(30.0, None, 25.0, "shown")
        insert(
            conn,
            window(
                "bike_demand", "1", 2, Status.OK, metrics={"rmse": MetricResult(41.0, 55.0, 42.0, "judged")}
            ),
        )
        insert(
            conn,
            window("bike_demand", "1", 2, Status.VIOLATION, metrics={"mae": shown, "rmse": bad}, revision=2),
        )
        drift = ColumnResult("temperature", What.DATA_DRIFT, "wasserstein", 0.9, 0.12, True)
        quiet = [
            ColumnResult("temperature", What.MISSING, "share", 0.0, 0.02, False),
            ColumnResult("price", What.DATA_DRIFT, "wasserstein", 0.05, 0.1, False),
            ColumnResult("hour", What.DATA_DRIFT, "wasserstein", 5.0, 0.1, False, IGNORED),
            ColumnResult("windspeed", What.UNREADABLE, "wasserstein", None, 0.1, True),
        ]
        waits = {"rmse": MetricResult(None, 55.0, 42.0, "not_yet")}
        insert(conn, window("bike_demand", "1", 3, Status.VIOLATION, metrics=waits, columns=(drift, *quiet)))
        stale = Violation(What.STALE, "_time", "hours_since_newest_row", 50.0, 36.0)
        insert(conn, window("bike_rush", "7", 3, Status.STALE, violations=(stale,)))
        for number, subject in enumerate((demand, demand, rush)):
            raise_incident(conn, f"test:{number}", subject, "drift", None, {})
        silences.silence(conn, rush, "3d", "sensor is moved", "somebody", datetime.now(UTC), "silence/1")
    unfinished_tasks.begin("train__bike_demand/1", "fit", 1, "", NOW)
    unfinished_tasks.begin("train__bike_rush/1", "fit", 1, "", NOW)
    unfinished_tasks.begin("mail/1", "deliver", 1, "", NOW)
    with connect() as conn, conn.cursor() as cursor:  # one was tried
        cursor.execute(
            "INSERT INTO evergreen.delivery (mail, channel, attempts) SELECT min(id), 'email', 1 FROM evergreen.mail WHERE sent_at IS NULL"
        )
