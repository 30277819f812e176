"""What `make silence`, `make status` and `make mail` say and do about alerts, on a real warehouse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evergreen.alerting.delivery import deliver
from evergreen.incidents import threads
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.threads import Ending, News
from evergreen.ledger import Decision, append, find
from evergreen.ledger.reasons import DecisionKind, EndReason
from evergreen.spec import Specs, load_specs
from evergreen.stack import alerts
from evergreen.stack.layout import StackError
from evergreen.warehouse.connection import connect

START = datetime(2026, 1, 5, tzinfo=UTC)
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def stack(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a stack that is up."""
    variables = {"EVERGREEN_WAREHOUSE_URL": warehouse_url, "EVERGREEN_SPECS": str(REPOSITORY / "include")}
    monkeypatch.setattr(alerts, "environment", lambda home: variables)


def lines() -> list[str]:
    """What is said of the warehouse."""
    with connect() as conn:
        return alerts.lines(conn)


def refuse(message: object) -> None:
    raise ConnectionRefusedError("smtp://me:hunter2@mail refused")


def test_a_silence_is_written_shown_and_ended() -> None:
    said = alerts.silence(model="bike_demand", dataset="bike_hourly", until="3d", reason="sensor is moved")
    assert said.count("silenced until") == 2
    with connect() as conn:
        raise_incident(conn, "a", "model/bike_demand", "drift", None, {})
        assert {d.subject for d in find(conn, kinds=(DecisionKind.SILENCED,))} == {
            "model/bike_demand",
            "dataset/bike_hourly",
        }
    shown = lines()
    assert len(shown) == 2
    assert "bike_demand" in shown[0] + shown[1]
    assert any("(sensor is moved); 1 alert(s) held" in line for line in shown)
    assert "ended" in alerts.silence(model="bike_demand", until="now")
    assert [line for line in lines() if "bike_demand until" in line] == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "bike_demond", "until": "3d", "reason": "x"}, "there are: bike_demand, bike_rush"),
        ({"until": "3d", "reason": "x"}, "Say what"),
        ({"model": "bike_demand", "reason": "x"}, "until when"),
        ({"model": "bike_demand", "until": "3d"}, "needs a reason"),
        ({"model": "bike_demand", "until": "soon", "reason": "x"}, "no end of a silence"),
    ],
    ids=["unknown model", "nothing", "no end", "no reason", "no time"],
)
def test_what_cannot_be_silenced_is_refused_with_the_next_step(given: dict[str, str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        alerts.silence(**given)
    assert lines() == []


def test_mails_that_wait_are_shown_with_their_last_error() -> None:
    with connect() as conn:
        for number in range(25):
            raise_incident(conn, f"n{number}", "model/bike_demand", "run_failed", None, {})
    assert "not tried yet" in "\n".join(lines())
    deliver(Specs(), refuse)
    shown = lines()
    assert shown[0].startswith("25 alert(s) wait to be sent, the oldest since ")
    assert "bike_demand, a task fails: 1 tries, last error: ConnectionRefusedError" in shown[1]
    assert "hunter2" not in "\n".join(shown)
    assert shown[-1] == "  and 5 more in evergreen.mail"


def test_specs_that_cannot_be_used_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    for number in range(30):
        (tmp_path / "models" / f"m{number}.yaml").symlink_to("nowhere")
    found = alerts.specs(load_specs(tmp_path))
    assert (
        found[0]
        == "30 mistake(s) in the specs and the environment; what these files describe is switched off:"
    )
    assert found[1] == "  models/m0.yaml: is a link that leads nowhere; mend or remove it"
    assert found[-1] == "  and 10 more, see `evergreen check`"
    good = load_specs(REPOSITORY / "include")
    assert alerts.specs(good) == []
    monkeypatch.setenv("EVERGREEN_DIGEST", "mondays")
    assert "EVERGREEN_DIGEST: 'mondays' is not a cron expression" in alerts.specs(good)[1]


@pytest.mark.parametrize("over", [False, True], ids=["goes on", "over"])
def test_a_drift_that_needs_a_person_is_shown_with_when_it_is_asked_for_again(over: bool) -> None:
    told = {"again": {"from": "2026-02-05T00:00:00+00:00", "rows": 12000}}
    with connect() as conn:
        append(
            conn,
            Decision(
                START, "model/m", DecisionKind.RETRAIN_SUPPRESSED, "already_answered", "m/1", "p:1", told, "1"
            ),
        )
        news = News("drift:x", "model/m", "drift", None, {}, START, frozenset({"data_drift", "gave_up"}))
        threads.tell(conn, news, None, timedelta(days=7))
        if over:
            thread = threads.newest(conn, "model/m", "drift")
            assert thread is not None
            threads.end(conn, thread, Ending(EndReason.WINDOWS_OK), START, "m/2")
    shown = [line for line in lines() if line.startswith("Needs a person")]
    assert shown == ([] if over else [
        "Needs a person: m, a drift since 2026-01-05 00:00 UTC that retraining did not help; if it lasts, it is asked for "
        "again from 2026-02-05 on, or with 12,000 new rows."
    ])  # fmt: skip
