"""Each kind of e-mail, parsed back: parts, headers, what it says, and what hostile data cannot do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import psycopg2
import pytest

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.compose import LETTERS, compose
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.recipients import EMAIL, ways
from evergreen.ledger import Decision
from evergreen.ledger.reasons import CONCLUSIVE, DecisionKind
from evergreen.monitoring.trigger import given_up
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import migrate

CHECKS = [
    {"check": "challenger_run", "value": "a/b", "limit": "a/b", "passed": True},
    {"check": "holdout_rows", "value": 168, "limit": 50, "passed": True},
    {"check": "beats_baseline", "value": 41.25, "limit": 88.5, "passed": True},
    {"check": "beats_champion", "value": 41.25, "limit": 94.08, "passed": True},
]
EVIDENCE = {
    "message": "better than champion: rmse of the challenger 41.25, champion (version 1) 96, baseline 88.5, on 168 rows",
    "trigger": "data_drift",
    "metric": "rmse",
    "metrics": {
        "challenger": {"rmse": 41.25, "mae": 30.0},
        "champion": {"rmse": 96.0, "mae": 70.0},
        "baseline": {"rmse": 88.5, "mae": 61.0},
    },
    "checks": CHECKS,
    "rows": {"judged": 168, "train": 9000},
    "previous_version": "1",
    "mlflow_run": "abc",
    "fingerprint": "f00",
}
FAILURE = {
    "expectation": "expect_column_values_to_be_between",
    "column": "humidity",
    "observed": "168 rows outside",
    "limit": "0 to 100",
    "failed_rows": 168,
    "sample": ["655.3", "-4"],
    "remedy": "deliver humidity in percent",
}
HOSTILE = "<script>alert(1)</script>\"'&$\\frac{%s}{{ 7*7 }}\r\nBcc: all@example.org"


@pytest.fixture(scope="module")
def shared_url(postgres_url: str) -> Iterator[str]:
    """One warehouse for all tests of this file: none of them commits."""
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE alerting_compose")
    url = postgres_url.removesuffix("/postgres") + "/alerting_compose"
    with connect(url) as conn:
        migrate(conn)
    yield url
    with admin.cursor() as cursor:
        cursor.execute("DROP DATABASE alerting_compose WITH (FORCE)")
    admin.close()


@pytest.fixture
def conn(shared_url: str) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    connection = psycopg2.connect(shared_url, options="-c TimeZone=UTC")
    yield connection
    connection.rollback()
    connection.close()


class Page(HTMLParser):
    """Collects tags, addresses and text of an HTML part."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("href", "src", "background")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(message: EmailMessage) -> EmailMessage:
    """The message as a mail program reads it."""
    back = message_from_bytes(
        message.as_bytes(policy=message.policy.clone(linesep="\r\n")), policy=policy.default
    )
    assert isinstance(back, EmailMessage)
    assert not back.defects
    return back


def parts(message: EmailMessage) -> tuple[str, Page]:
    """Text and page of a message."""
    text, page = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert page is not None
    return text.get_content(), Page(page.get_content())


@pytest.fixture
def mail(conn: Connection, specs: Specs, decide: Callable[..., Decision]) -> Callable[..., EmailMessage]:
    """Raise an incident (with a ledger row unless `kind` is None) and return its e-mail, parsed back."""

    def make(
        mail_kind: str,
        kind: DecisionKind | None = None,
        *,
        subject: str = "model/bike_demand",
        context: dict[str, Any] | None = None,
        incident: str = "the incident",
        **decision: Any,
    ) -> EmailMessage:
        made = decide(kind, subject=subject, **decision) if kind else None
        known = AlertKind.of(mail_kind) or AlertKind.DRIFT
        assert raise_incident(conn, incident, subject, known, made.id if made else None, context or {})
        row = fetch(conn, "SELECT *, clock_timestamp() AS now FROM evergreen.mail ORDER BY id DESC LIMIT 1")[
            0
        ]
        return parsed(compose(conn, specs, {**row, "kind": mail_kind}))

    return make


