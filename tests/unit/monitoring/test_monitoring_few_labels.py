"""Windows with few labels among many rows: their error is judged by the labels that there are, not by those of the sample."""

from __future__ import annotations

import numpy as np
import pytest
from monitoring_scene import CUTOFF, SENSOR, WEEK, as_table, at, learnt, model
from wide_rows import MANY, spec, wide

from evergreen.metrics.metric_values import compute
from evergreen.monitoring.windows import draw, kept_sample, measure, performance, reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Status, What
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.monitoring.windows.reads import BEYOND
from evergreen.reference.calendar import window_of
from evergreen.reference.reference import build
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.migrate import ensure_dataset

ROWS, SAMPLE = 5_040, 100
WINDOW = window_of(CUTOFF, WEEK)


def busy(every: int, error: float = 1.0) -> None:
    """The first week: a row every two minutes, each served, one in so many with a label that is so far from the prediction."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.sensor (ts, amount, pressure, level, kind, y, guess, _arrived_at, _batch)"
            " SELECT t, amount, 1000 + 5 * e, 4, substr('abc', n %% 3 + 1, 1), CASE WHEN n %% %s = 0 THEN 2 * amount + %s * e END,"
            " 2 * amount, t, 1 FROM (SELECT n, t, 10 + 3 * sin(extract(hour FROM t) * pi() / 12) + e AS amount, e"
            " FROM generate_series(0, %s) AS n, LATERAL (SELECT %s + n * interval '2 min' AS t) AS at,"
            " LATERAL (SELECT sin(n * 12.9898) * 1.4 AS e) AS noise) AS made",
            (every, error, ROWS - 1, CUTOFF),
        )  # fmt: skip


@pytest.fixture
def crowded(scene):
    """A champion of hourly weeks that is served a row every two minutes."""
    world = scene(sample_rows=SAMPLE, volume={"min": 0.0, "max": 1e6})
    world.champion()
    with connect() as conn:
        ensure_dataset(conn, SENSOR)
    return world


def labelled_keys(count: int) -> set[str]:
    """The keys of the labelled rows with the smallest hashes."""
    with connect() as conn:
        rows = fetch(
            conn,
            "SELECT json_build_array(ts)::text AS key FROM data.sensor WHERE y IS NOT NULL"
            " ORDER BY hashtextextended(json_build_array(ts)::text, 0) LIMIT %s",
            (count,),
        )
    return {r["key"] for r in rows}


def test_the_error_is_judged_by_every_label_that_there_is(crowded):
    busy(every=126)
    crowded.score(CUTOFF, CUTOFF + WEEK)
    (found,) = judge_windows(crowded.specs, crowded.spec, at(1))
    metric = found.metrics["rmse"]
    assert (found.rows, found.labelled, found.sampled_rows) == (ROWS, 40, SAMPLE)
    assert (metric.state, metric.rows) == ("judged", 40)
    assert metric.value == pytest.approx(1.0, abs=0.2)
    assert metric.low < metric.value < metric.high
    label = next(c for c in found.columns if c.column == "_label")
    assert label.value is not None
    assert "labels are shown" in label.detail


def test_an_error_that_only_the_labelled_rows_tell_of_is_found_and_drawn(crowded):
    busy(every=126, error=20.0)
    crowded.score(CUTOFF, CUTOFF + WEEK)
    (found,) = judge_windows(crowded.specs, crowded.spec, at(1))
    assert found.status is Status.VIOLATION
    assert [v.kind for v in found.violations if v.kind is What.PERFORMANCE]
    drawn = draw.draw("watched", CUTOFF, crowded.tmp / "drawn")
    page = next(p for p in drawn.files if p.name == "performance.html").read_text()
    assert f"RMSE: {found.metrics['rmse'].value:.4g}" in page
    assert "on 40 rows" in page


def test_labels_that_come_later_make_the_next_revision(crowded):
    busy(every=126)
    crowded.score(CUTOFF, CUTOFF + WEEK)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE kept_labels AS SELECT ts, y FROM data.sensor WHERE y IS NOT NULL")
        cursor.execute("UPDATE data.sensor SET y = NULL")
        first = judged_now(conn, crowded, at(1))
        cursor.execute(
            "UPDATE data.sensor AS s SET y = k.y, _arrived_at = %s FROM kept_labels AS k WHERE k.ts = s.ts",
            (at(1, days=2),),
        )
        second = judged_now(conn, crowded, at(1, days=3))
    assert first.metrics["rmse"].state == "not_yet"
    assert (second.revision, second.metrics["rmse"].state, second.metrics["rmse"].rows) == (2, "judged", 40)


def judged_now(conn, world, as_of):
    conn.commit()
    return judge_windows(world.specs, world.spec, as_of)[0]


@pytest.mark.parametrize(
    ("every", "labels"), [pytest.param(12, SAMPLE, id="more-than-a-sample"), pytest.param(126, 40, id="few")]
)
def test_the_labelled_rows_are_chosen_as_the_sample_is(crowded, every, labels):
    busy(every)
    crowded.score(CUTOFF, CUTOFF + WEEK)
    facts = reads.feed(crowded.specs, crowded.spec, at(1), WINDOW.start, WINDOW.start).facts[WINDOW.start]
    found = reads.sample(crowded.specs, crowded.spec, at(1), WINDOW, facts)
    rows = measure.frame(found)
    assert set(rows.loc[rows["_label"].notna(), "_key"]) == labelled_keys(labels)
    assert len(measure.sampled(rows)) == SAMPLE
    assert found["_time"].to_pylist() == sorted(found["_time"].to_pylist())
    assert rows["_prediction"].notna().all()
    assert found.equals(reads.sample(crowded.specs, crowded.spec, at(1), WINDOW, facts))
    plain = reads.sample(crowded.specs, crowded.spec, at(1), WINDOW, WindowFacts(facts.rows, 0, facts.scored))
    assert set(measure.sampled(rows)["_key"]) == set(plain["_key"].to_pylist()), (
        "the window's own sample is as it was"
    )


@pytest.mark.parametrize(
    ("every", "due"), [pytest.param(1, True, id="all-labelled"), pytest.param(12, False, id="labels-not-due")]
)
def test_nothing_is_read_twice_where_it_would_tell_nothing(crowded, every, due, monkeypatch):
    busy(every)
    crowded.score(CUTOFF, CUTOFF + WEEK)
    monkeypatch.setattr(reads, "labelled_rows", lambda *_: pytest.fail("read"))
    facts = WindowFacts(ROWS, ROWS // every, ROWS, due)
    assert BEYOND not in reads.sample(crowded.specs, crowded.spec, at(1), WINDOW, facts).column_names


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_what_is_kept_redraws_columns_and_error(tmp_path, task):
    spec_ = spec(task)
    before = wide(1, MANY, task)
    scores = compute(task, before["y"].to_numpy(), before["guess"].to_numpy(dtype=float))
    made = build(spec_, as_table(before.assign(ts=before["ts"] - 4 * WEEK)), scores)
    both = measure.frame(as_table(wide(2, MANY + 2_000, task)))
    beyond = np.arange(len(both)) % 6 == 0
    frame = both.assign(**{BEYOND: beyond, "_label": both["_label"].where(beyond)})
    kept_sample.write(frame, made, tmp_path / kept_sample.FILE)
    back = kept_sample.read(tmp_path / kept_sample.FILE)
    assert back.rounded
    assert len(measure.sampled(back.rows)) == MANY
    facts = WindowFacts(1_000_000, 2_000, 1_000_000)
    values = [
        performance.judge_error(spec_, rows.assign(_time=frame["_time"]), made, facts)[0][
            spec_.performance_metric
        ]
        for rows in (frame, back.rows)
    ]
    assert values[0].rows == values[1].rows == 2_000
    assert values[1].value == pytest.approx(values[0].value, rel=1e-3)
    again = {(c.column, c.kind): c for c in measure.columns(spec_, back.rows, made, labels=True)}
    for column in measure.columns(spec_, frame, made, labels=True):
        assert again[column.column, column.kind].value == pytest.approx(column.value, abs=back.slack)
    assert (tmp_path / kept_sample.FILE).stat().st_size <= 120_000


@pytest.mark.parametrize(
    ("predicted", "state"),
    [pytest.param(30, "judged", id="enough"), pytest.param(29, "not_yet", id="one-short")],
)
def test_labels_without_a_prediction_do_not_count(predicted, state):
    made = build(model(), learnt(), {"rmse": 1.0, "mae": 0.8, "r2": 0.95})
    frame = measure.frame(learnt(2, 1))
    beyond = np.arange(len(frame)) >= 128
    frame = frame.assign(**{BEYOND: beyond, "_label": frame["_label"].where(beyond)})
    frame.loc[frame.index[128 + predicted :], "_prediction"] = np.nan
    facts = WindowFacts(10_000, 40, 10_000 - (40 - predicted))
    assert performance.judge_error(model(), frame, made, facts)[0]["rmse"].state == state
