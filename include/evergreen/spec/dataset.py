"""`datasets/NAME.yaml`: what lands, and when it is valid."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from evergreen.spec.address import Recipients
from evergreen.spec.cron import Cron
from evergreen.spec.types import RESERVED_COLUMNS, Duration, Line, Name, Prose, Strict, unknown

ColumnType = Literal["float", "integer", "boolean", "text", "category", "timestamp", "date"]


class Column(Strict):
    """One column of a dataset: its type and what a valid value is."""

    type: ColumnType = Field(description="what every value must be readable as")
    required: bool = Field(True, description="a missing value in a row is a failed expectation")
    null_share_max: float | None = Field(
        None, ge=0, le=1, description="largest share of missing values in a batch"
    )
    min: float | None = Field(None, description="smallest valid value (numbers)")
    max: float | None = Field(None, description="largest valid value (numbers)")
    values: tuple[str, ...] | None = Field(None, description="the valid values (text, category)")
    description: str = Field("", description="what the column holds, for the reader of the file")

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if self.type in ("text", "category", "boolean", "timestamp", "date") and (
            self.min is not None or self.max is not None
        ):
            raise ValueError(f"min and max are for numbers, not for {self.type}; remove them")
        if self.type not in ("text", "category") and self.values is not None:
            raise ValueError(f"values is for text and category, not for {self.type}; remove it")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}; swap them")
        return self


class Source(Strict):
    """Where the files of a dataset land."""

    folder: str | None = Field(
        None, description="folder of the files; relative to EVERGREEN_LANDING; default: name"
    )
    pattern: str = Field(
        "*", description="which files count; .csv and .parquet are read, the ending tells which"
    )
    encoding: str = Field("utf-8", description="encoding of CSV files")
    delimiter: str = Field(
        ",", min_length=1, max_length=1, description="the character between two values of a CSV file"
    )
    timezone: str = Field("UTC", description="time zone of timestamps that come without one")


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
    schedule: Cron = Field(
        "30 1 * * *", description="when new files are looked for (cron, UTC); null: only by hand"
    )
    source: Source = Source()
    key: tuple[str, ...] = Field(
        min_length=1, description="columns that name a row; other values for the same key are a correction"
    )
    event_time: str = Field(description="timestamp or date column: when what the row tells of happened")
    arrival: Arrival = Arrival()
    columns: dict[str, Column] = Field(min_length=1)
    expectations: tuple[Expectation, ...] = ()
    quarantine: Literal["batch", "rows"] = Field("batch", description="what a failed expectation holds back")
    max_bad_rows: float = Field(
        0.05, ge=0, le=1, description="with quarantine: rows, above this share: whole batch"
    )
    future_tolerance: Duration = Field(
        timedelta(hours=24), description="how far past as-of an event time may lie"
    )
    alerts: tuple[Recipients, ...] = Field((), description="recipients; default: EVERGREEN_MAIL_TO")

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        problems: list[str] = []
        for what, names in (("key", self.key), ("event_time", (self.event_time,))):
            problems += [unknown(what, n, self.columns) for n in names if n not in self.columns]
        if self.arrival.column and self.arrival.column not in self.columns:
            problems.append(unknown("arrival.column", self.arrival.column, self.columns))
        elif self.arrival.column and self.columns[self.arrival.column].type not in ("timestamp", "date"):
            problems.append(f"arrival.column: {self.arrival.column} is no timestamp; make its type timestamp")
        if self.event_time in self.columns and self.columns[self.event_time].type not in (
            "timestamp",
            "date",
        ):
            problems.append(
                f"event_time: {self.event_time} has type {self.columns[self.event_time].type}; make it timestamp"
            )
        for name in self.columns:
            if name in RESERVED_COLUMNS:
                problems.append(f"columns.{name}: the name is Evergreen's own; rename the column")
            elif not re.match(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", name):
                problems.append(
                    f"columns.{name}: not a usable column name; letters, digits and _, at most 63"
                )
        for index, item in enumerate(self.expectations):
            column = item.kwargs.get("column")
            if column is not None and column not in self.columns:
                problems.append(unknown(f"expectations.{index}.kwargs.column", column, self.columns))
        if problems:
            raise ValueError("\n".join(problems))
        return self
