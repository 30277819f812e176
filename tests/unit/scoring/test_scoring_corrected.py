"""Predictions of rows that were withdrawn: they stay as they were served, and neither scoring nor the watch stumbles."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from evergreen.monitoring.windows import reads
from evergreen.reference.calendar import window_of
from evergreen.scoring.score import score
from evergreen.validation import batch_rows
from evergreen.warehouse.batches import correction, publish
from evergreen.warehouse.connection import connect, fetch

DAY = timedelta(days=1)


def test_rows_that_were_withdrawn_stay_predicted_and_are_watched_no_more(
    world: Any, mlflow_url: str, start: Any
) -> None:
    world.land(start, 31)
    world.promote(start + 28 * DAY, "train/1")
    dataset, last = world.specs.datasets["rides_hourly"], start + 30 * DAY
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "UPDATE data.rides_hourly SET _batch = 2 WHERE extract(hour FROM ts) < 6 AND ts >= %s",
            (start + 28 * DAY,),
        )
        cursor.execute(
            "INSERT INTO evergreen.batch (dataset, checksum, file, as_of, state, rows_read, rows_new, rows_changed, rows_held)"
            " SELECT 'rides_hourly', n::text, n || '.csv', %s, 'published', 1, 1, 0, 0 FROM generate_series(1, 2) AS n",
            (start,),
        )
    first = score(world.specs, world.model, last, "score/1")
    assert first.rows > 0

    def watched(as_of: Any) -> tuple[int, int, int]:
        window = window_of(start + 29 * DAY, world.model.monitoring.window)
        facts = reads.feed(world.specs, world.model, as_of, window.start, start).facts[window.start]
        sample = reads.sample(world.specs, world.model, as_of, window, facts)
        return facts.rows, facts.scored, sample.num_rows - sample["_prediction"].null_count

    before = watched(last)
    later = last + timedelta(hours=1)
    with connect() as conn:
        publish.prepare(conn, dataset)
        batch_rows.set_state(conn, 2, "withdrawn")
        assert correction.settle(conn, dataset, 2, later).gone == 18
    assert watched(last) == before, "as of before the correction"
    rows, scored, predicted = watched(later)
    assert rows < before[0]
    assert (scored, predicted) == (rows, rows)
    again = score(world.specs, world.model, later, "score/2")
    assert again.state in ("up_to_date", "scored")
    with connect() as conn:
        (kept,) = fetch(conn, "SELECT count(*) AS n FROM evergreen.prediction WHERE as_of = %s", (last,))
        assert kept["n"] == first.rows
    world.land(start + 28 * DAY, 0.25, seed=4, arrived=later + DAY)
    assert score(world.specs, world.model, later + DAY, "score/3").state != "no_rows", "the keys come again"