def test_drift_says_what_by_how_much_since_when_and_what_follows(
    mail: Callable[..., EmailMessage], life: list[int], judge: Callable[..., int]
) -> None:
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", evidence={"judgements": life[11:13], "since": "2026-03-16T00:00:00+00:00"}, version="1",
        run_id="monitor__bike_demand/manual__2026-04-06T00:00:00+00:00",
    )  # fmt: skip
    text, page = parts(message)
    assert message["Subject"] == (
        "[Evergreen] bike_demand v1: drift, temperature 8.0 × its limit and 2 more, RMSE 82.5 above its limit 55"
    )
    assert message["To"] == "ml-team@localhost"
    for said in (
        "version 1", "2026-03-16 00:00 UTC", "2026-03-30 00:00 UTC to 2026-04-06 00:00 UTC",
        "temperature", "0.12", "could not be computed", "RMSE", "2 of the last 3 windows",
        "train__bike_demand", "is woken for it now",
        "http://127.0.0.1:8080/dags/monitor__bike_demand/runs/manual__2026-04-06T00%3A00%3A00%2B00%3A00",
        "http://127.0.0.1:8080/evergreen/model/bike_demand/window/20260330T000000Z/report?version=1&file=drift.html", "http://127.0.0.1:5000/#/models/bike_demand/versions/1",
    ):  # fmt: skip
        assert said in " ".join(text.split()), said
        assert said in " ".join((page.text + " ".join(page.addresses)).split()), said
    assert "weather" not in text


def test_drift_measured_on_a_sample_says_so(
    conn: Connection, mail: Callable[..., EmailMessage], life: list[int]
) -> None:
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.window_judgement SET row_count = 1000000, sampled_rows = 20000 WHERE id = %s",
            (life[12],),
        )
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", evidence={"judgements": life[12:13]}
    )
    assert "1,000,000; drift was measured on 20,000 of them" in " ".join(parts(message)[0].split())


def test_the_picture_is_inline_and_nothing_is_loaded_from_outside(
    mail: Callable[..., EmailMessage], life: list[int]
) -> None:
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", evidence={"judgements": life[12:13]}
    )
    assert message.get_content_type() == "multipart/alternative"
    kinds = [p.get_content_type() for p in message.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    image = next(p for p in message.walk() if p.get_content_type() == "image/png")
    assert image.get_content_disposition() == "inline"
    assert image.get_content().startswith(b"\x89PNG")
    _, page = parts(message)
    sources = [a for a in page.addresses if not a.startswith("http")]
    assert sources == [f"cid:{image['Content-ID'].strip('<>')}"]
    assert "link" not in page.tags
    assert page.tags.count("img") == 1


def test_a_held_back_retraining_says_why(mail: Callable[..., EmailMessage], life: list[int]) -> None:
    evidence = {
        "judgements": life[11:13], "message": "the last request, 3, was 2d before", "request": 3,
        "reasons": ["performance", "data_drift"], "since": "2026-03-16T00:00:00+00:00", "incident": "drift:x",
        "causes": ["data_drift:price"], "drifted": ["data_drift:price"], "signature": "performance:price",
        "rule": "2 windows in violation, 2 of the last 3 and the newest are needed", "windows": [{"rows": 168}],
    }  # fmt: skip
    message = mail(
        "drift", DecisionKind.RETRAIN_SUPPRESSED, reason="cooldown", version="1", evidence=evidence
    )
    text, _ = parts(message)
    assert message["Subject"].startswith("[Evergreen] bike_demand v1: drift, temperature 8.0 × its limit")
    said = "No retraining is started: the cool-down is in force: the last request, 3, was 2d before."
    assert said in " ".join(text.split())
    assert "2 windows in violation" in text
    assert "Also recorded" not in text
    assert "is woken" not in text


def test_a_drift_that_retraining_did_not_help_asks_for_a_person(
    mail: Callable[..., EmailMessage], life: list[int]
) -> None:
    message = mail(
        "drift", DecisionKind.RETRAIN_SUPPRESSED, reason="already_answered", version="1",
        evidence={"judgements": life[11:13], "message": "two trainings answered it"}, context={"gave_up": True},
    )  # fmt: skip
    text, page = parts(message)
    text = " ".join(text.split())
    lead, _, steps = text.partition("What happens next")
    assert "Retraining did not help twice: a person must look." in lead
    assert "needs a person" in message["Subject"]
    for said in ("No further retraining is asked", "two trainings answered it", "train__bike_demand by hand"):
        assert said in steps, said
    assert "a person must look" in " ".join(page.text.split())
    assert "gave_up" not in text


@pytest.mark.parametrize(
    ("endings", "lead", "steps"),
    [
        pytest.param(
            [("rejected", "not_better_than_champion")] * 2, "The data of now does not mend this.", "is the feed right",
            id="no better",
        ),
        pytest.param(
            [("promoted", "approved"), ("rejected", "worse_than_baseline")], "The data of now does not mend this.",
            "is the feed right", id="promoted, then no better",
        ),
        pytest.param(
            [("rejected", "too_large")] * 2, "The last challenger was rejected: its file is larger than the spec allows.",
            "gate.max_size_mb", id="too large",
        ),
        pytest.param(
            [("rejected", "not_better_than_champion"), ("rejected", "refused")],
            "The last challenger was rejected: a person refused it.", "must be different for the next one", id="refused",
        ),
        pytest.param(
            [("rejected", "too_slow"), ("promoted", "better_than_champion")],
            "The last challenger became champion, and that did not end it.", "is the feed right", id="promoted last",
        ),
    ],
)  # fmt: skip
def test_the_mail_that_asks_for_a_person_says_how_the_last_training_ended(
    mail: Callable[..., EmailMessage],
    life: list[int],
    endings: list[tuple[str, str]],
    lead: str,
    steps: str,
) -> None:
    found = [{"request": 1, "kind": kind, "reason": reason, "version": "2"} for kind, reason in endings]
    later = {"from": "2026-05-01T00:00:00+00:00", "rows": 12000}
    evidence = {"judgements": life[11:13], "message": "two trainings", "endings": found, "again": later}
    message = mail(
        "drift", DecisionKind.RETRAIN_SUPPRESSED, reason="already_answered", version="1", evidence=evidence,
        context={"gave_up": True},
    )  # fmt: skip
    text, _ = parts(message)
    text = " ".join(text.split())
    assert f"Retraining did not help twice: a person must look. {lead}" in text
    assert ("The data of now" in text) is ("The data of now" in lead)
    assert steps in text.partition("A person must look:")[2]
    assert (
        "If it lasts, it is asked for again from 2026-05-01 on, or with 12,000 new rows; you get a mail"
        in text
    )
    assert "endings" not in text


def test_each_answer_has_something_that_a_person_can_look_at() -> None:
    assert set(given_up.REMEDIES) == {reason.value for reason in CONCLUSIVE}


def test_a_drift_that_is_not_given_up_asks_for_nobody(
    mail: Callable[..., EmailMessage], life: list[int]
) -> None:
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", version="1", context={"gave_up": False}
    )
    text, _ = parts(message)
    assert "person" not in text
    assert "is woken for it" in " ".join(text.split())
    assert "gave_up" not in text


