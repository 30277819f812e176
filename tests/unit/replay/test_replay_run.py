"""Whole replays on a small world: the same as the live loop, nothing written to it, and whole after any interruption."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import yaml
from psycopg2 import sql

from evergreen.errors import TerminalError
from evergreen.ledger import Kind
from evergreen.replay import __main__ as command
from evergreen.replay.asked import ask
from evergreen.replay.run import replay
from evergreen.replay.worker import loop_of
from evergreen.training import tune
from evergreen.training.validate import Validation
from evergreen.warehouse.connection import connect, fetch

DAY = timedelta(days=1)


@pytest.fixture
def small(world, start, tmp_path, monkeypatch):
    """Sixty days of rides; from day 36 on the demand is twice what it was."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    world = world.with_model(
        training={"window": "20d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24, "trigger": {"m": 2, "n": 3, "cooldown": "2d"}},
        watch={"period": "4d", "min_rows": 24},
    )
    world.land(start, 36)
    world.land(start + 36 * DAY, 24, seed=2, edit=lambda row: row.update(demand=2 * row["demand"]))
    return world


def run(world, start, names, **more):
    return replay(
        world.specs,
        world.model,
        start + 20 * DAY,
        start + 60 * DAY,
        names,
        **{"workers": 0, "say": print, **more},
    )


def everything():
    """The number of rows of every table of the warehouse."""
    with connect() as conn:
        tables = fetch(
            conn,
            "SELECT table_schema AS s, table_name AS n FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2",
        )
        return {
            (t["s"], t["n"]): fetch(
                conn, sql.SQL("SELECT count(*) AS c FROM {}").format(sql.Identifier(t["s"], t["n"]))
            )[0]["c"]
            for t in tables
        }


def test_policies_are_compared_and_nothing_is_written_to_the_live_loop(small, start):
    before = everything()
    done = run(small, start, ["never", "every:6d", "on_drift"])
    assert everything() == before
    never, schedule, drift = done.outcomes
    assert (never.retrains, never.requests, never.fit_seconds) == (0, 0, 0.0)
    assert never.alarms >= 5, "the change is seen by every policy"
    assert schedule.retrains == 6
    assert drift.requests >= 1
    assert drift.retrains == drift.requests
    assert drift.promoted >= 1
    assert drift.error < 0.9 * never.error
    assert never.rows == schedule.rows == drift.rows == 19 * 48
    for outcome in done.outcomes:
        assert outcome.retrains == outcome.promoted + outcome.rejected + outcome.failed
        assert len(outcome.points) == len(done.asked.windows) == 19
    trained = [p for p in drift.points if p.trained]
    assert trained[0].end > start + 36 * DAY, "no training before the change"

    table = list(csv.DictReader(done.files["table"].open()))
    assert [row["policy"] for row in table] == ["never", "every:6d", "on_drift"]
    assert float(table[2]["error"]) == drift.error
    assert len(list(csv.DictReader(done.files["windows"].open()))) == 57
    page = done.files["page"].read_text()
    assert "data:image/png;base64," in page
    assert "<script" not in page
    assert done.files["picture"].read_bytes().startswith(b"\x89PNG")
    assert "every:6d" in done.table
    content = json.loads(done.files["result"].read_text())
    assert content["policies"][2]["retrains"] == drift.retrains
    assert not list(done.asked.folder.glob("fits")), "working files are removed at the end"


