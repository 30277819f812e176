"""What is kept of a quiet window: small, and enough to draw its pages with the numbers that were judged."""

from __future__ import annotations

import pandas as pd
import pytest
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, at, mails, rows, week
from wide_rows import MANY, spec, wide

from evergreen import report as command
from evergreen.errors import ErrorReason, TerminalError
from evergreen.metrics.metric_values import compute
from evergreen.monitoring.page.pack import unpacked
from evergreen.monitoring.trigger import live_trigger
from evergreen.monitoring.windows import draw as drawing
from evergreen.monitoring.windows import kept_sample, measure, performance, report
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Status, What
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.reference.reference import build
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import connect


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_ten_thousand_rows_are_kept_in_100_kb_with_the_judged_numbers(tmp_path, task):
    model = spec(task)
    before = wide(1, MANY, task)
    scores = compute(task, before["y"].to_numpy(), before["guess"].to_numpy(dtype=float))
    made = build(model, as_table(before.assign(ts=before["ts"] - 4 * WEEK)), scores)
    frame = measure.frame(as_table(wide(2, MANY, task)))
    kept_sample.write(frame, made, tmp_path / kept_sample.FILE)
    assert (tmp_path / kept_sample.FILE).stat().st_size <= 100_000
    back = kept_sample.read(tmp_path / kept_sample.FILE)
    assert back.rounded
    judged = measure.columns(model, frame, made, labels=True)
    again = {(c.column, c.kind): c for c in measure.columns(model, back.rows, made, labels=True)}
    for column in judged:
        assert again[column.column, column.kind].value == pytest.approx(column.value, abs=back.slack)
    facts = WindowFacts(MANY, MANY, MANY)
    both = [
        performance.judge_error(model, rows.assign(_time=frame["_time"]), made, facts)[0]
        for rows in (frame, back.rows)
    ]
    for name, metric in both[0].items():
        assert both[1][name].value == pytest.approx(metric.value, rel=1e-3)


def test_a_small_window_is_kept_as_it_was_measured(tmp_path):
    frame = measure.frame(as_table(week(0).assign(amount=lambda f: f["amount"].where(f.index % 9 > 0))))
    made = build(ModelSpec.model_validate({**spec("regression").model_dump(), "features": {
        "numeric": ["amount", "pressure", "level"], "categorical": ["kind"]}}), as_table(rows(1, CUTOFF - 9 * WEEK, 9 * ROWS)), {"rmse": 1.0})  # fmt: skip
    kept_sample.write(frame, made, tmp_path / kept_sample.FILE)
    back = kept_sample.read(tmp_path / kept_sample.FILE)
    assert not back.rounded
    pd.testing.assert_frame_equal(back.rows, frame.drop(columns="_key"), check_dtype=False)
    assert (tmp_path / kept_sample.FILE).stat().st_size < 30_000


def test_a_quiet_window_is_drawn_on_request_with_the_numbers_and_the_reference_of_then(scene, capsys):
    world = scene()
    world.champion()
    world.live(1)
    (found,) = judge_windows(world.specs, world.spec, at(1))
    assert found.status is Status.OK
    # What has happened since changes nothing: another champion, corrected rows.
    world.champion("2", as_of=at(1), seed=7)
    world.labels(week(0).assign(y=99.0), at(2))
    assert command.main(["watched", "2024-05-22", "--folder", str(world.tmp / "drawn")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"watched version 1, {found.window}, ok"
    folder = world.tmp / "drawn" / "watched" / "20240520T0000Z-r1"
    assert told[1:] == [str(folder / "drift.html"), str(folder / "performance.html")]
    text = unpacked((folder / "drift.html").read_text())
    drift = next(c for c in found.columns if (c.column, c.kind) == ("amount", What.DATA_DRIFT))
    assert f"Drift score is {drift.value:0.2f}" in text
    assert str(round(drift.value, 3)) in text
    assert f"RMSE: {found.metrics['rmse'].value:.4g}" in (folder / "performance.html").read_text()
    there = world.tmp / "artifacts" / found.mlflow_run / "artifacts" / "monitoring" / folder.name
    assert {p.name for p in there.iterdir()} == {"drift.html", "performance.html", "window.parquet"}


def test_what_cannot_be_drawn_says_why_and_what_there_is(scene, capsys):
    world = scene()
    world.champion()
    world.live(1)
    judge_windows(world.specs, world.spec, at(1))
    world.land(week(1).head(40))
    judge_windows(world.specs, world.spec, at(2))

    def said(*arguments: str) -> str:
        assert command.main(list(arguments)) == 1
        return capsys.readouterr().err

    assert "no window of a model 'wached' was judged; models with judged windows: watched" in said(
        "wached", "2024-05-20"
    )
    assert "of 2 begin at 2024-05-20T00:00, 2024-05-27T00:00" in said("watched", "2023-05-22")
    assert "under version 9" in said("watched", "2024-05-20", "--version", "9")
    assert "is stale and was not measured" in said("watched", "2024-05-27")
    with pytest.raises(SystemExit):
        command.main(["watched", "yesterday"])
    assert "'yesterday' is no time; write one such as 2025-06-02 or" in capsys.readouterr().err
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.window_judgement SET report = 'monitoring/old-r1/drift.html'")
    assert (
        "an earlier release judged this window: it kept no sample, but drew monitoring/old-r1/drift.html"
        in said("watched", "2024-05-20")
    )


def test_a_damaged_sample_is_refused(tmp_path):
    (tmp_path / kept_sample.FILE).write_bytes(b"PAR1 no")
    with pytest.raises(TerminalError, match=r"the kept sample window\.parquet cannot be read") as caught:
        kept_sample.read(tmp_path / kept_sample.FILE)
    assert caught.value.reason is ErrorReason.REGISTRY_MISMATCH


def test_the_mail_of_a_violation_has_its_page(scene):
    world = scene(trigger={"m": 1, "n": 1})
    world.champion()
    world.live(1, change=lambda f: f.assign(amount=f["amount"] * 2))
    (found,) = judge_windows(world.specs, world.spec, at(1))
    assert found.report.endswith(report.DRIFT_FILE)
    assert live_trigger.apply(world.spec, at(1), "monitor/1") is not None
    ((_, text),) = mails(world)
    assert "Evidently report" in text
    assert "not drawn" not in text


def test_a_mail_about_a_window_that_was_not_drawn_leads_to_where_it_is_drawn(scene):
    world = scene(trigger={"m": 1, "n": 1})
    world.champion()
    world.live(1, change=lambda f: f.assign(amount=f["amount"] * 2))
    judge_windows(world.specs, world.spec, at(1))
    assert live_trigger.apply(world.spec, at(1), "monitor/1") is not None
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.window_judgement SET report = replace(report, 'drift.html', 'window.parquet')"
        )
    ((_, text),) = mails(world)
    assert "Evidently report:" in text
    told = "".join(text.split())
    assert "/evergreen/model/watched/window/20240520T000000Z/report" in told, (
        "which draws it where it is not drawn"
    )


def test_the_command_imports_nothing_heavy_before_it_draws():
    assert drawing.draw.__module__ == "evergreen.monitoring.windows.draw"
    assert not hasattr(command, "draw")