def test_drift_without_judgements_in_the_evidence_finds_the_newest_as_of_the_decision(
    mail: Callable[..., EmailMessage], judge: Callable[..., int], life: list[int]
) -> None:
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", version="1",
        as_of=datetime(2026, 4, 6, 1, tzinfo=UTC),
    )  # fmt: skip
    text, _ = parts(message)
    assert "2026-03-30 00:00 UTC to 2026-04-06 00:00 UTC" in text


@pytest.mark.parametrize(
    ("violation", "said"),
    [
        ({"kind": "stale", "column": "_time", "statistic": "hours_since_newest_row", "value": 60.0, "limit": 36.0,
          "detail": "the newest row is of 2026-03-01 12:00 UTC"}, ("data is stale", "ingest__bike_hourly", "60", "36")),
        ({"kind": "volume", "column": "_key", "statistic": "rows", "value": 3.0, "limit": 100.0,
          "detail": "too few rows"}, ("unusual number of rows", "too few rows", "100")),
        ({"kind": "unscored", "column": "_prediction", "statistic": "rows_with_prediction", "value": 0.0,
          "limit": 84.0, "detail": "168 of 168 rows have no prediction"}, ("not scored", "score__bike_demand", "84")),
    ],
    ids=["stale", "volume", "unscored"],
)  # fmt: skip
def test_data_problem_is_told_without_claiming_drift(
    mail: Callable[..., EmailMessage], violation: dict, said: tuple[str, ...]
) -> None:
    message = mail(
        "data_problem",
        context={
            "status": violation["kind"], "version": "3", "violations": [violation], "rows": 3,
            "window_start": "2026-03-02T00:00:00+00:00", "window_end": "2026-03-09T00:00:00+00:00",
        },
    )  # fmt: skip
    text, page = parts(message)
    for words in (*said, "2026-03-02 00:00 UTC to 2026-03-09 00:00 UTC", "no drift is claimed", "version 3"):
        assert words in text.replace("\n", " ") or words in text, words
    assert "img" not in page.tags