def test_the_same_decisions_and_predictions_as_the_live_loop(small, start, mlflow_url):
    """The live loop (score, monitor, train, settle), run at the same moments on the same rows."""
    from evergreen import ledger
    from evergreen.monitoring.monitor import monitor
    from evergreen.scoring.score import score

    asked = ask(small.specs, small.model, start + 26 * DAY, start + 52 * DAY, ["on_drift"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    small.settle(small.train(asked.begin, "train__rides/first", trigger="schedule"), "first")
    for as_of in loop.ends:
        score(small.specs, small.model, as_of, "score")
        found = monitor(small.specs, small.model, as_of, "monitor")
        if found.announce:
            with connect() as conn:
                asked_for = tuple(r.id for r in ledger.open_requests(conn, "rides"))
            outcome = small.train(as_of, f"train__rides/{as_of}", trigger="drift", requests=asked_for)
            small.settle(outcome, f"settle {as_of}")
    with connect() as conn:
        # The ends of incidents are rows for the mails; no decision rests on them.
        lived = [d for d in ledger.find(conn, "model/rides")[::-1] if d.kind is not ledger.Kind.RECOVERED]
        judged = fetch(
            conn,
            "SELECT version, window_start, revision, status, row_count, labelled, scored, as_of FROM evergreen.window_judgement"
            " ORDER BY id",
        )
        served = fetch(
            conn,
            "SELECT DISTINCT ON (key) key, version, prediction FROM evergreen.prediction ORDER BY key, scored_at, version",
        )
    assert [(d.kind, d.reason, d.as_of) for d in loop.state.decisions] == [
        (d.kind, d.reason, d.as_of) for d in lived
    ]
    assert any(d.kind is Kind.RETRAIN_REQUESTED for d in lived)
    assert [
        (j.version, j.window_start, j.revision, j.status.value, j.rows, j.labelled, j.scored, j.as_of)
        for j in loop.state.judgements
    ] == [tuple(row.values()) for row in judged]
    mine = {}
    for _, rows in loop.folder.read():
        for row in rows[~rows["shadow"].astype(bool)].itertuples():
            mine[row._1] = (row.version, row.prediction)
    assert len(mine) == len(served) > 500
    for row in served:
        assert mine[row["key"]] == (row["version"], pytest.approx(row["prediction"], rel=1e-6))


def result_of(done):
    content = json.loads(done.files["result"].read_text())
    for policy in content["policies"]:
        policy.pop("fit_seconds")
    return content


def test_a_killed_replay_goes_on_and_comes_to_the_same(small, start, tmp_path):
    names = ["every:6d", "on_drift"]
    whole = run(small, start, names, home=tmp_path / "whole")
    code = (
        "import sys, json; from datetime import datetime; from pathlib import Path\n"
        "from evergreen.replay.asked import Asked; from evergreen.replay.run import replay\n"
        "a = Asked.read(Path(sys.argv[1]))\n"
        "replay(a.specs, a.model, a.begin, a.end, [p.name for p, _ in a.policies], home=Path(sys.argv[2]), workers=1)\n"
    )
    home = tmp_path / "killed"
    asked = ask(small.specs, small.model, start + 20 * DAY, start + 60 * DAY, names, home)
    asked.write()
    folders = [asked.policy_folder(p, m) for p, m in asked.policies]
    process = subprocess.Popen([sys.executable, "-c", code, str(asked.folder), str(home)], env=os.environ)
    until = time.monotonic() + 120
    while sum(f.finished() for f in folders) < 25 and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = sum(f.finished() for f in folders)
    assert 25 <= stopped < 42, "it was killed in the middle"
    said = []
    again = run(small, start, names, home=home, say=said.append)
    assert "goes on after" in said[0]
    assert result_of(again) == result_of(whole)
    # A finished one is read, not computed.
    began = [f.stat().st_mtime_ns for f in sorted(again.asked.folder.rglob("steps/*.json"))]
    third = run(small, start, names, home=home)
    assert [f.stat().st_mtime_ns for f in sorted(third.asked.folder.rglob("steps/*.json"))] == began
    assert result_of(third) == result_of(whole)


@pytest.fixture
def late(world, start, monkeypatch, tmp_path):
    """Forty days of rides whose labels come after five days, as corrections; from day 22 on the demand is another one."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    world = world.with_model(
        label={"delay": "5d"}, training={"holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
    )  # fmt: skip
    world.land(start, 40, edit=lambda row: row.update(demand=None))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.rides_hourly__history SELECT *, ts + interval '5 days' FROM data.rides_hourly"
        )
        cursor.execute(
            "UPDATE data.rides_hourly SET demand = CASE WHEN ts < %s THEN 50 ELSE 90 END + 3 * x,"
            " _arrived_at = ts + interval '5 days'",
            (start + 22 * DAY,),
        )
        assert cursor.rowcount == 960
    return world


def test_what_was_not_known_is_not_seen(late, start):
    """The first judgement has no labels, a later revision has them."""
    world = late
    asked = ask(world.specs, world.model, start + 20 * DAY, start + 38 * DAY, ["never"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    window = asked.windows[0]
    of = [j for j in loop.state.judgements if j.window_start == window.start]
    assert [(j.revision, j.labelled) for j in of] == [(1, 0), (2, 48)]
    assert of[0].metrics["rmse"].state == "not_yet"
    assert of[0].as_of == window.end
    assert of[1].metrics["rmse"].state == "judged"
    assert of[1].as_of >= window.end + 4 * DAY


def test_labels_that_come_after_a_promotion_judge_the_version_before_it(late, start):
    asked = ask(late.specs, late.model, start + 20 * DAY, start + 40 * DAY, ["every:4d"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        loop.step(number)
    second = loop.state.changes()[-2]
    assert second.version != "1"
    served = [j for j in loop.state.judgements if j.version == "1" and j.window_end <= second.effective_from]
    after = [j for j in served if j.as_of > second.as_of]
    assert {j.window_start for j in after} == {
        j.window_start for j in served if j.as_of <= second.as_of and j.metrics["rmse"].state == "not_yet"
    } - {j.window_start for j in served if j.as_of <= second.as_of and j.revision > 1}
    assert after
    for judged in after:
        assert (judged.revision, judged.labelled, judged.metrics["rmse"].state) == (2, 48, "judged")
        assert judged.as_of >= judged.window_end + 4 * DAY


def test_late_labels_are_estimated_as_the_live_loop_does(world, start, mlflow_url, monkeypatch):
    """Wet hours are hard to predict; from day 23 on all are wet and no label comes, so only an estimate can alarm."""
    from evergreen import ledger
    from evergreen.monitoring import estimate, report
    from evergreen.monitoring.monitor import monitor
    from evergreen.scoring.score import score

    signs = np.random.default_rng(3)

    def hard(row):
        row["kind"] = "wet" if row["ts"].hour % 5 == 0 else "dry"
        row["demand"] += 15 * int(signs.choice([-1, 1])) if row["kind"] == "wet" else 0

    world = world.with_model(
        training={"window": "20d", "holdout": "4d", "min_rows": 150},
        monitoring={
            "window": "2d", "min_rows": 24, "trigger": {"m": 2, "n": 3, "cooldown": "2d"},
            "performance": {"estimate": True, "estimate_requests": True},
            "drift": {"ignore": ["kind", "hour", "x"]},
        },
    )  # fmt: skip
    world.land(start, 23, edit=hard)
    world.land(start + 23 * DAY, 6, seed=2, edit=lambda row: row.update(kind="wet", demand=None))
    learnt = []
    fit = estimate.fit
    monkeypatch.setattr(estimate, "fit", lambda *args: learnt.append(1) or fit(*args))
    asked = ask(world.specs, world.model, start + 20 * DAY, start + 29 * DAY, ["on_drift"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    loop.step(0)
    assert not learnt, "nothing is learnt before a window asks for it"
    for number in range(1, len(loop.moments())):
        loop.step(number)
    assert len(learnt) == 1, "three windows of one champion were estimated"

    # The pages that the live loop draws take longest, and a replay has none.
    monkeypatch.setattr(report, "write", lambda *args: {})
    world.settle(world.train(asked.begin, "train__rides/first", trigger="schedule"), "first")
    for as_of in loop.ends:
        score(world.specs, world.model, as_of, "score")
        monitor(world.specs, world.model, as_of, "monitor")
    with connect() as conn:
        (asks, *_) = ledger.find(conn, "model/rides", (Kind.RETRAIN_REQUESTED,))[::-1]
        judged = fetch(
            conn, "SELECT window_start, status, metrics FROM evergreen.window_judgement ORDER BY id"
        )

    def told(start, status, metric):
        value = metric["value"]
        return start, status, metric["state"], metric["violated"], value and pytest.approx(value, rel=1e-6)

    lived = [told(row["window_start"], row["status"], row["metrics"]["rmse"]) for row in judged]
    replayed = [
        (j.window_start, j.status.value, j.metrics["rmse"].state, j.metrics["rmse"].violated, j.metrics["rmse"].value)
        for j in loop.state.judgements
    ]  # fmt: skip
    assert replayed == lived
    assert [row[2:4] for row in replayed] == [("judged", False), *[("estimated", True)] * 3]
    (mine, *_) = (d for d in loop.state.decisions if d.kind is Kind.RETRAIN_REQUESTED)
    assert (mine.as_of, mine.reason, mine.evidence["drifted"]) == (
        asks.as_of,
        asks.reason,
        asks.evidence["drifted"],
    )
    assert mine.reason == "estimated_performance"


def test_a_bad_promotion_is_rolled_back_by_the_watch(small, start):
    """The world is upside down for eight days: the challenger that learnt them is better then, and worse from then on."""
    world = small.with_model(
        training={"window": "6d", "holdout": "2d", "min_rows": 48, "min_holdout_rows": 24},
        gate={"otherwise": "not_worse", "beat_baseline": False},
        watch={"period": "8d", "min_rows": 24},
    )
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE data.rides_hourly SET demand = 100 - demand WHERE ts >= %s AND ts < %s",
            (start + 21 * DAY, start + 29 * DAY),
        )
    done = replay(
        world.specs, world.model, start + 20 * DAY, start + 36 * DAY, ["every:8d"], workers=0, say=print
    )
    (outcome,) = done.outcomes
    assert outcome.promoted >= 1
    assert outcome.rolled_back == 1


def test_a_rollback_by_the_watch_closes_the_requests_that_the_live_one_closes(world, start, monkeypatch):
    """A training for the bad champion's drift failed for want of rows: its request is open when the champion is left."""
    from evergreen import ledger
    from evergreen.monitoring.after_promotion import Seen
    from evergreen.registry import rollback
    from evergreen.replay import watching
    from evergreen.replay.state import RUN, State, Step
    from evergreen.training.compare import Improvement

    def row(day, kind, version, reason, **more):
        evidence = {"mlflow_run": f"replay-{version}", "trained_until": (start + day * DAY).isoformat()}
        key = f"{kind.value}:{version}:{day}"
        return ledger.Decision(
            start + day * DAY, "model/rides", kind, reason, RUN, key, evidence, version, **more
        )

    state, step = State(), Step(1, start + 23 * DAY)
    for decision in (
        row(0, Kind.PROMOTED, "1", "first_champion"),
        row(18, Kind.RETRAIN_REQUESTED, "1", "data_drift"),
        row(19, Kind.RETRAIN_REQUESTED, "1", "performance"),
        row(20, Kind.PROMOTED, "2", "better_than_champion", answers=(2,)),
        row(22, Kind.RETRAIN_REQUESTED, "2", "performance"),
        row(22, Kind.RUN_FAILED, "3", "too_few_rows"),
    ):
        state.decide(step, decision)
    with connect() as conn:
        kept = {ledger.append(conn, d).id: d.dedupe_key for d in state.decisions}
        live = rollback.about(ledger.open_requests(conn, world.model.name), "2", step.as_of)
    worse = Seen(100, 9.0, 3.0, Improvement(-2.0, -2.1, -1.9, 0.1, 10, 100))
    monkeypatch.setattr(watching, "_seen", lambda *args: (worse, 1.0))
    done = watching.look(world.model, state, step, None)
    assert (done.kind, done.version) == (Kind.ROLLED_BACK, "1")
    assert [state.decisions[i - 1].dedupe_key for i in done.answers] == [kept[i] for i in live]
    assert [d.dedupe_key for d in state.open_requests()] == ["retrain_requested:1:19"], (
        "another version's stays"
    )


def test_a_watch_with_late_labels_asks_the_shadow_for_its_own_days_only(world, start, tmp_path, monkeypatch):
    """The watch ends six days after the shadow; what the champion alone has scored meanwhile does not count against it."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    world = world.with_model(
        label={"delay": "6d"},
        training={"window": "30d", "holdout": "3d", "min_rows": 150},
        monitoring={"window": "2d", "min_rows": 24},
        gate={"otherwise": "not_worse", "beat_baseline": False},
        watch={"period": "4d", "min_rows": 24},
    )
    world.land(start - 10 * DAY, 23)
    world.land(start + 13 * DAY, 35, seed=2, edit=lambda row: row.update(demand=2 * row["demand"]))
    asked = ask(world.specs, world.model, start + 21 * DAY, start + 47 * DAY, ["even:1"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    for number in range(len(loop.moments())):
        if number == 11:  # as a run that goes on after an interruption
            loop = loop_of(asked, policy, model)
            assert loop.resume() == number
        loop.step(number)
    promoted = loop.state.changes()[0]
    (ended,) = loop.state.find(Kind.WATCH_ENDED)[:1]
    assert (promoted.as_of, ended.as_of) == (start + 35 * DAY, start + 47 * DAY)
    assert (ended.version, ended.reason, ended.evidence["rows"]) == (promoted.version, "watch_passed", 96)


def test_a_changed_spec_is_a_policy_of_its_own(small, start, tmp_path):
    content = small.model.model_dump(mode="json", exclude={"query"})
    content["monitoring"]["trigger"] = {"m": 1, "n": 1, "cooldown": "2d"}
    content["monitoring"]["window"] = "1d"
    path = tmp_path / "eager.yaml"
    path.write_text(yaml.safe_dump(content))
    asked = ask(small.specs, small.model, start + 30 * DAY, start + 44 * DAY, ["on_drift", str(path)])
    assert [m.monitoring.trigger.m for _, m in asked.policies] == [2, 1]
    done = replay(
        small.specs,
        small.model,
        start + 30 * DAY,
        start + 44 * DAY,
        ["on_drift", str(path)],
        workers=0,
        say=print,
    )
    own, eager = done.outcomes
    assert eager.policy == "eager"
    assert len(eager.points) == len(own.points) == 6
    first = [next(p.end for p in o.points if p.trained) for o in (own, eager)]
    assert first[1] < first[0], "one window is enough for it"

    content["label"]["delay"] = "2d"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(TerminalError, match="label"):
        ask(small.specs, small.model, start, start + 44 * DAY, [str(path)])
    path.write_text("name: rides\ntask: guess\n")
    with pytest.raises(TerminalError, match="task"):
        ask(small.specs, small.model, start, start + 44 * DAY, [str(path)])


def test_too_early_names_the_earliest_that_works(small, start):
    with pytest.raises(TerminalError, match="the earliest FROM that works is") as caught:
        replay(small.specs, small.model, start + 2 * DAY, start + 60 * DAY, ["never"], workers=0)
    named = str(caught.value).rpartition(" ")[2]
    when = command._time(named)
    done = replay(small.specs, small.model, when, when + 4 * DAY, ["never"], workers=0, say=print)
    assert done.asked.begin == when
    with pytest.raises(TerminalError, match="training part"):
        replay(small.specs, small.model, when - 2 * DAY, when + 4 * DAY, ["never"], workers=0)
    with pytest.raises(TerminalError, match="no FROM before TO works"):
        replay(small.specs, small.model, start - 9 * DAY, start - 1 * DAY, ["never"], workers=0)
    with pytest.raises(TerminalError, match="no whole window"):
        replay(small.specs, small.model, when, when + DAY, ["never"], workers=0)


def test_a_gate_that_refuses_the_first_champion_says_so(small, start):
    world = small.with_model(gate={"max_size_mb": 1e-6})
    with pytest.raises(TerminalError, match=r"refuses the first champion.*too_large"):
        run(world, start, ["never"])


def test_the_command_prints_the_table(small, start, tmp_path, capsys, monkeypatch):
    specs = tmp_path / "specs"
    for kind, name, content in (
        ("datasets", "rides_hourly", small.specs.datasets["rides_hourly"].model_dump(mode="json")),
        ("models", "rides", small.model.model_dump(mode="json", exclude={"query"})),
    ):
        (specs / kind).mkdir(parents=True, exist_ok=True)
        (specs / kind / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (specs / "models" / "rides.sql").write_text(small.model.query)
    begin, end = ((start + n * DAY).isoformat() for n in (30, 36))
    asked = ["rides", "--from", begin, "--to", end, "--specs", str(specs), "--workers", "0"]
    assert command.main([*asked, "--policies", "never, every:4d"]) == 0
    shown = capsys.readouterr()
    assert "every:4d" in shown.out
    assert "index.html" in shown.out
    assert "windows (100%)" in shown.err
    assert command.main([*asked, "--policies", "sometimes"]) == 1
    assert "sometimes" in capsys.readouterr().err
    assert command.main(["gone", *asked[1:]]) == 1
    assert "gone" in capsys.readouterr().err


def test_every_fit_is_done_once(small, start, tmp_path):
    asked = ask(small.specs, small.model, start + 30 * DAY, start + 40 * DAY, ["never", "every_window"])
    never, every = (loop_of(asked, p, m) for p, m in asked.policies)
    one, two = never.step(0), every.step(0)
    files = sorted(never.fits.glob("*.ubj"))
    assert len(files) == 2, "the challenger's fit and the one on all rows"
    assert one.fit_seconds == two.fit_seconds > 0
    at = replace(every).moments()[1]
    every.fit_ahead(at)
    ahead = set(never.fits.glob("*.ubj"))
    every.step(1)
    assert set(never.fits.glob("*.ubj")) == ahead, "the training found what was fitted ahead"


@pytest.fixture
def tuned(small, monkeypatch):
    """A search at each training, from parameters that any trial beats; MLflow is named and does not answer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return small.with_model(
        training={
            "tune": {"trials": 2}, "folds": 2, "fold": "2d", "max_rounds": 5,
            "params": {"learning_rate": 0.02, "max_depth": 2},
        },
        gate={"beat_baseline": False},
    )  # fmt: skip


def test_policies_of_a_spec_that_tunes_share_no_search_and_need_no_mlflow(tuned, start, tmp_path):
    live = tmp_path / "home" / "studies"
    done = replay(
        tuned.specs, tuned.model, start + 21 * DAY, start + 25 * DAY, ["every:2d", "every:4d"], workers=2, say=print
    )  # fmt: skip
    assert [(o.retrains, o.failed) for o in done.outcomes] == [(2, 0), (1, 0)]
    assert not live.exists(), "a replay leaves the studies of the live trainings alone"
    assert not list(done.asked.folder.rglob("studies")), "working files are removed at the end"


def test_a_search_begins_with_the_parameters_of_the_policys_champion(tuned, start, monkeypatch):
    begun, search = [], tune.search

    def noted(validation, reference, starts, path):
        begun.append({s.candidate.source: s.candidate.params for s in starts})
        return search(validation, reference, starts, path)

    monkeypatch.setattr(tune, "search", noted)
    asked = ask(tuned.specs, tuned.model, start + 21 * DAY, start + 23 * DAY, ["every_window"])
    ((policy, model),) = asked.policies
    loop_of(asked, policy, model).step(0)
    loop = loop_of(asked, policy, model)
    loop.resume()
    loop.fit_ahead(asked.end)
    loop.step(1)
    theirs = loop.folder.params("1")
    assert theirs["learning_rate"] != 0.02, "a trial was better than the spec"
    assert [list(starts) for starts in begun] == [["spec"], ["spec", "champion"]]
    assert begun[1]["champion"].items() >= theirs.items()


def test_fit_seconds_count_the_fits_of_validation_and_tuning(tuned, start, monkeypatch):
    scored, score = [], Validation.score
    monkeypatch.setattr(Validation, "score", lambda *args: scored.append(found := score(*args)) or found)
    asked = ask(tuned.specs, tuned.model, start + 21 * DAY, start + 23 * DAY, ["never"])
    ((policy, model),) = asked.policies
    loop = loop_of(asked, policy, model)
    step = loop.step(0)
    fits = sum(json.loads(path.read_text())["seconds"] for path in loop.fits.glob("*.json"))
    assert len(scored) == 3, "the spec's parameters and two trials"
    assert step.fit_seconds == pytest.approx(fits + sum(s.seconds for s in scored))


def test_other_data_is_another_replay_and_the_same_data_the_same(small, start):
    def replayed():
        return replay(
            small.specs, small.model, start + 30 * DAY, start + 34 * DAY, ["never"], workers=0, say=print
        )

    first = replayed()
    small.land(start + 60 * DAY, 1)
    small.correct(start + 32 * DAY, start + 50 * DAY, demand=1.0)
    assert replayed().asked.folder == first.asked.folder, "what arrived after TO changes nothing"
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.rides_hourly SET demand = 2 * demand")
        cursor.execute("UPDATE data.rides_hourly__history SET demand = 2 * demand")
    second = replayed()
    assert second.asked.folder != first.asked.folder
    assert second.outcomes[0].error > 1.5 * first.outcomes[0].error
