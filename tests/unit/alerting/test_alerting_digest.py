"""The weekly digest: a function of (specs, as-of), once for each set of recipients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from io import BytesIO

import pytest
from matplotlib.image import imread

from evergreen.alerting.content.week import model_week
from evergreen.alerting.delivery import deliver, waiting
from evergreen.alerting.pictures.trends import estimates, trends_png
from evergreen.alerting.weekly import SUBJECT, owe_digests
from evergreen.incidents import threads
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.silences import silence
from evergreen.incidents.threads import News
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

START = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
WEEK = timedelta(days=7)
MODEL = "model/bike_demand"


def digest(specs: Specs, as_of: datetime) -> EmailMessage:
    owe_digests(specs, as_of)
    sent: list[EmailMessage] = []
    deliver(specs, sent.append, subject=SUBJECT)
    assert len(sent) == 1
    return sent[0]


def said(message: EmailMessage) -> str:
    return " ".join(message.get_body(("plain",)).get_content().split())


def test_the_digest_tells_the_week(
    conn: Connection, specs: Specs, life: list[int], decide: Callable[..., Decision]
) -> None:
    as_of = START + 13 * WEEK + timedelta(hours=1)
    decide(DecisionKind.RETRAIN_SUPPRESSED, "cooldown", as_of=as_of - timedelta(days=1), version="1")
    decide(DecisionKind.RETRAIN_SUPPRESSED, "cooldown", as_of=as_of - timedelta(days=2), version="1")
    conn.commit()
    text = said(digest(specs, as_of))
    for what in (
        "v3 since 2026-04-06", "1 judged, 1 in violation", "new champion v3", "it beat the champion on the same rows",
        "retraining held back v1", "the cool-down is in force", "RMSE", "bike_hourly", "none this week",
    ):  # fmt: skip
        assert what in text, what
    assert "it did not beat" not in text, "the rejections are of other weeks"
    assert "batch held back" not in text


def test_the_digest_says_which_watch_can_hardly_alarm_and_what_could(
    conn: Connection, specs: Specs, decide: Callable[..., Decision]
) -> None:
    told = "this limit cannot alarm before the served error is worse than that. With monitoring.window: 4d the limit would be 7"
    decide(DecisionKind.PROMOTED, "first_champion", as_of=START, version="1", evidence={"error_limit": told})
    conn.commit()
    line = f"The watch on the error of bike_demand: {told}."
    assert line in said(digest(specs, START + WEEK))
    decide(DecisionKind.PROMOTED, "better_than_champion", as_of=START + WEEK, version="2")
    assert model_week(conn, specs.models["bike_demand"], START + 2 * WEEK).error_limit == ""
    decide(DecisionKind.ROLLED_BACK, "worse_than_previous", as_of=START + 2 * WEEK, version="1")
    assert model_week(conn, specs.models["bike_demand"], START + 3 * WEEK).error_limit == told, (
        "the champion is back, and so is its watch"
    )


def test_the_digest_as_of_the_past_knows_nothing_of_what_came_later(
    conn: Connection, specs: Specs, life: list[int]
) -> None:
    conn.commit()
    text = said(digest(specs, START + 2 * WEEK + timedelta(hours=1)))
    assert "v1 since 2026-01-05" in text
    assert "v3" not in text


def test_it_has_a_picture_of_the_error(conn: Connection, specs: Specs, life: list[int]) -> None:
    conn.commit()
    message = digest(specs, START + 20 * WEEK)
    image = next(p for p in message.walk() if p.get_content_type() == "image/png")
    assert image.get_content().startswith(b"\x89PNG")


def test_an_estimate_is_never_told_as_the_served_error(
    conn: Connection, specs: Specs, judge: Callable[..., int]
) -> None:
    judge(0, rmse=44.0)
    judge(1, rmse=62.0, state="estimated")
    judge(2, rmse=None)
    conn.commit()
    text = said(digest(specs, START + 3 * WEEK))
    assert "RMSE 44, at most 55; since then 62 (estimated without labels), at most 55" in text


def test_only_an_estimate_is_called_one(conn: Connection, specs: Specs, judge: Callable[..., int]) -> None:
    judge(0, rmse=62.0, state="estimated")
    conn.commit()
    text = said(digest(specs, START + WEEK))
    assert "RMSE 62 (estimated without labels), at most 55" in text
    assert "1 judged, 1 in violation (1 by an estimate only), 1 without labels yet" in text


def test_a_violation_of_an_earlier_version_is_not_told_as_the_champions(
    conn: Connection, specs: Specs, judge: Callable[..., int], decide: Callable[..., Decision]
) -> None:
    decide(DecisionKind.PROMOTED, "better", as_of=START + timedelta(days=3), version="2")
    judge(0, rmse=62.0)
    judge(1, rmse=63.0, version="2")
    with conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.window_judgement SET as_of = %s", (START + 2 * WEEK,))
    conn.commit()
    text = said(digest(specs, START + 2 * WEEK))
    assert "2 judged, 2 in violation (1 of an earlier version)" in text


def test_a_measured_error_replaces_the_estimates_before_it(
    conn: Connection, specs: Specs, judge: Callable[..., int]
) -> None:
    judge(0, rmse=62.0, state="estimated")
    judge(1, rmse=44.0)
    conn.commit()
    text = said(digest(specs, START + 2 * WEEK))
    assert "RMSE 44, at most 55" in text
    assert "estimate" not in text.replace("rings: estimated without labels", ""), (
        "an earlier window alone is drawn as a ring"
    )


def test_windows_without_labels_count_whether_or_not_they_are_estimated(
    conn: Connection, specs: Specs, judge: Callable[..., int]
) -> None:
    judge(0, rmse=44.0, state="estimated")
    judge(1, rmse=None)
    drift = (("price", "data_drift", "wasserstein", 0.9, 0.1),)
    judge(2, rmse=62.0, state="estimated", columns=drift)
    judge(3, rmse=44.0)
    with conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.window_judgement SET as_of = %s", (START + 4 * WEEK,))
    week = model_week(conn, specs.models["bike_demand"], START + 4 * WEEK)
    assert (week.judged, week.violations, week.by_estimate, week.not_yet) == (4, 1, 0, 3)


def test_the_picture_of_the_digest_marks_estimates(
    conn: Connection, specs: Specs, judge: Callable[..., int], rings: list[list[float]]
) -> None:
    for number in range(4):
        judge(number, rmse=44.0 + number, state="estimated" if number == 3 else None)
    week = model_week(conn, specs.models["bike_demand"], START + 4 * WEEK)
    assert estimates(week) == [3]
    measured = replace(week, trend=tuple(replace(w, estimated=False) for w in week.trend))
    one, other = trends_png([week]), trends_png([measured])
    assert rings == [[47.0], []]
    assert one is not None
    assert other is not None
    assert imread(BytesIO(one)).shape[0] > imread(BytesIO(other)).shape[0], "room for a legend"
    conn.commit()
    assert (
        "rings: estimated without labels" in digest(specs, START + 4 * WEEK).get_body(("html",)).get_content()
    )


def test_a_quiet_week_says_so(warehouse_url: str, specs: Specs) -> None:
    message = digest(specs, START)
    assert message["Subject"] == "[Evergreen] week to 2026-01-05: all quiet"
    assert "Nothing needs to be done" in said(message)


def test_open_incidents_silences_and_mails_that_were_not_sent_are_told(
    warehouse_url: str, specs: Specs
) -> None:
    later = {"from": "2026-02-05T00:00:00+00:00", "rows": 12000}
    told = {"again": later, "message": "two trainings answered it"}
    with connect() as conn:
        append(
            conn,
            Decision(
                START, MODEL, DecisionKind.RETRAIN_SUPPRESSED, "already_answered", "m/1", "p:1", told, "1"
            ),
        )
        context = {"violations": []}
        news = News("drift:x", MODEL, "drift", None, context, START, frozenset({"data_drift", "gave_up"}))
        threads.tell(conn, news, None, WEEK)
        raise_incident(conn, "promoted", MODEL, "champion_changed", None, {}, as_of=START)

    def refuse(message: EmailMessage) -> None:
        raise ConnectionRefusedError("no route")

    deliver(specs, refuse)
    with connect() as conn:
        silence(conn, "model/bike_rush", "2026-01-20", "sensor is moved", "ann", START, "make/1")
    owe_digests(specs, START + timedelta(days=3))
    sent: list[EmailMessage] = []
    deliver(specs, sent.append, subject=SUBJECT)
    assert "1 open incident" in sent[0]["Subject"]
    assert "2 mails not sent" in sent[0]["Subject"]
    text = said(sent[0])
    for what in (
        "drift: the input data drifted",
        "sensor is moved (ann)",
        "ConnectionRefusedError",
        "a person must look",
        "bike_demand: if it lasts, it is asked for again from 2026-02-05 on, or with 12,000 new rows",
    ):
        assert what in text, what


def test_each_set_of_recipients_gets_one_about_its_own_once(
    warehouse_url: str, specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rush = specs.models["bike_rush"].model_copy(update={"alerts": ("rush@example.org",)})
    two = Specs(specs.datasets, {**specs.models, "bike_rush": rush})
    assert owe_digests(two, START) == 2
    assert owe_digests(two, START + timedelta(hours=3)) == 0, "the same day"
    assert owe_digests(two, START + WEEK) == 2
    sent: list[EmailMessage] = []
    deliver(two, sent.append)
    told = {m["To"]: said(m) for m in sent[:2]}
    assert set(told) == {"ml-team@localhost", "rush@example.org"}
    assert "bike_rush" in told["rush@example.org"]
    assert "bike_demand" not in told["rush@example.org"]
    assert "bike_rush" not in told["ml-team@localhost"]


def test_a_digest_that_cannot_be_sent_waits(warehouse_url: str, specs: Specs) -> None:
    owe_digests(specs, START)

    def refuse(message: EmailMessage) -> None:
        raise ConnectionRefusedError("no route")

    for _ in range(4):
        assert deliver(specs, refuse).failed == 1
    with connect() as conn:
        assert waiting(conn, SUBJECT) == 1
        assert fetch(conn, "SELECT attempts FROM evergreen.delivery") == [{"attempts": 4}]