def test_a_quarantined_batch_is_told_with_expectations_samples_and_the_way_out(
    mail: Callable[..., EmailMessage],
) -> None:
    message = mail(
        "batch_quarantined", DecisionKind.BATCH_QUARANTINED, subject="dataset/bike_hourly", reason="bad_batch",
        evidence={"file": "bike_2026.csv", "checksum": "ab12", "rows_read": 168, "rows_held": 168, "failures": [FAILURE]},
        run_id="ingest__bike_hourly/scheduled__1",
    )  # fmt: skip
    text, page = parts(message)
    assert message["Subject"] == (
        "[Evergreen] bike_hourly: file quarantined, 168 rows, humidity 655.3, expected 0 to 100 (bike_2026.csv)"
    )
    for said in ("humidity", "values to be between: 0 to 100", "655.3, -4", "168", "deliver humidity in percent",
                 "quarantine.bike_hourly", "champions keep scoring", "land it again"):  # fmt: skip
        assert said in " ".join(text.split()), said
        assert said in " ".join(page.text.split()), said


def test_a_new_champion_is_told_with_the_numbers_of_all_three(
    mail: Callable[..., EmailMessage], decide: Callable[..., Decision]
) -> None:
    decide(DecisionKind.PROMOTED, "first_champion", version="1")
    request = decide(DecisionKind.RETRAIN_REQUESTED, "data_drift")
    message = mail(
        "champion_changed", DecisionKind.PROMOTED, reason="better_than_champion", version="3", evidence=EVIDENCE,
        answers=(request.id,),
    )  # fmt: skip
    text, _ = parts(message)
    text = " ".join(text.split())
    assert (
        message["Subject"]
        == "[Evergreen] bike_demand: promoted version 3, RMSE 41.25, 57 % better than version 1"
    )
    for said in ("41.25", "96", "88.5", "RMSE decides.", "it beat the champion on the same rows",
                 "Why trained: the input data drifted", f"Answers request: {request.id}", "rollback__bike_demand", "return to version 1",
                 "#/models/bike_demand/versions/3", "94.08", "Snapshot: f00"):  # fmt: skip
        assert said in text, said


def test_a_new_champion_that_waited_for_a_person_is_champion_from_when_it_was_in_force(
    mail: Callable[..., EmailMessage],
) -> None:
    evidence = {**EVIDENCE, "effective_from": "2026-01-08T09:30:00+00:00"}
    text, _ = parts(
        mail(
            "champion_changed", DecisionKind.PROMOTED, reason="first_champion", version="3", evidence=evidence
        )
    )
    assert "Version 3 of bike_demand is champion as of 2026-01-08 09:30" in " ".join(text.split())


def test_a_rejected_challenger_is_told_with_the_check_that_failed(
    mail: Callable[..., EmailMessage], decide: Callable[..., Decision]
) -> None:
    decide(DecisionKind.PROMOTED, "first_champion", version="1")
    checks = [*CHECKS[:-1], {"check": "beats_champion", "value": 95.5, "limit": 94.08, "passed": False}]
    message = mail(
        "challenger_rejected", DecisionKind.REJECTED, reason="not_better_than_champion", version="4",
        evidence={**EVIDENCE, "checks": checks, "trigger": "schedule"},
    )  # fmt: skip
    text, page = parts(message)
    assert message["Subject"] == (
        "[Evergreen] bike_demand: rejected version 4, RMSE 41.25, 57 % better than version 1; it did not beat the champion on the same rows"
    )
    said = " ".join(text.split())
    for sentence in (
        "Version 4 did not become champion: it did not beat the champion on the same rows.",
        "Version 1 stays champion and keeps scoring.",
        "The next nightly training makes a new challenger; nothing needs to be done for that.",
        "If the champion's error keeps growing, look at the monitoring's report before forcing anything.",
        "95.5", "94.08", "failed", "the nightly run",
    ):  # fmt: skip
        assert sentence in said, sentence
    assert "rows in the holdout" not in page.text


