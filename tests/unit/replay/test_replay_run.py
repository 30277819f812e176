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

import pytest
import yaml
from psycopg2 import sql
from replays import DAY, run

from evergreen.command import moment
from evergreen.errors import TerminalError
from evergreen.ledger import reasons
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.replay import command
from evergreen.replay.request import ask
from evergreen.replay.run import replay
from evergreen.replay.worker import loop_of
from evergreen.warehouse.connection import connect, fetch


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
        lived = [
            d for d in ledger.find(conn, "model/rides")[::-1] if d.kind is not reasons.DecisionKind.RECOVERED
        ]
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
    assert any(d.kind is DecisionKind.RETRAIN_REQUESTED for d in lived)
    assert settled_of(loop.state.decisions) == settled_of(lived)
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


def settled_of(decisions):
    """What the ledger says of each challenger that is ruled on: in words, of which rows, and until when it has learnt."""
    said = [
        (d.version, SettledEvidence.of(d))
        for d in decisions
        if d.kind in (DecisionKind.PROMOTED, DecisionKind.REJECTED)
    ]
    return [
        (
            v,
            e.message,
            [(c.check, c.passed, c.code) for c in e.checks],
            e.rows,
            e.fingerprint,
            e.refitted,
            e.trained_until,
            e.previous_version,
        )
        for v, e in said
    ]


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
        "from evergreen.replay.request import ReplayRequest; from evergreen.replay.run import replay\n"
        "a = ReplayRequest.read(Path(sys.argv[1]))\n"
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


def test_a_policy_that_is_added_joins_the_table(small, start, tmp_path):
    run(small, start, ["never", "every:20d"], home=tmp_path)
    more = run(small, start, ["every:15d", "never"], home=tmp_path)
    assert [o.policy for o in more.outcomes] == ["every:15d", "never", "every:20d"]
    table = list(csv.DictReader(more.files["table"].open()))
    assert [row["policy"] for row in table] == ["every:15d", "never", "every:20d"]


def test_windows_of_a_week_train_each_window_as_each_week(small, start, tmp_path):
    weekly = small.with_model(monitoring={"window": "7d"})
    asked = ask(
        weekly.specs, weekly.model, start + 20 * DAY, start + 60 * DAY, ["every_window", "weekly"], tmp_path
    )
    assert [p.name for p, _ in asked.policies] == ["every_window"]
    asked = ask(
        small.specs, small.model, start + 20 * DAY, start + 60 * DAY, ["every_window", "weekly"], tmp_path
    )
    assert [p.name for p, _ in asked.policies] == ["every_window", "weekly"]


def test_a_worker_whose_parent_ended_while_it_imported_does_nothing(small, start, tmp_path):
    asked = ask(small.specs, small.model, start + 20 * DAY, start + 60 * DAY, ["never"], tmp_path)
    asked.write()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "evergreen.replay.worker", str(asked.folder), str(gone.pid)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is gone" in done.stderr
    assert [asked.policy_folder(p, m).finished() for p, m in asked.policies] == [0]


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
    when = moment(named)
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
    # Whether a holdout is walked through depends on the champion, so those fits are not done ahead.
    world = small.with_model(training={"holdout_steps": 1})
    asked = ask(world.specs, world.model, start + 30 * DAY, start + 40 * DAY, ["never", "every_window"])
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
