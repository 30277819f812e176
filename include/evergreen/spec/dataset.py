"""`datasets/NAME.yaml`: what lands, and when it is valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from evergreen.spec.alerts import Entry
from evergreen.spec.column import NUMBERS, TIMES, Column, Written
from evergreen.spec.cron import Cron
from evergreen.spec.types import (
    RESERVED_COLUMNS,
    Delimiter,
    Duration,
    Encoding,
    Line,
    Name,
    Prose,
    Strict,
    unknown,
)
from evergreen.spec.zones import TimeZone

GENERATED = "generated"
ROW_ID = "_row_id"
# PostgreSQL's 1,600, less the three that the history adds.
MOST_COLUMNS = 1597
Key = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: value, json_schema_input_type=tuple[str, ...] | Literal["generated"]),
]


class Source(Written):
    """Where the files of a dataset land, and how they are written."""

    folder: str | None = Field(
        None,
        description="folder of the files, relative to EVERGREEN_LANDING, or s3://bucket/prefix or gs://bucket/prefix; default: name",
    )
    pattern: str = Field(
        "*",
        description="which files count; the ending tells how one is read, and one with another ending is told",
    )
    encoding: Encoding = Field("utf-8", description="encoding of .csv, .tsv and .txt files")
    delimiter: Delimiter = Field(
        ",", description="the character between two values of a .csv or .txt file; in a .tsv file it is a tab"
    )
    escape: Literal["\\"] | None = Field(
        None,
        description="a backslash where the file writes a quote inside a value so (Spark); default: doubled",
    )
    complete: Literal["line_end_or_quiet", "line_end", "quiet", "marker"] = Field(
        "line_end_or_quiet",
        description="when a file is taken: by a line end after its last line or after a quiet time, by the line end "
        "alone, by the quiet time alone, or by a file NAME.done beside it (or _SUCCESS in its sub-folder)",
    )
    quiet: Duration = Field(
        timedelta(minutes=5), description="how long a file has not changed that counts as finished by it"
    )
    header: bool = Field(
        True,
        description="the first line names the columns; false: they come in the spec's order, or by from: N",
    )
    extra_columns: Literal["refuse", "ignore"] = Field(
        "refuse", description="what a column that the spec does not name does to its file"
    )
    timezone: TimeZone = Field(
        "UTC",
        description="time zone of timestamps that come without one: UTC or an IANA name, such as Europe/Berlin",
    )
    fold: Literal["first", "second", "by_order"] | None = Field(
        None,
        description="which of the two a local time is that the clock shows twice in autumn; by_order: the rows of one key"
        " stand in order of time, the second pass begins where the clock goes back; default: such rows are held",
    )


class Arrival(Strict):
    """When the warehouse is taken to have learnt a row; without either, the ingest run's as-of time.

    For history loaded in bulk: a column that tells, or event time plus a delay. A correction of a row
    that is already there arrives with the run that brings it.
    """

    column: str | None = Field(None, description="timestamp column that says when the row became known")
    delay: Duration | None = Field(
        None, description="how long after event time a new row became known; a correction: when it lands"
    )

    @model_validator(mode="after")
    def _one(self) -> Arrival:
        if self.column is not None and self.delay is not None:
            raise ValueError("give column or delay, not both")
        return self


class Expectation(Strict):
    """One Great Expectations expectation, as its documentation names it."""

    type: str = Field(description="such as expect_column_values_to_be_between")
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="its arguments, such as column, min_value and max_value"
    )
    rows: bool = Field(False, description="a failing row can be quarantined by itself")


class DatasetSpec(Strict):
    """A table that lands as files: columns, key, times, expectations."""

    name: Name = Field(description="the file's name without its ending; the table in the warehouse, the DAG")
    description: Prose = Field("", description="what the data is; stands on the DAG's page")
    owner: Line = Field("ml-team", description="who answers for it; shown in Airflow and in e-mails")
    license: Line | None = Field(
        None,
        description="under which licence the data may be used, such as CC-BY-4.0; stands in the model cards",
    )
    schedule: Cron = Field(
        "30 1 * * *", description="when new files are looked for (cron, UTC); null: only by hand"
    )
    source: Source = Source()
    key: Key = Field(
        min_length=1,
        max_length=32,
        description="columns that name a row; other values for the same key are a correction. `generated`: rows have no key"
        " of their own and get the column `_row_id` from their content, so that a row with other values is another row",
    )
    duplicates: Literal["hold", "drop"] = Field(
        "hold",
        description="rows of one file that are equal in every column. hold: equal keys are a failed expectation; with"
        " key: generated they are rows of their own. drop: they are one row, and counted",
    )
    event_time: str = Field(description="timestamp or date column: when what the row tells of happened")
    arrival: Arrival = Arrival()
    deleted: str | None = Field(
        None,
        description="boolean column that says that the key of the row is deleted, or timestamp or date column that says since"
        " when: from the row's arrival on no query sees the key, until a row without it lands; null: no row says so",
    )
    columns: dict[str, Column] = Field(min_length=1)
    expectations: tuple[Expectation, ...] = ()
    quarantine: Literal["batch", "rows"] = Field("batch", description="what a failed expectation holds back")
    max_bad_rows: float = Field(
        0.05, ge=0, le=1, description="with quarantine: rows, above this share: whole batch"
    )
    future_tolerance: Duration = Field(
        timedelta(hours=24), description="how far past as-of an event time may lie"
    )
    earliest: date | None = Field(
        date(1990, 1, 1),
        description="an event time before this day (UTC) is a failed expectation: 1970 and 0001 stand for a missing time;"
        " null: none is",
    )
    alerts: tuple[Entry, ...] = Field(
        (),
        description="who is told: an e-mail address, channel:NAME, or {to, on, severity} with the kinds and the least severity;"
        " default: EVERGREEN_MAIL_TO",
    )

    @model_validator(mode="before")
    @classmethod
    def _generated(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("key") != GENERATED:
            return given
        columns = given.get("columns")
        if isinstance(columns, dict):
            if ROW_ID in columns:
                raise ValueError(f"columns.{ROW_ID}: the name is Evergreen's own; rename the column")
            columns = {**columns, ROW_ID: {"type": "text", "description": "made from the row's content"}}
        return {**given, "key": [ROW_ID], "columns": columns}

    @property
    def generated(self) -> bool:
        """Whether rows have no key of their own: `_row_id` is made of their content."""
        return self.key == (ROW_ID,)

    @property
    def delivered(self) -> DatasetSpec:
        """The spec with the columns that files have: without one that is generated, which then is the key, too."""
        if not self.generated:
            return self
        columns = {name: column for name, column in self.columns.items() if name != ROW_ID}
        return self.model_copy(update={"key": (), "columns": columns})

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        problems = [*self._key_and_times(), *self._deletions(), *self._column_names()]
        for index, item in enumerate(self.expectations):
            column = item.kwargs.get("column")
            if column is not None and column not in self.columns:
                problems.append(unknown(f"expectations.{index}.kwargs.column", column, self.columns))
        problems += self._unwritten()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _key_and_times(self) -> Iterator[str]:
        """What is wrong with the key, the event time and the time of arrival."""
        if len(set(self.key)) < len(self.key):
            yield "key: a column stands there twice; remove one"
        for what, names in (("key", self.key), ("event_time", (self.event_time,))):
            yield from (unknown(what, n, self.columns) for n in names if n not in self.columns)
        if self.arrival.column and self.arrival.column not in self.columns:
            yield unknown("arrival.column", self.arrival.column, self.columns)
        elif self.arrival.column and self.columns[self.arrival.column].type not in TIMES:
            yield f"arrival.column: {self.arrival.column} is no timestamp; make its type timestamp"
        if self.event_time in self.columns and self.columns[self.event_time].type not in TIMES:
            yield f"event_time: {self.event_time} has type {self.columns[self.event_time].type}; make it timestamp"

    def _column_names(self) -> Iterator[str]:
        """What keeps PostgreSQL from having a table with the columns."""
        if len(self.columns) > MOST_COLUMNS:
            yield (
                f"columns: {len(self.columns)} are more than the {MOST_COLUMNS:,} that a table of PostgreSQL can have beside"
                " Evergreen's own; put them into two datasets with the same key and join them in the feature query"
            )
        for name in self.columns:
            if name in RESERVED_COLUMNS or (name == ROW_ID and not self.generated):
                yield f"columns.{name}: the name is Evergreen's own; rename the column"
            elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
                yield f"columns.{name}: not a usable column name; letters, digits and _, at most 63"

    def _deletions(self) -> Iterator[str]:
        """What is wrong with the column that says that a row is deleted."""
        if self.deleted is None:
            return
        if self.deleted not in self.columns:
            yield unknown("deleted", self.deleted, self.columns)
        elif self.columns[self.deleted].type not in ("boolean", *TIMES):
            yield (
                f"deleted: {self.deleted} has type {self.columns[self.deleted].type}; make it boolean, with"
                ' `true: ["D"]` and `false: ["I", "U"]` where the file writes other words, or a time'
            )
        elif self.deleted in (*self.key, self.event_time, self.arrival.column):
            yield f"deleted: {self.deleted} is the key or one of its times; name a column of its own"
        elif self.columns[self.deleted].type in TIMES and self.columns[self.deleted].required:
            yield f"columns.{self.deleted}: says since when a row is deleted, so most have none; set required: false"
        if self.generated:
            yield "deleted: with key: generated a row has no key by which a later one could name it; give the dataset a key"

    def _unwritten(self) -> Iterator[str]:
        """What is wrong with how the columns stand in the file."""
        places = [place for column in self.columns.values() for place in column.origin or ()]
        if not self.source.header:
            yield from (
                f"columns.{name}.from: a file without a header has no column {place!r}; write its number"
                for name, column in self.columns.items()
                for place in column.origin or ()
                if isinstance(place, str)
            )
            without = [name for name, column in self.delivered.columns.items() if not column.origin]
            if places and without:
                yield f"columns.{without[0]}.from: other columns have a number; give every column one, or none"
        for name, column in self.columns.items():
            written = self.written(name)
            if column.type in NUMBERS and written.thousands == (written.decimal or "."):
                yield (
                    f"columns.{name}: decimal and thousands are both {written.thousands!r}; write the other one, such as"
                    " decimal: ','"
                )

    def written(self, name: str) -> Written:
        """How the file writes a column: as the column says, else as `source` says.

        A column's `missing` adds to that of `source`; an empty one stands for none at all.
        """
        column, source = self.columns[name], self.source
        numbers, truths = column.type in NUMBERS, column.type == "boolean"
        own = column.true is not None
        missing = () if column.missing == () else (*(source.missing or ()), *(column.missing or ()))
        return Written(
            missing=missing,
            decimal=(column.decimal or source.decimal) if numbers else None,
            thousands=(column.thousands or source.thousands) if numbers else None,
            true=(column.true if own else source.true) if truths else None,
            false=(column.false if own else source.false) if truths else None,
        )
