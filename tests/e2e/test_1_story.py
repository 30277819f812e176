"""The whole loop through the real scheduler: each claim by its ledger row, its e-mail, its Airflow run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from evergreen.client import Client
from evergreen.feeds import real_file
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import load_specs
from evergreen.stack import control, demo_request
from evergreen.stack.demo import DATASET, MODEL, SECOND_MODEL, outcome

pytestmark = pytest.mark.e2e


def test_the_story_ran_on_real_data(told: Any) -> None:
    if told.name != "bike_sharing":
        pytest.skip(
            "hour.csv of UCI Bike Sharing is not on this machine; the story ran on the simulated feed"
        )
    assert real_file.find().stat().st_size == 1_156_736


def test_first_champions_beat_the_baseline(stack: Any, told: Any) -> None:
    for model in (MODEL, SECOND_MODEL):
        first = stack.decisions(f"model/{model}", DecisionKind.PROMOTED)[-1]
        assert first.reason == "first_champion"
        checks = {c["check"]: c for c in first.evidence.to_json()["checks"]}
        assert checks["beats_baseline"]["passed"]


def test_quiet_weeks_raise_no_alarm(stack: Any, told: Any) -> None:
    broken = next(d.as_of for d in told.deliveries if d.kind == "broken")
    quiet = [d for d in told.deliveries if d.kind == "normal" and d.as_of < broken]
    assert len(quiet) >= 2
    assert not [
        d
        for d in stack.decisions(f"model/{MODEL}", DecisionKind.RETRAIN_REQUESTED)
        if d.as_of <= quiet[-1].as_of
    ]


def test_broken_batch_is_quarantined_once_and_mailed_once(stack: Any, told: Any) -> None:
    held = stack.decisions(f"dataset/{DATASET}", DecisionKind.BATCH_QUARANTINED)
    assert len(held) == sum(d.kind == "broken" for d in told.deliveries)
    assert held[0].evidence.to_json()["failures"]
    assert len(stack.mails(f"batch:{DATASET}:")) == len(held)
    assert stack.rows("SELECT count(*) AS n FROM data.bike_hourly WHERE demand < 0 OR humidity > 100") == [
        {"n": 0}
    ]


def test_drift_is_mailed_answered_and_mended(stack: Any, told: Any) -> None:
    requests = stack.decisions(f"model/{MODEL}", DecisionKind.RETRAIN_REQUESTED)
    promoted = stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)
    assert requests, "no alarm"
    answering = [p for p in promoted if set(p.answers) & {r.id for r in requests}]
    assert answering, "no promotion answers an alarm"
    for promotion in answering:
        checks = {c["check"]: c for c in promotion.evidence.to_json()["checks"]}
        for name in ("not_surely_worse", "not_much_worse"):
            assert checks[name]["passed"], "the improvement and its bound, answering a drift"
            assert checks[name]["value"] >= checks[name]["limit"]
        metrics = promotion.evidence.to_json()["metrics"]
        assert metrics["challenger"]["rmse"] < metrics["champion"]["rmse"]
    first = min(requests, key=lambda r: r.id)
    after = min((p for p in answering if first.id in p.answers), key=lambda p: p.id)
    errors = stack.rows(
        "SELECT DISTINCT ON (window_start) window_end, (metrics->'rmse'->>'value')::float AS rmse FROM evergreen.window_judgement"
        f" WHERE model = '{MODEL}' AND metrics->'rmse'->>'value' IS NOT NULL ORDER BY window_start, revision DESC"
    )
    during = max(e["rmse"] for e in errors if e["window_end"] <= first.as_of)
    later = [e["rmse"] for e in errors if e["window_end"] > after.as_of][:2]
    assert max(later) < during, "the error did not come back down"
    (mail, *more) = stack.mails(f"drift:{MODEL}:1:")
    assert not more, "one mail for one incident"
    assert "image/png" in mail.read_text(), "no picture"


def test_a_training_that_a_drift_woke_answers_it(stack: Any, told: Any) -> None:
    answering = [p for p in stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED) if p.answers]
    assert {p.run_id.partition("/")[2].partition("__")[0] for p in answering} == {"asset_triggered"}


def test_each_promotion_has_one_mail(stack: Any, told: Any) -> None:
    sent = stack.rows("SELECT kind, count(*) AS n, count(sent_at) AS sent FROM evergreen.mail GROUP BY kind")
    counts = {r["kind"]: r for r in sent}
    promotions = len(stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)) + len(
        stack.decisions(f"model/{SECOND_MODEL}", DecisionKind.PROMOTED)
    )
    assert counts["champion_changed"]["n"] == promotions
    assert len(stack.mails("promoted:")) == promotions
    assert all(r["n"] == r["sent"] for r in sent), "a mail was not sent"


def test_the_second_model_is_scored_and_judged_too(stack: Any, told: Any) -> None:
    judged = stack.rows(
        f"SELECT DISTINCT window_start FROM evergreen.window_judgement WHERE model = '{SECOND_MODEL}'"
    )
    assert len(judged) >= 8
    assert stack.rows(
        f"SELECT count(*) > 1000 AS many FROM evergreen.prediction WHERE model = '{SECOND_MODEL}'"
    ) == [{"many": True}]


def test_the_demo_shows_what_happened(stack: Any, told: Any, tmp_path: Path) -> None:
    assert outcome(told, tmp_path, print) == [], "the story did not go as promised"
    assert (tmp_path / f"{told.name}.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_listens_beyond_loopback(stack: Any, told: Any) -> None:
    own = {row.pid for row in control.status(stack.layout.home) if row.pid}
    own |= {child.pid for pid in own for child in psutil.Process(pid).children(recursive=True)}
    open_to = {
        c.laddr.ip for c in psutil.net_connections("inet") if c.pid in own and c.status == psutil.CONN_LISTEN
    }
    assert open_to == {"127.0.0.1"}


def test_what_woke_the_runs(stack: Any, told: Any) -> None:
    assert {r["run_type"] for r in stack.api.runs(f"score__{MODEL}")} == {"asset_triggered"}
    assert {r["run_type"] for r in stack.api.runs(f"monitor__{MODEL}")} == {"asset_triggered"}
    assert {r["run_type"] for r in stack.api.runs(f"train__{MODEL}")} == {"manual", "asset_triggered"}


def test_tasks_with_nothing_to_do_were_skipped_and_the_facts_are_kept(stack: Any, told: Any) -> None:
    """A quiet window wakes nobody; the run that trained the first champion told the next DAG and the people."""
    asked = {
        d.run_id.partition("/")[2] for d in stack.decisions(f"model/{MODEL}", DecisionKind.RETRAIN_REQUESTED)
    }
    runs = [r["dag_run_id"] for r in stack.api.runs(f"monitor__{MODEL}")]
    states = {run: stack.api.tasks(f"monitor__{MODEL}", run) for run in runs}
    assert set(asked) <= set(runs)
    assert all(states[run]["announce"] == "success" for run in asked)
    judged = {run: facts(stack, "monitor", run, "judge") for run in runs if states[run]["judge"] == "success"}
    for run, found in judged.items():
        assert states[run]["announce"] == ("success" if found["announce"] else "skipped")
    assert {s["announce"] for s in states.values()} == {"success", "skipped"}
    first = stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)[-1]
    run = first.run_id.partition("/")[2]
    states = stack.api.tasks(f"train__{MODEL}", run)
    assert states.pop("announce_challenger") == "skipped"  # nobody is asked
    assert set(states.values()) == {"success"}
    assert facts(stack, "train", run, "settle")["version"] == first.version


def test_each_run_has_a_note_of_what_it_came_to(stack: Any, told: Any) -> None:
    """The scheduler writes it; where nothing was to be done the run has succeeded and says so."""
    promoted = {
        d.run_id.partition("/")[2]: d.version
        for d in stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)
        if d.run_id.startswith("train__")
    }
    notes = {r["dag_run_id"]: r["note"] or "" for r in stack.api.runs(f"train__{MODEL}")}
    assert promoted
    for run, version in promoted.items():
        assert notes[run].endswith(f": promoted version {version}")
        assert " rows, " in notes[run]
    scored = [r["note"] or "" for r in stack.api.runs(f"score__{MODEL}") if r["state"] == "success"]
    assert any(note.endswith(" predicted by version 1") for note in scored)
    assert all(scored)
    assert all(r["note"] for r in stack.api.runs(f"monitor__{MODEL}") if r["state"] == "success")


def facts(stack: Any, kind: str, run: str, task: str) -> dict[str, Any]:
    """What a task handed on."""
    path = f"dags/{kind}__{MODEL}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
    found: dict[str, Any] = stack.api.call("GET", path, params={"deserialize": True})["value"]
    return found


def test_every_row_has_one_served_prediction(stack: Any, told: Any) -> None:
    first = stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)[-1]
    missing = stack.rows(
        f"SELECT count(*) AS n FROM data.bike_hourly b WHERE ts >= '{first.as_of.isoformat()}' AND NOT EXISTS"
        f" (SELECT 1 FROM evergreen.prediction p WHERE p.model = '{MODEL}' AND p.event_time = b.ts)"
    )
    assert missing == [{"n": 0}]


def test_the_story_ends_with_a_request_that_the_new_champion_answers(
    stack: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    specs, login = load_specs(stack.specs), control.login(stack.layout.home)
    champion = stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)[0].version
    for model in (MODEL, SECOND_MODEL):
        row = demo_request.newest_row(specs, specs.models[model])
        answer = demo_request.ask(Client(), model, row)
        assert answer["prediction"] == row.prediction, "online and batch are one, to the last bit"
        assert row.version == answer["version"]
        assert model != MODEL or answer["version"] == champion
    key = demo_request.key_in(login.serving_key_file)
    assert demo_request.tell(MODEL, print, url=login.serving_url, key=key) == []
    line, shown = capsys.readouterr().out.strip().splitlines()[-2:]
    assert line.startswith(f"curl -s {login.serving_url}/models/{MODEL}/predict ")
    assert login.serving_key_file.read_text().strip() not in line
    if shutil.which("curl"):
        said = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
        same = ("model", "version", "prediction")
        assert [json.loads(said)[name] for name in same] == [json.loads(shown)[name] for name in same]


def test_no_secret_in_logs_or_ledger(stack: Any, told: Any) -> None:
    secrets = [s for s in stack.layout.secrets.values() if s] + [stack.layout.serving_key.read_text().strip()]
    ledger_text = str(stack.rows("SELECT * FROM evergreen.decision")) + str(
        stack.rows("SELECT * FROM evergreen.mail")
    )
    files = [*stack.layout.logs.rglob("*.log"), *stack.layout.mail.glob("*.eml")]
    for text, where in [(ledger_text, "ledger"), *((p.read_text(errors="replace"), p.name) for p in files)]:
        assert not [s for s in secrets if s in text], f"a secret stands in {where}"
