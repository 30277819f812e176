"""What the warehouse knew at a moment: counts of the windows, and the rows of those that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pandas as pd
import pyarrow as pa
from psycopg2 import sql

from evergreen.monitoring.windows import measure, reads
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.reference.calendar import Window
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.features import arrow, feature_query, views


class KnownRows:
    """The rows of a model as of one moment; a window is read once.

    Of a window at most `monitoring.sample_rows` rows are read: those that the watch would measure.
    """

    def __init__(self, reader: arrow.Reader, specs: Specs, model: ModelSpec, as_of: datetime) -> None:
        self._reader, self._specs, self._model, self.as_of = reader, specs, model, as_of
        self._read: dict[datetime, pa.Table] = {}

    def counts(self, start: datetime, look_back: datetime) -> reads.Counted:
        """See `reads.counted`."""
        return reads.counted(self._reader, self._specs, self._model, self.as_of, start, look_back)

    def rows(self, window: Window) -> pa.Table:
        """The rows of a window (`arrow.feature_schema` with entity), by event time and key."""
        if window.start not in self._read:
            query = sql.SQL("SELECT * FROM ({rows}) AS f ORDER BY _hash, _key LIMIT {limit}").format(
                rows=feature_query.feature_query(
                    self._model,
                    window.start,
                    min(window.end, self.as_of),
                    ordered=False,
                    entity=True,
                ),
                limit=sql.Literal(self._model.monitoring.sample_rows),
            )
            found = self._reader.table(query, arrow.feature_schema(self._model, entity=True))
            self._read[window.start] = found.sort_by([("_time", "ascending"), ("_key", "ascending")])
        return self._read[window.start]

    def sample(self, window: Window, facts: WindowFacts) -> pa.Table:
        """The rows of a window, and those that the watch would add for their label (`reads.sample`)."""
        rows = self.rows(window)
        if not reads.lacks_labels(self._model, facts, rows):
            return rows
        end = min(window.end, self.as_of)
        rows = reads.with_labelled(rows, reads.labelled_rows(self._reader, self._model, window.start, end))
        return rows.sort_by([("_time", "ascending"), ("_key", "ascending")])

    def frame(self, rows: pa.Table, served: pd.DataFrame, count: int) -> pd.DataFrame:
        """The rows of a window with what was served for them, as `reads.sample` and `measure.frame` give them.

        Args:
            rows: what `sample` gave.
            served: predictions by key.
            count: all rows of the window.
        """
        found = measure.frame(rows.drop_columns("_entity"))
        found["_baseline"] = reads.baseline_of(self._reader, self._model, rows, count)
        keyed = served.reindex(found["_key"])
        found["_prediction"] = keyed["prediction"].to_numpy(dtype=float)
        found["_version"] = keyed["version"].to_numpy(dtype=object)
        return found


@contextmanager
def known(specs: Specs, model: ModelSpec, as_of: datetime) -> Iterator[KnownRows]:
    """What was known as of a moment.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    with views.reading(specs, model, as_of) as reader:
        yield KnownRows(reader, specs, model, as_of)
