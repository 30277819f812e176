"""How a model is asked online: added up from minutes, by version and hour, as of a time; and what of it needs a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

import health_scene
from evergreen.alerting.content.online import Traffic, added_up
from evergreen.health import attention, online
from evergreen.health.charts.online_day import online_day
from evergreen.health.overview import overview
from evergreen.health.subjects import Attention, Online, Why, rate
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection
from health_scene import BEGIN, DEMAND, WEEK, asked, decide, lives

NOW = datetime(2026, 3, 4, 12, 34, 56, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AT = NOW.replace(second=0) - 10 * MINUTE
HOUR = online.HOUR


def test_minutes_are_added_up_each_with_what_it_answered(conn: Connection) -> None:
    asked(conn, "m", "1", AT, 100, records=500, took=(1.0, 3.0))
    asked(conn, "m", "1", AT + MINUTE, 300, took=(2.0, 9.0))
    asked(conn, "m", "2", AT, 150, took=(1.5, 5.0))
    asked(conn, "m", "", AT, 50, records=0, errors=20, refused=30, lost=7, took=(0.0, 0.0))
    asked(conn, "other", "1", AT, 1000)
    ((keys, found),) = added_up(conn, ["m"], NOW - HOUR, NOW, "model")
    assert keys == {"model": "m"}
    assert found == Traffic(600, 950, 20, 30, 7, p50_ms=2.0, p99_ms=9.0, worst_ms=9.0)
    assert (found.answered, round(found.error_share, 4), found.refused_share) == (550, 0.0333, 0.05)
    by_version = {keys["version"]: one for keys, one in added_up(conn, ["m"], NOW - HOUR, NOW, "version")}
    assert by_version["1"] == Traffic(400, 800, 0, 0, 0, 2.0, 9.0, 9.0)
    assert by_version["2"] == Traffic(150, 150, 0, 0, 0, 1.5, 5.0, 5.0)
    assert by_version[""] == Traffic(50, 0, 20, 30, 7, None, None, None), (
        "what nobody answered took no time that counts"
    )


def test_one_slow_minute_with_few_requests_is_the_worst_and_not_the_middle(conn: Connection) -> None:
    for n in range(5):
        asked(conn, "m", "1", AT - n * MINUTE, 100, took=(1.0, 4.0 + n / 10))
    asked(conn, "m", "1", AT + MINUTE, 1, took=(800.0, 900.0))
    ((_, found),) = added_up(conn, ["m"], NOW - HOUR, NOW, "model")
    assert (found.p50_ms, found.p99_ms, found.worst_ms) == (1.0, 4.2, 900.0)


def test_a_span_ends_where_it_ends(conn: Connection) -> None:
    for at in (NOW - HOUR - MINUTE, NOW - HOUR, NOW - MINUTE, NOW, NOW + MINUTE):
        asked(conn, "m", "1", at, 1)
    ((_, found),) = added_up(conn, ["m"], NOW - HOUR, NOW, "model")
    assert found.requests == 2


def test_only_models_that_were_asked_are_told_of(conn: Connection) -> None:
    assert online.of_now(conn, ["m", "n"], NOW) == {}
    asked(conn, "m", "1", AT, 36)
    asked(conn, "z", "1", NOW - MINUTE)
    asked(conn, "old", "1", NOW - 3 * HOUR, lost=5)
    found = online.of_now(conn, ["m", "n", "old"], NOW)
    assert set(found) == {"m", "old"}
    assert found["m"] == Online(Traffic(36, 36, 0, 0, 0, 1.0, 4.0, 4.0), 0, AT)
    assert found["old"] == Online(Traffic(), 5, NOW - 3 * HOUR), "what was lost is told for a day"
    assert found["m"].words == "36/h, p99 4 ms, no errors"
    assert found["old"].words == ""
    assert online.of_now(conn, ["old"], NOW + timedelta(days=1))["old"].lost == 0


@pytest.mark.parametrize(
    ("per_second", "said"), [(1234.5, "1,234/s"), (12.0, "12/s"), (1.25, "1.2/s"), (0.5, "30/min"), (0.001, "3.6/h")]
)  # fmt: skip
def test_a_rate_is_told_in_a_unit_that_people_say(per_second: float, said: str) -> None:
    assert rate(per_second) == said


@pytest.mark.parametrize(
    ("errors", "lost", "needed"),
    [
        (10, 0, []),
        (11, 0, ["1.1% of the 1,000 requests of the last hour failed online"]),
        (0, 1, ["1 record predicted online in the last day is not in the log"]),
        (1000, 1200, ["100% of the 1,000 requests of the last hour failed online", "1,200 records predicted online in the last day are not in the log"]),
    ],
    ids=["as many as may", "one more", "one lost", "both"],
)  # fmt: skip
def test_requests_that_fail_and_records_that_are_lost_need_a_person(
    errors: int, lost: int, needed: list[str]
) -> None:
    found = attention.of_online("m", Online(Traffic(1000, 1000, errors), lost, NOW))
    assert [one.text for one in found] == needed
    assert {(one.level, one.page) for one in found} <= {(Attention.ACT, "model/m#online")}
    assert attention.of_online("m", None) == []


def test_the_overview_tells_it_of_each_model(story: Specs, conn: Connection) -> None:
    before = {m.name: m for m in overview(conn, story, mlflow=False).models}
    assert before["bike_demand"].attention is Attention.ANSWERED
    assert before["bike_demand"].online is None
    now = datetime.now(UTC)
    asked(conn, "bike_demand", "2", now - 5 * MINUTE, 36_000, took=(1.0, 4.4))
    asked(conn, "bike_demand", "", now - 5 * MINUTE, 1_000, records=0, errors=1_000)
    found = overview(conn, story, mlflow=False)
    demand, rush = found.models
    assert (demand.name, demand.attention) == ("bike_demand", Attention.ACT), "more than others"
    assert demand.online is not None
    assert demand.online.words == "10/s, p99 4.4 ms, 2.7% errors"
    assert demand.why[0] == Why(
        "2.7% of the 37,000 requests of the last hour failed online", "model/bike_demand#online"
    )
    assert rush.online is None
    assert found.stack.service is None, "no process has said that it lives"


@pytest.mark.parametrize(
    ("heard", "asked_at", "said"),
    [
        (MINUTE, None, "answers, nothing asked yet"),
        (MINUTE, 3 * MINUTE, "answers, and is asked"),
        (MINUTE, 7 * MINUTE, "answers, nothing asked since 2026-03-04 12:27 UTC"),
        (3 * MINUTE, timedelta(0), "answers, and is asked"),
        (4 * MINUTE, 5 * MINUTE, "not heard of since 2026-03-04 12:30 UTC"),
        (timedelta(days=29), None, "not heard of since 2026-02-03 12:34 UTC"),
    ],
    ids=["new", "busy", "idle", "two signs missing", "three missing", "long gone"],
)  # fmt: skip
def test_a_service_that_nobody_asks_is_told_from_one_that_is_away(
    conn: Connection, heard: timedelta, asked_at: timedelta | None, said: str
) -> None:
    lives(conn, NOW - heard)
    lives(conn, NOW - timedelta(days=50), "one that ended")
    found = online.service(conn, ["m"], None if asked_at is None else NOW - asked_at, NOW)
    assert found is not None
    assert found.words == said
    assert bool(found.next) is not found.answers
    assert found.answers is said.startswith("answers")
    assert online.service(conn, ["m"], None, NOW - heard + timedelta(days=30)) is None, (
        "it is meant to be away"
    )


def test_the_stack_tells_when_its_models_were_last_asked_and_nothing_without_models(
    story: Specs, conn: Connection
) -> None:
    now = datetime.now(UTC)
    lives(conn, now - MINUTE)
    asked(conn, "bike_demand", "2", now - 5 * HOUR)
    service = overview(conn, story, mlflow=False).stack.service
    assert service is not None
    assert (service.heard, service.answers, service.asked) == (now - MINUTE, True, now - 5 * HOUR)
    other = overview(conn, story, models=["bike_rush"], mlflow=False).stack.service
    assert other is not None
    assert other.words == "answers, nothing asked yet"
    assert overview(conn, story, models=[], mlflow=False).stack.service is None


def test_a_canary_is_told_version_by_version(story: Specs, conn: Connection) -> None:
    health_scene.takes_over(conn)
    until = BEGIN + 9 * WEEK
    health_scene.day_online(conn, NOW)
    found = online.details(conn, "bike_demand", NOW)
    assert found.rollout is not None
    assert (found.rollout.champion, found.rollout.former, found.rollout.share, found.rollout.until) == ("2", "1", 0.2, until)  # fmt: skip
    assert [(one.version, one.share) for one in found.versions] == [("2", 0.2), ("1", 0.8)]
    new, old = found.versions
    assert 0.19 < new.hour.answered / (new.hour.answered + old.hour.answered) < 0.21
    assert found.hour.requests == new.hour.requests + old.hour.requests + 900
    assert (found.hour.errors, found.hour.refused, found.hour.lost) == (700, 200, 12)
    assert found.steps[0].sentence.endswith("it answers for 20% of the keys online"), "the newest first"
    assert len(found.steps) == 2


def test_the_hours_of_a_day_are_whole_and_add_up(conn: Connection) -> None:
    health_scene.day_online(conn, NOW)
    hours = online.details(conn, "bike_demand", NOW).hours
    assert [hours[0].begin, hours[-1].begin] == [NOW.replace(day=3, hour=13, minute=0, second=0), NOW.replace(minute=0, second=0)]  # fmt: skip
    assert len(hours) == 24
    for one in hours:
        assert one.traffic.answered == sum(one.answered.values())
        assert set(one.answered) == {"1", "2"}
    slow = [one.begin for one in hours if (one.traffic.worst_ms or 0) > 20]
    assert slow == [NOW.replace(hour=5, minute=0, second=0)], "the hour of the slow minute"
    assert max(one.traffic.p99_ms or 0 for one in hours) < 6


def test_a_damaged_row_of_the_ledger_is_told_and_the_page_still_shown(story: Specs, conn: Connection) -> None:
    promotion = next(row.id for row in online.rows(conn, DEMAND, kinds=["promoted"]))
    decide(
        conn, DEMAND, DecisionKind.CANARY, "canary_grown", 4.1, version="2", evidence={"promotion": promotion}
    )
    found = online.details(conn, "bike_demand", NOW)
    assert found.rollout is None
    assert "does not say which share of the keys" in found.problem


def test_predictions_of_windows_are_counted_online_and_in_batches(
    story: Specs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    health_scene.predicted(conn)
    found = online.details(conn, "bike_demand", NOW).windows
    assert [(one.start - BEGIN) / WEEK for one in found] == [5, 4, 3, 2, 1, 0], "the newest judged first"
    assert [(one.online, one.batch, one.more) for one in found[:3]] == [(30, 70, False), (0, 40, False), (0, 0, False)]  # fmt: skip
    monkeypatch.setattr(online, "MOST_COUNTED", 99)
    newest = online.details(conn, "bike_demand", NOW).windows[0]
    assert (newest.online + newest.batch, newest.more) == (100, True)


def test_the_newest_comparison_with_batches_is_told(story: Specs, conn: Connection) -> None:
    assert online.details(conn, "bike_demand", NOW).compared is None
    _, newest = health_scene.compared(conn)
    found = online.details(conn, "bike_demand", NOW).compared
    assert found is not None
    assert (found.id, found.as_of) == (newest.id, BEGIN + 6 * WEEK)
    assert found.sentence.endswith("the requests have another temperature than the warehouse")
    assert online.details(conn, "bike_rush", NOW).compared is None


def test_a_model_that_was_never_asked_has_nothing_to_tell(story: Specs, conn: Connection) -> None:
    found = online.details(conn, "bike_rush", NOW)
    assert found.day == Traffic()
    assert found.steps == ()


def hour(number: int, traffic: Traffic, **answered: int) -> online.Hour:
    return online.Hour(
        BEGIN + number * HOUR, traffic, {version.removeprefix("v"): n for version, n in answered.items()}
    )


def test_the_picture_of_a_day_has_a_bar_for_each_hour_and_says_in_words_what_it_shows() -> None:
    calm = Traffic(1000, 1000, 0, 0, 0, 1.0, 4.0, 5.0)
    bad = Traffic(1500, 1000, 300, 200, 0, 1.0, 4.0, 900.0)
    hours = [hour(0, calm, v1=800, v2=200), hour(1, Traffic()), hour(2, bad, v1=1000)]
    drawn = ElementTree.fromstring(online_day(hours, "2"))
    texts = [" ".join(text.itertext()) for text in drawn.iter("desc")]
    assert texts == [
        "2,500 requests from 2026-01-05 00:00 UTC on, 300 of them failed; answered by v2, v1; the slowest minute had a p99 of 900 ms"
    ]
    bars = [group for group in drawn.iter("g")]
    assert [[rect.get("class") for rect in bar.iter("rect")] for bar in bars] == [
        ["reference", "beside"], ["beside", "refused", "bad"],
    ]  # fmt: skip
    first, second = (
        {rect.get("class"): float(rect.get("height") or 0) for rect in bar.iter("rect")} for bar in bars
    )
    assert round(first["beside"] / first["reference"], 1) == 4
    assert round(second["beside"] / second["bad"], 1) == round(1000 / 300, 1)
    assert "300 failed, 200 refused, p50 1 ms, p99 4 ms, p99 of the slowest minute 900 ms" in ElementTree.tostring(bars[1], encoding="unicode")  # fmt: skip
    edge = [rect for rect in drawn.findall("rect") if rect.get("class") == "bad"]
    assert len(edge) == 1, "what would flatten the rest stands at the edge"
    points = [float(point.get("cy") or 0) for point in drawn.findall("circle")]
    assert len(points) == 2, "nothing where nothing was answered"
    assert float(edge[0].get("y") or 0) < min(points)


def test_a_day_in_which_every_request_failed_is_drawn_too() -> None:
    drawn = online_day([hour(0, Traffic(10, 0, 10))], None)
    assert "answered by no version" in drawn
    assert online_day([hour(0, Traffic())], None) == ""