def test_a_rejection_without_a_champion_speaks_of_no_error_that_grows(
    mail: Callable[..., EmailMessage],
) -> None:
    text, _ = parts(
        mail(
            "challenger_rejected",
            DecisionKind.REJECTED,
            reason="worse_than_baseline",
            version="1",
            evidence=EVIDENCE,
        )
    )
    assert "There is no champion; nothing is scored until a challenger passes." in " ".join(text.split())
    assert "keeps growing" not in text


@pytest.mark.parametrize(
    ("mail_kind", "kind"),
    [("champion_changed", DecisionKind.PROMOTED), ("challenger_rejected", DecisionKind.REJECTED)],
    ids=["promoted", "rejected"],
)
def test_what_a_person_said_who_started_the_training_is_a_fact(
    mail: Callable[..., EmailMessage], mail_kind: str, kind: DecisionKind
) -> None:
    evidence = {**EVIDENCE, "trigger": "manual"}
    asked, _ = parts(
        mail(mail_kind, kind, reason="first_champion", version="3",
             evidence={**evidence, "asked_because": "new price zones"})
    )  # fmt: skip
    assert "Asked by hand because: new price zones" in asked
    assert "asked_because" not in asked
    silent, _ = parts(
        mail(mail_kind, kind, reason="first_champion", version="3", evidence=evidence, incident="i")
    )
    assert "by hand because" not in silent


def test_a_rollback_is_told_with_from_to_and_why(mail: Callable[..., EmailMessage]) -> None:
    message = mail(
        "rolled_back", DecisionKind.ROLLED_BACK, reason="manual", version="1",
        evidence={"message": "vans wait at the wrong stations", "previous_version": "3",
                  "probe": {"rows": 20, "largest_difference": 0.0}},
        context={"previous_version": "3", "reason": "vans wait at the wrong stations"},
    )  # fmt: skip
    text, _ = parts(message)
    assert message["Subject"] == "[Evergreen] bike_demand: rolled back to version 1 from version 3"
    assert "Why: vans wait at the wrong stations" in text
    assert "rows: 20" in text


def test_a_rollback_by_the_watch_is_told_with_its_numbers(mail: Callable[..., EmailMessage]) -> None:
    message = mail(
        "rolled_back", DecisionKind.ROLLED_BACK, reason="worse_than_previous", version="1",
        evidence={
            "message": "rmse of version 3 is 12.5, of version 1 10", "previous_version": "3", "probe_rows": 20,
            "blocked": {"version": "3", "fingerprint": "abc", "training_hash": "d", "spec_hash": "def"},
            "watch": {"metric": "rmse", "version": "3", "value": 12.5, "previous": "1", "previous_value": 10.0, "rows": 1234,
                      "improvement": -0.25, "at_most": -0.11, "margin": 0.02, "look": 4, "looks": 7,
                      "since": "2026-03-02T00:00:00+00:00"},
        },
    )  # fmt: skip
    text, _ = parts(message)
    assert message["Subject"] == (
        "[Evergreen] bike_demand: rolled back to version 1 from version 3, 25 % worse on the same rows"
    )
    flat = " ".join(text.split())
    assert "Why: rmse of version 3 is 12.5, of version 1 10" in flat
    assert "1,234 rows since 2026-03-02 00:00 UTC" in flat
    assert (
        "version 3 is 25 % worse on 1,234 rows; 2 % worse is allowed, surely 11 % worse. Look 4 of 7." in flat
    )
    assert "is not promoted again, unless the spec changes what is trained; one on newer rows may be" in flat
    assert "fingerprint" not in text


@pytest.mark.parametrize("kind", [*LETTERS, "a_kind_of_tomorrow"])
@pytest.mark.parametrize("evidence", ["none", "wrong types"])
def test_missing_evidence_is_not_recorded_and_never_an_error(
    mail: Callable[..., EmailMessage], kind: str, evidence: str
) -> None:
    wrong = {
        "metrics": 7, "checks": "x", "failures": [1, {"column": None}], "violations": [3, {}], "judgements": "x",
        "rows": None, "trigger": [], "message": 5, "mlflow_run": {}, "since": 12, "version": {"a": 1},
    }  # fmt: skip
    found = {} if evidence == "none" else wrong
    ledger_kind = DecisionKind.RETRAIN_REQUESTED if kind == "drift" else DecisionKind.REJECTED
    message = mail(kind, ledger_kind, reason="reason_of_tomorrow", evidence=found)
    text, page = parts(message)
    assert "None" not in text
    assert "Undefined" not in text + page.text
    if kind in ("drift", "run_failed", "rolled_back", "batch_quarantined"):
        assert "not recorded" in text


