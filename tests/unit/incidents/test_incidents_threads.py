"""An incident from its first mail to its last: which news is a mail, how its mails are joined, when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from evergreen.alerting.delivery import deliver
from evergreen.incidents import failures, quarantines, threads
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.threads import Ending, News
from evergreen.ledger import Decision, find
from evergreen.ledger.evidence import RecoveredEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

AS_OF = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = "model/bike_demand"
DATASET = "dataset/bike_hourly"
WEEK = timedelta(days=7)


def news(name: str, day: float = 0, **more: object) -> News:
    given = {"classes": frozenset({"data_drift"}), "details": frozenset({"data_drift:price"}), **more}
    return News(name, MODEL, "drift", None, {}, AS_OF + day * DAY, **given)  # type: ignore[arg-type]


def tell(found: News, relapse: timedelta = WEEK) -> bool:
    with connect() as conn:
        return threads.tell(conn, found, threads.newest(conn, MODEL, "drift", found.as_of), relapse)


def end(day: float, mail: bool = True) -> bool:
    with connect() as conn:
        thread = threads.newest(conn, MODEL, "drift", AS_OF + day * DAY)
        assert thread is not None
        return threads.end(
            conn, thread, Ending(EndReason.WINDOWS_OK), AS_OF + day * DAY, "monitor/1", mail=mail
        )


def owed() -> list[str]:
    with connect() as conn:
        return [r["incident"] for r in fetch(conn, "SELECT incident FROM evergreen.mail ORDER BY id")]


def sent_by(specs: Specs, subject: str | None = None) -> list[EmailMessage]:
    sent: list[EmailMessage] = []
    deliver(specs, sent.append, subject=subject)
    return sent


def test_more_of_the_same_is_no_mail_and_another_class_is(warehouse_url: str) -> None:
    assert tell(news("a"))
    assert not tell(news("b", 1)), "the same once more"
    assert tell(news("c", 2, classes=frozenset({"data_drift", "performance"})))
    assert not tell(news("d", 3, classes=frozenset({"performance"})))
    assert owed() == ["a", "c"]


def test_an_incident_has_few_mails_but_a_person_is_called(warehouse_url: str) -> None:
    assert tell(news("a"))
    for number in range(20):
        tell(
            news(
                f"n{number}", number, classes=frozenset({f"class{number}"}), details=frozenset({str(number)})
            )
        )
    assert len(owed()) == 1 + threads.MOST_CHANGES
    for day, cause in enumerate(("price", "wind"), 30):
        given_up = frozenset({"gave_up", f"gave_up:data_drift:{cause}"})
        assert tell(news(f"gave up {cause}", day, classes=given_up, urgent=True))
        assert not tell(news(f"gave up {cause} again", day, classes=given_up, urgent=True))
    assert tell(news("error", 33, classes=frozenset({"performance", "cooldown"})))
    assert not tell(news("error again", 34, classes=frozenset({"performance", "request"})))
    assert end(35)
    assert len(owed()) == 5 + threads.MOST_CHANGES


def test_what_comes_back_soon_is_the_same_and_later_another_one(warehouse_url: str) -> None:
    tell(news("a"))
    end(3)
    assert not tell(news("b", 5))
    assert not tell(news("b", 9.9))
    assert tell(news("b", 10)), "still there a week after it was told to be over"
    with connect() as conn:
        found = threads.every(conn, MODEL)
    assert [(t.incident, t.end is None) for t in found] == [("b", True), ("a", False)]


def causes(*details: str, answer: str = "request") -> dict[str, frozenset[str]]:
    """As a drift has them: what it is and how it was answered, and each cause."""
    return {
        "classes": frozenset({*(d.partition(":")[0] for d in details), answer}),
        "details": frozenset(details),
    }


HUMIDITY, PRICE, ERROR = "data_drift:humidity", "data_drift:price", "performance:rmse"


@pytest.mark.parametrize(
    ("back", "mailed"),
    [
        (causes(HUMIDITY, PRICE), False),
        (causes(HUMIDITY), False),
        (causes(HUMIDITY, answer="cooldown"), False),
        (causes(HUMIDITY, "missing:humidity"), True),
        (causes("data_drift:wind"), True),
        (causes(HUMIDITY, ERROR), True),
        (causes(ERROR, answer="cooldown"), True),
    ],
    ids=["same", "part", "held back now", "another effect", "another column", "and the error", "the error"],
)
def test_what_was_not_told_of_an_incident_that_ended_lately_does_not_come_back(
    warehouse_url: str, back: dict[str, frozenset[str]], mailed: bool
) -> None:
    tell(news("a", **causes(HUMIDITY, PRICE)))
    end(3)
    assert tell(news("b", 5, **back)) is mailed
    with connect() as conn:
        assert [t.incident for t in threads.open_ones(conn, MODEL)] == (["b"] if mailed else [])


def test_two_that_come_back_by_turns_are_told_once_each(warehouse_url: str) -> None:
    tell(news("a", **causes(HUMIDITY)))
    end(1)
    assert tell(news("b", 2, **causes(PRICE)))
    assert not tell(news("c", 2.5, **causes(PRICE, HUMIDITY))), "while one is open, the other one too"
    end(3)
    for day in (4, 5, 6):
        assert not tell(news(f"d{day}", day, **causes(HUMIDITY if day % 2 else PRICE)))
    assert tell(news("e", 8, **causes(HUMIDITY))), "a week after the end of its own"


def test_a_window_from_before_the_end_is_no_other_incident(warehouse_url: str) -> None:
    tell(news("a", **causes(HUMIDITY)))
    end(3)
    assert not tell(news("b", 5, **causes(PRICE), seen=AS_OF + 3 * DAY))
    assert tell(news("c", 6, **causes(ERROR), seen=AS_OF + 5 * DAY))
    assert not tell(news("d", 7, **causes(PRICE), seen=AS_OF + 3 * DAY)), "nor part of a later one"
    assert tell(news("e", 8, **causes("gave_up"), urgent=True, seen=AS_OF + 3 * DAY)), "a person must look"


def test_fewer_columns_of_those_that_were_told_together_come_back_quietly(warehouse_url: str) -> None:
    def unreadable(*columns: str) -> dict[str, frozenset[str]]:
        return {
            "classes": frozenset({"unreadable"}),
            "details": frozenset({f"unreadable:{'+'.join(columns)}"}),
        }

    tell(news("a", **unreadable("humidity", "price")))
    assert not tell(news("b", 1, **unreadable("price")))
    end(3)
    assert not tell(news("c", 4, **unreadable("humidity")))
    assert tell(news("d", 5, **unreadable("humidity", "wind")))


def test_the_same_name_after_the_end_is_another_incident(warehouse_url: str) -> None:
    tell(news("a"))
    end(3)
    assert tell(news("a", 30))
    assert len(owed()) == 3
    assert owed()[-1].startswith("a:again:")


def test_an_end_is_written_and_told_once(warehouse_url: str) -> None:
    tell(news("a"))
    assert end(3)
    with connect() as conn:
        thread = threads.every(conn, MODEL)[0]
        assert not threads.end(conn, thread, Ending(EndReason.WINDOWS_OK), AS_OF + 4 * DAY, "monitor/2")
        assert len(find(conn, MODEL, (DecisionKind.RECOVERED,))) == 1
    assert owed() == ["a", "recovered:a"]


def test_a_run_as_of_an_earlier_time_sees_the_incident_open(warehouse_url: str) -> None:
    tell(news("a"))
    end(3)
    with connect() as conn:
        assert [t.incident for t in threads.open_ones(conn, MODEL, as_of=AS_OF + DAY)] == ["a"]
        assert threads.open_ones(conn, MODEL) == []
        assert threads.newest(conn, MODEL, "drift", AS_OF - DAY) is None


def test_each_of_its_like_that_ended_lately_doubles_what_an_end_needs(warehouse_url: str) -> None:
    for number in range(6):
        tell(news(f"n{number}", 10 * number))
        with connect() as conn:
            thread = threads.newest(conn, MODEL, "drift")
            assert thread is not None
            assert threads.findings_to_end(conn, thread, 2, 100 * DAY) == 2 * 2 ** min(
                number, threads.MOST_PATIENCE
            )
            assert threads.findings_to_end(conn, thread, 2, timedelta(0)) == 2
        end(10 * number + 1)


def test_the_mails_of_an_incident_are_one_thread(warehouse_url: str, specs: Specs) -> None:
    tell(news("a"))
    (first,) = sent_by(specs)
    tell(news("b", 1, classes=frozenset({"performance"})))
    (second,) = sent_by(specs)
    end(2)
    (last,) = sent_by(specs)
    assert first["In-Reply-To"] is None
    assert second["In-Reply-To"] == last["In-Reply-To"] == first["Message-ID"]
    assert last["References"].split() == [first["Message-ID"], second["Message-ID"]]
    prefixes = {m["Subject"].split(":")[0] for m in (first, second, last)}
    assert {p.split(" v")[0] for p in prefixes} == {"[Evergreen] bike_demand"}
    assert "An update" in second.get_body(("plain",)).get_content()
    assert "recovered" in last["Subject"]


def test_an_end_never_goes_out_before_its_first_mail(warehouse_url: str, specs: Specs) -> None:
    with connect() as conn:
        raise_incident(conn, "failed:a.b:1", MODEL, "run_failed", None, {}, thread="failed:a.b:1")
        thread = threads.newest(conn, MODEL, "run_failed")
        assert thread is not None
        threads.end(conn, thread, Ending(EndReason.WORKS_AGAIN, RecoveredEvidence(task="b")), AS_OF, "a/1")

    def refuse(message: EmailMessage) -> None:
        raise ConnectionRefusedError

    assert (deliver(specs, refuse).failed, deliver(specs, refuse).pending) == (1, 2)
    (letter,) = sent_by(specs)
    assert letter.get_all("X-Evergreen-Incident") == ["failed:a.b:1", "recovered:failed:a.b:1"]


def test_what_waits_for_one_model_is_one_letter_with_sections(warehouse_url: str, specs: Specs) -> None:
    tell(news("a"))
    with connect() as conn:
        raise_incident(conn, "data", MODEL, "data_problem", None, {"status": "stale"})
        raise_incident(conn, "promoted", MODEL, "champion_changed", None, {})
        raise_incident(conn, "elsewhere", "model/bike_rush", "data_problem", None, {"status": "stale"})
    letters = sent_by(specs)
    assert [m.get_all("X-Evergreen-Incident") for m in letters] == [
        ["a", "data"],
        ["promoted"],
        ["elsewhere"],
    ]
    text = letters[0].get_body(("plain",)).get_content()
    assert "bike_demand: 2 alerts" in text
    assert "no drift is claimed" in " ".join(text.split())
    assert letters[0]["Subject"] == "[Evergreen] bike_demand: drift; data is stale"
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT d.message_id FROM evergreen.mail AS m JOIN evergreen.delivery AS d ON d.mail = m.id WHERE incident IN ('a', 'data')",
        )
    assert {r["message_id"] for r in rows} == {letters[0]["Message-ID"]}


def test_a_letter_of_several_has_one_identity_in_every_attempt(warehouse_url: str, specs: Specs) -> None:
    tell(news("a"))
    with connect() as conn:
        raise_incident(conn, "data", MODEL, "data_problem", None, {"status": "stale"})
    tried: list[str] = []

    def refuse(message: EmailMessage) -> None:
        tried.append(message["Message-ID"])
        raise ConnectionRefusedError

    for _ in range(3):
        deliver(specs, refuse)
    assert len(set(tried)) == 1
    with connect() as conn:
        assert {r["attempts"] for r in fetch(conn, "SELECT attempts FROM evergreen.delivery")} == {3}
        assert len(find(conn, kinds=(DecisionKind.MAIL_FAILED,))) == 2
    assert sent_by(specs)[0]["Message-ID"] == tried[0]


def fail(day: int, error: str = "no disk", task: str = "fit") -> None:
    failures.record(MODEL, f"train__bike_demand/r{day}", task, 1, error, "", AS_OF + day * DAY)


def works(day: int, task: str = "fit") -> bool:
    return failures.worked(MODEL, f"train__bike_demand/r{day}", task, AS_OF + day * DAY)


def test_a_task_that_succeeds_again_ends_its_failures(warehouse_url: str, specs: Specs) -> None:
    fail(0)
    fail(1, "another error")
    assert not works(1, "settle"), "another task says nothing"
    assert works(2)
    assert not works(3)
    with connect() as conn:
        (decision,) = find(conn, MODEL, (DecisionKind.RECOVERED,))
    assert (decision.reason, decision.evidence.to_json()["of"]) == ("works_again", "run_failed")
    letters = sent_by(specs)
    assert "recovered, fit runs again after 2d" in " ".join(m["Subject"] for m in letters)


def test_a_task_without_failures_owes_nothing(warehouse_url: str) -> None:
    assert not works(1)
    assert owed() == []


def test_a_failure_soon_after_it_ran_again_is_not_mailed_and_a_later_one_is(warehouse_url: str) -> None:
    fail(0)
    works(1)
    failures.record(MODEL, "train__bike_demand/x", "fit", 1, "no disk", "", AS_OF + 1.5 * DAY)
    assert len(owed()) == 2
    fail(3)
    assert len(owed()) == 3, "the same error in the same week, after it had worked, is told"
    with connect() as conn:
        assert len(find(conn, MODEL, (DecisionKind.RUN_FAILED,))) == 3


def test_a_run_that_hit_its_limit_is_ended_by_the_main_task(warehouse_url: str) -> None:
    fail(0, task="(run)")
    assert not works(1, "snapshot")
    assert works(1, "settle")


@pytest.fixture
def batch(decide: Callable[..., Decision], conn: Connection) -> Callable[..., bool]:
    """A batch of a day is held back or published whole; whether a mail was owed."""

    def one(day: int, good: bool, run: str = "") -> bool:
        kind = DecisionKind.BATCH_PUBLISHED if good else DecisionKind.BATCH_QUARANTINED
        evidence = {"file": f"{day}.csv", "rows_held": 0 if good else 10}
        decision = decide(
            kind,
            "passed",
            subject=DATASET,
            as_of=AS_OF + day * DAY,
            evidence=evidence,
            run_id=f"ingest/{run or day}",
        )
        told = quarantines.published(conn, decision) if good else quarantines.held(conn, decision, {})
        conn.commit()
        return told

    return one


def test_each_batch_held_back_is_told_and_the_first_whole_one_ends_it(
    batch: Callable[..., bool], specs: Specs, warehouse_url: str
) -> None:
    assert [batch(0, False), batch(1, False)] == [True, True]
    assert batch(2, True)
    assert not batch(3, True)
    (letter,) = sent_by(specs)
    assert len(letter.get_all("X-Evergreen-Incident")) == 3
    assert "2.csv was published whole" in " ".join(letter.get_body(("plain",)).get_content().split())


def test_a_whole_batch_of_the_same_run_ends_nothing(batch: Callable[..., bool], warehouse_url: str) -> None:
    batch(0, False, "r")
    assert not batch(0, True, "r")
    assert batch(1, True)


def test_batches_that_are_good_and_bad_by_turns_are_not_told_to_be_over_each_time(
    batch: Callable[..., bool], warehouse_url: str
) -> None:
    over = 0
    for day in range(30):
        told = batch(day, day % 2 == 1)
        over += told and day % 2 == 1
    assert over == 1
