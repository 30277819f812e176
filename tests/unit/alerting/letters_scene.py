"""A mail of every kind as a person would get it, with content as the other rooms write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.compose import letter
from evergreen.incidents.outbox import owe, raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
MODEL = "model/bike_demand"
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
RUN = "3f0c1f6bb7a34f43a8f0a1b2c3d4e5f6"
DATASET = "dataset/bike_hourly"
SAID = "the improvement over the champion is {} %, with 95 % confidence at least {} %; it must be more than 0.00 %"


def trained(value: float, champion: float | None, low: float | None, **more: Any) -> dict[str, Any]:
    """The evidence of a training whose challenger got this RMSE, with the lower end of its improvement."""
    checks: list[dict[str, Any]] = [
        {"check": "holdout_rows", "value": 1344, "limit": 50, "passed": True, "sentence": "the holdout has 1344 rows, 50 are needed"},
        {"check": "beats_baseline", "value": value, "limit": 88.512345, "passed": value < 88, "sentence": "RMSE of the challenger"},
        {"check": "slice_season=winter", "value": -0.034, "limit": -0.05, "passed": True,
         "sentence": "the improvement in season=winter (210 rows, the worst of 14) is -8.00 %, surely below -3.40 %; -5.00 % is allowed"},
    ]  # fmt: skip
    against = "" if champion is None else f"champion (version 3) {champion:.4g}, "
    metrics = {
        "challenger": {"rmse": value, "mae": value * 0.7, "r2": 0.912345678},
        "baseline": {"rmse": 88.512345, "mae": 61.0, "r2": -0.4},
    }
    if champion is not None and low is not None:
        point = 100 * (1 - value / champion)
        checks.append(
            {"check": "beats_champion", "value": low, "limit": 0.0, "passed": low > 0,
             "sentence": SAID.format(f"{point:.2f}", f"{100 * low:.2f}")}
        )  # fmt: skip
        metrics["champion"] = {"rmse": champion, "mae": champion * 0.7, "r2": 0.8912345}
    return {
        "message": f"better than champion: RMSE of the challenger {value:.4g}, {against}baseline 88.51, on 1344 holdout rows",
        "trigger": "data_drift", "metric": "rmse", "metrics": metrics, "holdout": metrics["challenger"],
        "rows": {"all": 12000, "judged": 1344, "train": 9000}, "mlflow_run": RUN, "fingerprint": HASH, "spec_hash": HASH,
        "training_hash": HASH, "digest": HASH, "refitted": True, "trained_until": "2026-04-06T00:00:00+00:00", **more,
    } | ({"checks": checks} if "verdict" not in more else {})  # fmt: skip


def failure(column: str, rule: str, observed: str, limit: str, rows: int) -> dict[str, Any]:
    """A failed expectation with two of its rows."""
    return {
        "expectation": rule, "column": column, "observed": observed, "limit": limit, "failed_rows": rows, "remedy": f"deliver {column} in percent",
        "rows": [{"row": 17, "line": 18, "value": "655.3", "key": "2026-04-01T03:00:00+00:00"}, {"row": 40, "value": "-4", "key": "x"}],
    }  # fmt: skip


def batch(number: int, held: int, read: int = 168) -> dict[str, Any]:
    """The evidence of a file that was held back, or of which rows were."""
    return {
        "file": f"bike_2026_{number:02}.csv", "path": f"/landing/bike_hourly/bike_2026_{number:02}.csv", "checksum": HASH, "batch": number,
        "rows_read": read, "rows_new": read - held, "rows_held": held, "quarantine": "rows", "failures_in_all": 2,
        "failures": [
            failure("humidity", "expect_column_values_to_be_between", f"{held} of {read} rows", "0 to 100", held),
            failure("windspeed", "expect_column_values_to_not_be_null", "12 of 168 rows", "0 %", 12),
        ],
    }  # fmt: skip


class Writer:
    """Raises incidents and lays out their mails."""

    def __init__(self, conn: Connection, specs: Specs, decide: Callable[..., Decision]) -> None:
        self.conn, self.specs, self.decide = conn, specs, decide
        self.count = 0

    def row(
        self, mail: AlertKind, kind: DecisionKind | None = None, subject: str = MODEL,
        context: dict[str, Any] | None = None, **decision: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """A row of the outbox, with one of the ledger unless `kind` is None."""
        made = self.decide(kind, subject=subject, **decision) if kind else None
        self.count += 1
        assert (owe if mail is AlertKind.DIGEST else raise_incident)(
            self.conn, f"{mail}:{self.count}", subject, mail, made.id if made else None, context or {}
        )
        return fetch(
            self.conn, "SELECT *, clock_timestamp() AS now FROM evergreen.mail ORDER BY id DESC LIMIT 1"
        )[0]

    def lay_out(self, rows: Sequence[dict[str, Any]]) -> EmailMessage:
        """The mail of rows, as a mail program reads it."""
        made = letter(self.conn, self.specs, rows)
        back = message_from_bytes(
            made.as_bytes(policy=made.policy.clone(linesep="\r\n")), policy=policy.default
        )
        assert isinstance(back, EmailMessage)
        assert not back.defects
        return back

    def mail(self, *args: Any, **more: Any) -> EmailMessage:
        """The mail of one row, see `row`."""
        return self.lay_out([self.row(*args, **more)])


def every(
    conn: Connection,
    specs: Specs,
    decide: Callable[..., Decision],
    judge: Callable[..., int],
    life: Sequence[int],
) -> dict[str, EmailMessage]:
    """A mail of each kind, and of each way in which one reads differently, by name."""
    w = Writer(conn, specs, decide)
    at = START + 13 * WEEK
    since = "2026-03-16T00:00:00+00:00"
    drifting = {"judgements": list(life[11:13]), "since": since}
    run = {"run_id": "monitor__bike_demand/scheduled__2026-04-06T00:00:00+00:00", "as_of": at}
    asked = decide(DecisionKind.RETRAIN_REQUESTED, "data_drift", as_of=at)
    guessed = judge(21, version="3", rmse=71.26, state="estimated")
    found = {
        "drift": w.mail(AlertKind.DRIFT, DecisionKind.RETRAIN_REQUESTED, reason="data_drift", version="1", evidence=drifting, **run),
        "drift needs a person": w.mail(
            AlertKind.DRIFT, DecisionKind.RETRAIN_SUPPRESSED, reason="already_answered", version="1", context={"gave_up": True}, **run,
            evidence={**drifting, "message": "two trainings answered it", "again": {"from": "2026-05-01T00:00:00+00:00", "rows": 12000},
                      "endings": [{"request": 1, "kind": "rejected", "reason": "not_better_than_champion", "version": "2"}] * 2},
        ),
        "drift by an estimate": w.mail(
            AlertKind.DRIFT, DecisionKind.RETRAIN_REQUESTED, reason="estimated_performance", version="3",
            evidence={"judgements": [guessed], "since": since}, **run,
        ),
        "columns cannot be read": w.mail(
            AlertKind.DATA_PROBLEM, version="1", context={
                "status": "unreadable", "version": "1", "violations": [
                    {"kind": "unreadable", "column": "windspeed", "statistic": "wasserstein", "value": None, "limit": 0.1,
                     "detail": "all 168 values are missing"}]}),
    }  # fmt: skip
    for kind, column, statistic, value, limit, detail in (
        ("stale", "_time", "hours_since_newest_row", 60.254, 36.0, "the newest row is of 2026-03-01 12:00 UTC"),
        ("volume", "_key", "rows", 3.0, 83.65, "too few rows; usual are 168, min_rows is 50"),
        ("unscored", "_prediction", "rows_with_prediction", 0.0, 84.0, "168 of 168 rows have no prediction, 50% need one"),
    ):  # fmt: skip
        violation = {"kind": kind, "column": column, "statistic": statistic, "value": value, "limit": limit, "detail": detail}  # fmt: skip
        found[f"data problem {kind}"] = w.mail(
            AlertKind.DATA_PROBLEM,
            context={
                "status": kind, "version": "3", "violations": [violation], "rows": 3 if kind == "volume" else 168, "since": since,
                "window_start": "2026-03-02T00:00:00+00:00", "window_end": "2026-03-09T00:00:00+00:00",
            },
        )  # fmt: skip
    asked_for = {
        "since": "2026-04-05T00:00:00+00:00",
        "until": "2026-04-06T00:00:00+00:00",
        "rows": 1000,
        "limit": 0.05,
    }
    shop = {
        "clients": [{"client": "shop", "rows": 30}],
        "example": {
            "key": '["2026-04-05T07:00:00+00:00"]',
            "version": "3",
            "answered": 412.5,
            "batch": 87.25,
        },
    }
    fahrenheit = {
        "column": "temp",
        "rows": 30,
        "share": 1.0,
        "key": '["2026-04-05T03:00:00+00:00"]',
        "sent": "41",
        "found": "5",
    }
    for name, reason, more in (
        (
            "other features",
            "other_features",
            {"columns": [fahrenheit, {**fahrenheit, "column": "humidity", "rows": 3, "share": 0.1}]},
        ),
        ("unexplained", "other_predictions", {}),
        (
            "other numbers",
            "other_numbers",
            {"other_numbers": 3, "left_out": "version 2: MLflow has no such version"},
        ),
    ):
        found[f"skew {name}"] = w.mail(
            AlertKind.SERVING_SKEW,
            DecisionKind.SERVING_COMPARED,
            reason=reason,
            evidence={
                **asked_for,
                **shop,
                "differing": 412,
                "share": 0.412,
                "largest": 0.788,
                "closely": 30,
                "message": "412 of 1,000 differ",
                **more,
            },
            **run,
        )
    quarantined = {"subject": DATASET, "reason": "bad_batch", "run_id": "ingest__bike_hourly/scheduled__1"}
    held = [
        w.row(AlertKind.BATCH_QUARANTINED, DecisionKind.BATCH_QUARANTINED, evidence=batch(n, 168), **quarantined)
        for n in range(20)
    ]  # fmt: skip
    for _ in range(20, 40):
        decide(DecisionKind.BATCH_PUBLISHED, "published", subject=DATASET, run_id=quarantined["run_id"], evidence={"rows_held": 0, "rows_read": 168})  # fmt: skip
    found["batch quarantined"] = w.lay_out(held[:1])
    found["batches quarantined"] = w.lay_out(held)
    found["rows held back"] = w.mail(
        AlertKind.BATCH_QUARANTINED, DecisionKind.BATCH_PUBLISHED, evidence=batch(50, 12), **quarantined
    )
    found["batch corrected"] = w.mail(
        AlertKind.BATCH_CORRECTED, DecisionKind.BATCH_WITHDRAWN, subject=DATASET, reason="withdrawn",
        evidence={"file": "a.csv", "batch": 12, "checksum": HASH, "message": "a.csv was withdrawn: keys gone: 3", "why": "wrong unit", "by": "Ann",
                  "corrected": {"gone": 3, "restored": 160}, "later_with_equal_rows": ["b.csv"]},
    )  # fmt: skip
    found["first champion"] = w.mail(
        AlertKind.CHAMPION_CHANGED, DecisionKind.PROMOTED, reason="first_champion", version="1", subject="model/van_demand",
        evidence=trained(55.83721, None, None),
    )  # fmt: skip
    found["promotion"] = w.mail(
        AlertKind.CHAMPION_CHANGED, DecisionKind.PROMOTED, reason="better_than_champion", version="4", as_of=START + 20 * WEEK,
        evidence=trained(41.25, 47.0, 0.0312, previous_version="3", compared_with="3"), answers=(asked.id,),
    )  # fmt: skip
    found["rejection"] = w.mail(
        AlertKind.CHALLENGER_REJECTED, DecisionKind.REJECTED, reason="not_better_than_champion", version="5", as_of=START + 20 * WEEK,
        evidence=trained(48.1, 47.0, -0.0534, previous_version="4", champion_version="4", trigger="schedule"),
    )  # fmt: skip
    verdict = trained(41.25, 47.0, 0.0312)["checks"]
    found["approval"] = w.mail(
        AlertKind.APPROVAL, DecisionKind.AWAITING_APPROVAL, reason="better_than_champion", version="6", as_of=START + 20 * WEEK,
        evidence=trained(41.25, 47.0, 0.0312, champion_version="4", approval_timeout_s=259200.0, requests=[asked.id],
                         verdict={"passed": True, "reason": "better_than_champion", "checks": verdict}),
    )  # fmt: skip
    for week, rmse in ((20, 47.2), (22, 58.9)):
        judge(week, version="4", rmse=rmse)
    watch = {
        "metric": "rmse", "version": "4", "value": 58.75, "previous": "3", "previous_value": 47.0, "rows": 1234, "improvement": -0.25,
        "at_most": -0.11, "at_least": -0.4, "margin": 0.02, "confidence": 0.95, "look": 4, "looks": 7, "since": "2026-05-18T00:00:00+00:00",
    }  # fmt: skip
    found["rollback by the watch"] = w.mail(
        AlertKind.ROLLED_BACK, DecisionKind.ROLLED_BACK, reason="worse_than_previous", version="3", as_of=START + 23 * WEEK,
        evidence={"message": "RMSE of version 4 is 58.75, of version 3 47", "previous_version": "4", "probe_rows": 20, "probe_difference": 0.0,
                  "blocked": {"version": "4", "fingerprint": HASH, "training_hash": HASH, "spec_hash": HASH}, "watch": watch},
    )  # fmt: skip
    found["rollback by hand"] = w.mail(
        AlertKind.ROLLED_BACK, DecisionKind.ROLLED_BACK, reason="manual", version="1", as_of=START + 24 * WEEK,
        evidence={"message": "vans wait at the wrong stations", "previous_version": "3", "probe_rows": 20, "probe_difference": 1e-7},
    )  # fmt: skip
    found["alias repaired"] = w.mail(
        AlertKind.ALIAS_REPAIRED, DecisionKind.ALIAS_REPAIRED, reason="alias_moved", version="1",
        evidence={"message": "the alias named 2", "alias": "champion", "found_version": "2", "champion_decision": 3},
    )  # fmt: skip
    found["run failed"] = w.mail(
        AlertKind.RUN_FAILED, DecisionKind.RUN_FAILED, reason="train__bike_demand.fit", run_id="train__bike_demand/scheduled__2026-04-06",
        evidence={"dag_id": "train__bike_demand", "task_id": "fit", "try_number": 3, "reason": "unreachable", "log_url": "http://127.0.0.1:8080/log",
                  "error": "MLflow at http://mlflow:5000 did not answer within 60 s\nTraceback (most recent call last)"},
    )  # fmt: skip
    found["spec unusable"] = w.mail(
        AlertKind.SPEC_UNUSABLE, DecisionKind.SPEC_UNUSABLE, subject="fleet/specs", reason="spec_unusable",
        evidence={"file": "datasets/bike_hourly.yaml", "switched_off": ["models/bike_demand.yaml"], "message": "x",
                  "problems": [{"field": "columns.temp.type", "value": "flaot", "remedy": "use one of float, int, text"}]},
    )  # fmt: skip
    for of in ("drift", "data_problem", "serving_skew", "batch_quarantined", "run_failed", "spec_unusable"):
        subject = {"batch_quarantined": DATASET, "spec_unusable": "fleet/specs"}.get(of, MODEL)
        found[f"recovered from {of}"] = w.mail(
            AlertKind.RECOVERED, DecisionKind.RECOVERED, subject=subject, as_of=START + 20 * WEEK, version="3" if of == "drift" else None,
            reason={"drift": "windows_ok", "data_problem": "data_back", "serving_skew": "alike_again", "run_failed": "works_again"}.get(of, "published_again"),
            evidence={"of": of, "incident": f"{of}:1", "since": since, "opened": "2026-03-17T00:00:00+00:00", "ended": "2026-03-26T04:10:00+00:00",
                      "windows": 3, "task": "fit", "files": ["models/x.yaml"], "classes": ["data_drift"] if of == "drift" else []},
        )  # fmt: skip
    found["two alerts"] = w.lay_out(
        [
            w.row(AlertKind.DRIFT, DecisionKind.RETRAIN_REQUESTED, reason="data_drift", version="1", evidence=drifting, **run),
            w.row(AlertKind.RECOVERED, DecisionKind.RECOVERED, reason="data_back", evidence={
                "of": "data_problem", "since": since, "opened": since, "ended": "2026-03-18T00:00:00+00:00", "windows": 2}),
        ]
    )  # fmt: skip
    silenced = decide(DecisionKind.SILENCED, "silenced", as_of=at, evidence={
        "why": "the sensor is moved", "by": "Ann", "until": "2026-04-20T00:00:00+00:00"})  # fmt: skip
    late = w.row(
        AlertKind.DRIFT,
        DecisionKind.RETRAIN_REQUESTED,
        reason="data_drift",
        version="1",
        evidence=drifting,
        **run,
    )
    found["after a silence"] = w.lay_out([{**late, "held_by": silenced.id}])
    found["digest"] = w.lay_out(
        [w.row(AlertKind.DIGEST, None, "digest/weekly", {
            "as_of": (START + 20 * WEEK + timedelta(hours=6)).isoformat(), "to": ["a@b"], "models": ["bike_demand"], "datasets": ["bike_hourly"]})]
    )  # fmt: skip
    return found