@pytest.mark.parametrize("kind", list(LETTERS))
def test_an_incident_without_a_ledger_row_is_told(mail: Callable[..., EmailMessage], kind: str) -> None:
    text, _ = parts(mail(kind))
    assert "no ledger decision" in text


@pytest.mark.parametrize("kind", [*LETTERS, "a_kind_of_tomorrow"])
def test_hostile_values_stay_text(mail: Callable[..., EmailMessage], kind: str) -> None:
    evidence = {
        "file": HOSTILE, "error": HOSTILE, "task": HOSTILE, "message": HOSTILE, "reason": HOSTILE, "other": HOSTILE,
        "failures": [{**FAILURE, "column": HOSTILE, "sample": [HOSTILE], "remedy": HOSTILE}],
        "violations": [{"kind": "data_drift", "column": HOSTILE, "statistic": HOSTILE, "value": 1, "limit": 0.1}],
        "checks": [{"check": HOSTILE, "value": HOSTILE, "limit": HOSTILE, "passed": False}],
        "log": "https://logs.example.org/\"><script>alert(1)</script>", "trigger": HOSTILE,
    }  # fmt: skip
    message = mail(kind, DecisionKind.RETRAIN_REQUESTED, reason=HOSTILE, version=HOSTILE, evidence=evidence)
    _, page = parts(message)
    assert "script" not in page.tags
    assert message["Bcc"] is None
    assert "\n" not in message["Subject"]
    assert len(" ".join(message["Subject"].split())) <= 140
    assert "<script>alert(1)</script>" in page.text


def test_an_address_that_is_no_web_address_is_no_link(mail: Callable[..., EmailMessage]) -> None:
    message = mail(
        "run_failed", DecisionKind.RUN_FAILED, evidence={"log": "javascript:alert(1)", "task": "fit"}
    )
    _, page = parts(message)
    assert all(a.startswith("http") for a in page.addresses)


def test_hostile_column_names_are_drawn(mail: Callable[..., EmailMessage], judge: Callable[..., int]) -> None:
    judged = judge(1, columns=(("$\\frac{$ <b> 温度", "data_drift", "wasserstein", 0.9, 0.1),))
    message = mail(
        "drift", DecisionKind.RETRAIN_REQUESTED, reason="data_drift", evidence={"judgements": [judged]}
    )
    assert any(p.get_content_type() == "image/png" for p in message.walk())
    assert "温度" in message["Subject"]


def test_long_and_foreign_subjects_survive(mail: Callable[..., EmailMessage]) -> None:
    long_name = "Größe_" * 40 + ".csv"
    message = mail(
        "batch_quarantined", DecisionKind.BATCH_QUARANTINED, subject="dataset/bike_hourly",
        evidence={"file": long_name, "failures": []}, incident="ü" * 500,
    )  # fmt: skip
    assert message["Subject"].startswith("[Evergreen] bike_hourly: file quarantined (Größe_")
    assert message["Subject"].endswith("…")
    assert long_name in parts(message)[1].text


def test_the_message_id_is_the_same_in_every_attempt_and_another_for_each_incident(
    conn: Connection, specs: Specs
) -> None:
    for name in ("a", "b"):
        raise_incident(conn, name, "model/bike_demand", "run_failed", None, {})
    rows = fetch(conn, "SELECT *, clock_timestamp() AS now FROM evergreen.mail ORDER BY id")
    first, again, second = (compose(conn, specs, row)["Message-ID"] for row in (rows[0], rows[0], rows[1]))
    assert first == again != second


def test_recipients_are_the_specs_or_else_the_default_ones(
    conn: Connection, specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "a@example.org, b@example.org ,")
    model = specs.models["bike_demand"].model_copy(update={"alerts": ("vans@example.org", "x@y\r\nBcc: z@y")})
    named = Specs(specs.datasets, {"bike_demand": model})
    assert list(ways(named, "model/bike_demand", None)[EMAIL]) == ["vans@example.org"], (
        "and no header can be put in"
    )
    assert list(ways(specs, "model/bike_demand", None)[EMAIL]) == ["a@example.org", "b@example.org"]
    assert list(ways(specs, "model/gone", None)[EMAIL]) == ["a@example.org", "b@example.org"]
