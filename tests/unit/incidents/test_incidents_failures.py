"""A failed task: one ledger row for each failure, one e-mail for a row of equal failures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from evergreen.alerting.delivery import deliver
from evergreen.alerting.letters import task_failed
from evergreen.errors import ErrorReason
from evergreen.incidents import failures
from evergreen.ledger import Decision, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


def fail(
    day: int = 1,
    *,
    task: str = "fit",
    error: str = "MLflow does not answer (attempt 3 of 7)",
    attempt: int = 1,
    as_of: datetime | None = None,
) -> None:
    failures.record(
        "model/bike_demand", f"train__bike_demand/scheduled__2026-03-{day:02}", task, attempt, error,
        "http://127.0.0.1:8080/log", as_of or AS_OF + timedelta(days=day),
    )  # fmt: skip


def owed() -> int:
    with connect() as conn:
        return int(fetch(conn, "SELECT count(*) AS n FROM evergreen.mail")[0]["n"])


def recorded() -> int:
    with connect() as conn:
        return len(find(conn, "model/bike_demand", (DecisionKind.RUN_FAILED,)))


def test_the_same_failure_again_is_recorded_and_not_mailed_again(warehouse_url: str) -> None:
    fail(1)
    fail(2, error="MLflow does not answer (attempt 5 of 7)")
    fail(3)
    assert (recorded(), owed()) == (3, 1)


def test_the_same_try_reported_twice_is_one_failure(warehouse_url: str) -> None:
    fail(1)
    fail(1)
    fail(1, attempt=2)
    assert (recorded(), owed()) == (2, 1)


@pytest.mark.parametrize(
    ("task", "error"),
    [("evaluate", "MLflow does not answer (attempt 3 of 7)"), ("fit", "no row with a mature label")],
    ids=["another task", "another error"],
)
def test_another_failure_is_mailed(warehouse_url: str, task: str, error: str) -> None:
    fail(1)
    fail(2, task=task, error=error)
    assert (recorded(), owed()) == (2, 2)


def test_a_failure_after_something_had_worked_is_a_new_incident(
    warehouse_url: str, decide: Callable[..., Decision], conn: Connection
) -> None:
    fail(1)
    fail(2)
    decide(DecisionKind.REJECTED, "not_better_than_champion", version="2")
    conn.commit()
    fail(4)
    fail(5)
    assert (recorded(), owed()) == (4, 2)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (DecisionKind.RETRAIN_SUPPRESSED, "cooldown"),
        (DecisionKind.RETRAIN_REQUESTED, "data_drift"),
        (DecisionKind.MAIL_FAILED, "mail"),
    ],
    ids=["suppressed retraining", "requested retraining", "failed mail"],
)
def test_a_decision_that_shows_nothing_working_makes_no_new_incident(
    warehouse_url: str, decide: Callable[..., Decision], conn: Connection, kind: DecisionKind, reason: str
) -> None:
    fail(1)
    decide(kind, reason, version="1")
    conn.commit()
    fail(2)
    assert (recorded(), owed()) == (2, 1)


def test_an_outage_is_told_again_in_the_next_week_of_utc(warehouse_url: str) -> None:
    fail(1)  # a Monday
    fail(7)
    assert (recorded(), owed()) == (2, 1)
    fail(8)
    fail(9)
    assert (recorded(), owed()) == (4, 2)


def test_the_week_is_that_of_utc_and_of_its_year(warehouse_url: str) -> None:
    fail(1, as_of=datetime(2026, 3, 9, 1, tzinfo=timezone(timedelta(hours=5))))  # Sunday evening in UTC
    fail(2, as_of=datetime(2026, 3, 8, tzinfo=UTC))
    assert owed() == 1
    fail(3, as_of=datetime(2027, 3, 8, tzinfo=UTC))
    assert owed() == 2


def test_the_mail_names_dag_task_error_and_log_and_no_password(warehouse_url: str, specs: Specs) -> None:
    fail(1, error="cannot reach postgresql://me:hunter2@db/x")
    sent: list = []
    deliver(specs, sent.append)
    text = sent[0].get_body(("plain",)).get_content()
    assert (
        sent[0]["Subject"]
        == "[Evergreen] bike_demand: train failed in fit: cannot reach postgresql://***@db/x"
    )
    for said in ("cannot reach postgresql://***@db/x", "http://127.0.0.1:8080/log", "Try: 1"):
        assert said in text
    assert "until the next week" in " ".join(text.split())
    assert "hunter2" not in str(sent[0])
    with connect() as conn:
        assert "hunter2" not in str(find(conn, kinds=(DecisionKind.RUN_FAILED,))[0].evidence.to_json())


def test_a_failure_that_cannot_be_recorded_has_an_email_without_a_warehouse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL", raising=False)
    message = failures.bare_message(
        "model/bike_demand", "train__bike_demand/manual__1", "fit", "disk full\npassword=hunter2", "http://log",
        RuntimeError("the warehouse does not answer"),
    )  # fmt: skip
    text = message.get_content()
    assert message["Subject"] == "[Evergreen] train__bike_demand failed in fit"
    for said in ("disk full", "http://log", "the warehouse does not answer"):
        assert said in text
    assert "hunter2" not in text


GONE = "cannot load version 3: MLflow has no such thing"
MODEL = "model/bike_demand"


def meet(
    kind: str,
    day: float,
    error: str = GONE,
    reason: ErrorReason | None = ErrorReason.REGISTRY_MISMATCH,
) -> int:
    """The main task of a DAG fails; how many mails are owed by then."""
    failures.record(
        MODEL, f"{kind}__bike_demand/{day}", failures.MAIN[kind], 1, error, "", AS_OF + timedelta(days=1 + day), reason
    )  # fmt: skip
    return owed()


def ends(kind: str, day: float) -> bool:
    return failures.worked(
        MODEL, f"{kind}__bike_demand/{day}", failures.MAIN[kind], AS_OF + timedelta(days=1 + day)
    )


@pytest.mark.parametrize(
    "order", [("score", "monitor", "train"), ("train", "score", "monitor")], ids="-".join
)
@pytest.mark.parametrize("reason", sorted(failures.SHARED), ids=str)
def test_what_several_tasks_meet_is_told_once_and_ends_once(
    warehouse_url: str, order: tuple[str, ...], reason: ErrorReason, specs: Specs
) -> None:
    for day in range(3):
        for place, kind in enumerate(order):
            assert meet(kind, day + place / 24, f"{kind}: {GONE}", reason) == 1
    assert recorded() == 9
    sent: list = []
    deliver(specs, sent.append)
    assert [ends(kind, 4) for kind in order] == [True, False, False]
    deliver(specs, sent.append)
    assert [m["Subject"].partition(": ")[2] for m in sent] == [
        f"{order[0]} failed in {failures.MAIN[order[0]]}: {order[0]}: {GONE}",
        f"recovered, {failures.MAIN[order[0]]} runs again after 4d",
    ]
    assert task_failed.SAME in " ".join(sent[0].get_body(("plain",)).get_content().split())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("monitor", ErrorReason.NO_SPACE),
        ("monitor", None),
        ("monitor", ErrorReason.NO_ROWS),
        ("rollback", ErrorReason.REGISTRY_MISMATCH),
    ],
    ids=["another shared reason", "no reason", "a reason of its own", "a rollback is of another version"],
)
def test_another_cause_is_another_incident(warehouse_url: str, kind: str, reason: ErrorReason | None) -> None:
    meet("score", 0)
    assert meet(kind, 1, reason=reason) == 2


def test_a_reason_that_is_not_shared_is_told_for_each_task(warehouse_url: str) -> None:
    meet("score", 0, reason=ErrorReason.NO_ROWS)
    assert meet("train", 0, reason=ErrorReason.NO_ROWS) == 2


def test_another_model_has_an_incident_of_its_own(warehouse_url: str) -> None:
    meet("score", 0)
    failures.record(
        "model/bike_rush", "score__bike_rush/x", "score", 1, GONE, "", AS_OF, ErrorReason.REGISTRY_MISMATCH
    )
    assert owed() == 2


def test_what_still_fails_once_the_first_works_is_told(warehouse_url: str) -> None:
    meet("score", 0)
    meet("monitor", 0.1)
    assert ends("score", 0.5)
    assert meet("monitor", 0.6) == 3
    assert meet("score", 0.7) == 3, "so soon after it worked it is the same trouble"
    assert meet("score", 2) == 3, "it meets what the monitor has told"


def test_the_first_to_fail_otherwise_is_told_and_the_others_are_not(warehouse_url: str) -> None:
    meet("score", 0)
    assert meet("monitor", 0.1, "judging the windows: gone. the alias: gone") == 1
    assert meet("monitor", 0.2, "the alias: gone") == 1
    assert meet("score", 0.3, "its encoding is damaged") == 2
    assert meet("score", 0.4) == 2


@pytest.mark.parametrize("first", ["score", "monitor"])
def test_an_outage_that_goes_on_is_told_once_a_week_by_whoever_fails_first(
    warehouse_url: str, first: str
) -> None:
    second = {"score": "monitor", "monitor": "score"}[first]
    meet("score", 0)
    for week in (1, 2):
        assert meet(first, 7 * week) == 1 + week
        assert meet(second, 7 * week + 1) == 1 + week
    with connect() as conn:
        assert (
            len({r["t"] for r in fetch(conn, "SELECT coalesce(thread, incident) AS t FROM evergreen.mail")})
            == 1
        )


def test_a_decision_meanwhile_makes_no_second_incident(
    warehouse_url: str, decide: Callable[..., Decision], conn: Connection
) -> None:
    meet("score", 0)
    decide(DecisionKind.AWAITING_APPROVAL, "champion_cannot_be_evaluated", version="2")
    conn.commit()
    assert meet("score", 0.1) == 1
    assert meet("monitor", 0.2) == 1
